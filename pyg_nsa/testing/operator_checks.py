"""Checks of operators. Their target is an :class:`~pyg_nsa.testing.operator_subject.OperatorSubject`."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch_geometric.data import Batch

from pyg_nsa.testing.operator_subject import INTO_U, INTO_V, WITHIN_U, OperatorSubject
from pyg_nsa.testing.results import Tally
from pyg_nsa.testing.subject import OUT
from pyg_nsa.testing.training_checks import agree, directional_derivative

__all__ = [
    "batch",
    "builds",
    "call_forms",
    "deleted_nodes",
    "direction",
    "dtypes",
    "edge_order",
    "gradients",
    "lazy_channels",
    "missing_edges",
    "rows",
    "unread_fields",
]


def builds(subject: OperatorSubject, tally: Tally) -> None:
    """`build` makes a module with `collect`, which gathers the arguments of a call from a `HeteroData`."""
    module = subject.build()
    tally.expect(isinstance(module, nn.Module), f"build made a {type(module).__name__}, no module")
    tally.expect(
        callable(getattr(module, "collect", None)),
        f"{type(module).__name__} has no collect(data); add one that returns the keyword arguments of a call, "
        "{'x_dict': …, 'edge_index_dict': …}",
    )
    call: Any = module.collect(subject.graph().data())  # type: ignore[operator]
    tally.expect(
        {"x_dict", "edge_index_dict"} <= set(call),
        f"collect(data) returned {sorted(call)}, expected x_dict and edge_index_dict among them",
    )


def rows(subject: OperatorSubject, tally: Tally) -> None:
    """There are finite rows of `out_channels` columns (or else `hidden_channels`) for each node type in `context.out_types`, and
    for no other.
    """
    graph = subject.graph()
    for out_channels in (None, 12):
        out = subject.run(subject.build(out_channels=out_channels), graph)
        tally.expect(
            set(out) == set(subject.out_types),
            f"rows come for {_listed(out)}, expected {_listed(subject.out_types)} (context.out_types)",
        )
        for node_type, x in out.items():
            wanted = (len(graph.x[node_type]), out_channels or OUT)
            tally.expect(
                tuple(x.shape) == wanted,
                f"with out_channels={out_channels} rows of '{node_type}' are {list(x.shape)}, expected {list(wanted)}",
            )
            tally.expect(bool(x.isfinite().all()), f"rows of '{node_type}' are NaN or infinite")
            tally.expect(bool((x != 0).any()), f"all rows of '{node_type}' are zero")


def call_forms(subject: OperatorSubject, tally: Tally) -> None:
    """HeteroConv's call: `conv(x_dict, edge_index_dict)` by position, by keyword, and `conv(**conv.collect(data))` are the same."""
    layer, graph = subject.layer(), subject.graph()
    data = graph.data()
    collected = subject.run(layer, graph)
    by_place = layer(data.x_dict, data.edge_index_dict)
    by_name = layer(x_dict=data.x_dict, edge_index_dict=data.edge_index_dict)
    for name, out in (("by position", by_place), ("by keyword", by_name)):
        tally.expect(set(out) == set(collected), f"called {name} it gives rows of {_listed(out)}")
        for node_type, x in out.items():
            tally.close(
                x, collected[node_type], f"called {name} it gives other rows than collected"
            )


