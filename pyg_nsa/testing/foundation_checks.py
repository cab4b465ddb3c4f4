"""Checks of an edge kind that all others stand on: if one of these fails, others would fail for the same reason.

All but the first have a :class:`~pyg_nsa.testing.subject.Subject` as their target.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pyg_nsa.api import PairOptions
from pyg_nsa.attention import EdgeSet
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.nn.hetero_nsa_conv import HeteroNSAConv
from pyg_nsa.testing.graphs import SmallGraph, seeded
from pyg_nsa.testing.results import Finding, NotApplicable, Tally
from pyg_nsa.testing.subject import HEADS, OUT, Call, KindUnderTest, Layered, Subject, shake
from pyg_nsa.testing.truth import dense_rows

__all__ = ["builds", "deterministic", "direction", "dtypes", "produces", "runs", "stateless"]


def builds(target: KindUnderTest, tally: Tally) -> None:
    """`build` makes a module for every set of options, each with parameters of its own, and leaves the options as they are. It may refuse edge types within one node type,
    or between two, with a ValueError, but not both.
    """
    refusals: dict[str, list[str]] = {}
    tried = target.tried
    given = dict(target.labelled_options)
    for place, found in tried:
        label = place.rpartition(", edge type ")[0]
        if isinstance(found, Subject):
            one, two = (found.module(found.build()) for _ in range(2))
            tally.expect(isinstance(one, nn.Module), "")
            shared = {id(p) for p in one.parameters()} & {id(p) for p in two.parameters()}
            names = [name for name, p in one.named_parameters() if id(p) in shared]
            tally.expect(
                not names,
                f"{place}: two modules that build made share the parameter {', '.join(names)}; make parameters in __init__, for each module "
                "its own",
            )
            tally.expect(
                found.spec.options == given[label],
                f"{place}: build changes the options that it gets, which other layers and the configuration share: they are "
                f"{found.spec.options!r}, and were {given[label]!r}; work on a copy",
            )
            continue
        if not isinstance(found, ValueError):  # pydantic's ValidationError is one
            raise Finding(
                f"{place}: build raised {type(found).__name__}: {found}; refuse what a kind cannot do with a ValueError that says "
                "what it can"
            ) from found
        refusals.setdefault(label, []).append(f"{place}: {found}")
    for why in refusals.values():
        tally.expect(len(why) < 2, "build refuses every edge type:\n" + "\n".join(why))


def produces(subject: Subject, tally: Tally) -> None:
    """What `produces` declares is what comes, in the right shape and on the right device: for `mask` an EdgeSet whose queries are
    the targets and whose keys are the sources, for `bias` floating-point `[P, heads]`, for `message` rows `[N_dst, out_channels]`.
    """
    layer, graph = subject.build(), subject.graph()
    call = subject.call(layer, graph)
    num_src, num_dst = graph.num_nodes
    if subject.gives_messages:
        rows = subject.rows(layer, call=call)
        tally.expect(
            isinstance(rows, Tensor) and tuple(rows.shape) == (num_dst, OUT),
            f"rows must be a tensor [targets, out_channels] = [{num_dst}, {OUT}], got {_shown(rows)}",
        )
        tally.expect(rows.device == graph.x[1].device, f"rows are on {rows.device}, x on the CPU")
        return
    term = subject.module(layer)
    assert isinstance(term, EdgeTerm)
    with seeded(0):
        edges = term.pairs(subject.inputs(call))
    tally.expect(
        isinstance(edges, EdgeSet), f"pairs() must return an EdgeSet, got {type(edges).__name__}"
    )
    tally.expect(
        (edges.num_queries, edges.num_keys) == (num_dst, num_src),
        f"pairs() is for {edges.num_queries} queries and {edges.num_keys} keys, but there are {num_dst} targets (queries) and "
        f"{num_src} sources (keys)",
    )
    code = edges.row * num_src + edges.col
    tally.expect(
        edges.num_pairs == 0
        or (
            (int(edges.row.min()) >= 0 and int(edges.row.max()) < num_dst)
            and (int(edges.col.min()) >= 0 and int(edges.col.max()) < num_src)
        ),
        "pairs() holds rows that there are not",
    )
    tally.expect(
        bool((code[1:] > code[:-1]).all()),
        "the pairs of pairs() are not unique and sorted by (query, key); make the set with EdgeSet.from_edge_index or "
        "inputs.edges_from_index",
    )
    tally.expect(edges.device == graph.x[0].device, f"pairs are on {edges.device}, x on the CPU")
    with seeded(0):
        bias = term.bias(subject.inputs(call), edges)
    declares = "bias" in subject.kind.produces
    tally.expect(
        declares == (bias is not None),
        "bias() returned None, but produces declares 'bias'"
        if declares
        else "bias() returned a bias, but produces does not declare 'bias'",
    )
    if bias is None:
        return
    tally.expect(
        isinstance(bias, Tensor) and tuple(bias.shape) == (edges.num_pairs, HEADS),
        f"bias() must be [pairs, heads] = [{edges.num_pairs}, {HEADS}], got {_shown(bias)}; edges.coalesce brings attributes "
        "of edges into the order of the pairs",
    )
    tally.expect(bias.is_floating_point(), f"bias() must be floating point, got {bias.dtype}")
    tally.expect(bias.device == graph.x[0].device, f"bias() is on {bias.device}, x on the CPU")


def runs(subject: Subject, tally: Tally) -> None:
    """A layer with the kind gives finite rows that are not all zero; those of an attention kind equal dense attention in float64
    with its pairs and bias.
    """
    layer, graph = subject.layer(), subject.graph()
    twin = copy.deepcopy(layer)  # a second layer() may differ, which is the next check's business
    call = subject.call(layer, graph)
    rows = subject.rows(layer, call=call)
    tally.expect(bool(rows.isfinite().all()), "rows are NaN or infinite")
    tally.expect(bool((rows != 0).any()), "all rows are zero, although there are edges")
    if not subject.gives_messages:
        with torch.no_grad():
            edges, bias = subject.pairs_and_bias(twin, call)
        wanted = dense_rows(twin.convs[subject.edge_type], graph.x, edges, bias)
        text = "rows differ from dense attention with the kind's pairs and bias"
        tally.close(rows.double(), wanted, text)


def dtypes(subject: Subject, tally: Tally) -> None:
    """In float64 everything is float64, with the same numbers. For attention kinds also: the bias is of the layer's dtype, int32
    indices do what int64 ones do, and float64 attributes may enter a float32 layer.
    """
    graph = subject.graph()
    call = subject.call(subject.layer(), graph)
    rows = subject.rows(subject.layer(), call=call)
    tally.expect(rows.dtype == torch.float32, f"with float32 inputs rows are {rows.dtype}")
    if not subject.gives_messages:
        _expect_bias_dtype(subject, subject.layer(), graph, torch.float32, tally)
        for name, values in call.items():
            index = values.get(subject.edge_type)
            if name.endswith("_index_dict") and isinstance(index, Tensor):
                other = subject.rows(
                    subject.layer(), call={**call, name: {subject.edge_type: index.int()}}
                )
                tally.close(other, rows, f"{name} in int32 changes the rows")
        mixed = subject.rows(subject.layer(), graph.with_double_fields())
        tally.expect(
            mixed.dtype == torch.float32,
            f"with float64 attributes in a float32 layer rows are {mixed.dtype}, expected torch.float32",
        )
        tally.close(mixed, rows, "attributes in float64 change the rows of a float32 layer")
    wide = subject.rows(subject.layer().double(), graph.double())
    tally.expect(
        wide.dtype == torch.float64,
        f"with a float64 layer and inputs rows are {wide.dtype}, expected torch.float64",
    )
    tally.close(wide.float(), rows, "rows in float64 are not those in float32")
    if not subject.gives_messages:
        layer = subject.layer().double()
        _expect_bias_dtype(subject, layer, graph.double(), torch.float64, tally)


def _expect_bias_dtype(
    subject: Subject, layer: HeteroNSAConv, graph: SmallGraph, dtype: torch.dtype, tally: Tally
) -> None:
    _, bias = subject.pairs_and_bias(layer, subject.call(layer, graph))
    if bias is not None:
        tally.expect(
            bias.dtype == dtype,
            f"with a layer and attributes in {dtype} bias() is {bias.dtype}; take the dtype of your parameters, or of the "
            "attributes",
        )


def deterministic(subject: Layered, tally: Tally) -> None:
    """Two layers that are built under one seed have the same parameters; in evaluation mode the same call gives the same rows, and
    draws no random numbers.
    """
    one, two = subject.layer(seed=3), subject.layer(seed=3)
    others = dict(two.named_parameters())
    for name, parameter in one.named_parameters():
        tally.expect(
            name in others and torch.equal(parameter, others[name]),
            f"parameter {name} differs between two layers that were built under one seed",
        )
    graph = subject.graph()
    text = (
        "the same call gives other rows: something random in pairs() or bias() in evaluation mode, or an order that Python's "
        "hashes decide"
    )
    first = subject.rows(one, graph, seed=11)
    call = subject.call(one, graph)
    with seeded(11):
        before = torch.get_rng_state()
        one(**call)
        drawn = not torch.equal(torch.get_rng_state(), before)
    for seed in range(12, 15):
        again = subject.rows(subject.layer(seed=3), graph, seed=seed)
        tally.close(again, first, text)
    tally.expect(
        not drawn,
        "a call draws random numbers in evaluation mode, although they have no effect: whoever draws after it gets others; draw only where "
        "self.training is set",
    )


def stateless(subject: Layered, tally: Tally) -> None:
    """A call leaves nothing behind: the rows of a graph do not depend on the graphs before it."""
    graphs = [subject.graph(seed=5), subject.graph(seed=6)]
    after: list[list[Tensor]] = []
    for order in ((0, 1, 0), (1, 0, 1)):
        layer = subject.build()
        rows: dict[int, Tensor] = {}
        for place, number in enumerate(order):
            rows[number] = subject.rows(layer, graphs[number]).detach()
            if place == 0:
                shake(layer)
        after.append([rows[0], rows[1]])
    for number in (0, 1):
        tally.close(
            after[1][number],
            after[0][number],
            "the rows of a graph depend on which graphs went before it: something is kept in the module between calls; keep nothing "
            "there, and in edges.derived only what follows from the edges alone",
        )


def direction(subject: Subject, tally: Tally) -> None:
    """Information flows from the source of an edge to its target and never the other way; between two node types, a target's row
    depends on no other target.
    """
    index = torch.tensor([[0, 0, 1, 1, 2, 3], [1, 2, 3, 4, 3, 4]])
    graph = subject.graph(index=index)
    on_source, on_target = _influence(subject, graph)
    if not subject.is_within:
        others = (on_target & ~torch.eye(len(on_target), dtype=torch.bool)).nonzero().tolist()
        tally.expect(
            not others, f"a target depends on another one: {others[:1]}; targets are queries only"
        )
    subject.need_edges(graph)
    backwards = on_source.triu(1).nonzero().tolist()  # an edge always leads to a higher number here
    if backwards:
        _need_direction(subject, index, on_source)
        target, source = backwards[0]
        raise Finding(
            f"target {target} depends on source {source}, but all edges lead from lower numbers to higher ones: sources and "
            "targets are mixed up. Row 0 of an index holds the sources (keys), row 1 the targets (queries)"
        )
    tally.count += on_source.numel()
    for source, target in index.t().tolist():
        tally.expect(
            on_source[target, source],
            f"target {target} does not depend on source {source}, although there is the edge {source} → {target}"
            + _keep_all_edges(graph),
        )


def _keep_all_edges(graph: SmallGraph) -> str:
    """What to do about a kind that leaves out edges by their attributes; a part of a sentence."""
    attributes = graph.attributes()
    if not attributes:
        return ""
    return (
        f". If it leaves out edges by the values of {', '.join(attributes)} (small weights, sources later than targets), pass "
        "make_fields with values that keep every edge, and test on your own what is left out"
    )


def _need_direction(subject: Subject, index: Tensor, on_source: Tensor) -> None:
    """Leaves the check if the options ask for pairs in both directions.

    Raises:
        NotApplicable: They do.
    """
    mirrored, _ = _influence(subject, subject.graph(index=index.flip(0)))
    both_ways = torch.equal(mirrored, on_source)
    directed = isinstance(subject.options, PairOptions) and not subject.options.symmetrize
    if both_ways and not directed:
        raise NotApplicable("with these options the reversed edges give the same pairs")


def _influence(subject: Subject, graph: SmallGraph) -> tuple[Tensor, Tensor]:
    """`[N_dst, N_src]` and `[N_dst, N_dst]` bool: whether a target's row has a gradient at a source's or a target's row of x."""
    layer = subject.layer()
    call: Call = subject.call(layer, graph)
    source, _, target = subject.edge_type
    ends = [call["x_dict"][t].requires_grad_() for t in (source, target)]
    rows = subject.rows(layer, call=call)
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for row in rows:
        weighted = (row * torch.linspace(0.5, 1.5, row.numel())).sum()
        grads = torch.autograd.grad(weighted, ends, retain_graph=True, allow_unused=True)
        for end, grad, into in zip(ends, grads, found, strict=True):
            flow = torch.zeros(len(end)) if grad is None else grad.abs().amax(-1)
            into.append(flow > 1e-9)
    return torch.stack(found[0]), torch.stack(found[1])


def _shown(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
