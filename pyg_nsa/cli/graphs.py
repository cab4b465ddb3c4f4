"""Reads graphs from a file of ``torch.save`` without running what a pickle may hold."""

from __future__ import annotations

import contextlib
import pickle
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyg_nsa.errors import ConfigError, Problem

__all__ = ["read_arguments", "read_graphs"]


def read_graphs(file: Path) -> list[tuple[str, Any]]:
    """Reads a ``HeteroData``, a list of them, or a processed ``InMemoryDataset`` (of which the first graph).

    Returns:
        The graphs, each with a name for messages, such as ``graph 3 of data.pt``.

    Raises:
        ConfigError: With the one problem that there is, and how to mend it.
    """
    import torch

    _check_is_torch_file(file)
    try:
        with _pyg_admitted():
            found = torch.load(file, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise _refused(file, _why_unsafe(file, error), "unsafe_data") from error
    except Exception as error:  # broken files fail in as many ways as there are formats
        raise _unreadable(file, f"{type(error).__name__}: {_first_line(error)}") from error

    is_processed = isinstance(found, tuple) and len(found) in (2, 3) and isinstance(found[0], dict)
    if is_processed:
        return [(f"the first graph of {file}", _first(file, found))]
    graphs = [_without_cache(g) for g in (found if isinstance(found, list | tuple) else [found])]
    many = len(graphs) > 1
    return [
        (f"graph {index} of {file}" if many else str(file), _graph(file, graph))
        for index, graph in enumerate(graphs)
    ]


def read_arguments(file: Path) -> Any:
    """Reads what a model is called with: a graph, or the arguments themselves. It unpickles the file, which may run code.

    Raises:
        ConfigError: With the one problem that there is, and how to mend it.
    """
    import torch
    from torch_geometric.data import HeteroData

    _check_is_torch_file(file)
    try:
        found = torch.load(file, weights_only=False)
    except Exception as error:  # a pickle may raise anything
        raise _unreadable(file, f"{type(error).__name__}: {_first_line(error)}") from error
    # A dict is the arguments by name, not a graph.
    return found if isinstance(found, tuple | list | dict | HeteroData) else _graph(file, found)


def _check_is_torch_file(file: Path) -> None:
    """Refuses what cannot be a file of torch.save, by its first bytes.

    Raises:
        ConfigError: It is none.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(2)
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error)) from error
    if start == b"PK" or start[:1] == b"\x80":  # a zip archive, or an older file: a pickle
        return
    if file.suffix.lower() in (".yaml", ".yml", ".json", ".toml"):
        raise _unreadable(
            file, "by its name it is a configuration; the file of the graph belongs here"
        )
    raise _unreadable(file, "it is neither a zip archive nor a pickle")


@contextlib.contextmanager
def _pyg_admitted() -> Iterator[None]:
    """Lets weights_only load the classes that a pickled graph is made of.

    PyG admits `HeteroData` itself, but not the storages in it. They hold what the pickle says, and call none of it.
    """
    from torch import serialization
    from torch_geometric.data import Data, HeteroData, storage
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.feature_store import TensorAttr
    from torch_geometric.data.graph_store import EdgeAttr, EdgeLayout

    classes: list[Any] = [HeteroData, TensorAttr, EdgeAttr, EdgeLayout]
    classes += [storage.BaseStorage, storage.NodeStorage, storage.EdgeStorage, storage.AttrType]
    # Not a HeteroData, which is better said than that it cannot be loaded.
    classes += [Data, DataEdgeAttr, DataTensorAttr, storage.GlobalStorage]
    known = serialization.get_safe_globals()
    # Transforms leave a cache in the storages: a defaultdict, which torch admits by name and then does not let anyone fill.
    others = [one for one in known if one is not defaultdict and one not in classes]
    serialization.clear_safe_globals()
    serialization.add_safe_globals([*others, *classes, (_plain_dict, "collections.defaultdict")])
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(known)


def _plain_dict(*factory: Any) -> dict[Any, Any]:
    """What is loaded in the place of a defaultdict."""
    return {}


def _without_cache(graph: Any) -> Any:
    """Drops PyG's cache of which fields are of nodes and which of edges, which has to be a defaultdict."""
    for store in getattr(graph, "stores", ()):
        vars(store).pop("_cached_attr", None)
    return graph


def _graph(file: Path, found: Any) -> Any:
    from torch_geometric.data import Data, HeteroData

    if isinstance(found, dict):  # HeteroData.to_dict()
        try:
            return HeteroData.from_dict(found)
        except Exception as error:
            keys = ", ".join(map(repr, list(found)[:5]))
            raise _refused(
                file,
                f"holds a dict that is no HeteroData.to_dict() (keys: {keys}); save the HeteroData itself, or its to_dict()",
                "no_graph",
            ) from error
    if isinstance(found, HeteroData):
        return found
    mend = "save a HeteroData: torch.save(data, file)"
    if isinstance(found, Data):
        mend = "it has no node and edge types; turn it into a HeteroData with data.to_heterogeneous(...)"
    raise _refused(file, f"holds a {type(found).__name__}, not a HeteroData; {mend}", "no_graph")


def _first(file: Path, found: tuple[Any, ...]) -> Any:
    """The first graph of what ``InMemoryDataset.save`` writes: collated data, slices, perhaps the class."""
    from torch_geometric.data import HeteroData
    from torch_geometric.data.separate import separate

    whole = _graph(file, found[0])
    if not found[1]:
        return whole
    # A node type without tensors has no slices, which PyG's separate does not expect.
    slices = {**{key: {} for key in (*whole.node_types, *whole.edge_types)}, **found[1]}
    try:
        return separate(HeteroData, whole, idx=0, slice_dict=slices, decrement=False)
    except Exception as error:
        raise _refused(
            file,
            f"looks like a processed InMemoryDataset, but its first graph cannot be taken out ({type(error).__name__}: "
            f"{error}); save the graph itself: torch.save(dataset[0], file)",
            "unreadable_data",
        ) from error


def _why_unsafe(file: Path, error: pickle.UnpicklingError) -> str:
    import torch

    try:
        with _pyg_admitted():
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # an old file without the zip container, for example
        names = []
    if any(name.startswith("torch_geometric.data.batch.") for name in names):
        return (
            "holds a batch, whose class is made when it is loaded, which weights_only=True does not do; save its graphs: "
            "torch.save(batch.to_data_list(), file)"
        )
    what = f"holds {', '.join(names)}" if names else f"was refused ({str(error).splitlines()[0]})"
    return (
        f"{what}, which weights_only=True does not load, since a pickle can run any code. Keep to tensors and PyG's own "
        "classes, for example torch.save(data.to_dict(), file); or, if you trust the file, check it in Python: "
        f"config.bind(torch.load({str(file)!r}, weights_only=False))"
    )


def _unreadable(file: Path, why: str) -> ConfigError:
    message = (
        f"cannot be read as a file of torch.save ({why}); write it with torch.save(data, file)"
    )
    return _refused(file, message, "unreadable_data")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _refused(file: Path, message: str, code: str) -> ConfigError:
    return ConfigError([Problem("", message, code, file=str(file))])