def unread_fields(subject: OperatorSubject, tally: Tally) -> None:
    """Arguments that the operator has no use for are left unread, so that one call serves all operators; it may warn of them."""
    layer, graph = subject.layer(), subject.graph()
    call = subject.call(layer, graph)
    rows = subject.rows(layer, call=call)
    for name in ("cost_of_any_plugin_dict", "stoichiometry_dict"):
        more = {t: torch.ones(i.size(1)) for t, i in graph.index.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            with_more = subject.rows(layer, call={**call, name: more})
        tally.close(with_more, rows, f"the unused {name} changes the rows")


def missing_edges(subject: OperatorSubject, tally: Tally) -> None:
    """An edge type without input is skipped, and one without edges does no harm."""
    layer, graph = subject.layer(), subject.graph()
    call = subject.call(layer, graph)
    none = torch.empty(2, 0, dtype=torch.long)
    fewer = {t: i for t, i in call["edge_index_dict"].items() if t != INTO_V}
    for what, index in (
        ("without an edge type", fewer),
        ("with an empty edge type", {**fewer, INTO_V: none}),
    ):
        out = subject.run(layer, call={**call, "edge_index_dict": index})
        tally.expect("u" in out, f"{what} rows of 'u', to which other edges lead, do not come")
        for node_type, x in out.items():
            tally.expect(
                x is not None and bool(x.isfinite().all()),
                f"{what} rows of '{node_type}' are None, NaN or infinite",
            )


def dtypes(subject: OperatorSubject, tally: Tally) -> None:
    """In float64 everything is float64, with the same numbers."""
    graph = subject.graph()
    rows = subject.rows(subject.layer(), graph)
    wide = subject.rows(subject.layer().double(), graph.double())
    tally.expect(rows.dtype == torch.float32, f"with float32 inputs rows are {rows.dtype}")
    tally.expect(wide.dtype == torch.float64, f"in float64 rows are {wide.dtype}")
    tally.close(wide.float(), rows, "rows in float64 are not those in float32")


def direction(subject: OperatorSubject, tally: Tally) -> None:
    """Information flows from the source of an edge to its target, and to no node type that no edges lead to."""
    layer, graph = subject.layer(), subject.graph()
    call = subject.call(layer, graph)
    for x in call["x_dict"].values():
        x.requires_grad_()
    out = subject.run(layer, call=call)
    flows = {t: _gradients_at(rows, call["x_dict"]) for t, rows in out.items()}
    for source, _, target in (INTO_V, INTO_U, WITHIN_U):
        reached = flows[target][source]
        index = graph.index[source, "near" if source == target else "into", target]
        for src, dst in index.t().tolist():
            tally.expect(
                reached[dst, src],
                f"'{target}' {dst} does not depend on '{source}' {src}, although there is the edge {src} → {dst}",
            )
    for target, source in (("u", "v"), ("w", "u"), ("w", "v")):
        if target in flows:
            tally.expect(
                not bool(flows[target][source].any()),
                f"rows of '{target}' depend on '{source}', but no edge leads from '{source}' to '{target}'; row 0 of an edge "
                "index holds the sources",
            )


def edge_order(subject: OperatorSubject, tally: Tally) -> None:
    """The order of the edges has no effect."""
    layer, graph = subject.layer(), subject.graph()
    text = "the same edges in another order give other rows"
    tally.close(subject.rows(layer, graph.reordered()), subject.rows(layer, graph), text)


def batch(subject: OperatorSubject, tally: Tally) -> None:
    """A batch of graphs gives what each graph gives alone."""
    layer = subject.layer()
    graphs = [subject.graph(seed=21), subject.graph(seed=22, sizes={"u": 7, "v": 3, "w": 6})]
    graphs.append(subject.graph(seed=23))
    batch = Batch.from_data_list([graph.data() for graph in graphs])
    together = subject.run(layer, call=layer.collect(batch))  # type: ignore[operator]
    for node_type, x in together.items():
        parts = x.split([len(graph.x[node_type]) for graph in graphs])
        for number, (graph, part) in enumerate(zip(graphs, parts, strict=True)):
            tally.close(
                part,
                subject.run(layer, graph)[node_type],
                f"graph {number} of a batch gets other rows of '{node_type}' than alone: something leaks between graphs",
            )


def deleted_nodes(subject: OperatorSubject, tally: Tally) -> None:
    """Deleted nodes (`pert_mask`) neither send nor receive, or are refused with a ValueError; they are never silently alive."""
    layer, graph = subject.layer(), subject.graph()
    dead = {t: torch.arange(len(x)) == 2 for t, x in graph.x.items()}
    try:
        out = subject.run(layer, graph.with_deleted(dead))
    except ValueError as refusal:
        tally.expect(str(refusal), "deleted nodes are refused without a word")
        return
    gone = torch.cat([x[~dead[t]].flatten() for t, x in sorted(out.items())])
    changed = graph.with_deleted(dead)
    other = {t: torch.where(dead[t][:, None], x + 5.0, x) for t, x in changed.x.items()}
    again = subject.run(layer, type(graph)(other, graph.index, dead))
    tally.close(
        torch.cat([x[~dead[t]].flatten() for t, x in sorted(again.items())]),
        gone,
        "rows depend on deleted nodes",
    )
    if subject.pattern is None:
        wanted = subject.run(layer, graph.without_edges_of(dead))
        tally.close(
            gone,
            torch.cat([x[~dead[t]].flatten() for t, x in sorted(wanted.items())]),
            "rows are not those of the graph without the deleted nodes' edges",
        )


def gradients(subject: OperatorSubject, tally: Tally) -> None:
    """Gradients are what finite differences in float64 say, finite, and there for the parameters that have an effect."""
    layer, graph = subject.layer().double(), subject.graph().double()
    call = subject.call(layer, graph)
    parameters = dict(layer.named_parameters())
    found, wanted = directional_derivative(subject, layer, call, list(parameters.values()))
    tally.expect(abs(wanted) > 1e-9, "no parameter has any effect on the rows")
    wrong: list[str] = []
    if not agree(found, wanted):  # then it is worth looking for those that are to blame
        for name, parameter in parameters.items():
            if len(wrong) == 3:
                break
            got, expected = directional_derivative(subject, layer, call, [parameter])
            if not agree(got, expected):
                wrong.append(
                    f"{name}: {got or 0.0:.6g} where finite differences say {expected:.6g}"
                )
    tally.expect(agree(found, wanted), f"gradients are wrong, of {'; '.join(wrong)}")


def lazy_channels(subject: OperatorSubject, tally: Tally) -> None:
    """Channels of -1 are taken from the first call and lead to the same parameters as given ones."""
    graph = subject.graph()
    lazy, given = subject.build(channels=-1), subject.build()
    out = subject.run(lazy, graph)
    unused = [n for n, p in lazy.named_parameters() if is_lazy(p)]
    tally.expect(
        not unused,
        f"after the first call {', '.join(unused)} still waits for its size: no call uses it; make it only where edges lead to "
        "(or from) its node type, in context.edge_types",
    )
    for node_type, x in subject.run(given, graph).items():
        tally.expect(out[node_type].shape == x.shape, f"rows of '{node_type}' have another shape")
    shapes = [{n: tuple(p.shape) for n, p in m.named_parameters()} for m in (lazy, given)]
    tally.expect(shapes[0] == shapes[1], "the parameters differ in name or shape")


def _gradients_at(rows: Tensor, x_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """`[N_rows, N]` bool by node type: whether a row has a gradient at a row of x."""
    found: dict[str, list[Tensor]] = {t: [] for t in x_dict}
    for row in rows:
        weighted = (row * torch.linspace(0.5, 1.5, row.numel())).sum()
        grads = torch.autograd.grad(
            weighted, list(x_dict.values()), retain_graph=True, allow_unused=True
        )
        for (node_type, x), grad in zip(x_dict.items(), grads, strict=True):
            flow = torch.zeros(len(x)) if grad is None else grad.abs().amax(-1)
            found[node_type].append(flow > 1e-9)
    return {t: torch.stack(flows) for t, flows in found.items()}


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
