"""What stands in the way of a swap, or of loading a checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_geometric.nn import GATConv, GraphConv, HeteroConv, SAGEConv, to_hetero

from pages.error_case import Case, raised
from pyg_nsa import HeteroNSAConv, swap
from pyg_nsa.checkpoint import ENTRY, MadeOf, Part, describe_checkpoint, read_entry
from pyg_nsa.cli.checkpoints import check_checkpoint
from pyg_nsa.errors import CheckpointMismatchError

__all__ = ["MODELS"]

CITES, WRITES = ("paper", "cites", "paper"), ("author", "writes", "paper")


class Model(nn.Module):
    """A stack of one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.convs = nn.ModuleList([layer])

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Any:
        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict)
        return x_dict


def layer(size: int = 16) -> HeteroConv:
    return HeteroConv({CITES: GATConv(16, size), WRITES: SAGEConv((16, 16), size)})


def swapped(
    model: Callable[[], nn.Module], config: Any = None, data: Any = None, **more: Any
) -> Callable[[Path], BaseException]:
    return lambda folder: raised(lambda: swap(model(), config or {}, data, **more))


def held_twice() -> nn.Module:
    model = Model(layer())
    model.plain = [model.convs[0]]
    return model


def held_by(make: Callable[[nn.Module], Callable[..., Any]]) -> nn.Module:
    """A model that calls its layer by something that it has made of it."""
    model = Model(layer())
    model.call = make(model.convs[0])
    return model


class ByName(Model):
    """A model that calls its layer by a name outside of it."""

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Any:
        return NAMES[0](x_dict, edge_index_dict)


NAMES: list[nn.Module] = []


def by_name() -> nn.Module:
    model = ByName(layer())
    NAMES[:] = [model.convs[0]]
    return model


class Every2nd(Model):
    """A model that calls its layer every second time."""

    calls = 0

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Any:
        type(self).calls += 1
        return super().forward(x_dict, edge_index_dict) if self.calls % 2 else x_dict


class Projected(HeteroConv):
    """A layer with a part that its own forward does not use."""

    def __init__(self) -> None:
        super().__init__({CITES: GATConv(16, 16, add_self_loops=False)})
        self.lin = nn.Linear(16, 2)


def called_with() -> tuple[Any, Any]:
    sizes = {"paper": 3, "author": 2}
    edges = torch.tensor([[0, 1], [1, 0]])
    return {t: torch.ones(n, 16) for t, n in sizes.items()}, {CITES: edges, WRITES: edges}


def transformed() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GraphConv((-1, -1), 8)

        def forward(self, x: Any, edge_index: Any) -> Any:
            return self.conv(x, edge_index)

    return to_hetero(Net(), (["paper", "author"], [CITES, ("paper", "by", "author")]))


def loaded(change: Callable[[MadeOf], MadeOf]) -> Callable[[Path], BaseException]:
    """Loads a state dict that says something else than its module."""

    def provoke(folder: Path) -> BaseException:
        return raised(lambda: module().load_state_dict(state(change)))

    return provoke


def module() -> HeteroNSAConv:
    kinds = {CITES: "adjacency_mask", WRITES: "incidence_mask"}
    return HeteroNSAConv(kinds, hidden_channels=8, in_channels=4, heads=2)


def state(change: Callable[[MadeOf], MadeOf]) -> dict[str, torch.Tensor]:
    found = dict(module().state_dict())
    text = change(read_entry(found[ENTRY])).to_json()
    found[ENTRY] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    return found


def with_part(**changes: Any) -> Callable[[MadeOf], MadeOf]:
    return lambda made: replace(
        made, edges={**made.edges, WRITES: replace(made.edges[WRITES] or Part(name="?"), **changes)}
    )


def without_edge(made: MadeOf) -> MadeOf:
    return replace(made, edges={CITES: made.edges[CITES]})


def entry_of(text: bytes) -> Callable[[Path], BaseException]:
    def provoke(folder: Path) -> BaseException:
        entry = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return raised(lambda: describe_checkpoint({ENTRY: entry}))

    return provoke


def checked(save: Callable[[], Any]) -> Callable[[Path], BaseException]:
    """`pyg-nsa check model.pt`."""

    def provoke(folder: Path) -> BaseException:
        torch.save(save(), "model.pt")
        return CheckpointMismatchError(check_checkpoint(Path("model.pt"))[1])

    return provoke


def no_checkpoint(folder: Path) -> BaseException:
    (folder / "model.pt").mkdir()
    return CheckpointMismatchError(check_checkpoint(Path("model.pt"))[1])


NEAR = {"name": "near", "distribution": "my-lab", "version": "1.2"}

