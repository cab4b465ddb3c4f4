"""What can be wrong with a configuration, by itself, beside its graph, or beside a file of graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import HeteroData

from pages.error_case import Case, raised
from pyg_nsa import EdgeKind, Options, default_registry, load_config
from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cli.graphs import read_graphs
from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import ConfigError
from pyg_nsa.suggest import suggest_from_data
from pyg_nsa.trial_build import build_problems

__all__ = ["CONFIGURATIONS"]

EDGE = "  - {edge_type: [gene, regulates, gene], kind: adjacency_mask}\n"
EDGES = f"edges:\n{EDGE}"


def file(text: str, name: str = "nsa.yaml") -> Callable[[Path], BaseException]:
    """Reads a file with that text."""

    def provoke(folder: Path) -> BaseException:
        Path(name).write_text(text)
        return raised(lambda: load_config(name))

    return provoke


def edge(entry: str, more: str = "") -> Callable[[Path], BaseException]:
    """Reads a file with that entry in `edges`."""
    return file(f"{more}edges:\n  - {{{entry}}}\n")


def graph() -> HeteroData:
    data = HeteroData()
    data["gene"].x, data["reaction"].x = torch.zeros(3, 2), torch.zeros(2, 2)
    data["gene", "regulates", "gene"].edge_index = torch.tensor([[0, 1], [1, 2]])
    return data


def bound(
    change: Callable[[HeteroData], object], more: str = ""
) -> Callable[[Path], BaseException]:
    """Binds the configuration of one edge type to a changed graph."""

    def provoke(folder: Path) -> BaseException:
        Path("nsa.yaml").write_text(more + EDGES)
        data = graph()
        change(data)
        return raised(lambda: load_config("nsa.yaml").bind(data))

    return provoke


def refused_build(folder: Path) -> BaseException:
    Path("nsa.yaml").write_text(f"operator: hgt\naggr: cat\n{EDGES}")
    return ConfigError(build_problems(load_config("nsa.yaml"), graph()))


def saved(made: Callable[[], Any]) -> Callable[[Path], BaseException]:
    """Reads a file that torch.save wrote."""

    def provoke(folder: Path) -> BaseException:
        torch.save(made(), "data.pt")
        return raised(lambda: read_graphs(Path("data.pt")))

    return provoke


class Box:
    """A class that is not safe to load."""


Box.__module__, Box.__qualname__ = "my_module", "Box"


def unsafe(folder: Path) -> BaseException:
    import sys
    import types

    module = types.ModuleType("my_module")
    module.Box = Box  # type: ignore[attr-defined]
    sys.modules["my_module"] = module
    try:
        return saved(lambda: {"box": Box()})(folder)
    finally:
        del sys.modules["my_module"]


def broken_options(folder: Path) -> BaseException:
    from pydantic import field_validator

    class Mine(Options):
        k: int = 3
        "How many."

        @field_validator("k")
        @classmethod
        def _look_up(cls, k: int) -> int:
            return {3: 3}[k]

    Mine.__module__ = "my_notebook"

    def build(context: Any, options: Any) -> Any:
        return None

    build.__module__ = "my_notebook"
    default_registry().register(EdgeKind(name="mine", options=Mine, build=build, summary="Mine."))
    return edge("edge_type: [a, r, b], kind: mine, options: {k: 4}")(folder)


def broken_inputs(folder: Path) -> BaseException:
    def build(context: Any, options: Any) -> Any:
        return None

    build.__module__ = "my_notebook"
    kind = EdgeKind(
        name="wrong",
        build=build,
        summary="Wrong.",
        inputs=lambda options: "distance",  # type: ignore[arg-type,return-value]
    )
    default_registry().register(kind)
    return edge("edge_type: [a, r, b], kind: wrong")(folder)


def other_options(folder: Path) -> BaseException:
    other = default_registry().edge_kind("incidence_mask").options()
    entry = {"edge_type": ["a", "r", "b"], "kind": "adjacency_mask", "options": other}
    return raised(lambda: load_config({"edges": [entry]}))


def disabled_operator(folder: Path) -> BaseException:
    return file(f"operator: hgt\nplugins: {{disable: [hgt]}}\n{EDGES}")(folder)


def not_a_file(folder: Path) -> BaseException:
    return raised(lambda: load_config(EDGES))


def wrong_encoding(folder: Path) -> BaseException:
    Path("nsa.yaml").write_bytes(b"# caf\xe9\n" + EDGES.encode())
    return raised(lambda: load_config("nsa.yaml"))


def unreadable(folder: Path) -> BaseException:
    Path("nsa.yaml").mkdir()
    return raised(lambda: load_config("nsa.yaml"))


def unreadable_data(folder: Path) -> BaseException:
    data, slices = graph(), {"gene": {"x": torch.tensor([0, 9])}}
    torch.save((data.to_dict(), slices), "data.pt")
    return raised(lambda: read_graphs(Path("data.pt")))


def override(text: str) -> Callable[[Path], BaseException]:
    def provoke(folder: Path) -> BaseException:
        Path("nsa.yaml").write_text(EDGES)
        return raised(lambda: load_config("nsa.yaml", HeteroNSAConfig, overrides=[text]))

    return provoke


def operator_alone(folder: Path) -> BaseException:
    Path("my.yaml").write_text(EDGES)
    return raised(lambda: load_config("my.yaml", CellConfig))


def nothing_decided(folder: Path) -> BaseException:
    data = HeteroData()
    data["gene", "near", "gene"].weight = torch.zeros(3)
    return raised(lambda: suggest_from_data(data))


CONFIGURATIONS = [
    Case(
        "missing_file",
        "The file is not there.",
        lambda f: raised(lambda: load_config("nsa.yml")),
        "correct the name.",
    ),
    Case(
        "unreadable",
        "The file is there but cannot be read: a folder, or no permission.",
        unreadable,
        "name a file, or give yourself the permission.",
    ),
    Case("encoding", "The file is not UTF-8.", wrong_encoding, "save it as UTF-8."),
    Case(
        "suffix",
        "The name does not say what the file is.",
        file(EDGES, "nsa.cfg"),
        "call it `.yaml`, `.json` or `.toml`.",
    ),
    Case(
        "not_a_file",
        "Text was passed where a file name belongs.",
        not_a_file,
        "pass the name of the file, or a mapping.",
    ),
    Case(
        "empty_file",
        "Nothing is in the file, or only comments.",
        file("# later\n"),
        "write `edges`; `pyg-nsa init --data data.pt` writes a file to start from.",
    ),
    Case(
        "syntax",
        "The file is not YAML (JSON, TOML).",
        file("edges:\n  - {edge_type: [gene, regulates, gene\n"),
        "look at the place, or just before it.",
    ),
    Case(
        "yaml_version",
        "The file asks for YAML 1.1, which reads other values.",
        file(f"%YAML 1.1\n---\n{EDGES}"),
        "remove the line.",
    ),
    Case(
        "not_a_mapping", "The top of the file is a list or a word.", file(EDGE), "start with a key."
    ),
    Case(
        "duplicate_key",
        "A key stands twice in one mapping; other readers would take the last.",
        file(f"heads: 2\nheads: 4\n{EDGES}"),
        "keep one.",
    ),
    Case(
        "newer_version",
        "The file is of a newer format than this pyg_nsa reads.",
        file(f"version: 2\n{EDGES}"),
        "upgrade pyg_nsa.",
    ),
    Case(
        "extra_forbidden",
        "A key that does not exist; keys of options are checked by the plugin.",
        edge(
            "edge_type: [gene, regulates, gene], kind: adjacency_mask, options: {selfloops: true}"
        ),
        "take the one that is suggested, or one of those that are allowed.",
    ),
    Case("missing", "A key that has to be there is not.", edge("kind: adjacency_mask"), "add it."),
    Case(
        "int_type",
        "A whole number was expected. Text and truth values are not converted (`float_type` and `bool_type` likewise).",
        file(f'heads: "4"\n{EDGES}'),
        "write the number without quotes.",
    ),
    Case(
        "literal_error",
        "One of a few words was expected.",
        file(f"aggr: som\n{EDGES}"),
        "take one that is allowed.",
    ),
    Case(
        "edge_type",
        "An edge type is not a list of three names.",
        edge("edge_type: [gene, gene], kind: adjacency_mask"),
        "write source node type, relation, target node type.",
    ),
    Case(
        "edges_by_name",
        "`edges` is a mapping (in TOML a table, `[edges]`) and not a list.",
        file("edges:\n  gene__regulates__gene: adjacency_mask\n"),
        "write an entry for each edge type, with `-` before it; in TOML below `[[edges]]`.",
    ),
    Case(
        "type_name",
        "A name that PyG could not keep apart in the names of parameters.",
        edge("edge_type: [gene, acts__on, gene], kind: adjacency_mask"),
        "rename the type, in the data too.",
    ),
    Case(
        "duplicate_edge_type",
        "Two entries for one edge type.",
        file(f"{EDGES}{EDGE}"),
        "merge them.",
    ),
    Case(
        "needs_one_node_type",
        "An option, a kind, or a conv of `pyg_conv`, that only makes sense within one node type.",
        edge("edge_type: [gene, gpr, reaction], kind: incidence_mask, options: {self_loops: true}"),
        "remove the option, or take another kind or conv.",
    ),
    Case(
        "unknown_node_type",
        "A node type is named that no edge type has.",
        file(f"num_nodes: {{genes: 10}}\n{EDGES}"),
        "correct the name.",
    ),
    Case(
        "in_channels",
        "`in_channels` is neither a whole number nor one for each node type.",
        file(f"in_channels: {{gene: all}}\n{EDGES}"),
        "write a number; -1 takes it from the first call.",
    ),
    Case(
        "heads",
        "The heads do not divide the width.",
        file(f"hidden_channels: 64\nheads: 6\n{EDGES}"),
        "take one of the numbers that do.",
    ),
    Case(
        "pattern",
        "A pattern with other letters than M and S.",
        file(f"pattern: MAS\n{EDGES}"),
        "write M and S, or null for one bare step.",
    ),
    Case(
        "needs_a_stack",
        "A bare step with learned embeddings or self-attention, which belong to a stack of blocks.",
        file(f"pattern: null\nnum_nodes: {{gene: 3}}\n{EDGES}"),
        "set a pattern, or leave them out.",
    ),
    Case(
        "unknown_edge_kind",
        "No installed plugin provides the kind.",
        edge("edge_type: [gene, regulates, gene], kind: adjacency_mas"),
        "correct the name, or install its plugin.",
    ),
    Case(
        "unknown_operator",
        "No installed plugin provides the operator.",
        file(f"operator: hetero_nsaa\n{EDGES}"),
        "correct the name, or install its plugin.",
    ),
    Case(
        "unusable_plugin",
        "The plugin is there but cannot be used: switched off, broken, incompatible, or provided twice.",
        edge(
            "edge_type: [gene, regulates, gene], kind: adjacency_mask",
            "plugins: {disable: [adjacency_mask]}\n",
        ),
        "the text says why; see [Plugins](#plugins) below.",
    ),
    Case(
        "requirement",
        "An entry of `plugins.require` is not of the form that pip knows.",
        file(f"plugins: {{require: [my lab]}}\n{EDGES}"),
        "write a distribution and perhaps versions.",
    ),
    Case(
        "missing_distribution",
        "A distribution that the configuration requires is not installed.",
        file(f"plugins: {{require: [my-lab>=1.0]}}\n{EDGES}"),
        "install it.",
    ),
    Case(
        "wrong_version",
        "It is installed in another version.",
        file(f"plugins: {{require: ['pyg-nsa>=99']}}\n{EDGES}"),
        "install the one that is wanted.",
    ),
    Case(
        "broken_options",
        "A plugin's own check of its options failed.",
        broken_options,
        "tell the plugin's authors; other values may do meanwhile.",
    ),
    Case(
        "broken_inputs",
        "A plugin's function that names the fields it reads failed, or returned something else than names.",
        broken_inputs,
        'tell the plugin\'s authors; `inputs` returns a tuple, such as `("distance",)`.',
    ),
    Case(
        "options_of_another_kind",
        "In Python: options of one kind were passed to another.",
        other_options,
        "pass the kind's own options, or a mapping.",
    ),
    Case(
        "unknown_conv",
        "`pyg_conv` or `hetero_conv` names a class that PyG does not have, or that cannot be made from a configuration.",
        edge("edge_type: [gene, regulates, gene], kind: pyg_conv, options: {conv: SAGEConf}"),
        "take another class.",
    ),
    Case(
        "conv_argument",
        "An argument that the class does not take, or not with this value.",
        edge(
            "edge_type: [gene, regulates, gene], kind: pyg_conv, options: {conv: SAGEConv, args: {agrr: max}}"
        ),
        "correct it.",
    ),
    Case(
        "training_run",
        "A training run was given where the configuration of an operator is wanted.",
        file(
            "title: Mine\noperator:\n  edges:\n    - {edge_type: [gene, regulates, gene], kind: adjacency_mask}\n"
        ),
        "pass `--training`; in Python: `load_config(file, CellConfig)`, from `pyg_nsa.cell.config`.",
    ),
    Case(
        "operator_alone",
        "The configuration of an operator was given where a training run is wanted.",
        operator_alone,
        "put it under `operator:`; the other keys of a training run have defaults.",
    ),
    Case(
        "override",
        "A value that was set beside the file (`--set`) is not of the form KEY=VALUE.",
        override("heads"),
        "write `heads=4`.",
    ),
    Case(
        "missing_edge_type",
        "The graph does not have a declared edge type.",
        bound(
            lambda d: (
                d.__delitem__(("gene", "regulates", "gene"))
                or d["gene", "regulate", "gene"].__setattr__(
                    "edge_index", torch.zeros(2, 0, dtype=torch.long)
                )
            )
        ),
        "correct the name, in the configuration or in the data.",
    ),
    Case(
        "unmatched_edge_type",
        "The graph has an edge type that the configuration does not mention.",
        bound(
            lambda d: d["gene", "gpr", "reaction"].__setattr__(
                "hyperedge_index", torch.zeros(2, 0, dtype=torch.long)
            )
        ),
        "add an entry, or set `unmatched: skip`.",
    ),
    Case(
        "missing_input",
        "The edge type does not have a field that its kind needs.",
        bound(
            lambda d: (
                d["gene", "regulates", "gene"].__delattr__("edge_index")
                or d["gene", "regulates", "gene"].__setattr__("edge_indx", 0)
            )
        ),
        "store the field, or take another kind.",
    ),
    Case(
        "wrong_input",
        "A field has another shape, dtype or range than its kind reads.",
        bound(
            lambda d: d["gene", "regulates", "gene"].__setattr__(
                "edge_index", torch.tensor([[0.0], [1.0]])
            )
        ),
        "the text has the line of Python that converts it.",
    ),
    Case(
        "no_nodes",
        "Nothing says how many nodes there are of a type.",
        bound(lambda d: d["gene"].__delattr__("x")),
        "set `num_nodes` of the node type in the data, or give it an `x`.",
    ),
    Case(
        "no_features",
        "A node type has no features, and no learned embeddings either; for a stack of blocks, and for attention in a bare step.",
        bound(lambda d: d["gene"].__setattr__("x", torch.zeros(3, 0))),
        "add it to `num_nodes` of the configuration, or give it an `x`. A layer that gets its rows from another part of a model is no "
        "problem: `build_operator` does not ask for it.",
    ),
    Case(
        "cannot_be_built",
        "The configuration is valid, but building its operator raises; for `pyg-nsa check` with `--data` or `--build`.",
        refused_build,
        "do what the plugin says, at the edge type (or the operator) whose line is named.",
    ),
    Case(
        "too_few_embeddings",
        "The graph has more nodes of a type than `num_nodes` of the configuration counts.",
        bound(lambda d: None, "num_nodes: {gene: 2}\n"),
        "write the number of nodes of the base graph.",
    ),
    Case(
        "wrong_columns",
        "`x` has another number of columns than `in_channels` says.",
        bound(lambda d: None, "in_channels: {gene: 7}\n"),
        "correct it, or leave it out: the first call says it.",
    ),
    Case(
        "unsafe_data",
        "A file of graphs holds classes that are not loaded, since a pickle can run any code.",
        unsafe,
        "save tensors and PyG's own classes, such as `data.to_dict()`.",
    ),
    Case(
        "no_graph",
        "The file holds something else than a HeteroData.",
        saved(lambda: torch.zeros(2)),
        "save a HeteroData.",
    ),
    Case(
        "unreadable_data",
        "The file is no file of torch.save, or a data set whose first graph cannot be taken out.",
        unreadable_data,
        "save the graph itself.",
    ),
    Case(
        "not_decided",
        "`pyg-nsa init` found no edge type that it could give a kind.",
        nothing_decided,
        "store the edges as `edge_index` or `hyperedge_index`.",
    ),
]