MODELS = [
    Case(
        "SwapError",
        "A model cannot be swapped as asked; it is left as it was. All that stands in the way is in the text, each with the path of the layer and one of the codes that follow.",
        swapped(
            lambda: Model(layer()),
            {"edges": [{"edge_type": list(CITES), "kind": "adjacency_mask"}]},
        ),
        "as the text says; the edge type's code is `unmatched_edge_type`.",
    ),
    Case(
        "no_layer",
        "The model has no HeteroConv, HGTConv or HANConv.",
        swapped(lambda: nn.Sequential(nn.Linear(1, 1))),
        "swap the part of the program that has one.",
    ),
    Case(
        "no_match",
        "`where` matches no layer.",
        swapped(lambda: Model(layer()), where="conv.*"),
        "take one of the paths that are listed.",
    ),
    Case(
        "root", "The model itself is the layer.", swapped(layer), "build the operator in its place."
    ),
    Case(
        "plain_container",
        "A plain list or dict also holds the layer, and would keep the old one.",
        swapped(held_twice),
        "use `torch.nn.ModuleList` or `ModuleDict`.",
    ),
    Case(
        "held_elsewhere",
        "Something else than a plain container also holds the layer, and would keep the old one: a function that closes over it, a bound method, `functools.partial`, an object.",
        swapped(lambda: held_by(functools.partial)),
        "write `lambda *args: self.convs[0](*args)`, which looks the layer up at each call.",
    ),
    Case(
        "still_used",
        "The swapped model, called on the data, goes on with an old layer.",
        swapped(by_name, {}, called_with()),
        "as the text says.",
    ),
    Case(
        "not_called",
        "The swapped model, called on the data, calls neither the old layer nor its replacement.",
        swapped(lambda: Every2nd(layer()), {}, called_with()),
        "pass data on which the model calls its layers at each call; or leave `data` out, and try the swapped model yourself.",
    ),
    Case(
        "added_parts",
        "A subclass adds submodules, parameters or buffers to the layer, which go with it.",
        swapped(lambda: Model(Projected())),
        "as the text says.",
    ),
    Case(
        "wrapped",
        "The model went through `torch.compile`, `DataParallel` or `DistributedDataParallel` already.",
        swapped(lambda: torch.nn.DataParallel(Model(layer()))),
        "swap first, then wrap or compile.",
    ),
    Case(
        "to_hetero",
        "The model was made by `to_hetero`, which leaves no layer to replace.",
        swapped(transformed),
        "write the model as the text shows.",
    ),
    Case(
        "layer",
        "What the configuration says does not go with the layer.",
        swapped(
            lambda: Model(layer()),
            {"edges": [{"edge_type": ["a", "r", "b"], "kind": "adjacency_mask"}]},
        ),
        "as the text says.",
    ),
    Case(
        "build",
        "The operator refuses what the layer and the configuration say together.",
        swapped(
            lambda: Model(layer()),
            {"operator": "hgt", "pattern": "M", "hidden_channels": 12, "heads": 3},
        ),
        "as the text says.",
    ),
    Case(
        "trial",
        "The model fails on the data that were given, before any swap or (the text says so) after it.",
        swapped(lambda: Model(layer()), {}, ({}, {}, "more")),
        "pass what the model is called with.",
    ),
    Case(
        "CheckpointMismatchError",
        "A state dict was written by a module of other edge kinds, revisions, edge types or heads. All differences are in the text, each with the edge type and one of the codes that follow. Nothing was written into the module.",
        loaded(lambda made: replace(without_edge(made), heads=4)),
        "build the module from the configuration in the checkpoint (`describe_checkpoint`); or, if you know that the parameters fit, do what the last line says.",
    ),
    Case(
        "missing_plugin",
        "The checkpoint needs a plugin that is not installed, or cannot be used here.",
        loaded(with_part(**NEAR)),
        "install it, in that version.",
    ),
    Case(
        "other_revision",
        "The plugin is there, and the kind computes something else than it did.",
        loaded(with_part(revision=2, version="0.9")),
        "install the version that is named, or train anew. Another version of the same revision is no problem.",
    ),
    Case(
        "other_plugin",
        "A kind of the same name, from another distribution.",
        loaded(with_part(distribution="my-lab", version="1.2")),
        "install the one that the checkpoint names, and switch the other off.",
    ),
    Case(
        "other_kind",
        "Another kind (or operator) than the checkpoint has, both installed.",
        loaded(with_part(name="all_pairs")),
        "take the checkpoint's.",
    ),
    Case(
        "other_edge_types",
        "An edge type that only the checkpoint, or only the module has.",
        loaded(without_edge),
        "declare the same edge types.",
    ),
    Case(
        "other_heads",
        "Another number of heads: every shape fits, and every number would be wrong.",
        loaded(lambda made: replace(made, heads=4)),
        "build the module with the checkpoint's number.",
    ),
    Case(
        "newer_checkpoint",
        "A newer pyg_nsa wrote the checkpoint, in a way that this one does not know.",
        entry_of(b'{"format": 2, "pyg_nsa": "9.0"}'),
        "upgrade pyg_nsa.",
    ),
    Case(
        "damaged_checkpoint",
        "What the checkpoint says of itself cannot be read.",
        entry_of(b"{}"),
        "get the file again; or remove the entry, if only that was damaged.",
    ),
    Case(
        "silent_checkpoint",
        "`pyg-nsa check` on a checkpoint that says nothing of itself.",
        checked(lambda: {"weight": torch.zeros(1)}),
        "nothing, if it is of an older pyg_nsa: it loads as it always did.",
    ),
    Case(
        "unsafe_checkpoint",
        "`pyg-nsa check` on a file that holds more than tensors.",
        checked(lambda: {"model": nn.Linear(1, 1)}),
        "save the state dict.",
    ),
    Case(
        "unreadable_checkpoint",
        "`pyg-nsa check` on a file that torch cannot read.",
        no_checkpoint,
        "save it with `torch.save`.",
    ),
]
