"""Checks of what an edge kind makes of graphs: edges missing, repeated or in another order, nodes without any, batches, deletions.

Their target is a :class:`~pyg_nsa.testing.subject.Subject`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch

from pyg_nsa.attention import EdgeSet
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.testing.graphs import SmallGraph, is_structure, seeded
from pyg_nsa.testing.results import Finding, NotApplicable, Tally
from pyg_nsa.testing.subject import OUT, Subject
from pyg_nsa.testing.training_checks import gradients_of
from pyg_nsa.testing.truth import dense_rows

__all__ = [
    "alternatives",
    "batch",
    "bipartite",
    "copies",
    "deleted_nodes",
    "duplicate_edges",
    "edge_order",
    "empty_relation",
    "isolated_nodes",
    "node_order",
    "padding",
    "shared_pairs",
]

_NONE = torch.empty(0, dtype=torch.long)


def empty_relation(subject: Subject, tally: Tally) -> None:
    """A relation without edges does no harm: finite rows, zero for targets without a pair, a (zero) gradient for every parameter
    that has one otherwise, and it may come first.
    """
    graph = subject.graph()
    empty = graph.choose(_NONE)
    first = subject.build()
    tally.expect(
        bool(subject.rows(first, empty).isfinite().all()), "rows are NaN or infinite without edges"
    )
    layer = subject.layer()
    usual = gradients_of(layer, subject.rows(layer, graph))
    call = subject.call(layer, empty)
    rows = subject.rows(layer, call=call)
    tally.expect(
        tuple(rows.shape) == (graph.num_nodes[1], OUT),
        f"without edges rows are {list(rows.shape)}, expected [{graph.num_nodes[1]}, {OUT}]",
    )
    tally.expect(bool(rows.isfinite().all()), "rows are NaN or infinite without edges")
    if not subject.gives_messages:
        edges, _ = subject.pairs_and_bias(layer, call)
        alone = ~_has_pair(edges)
        tally.expect(
            bool((rows[alone] == 0).all()), "targets without a pair get rows that are not zero"
        )
    for name, grad in gradients_of(layer, rows).items():
        if usual[name] is not None:
            tally.expect(
                grad is not None,
                f"without edges parameter {name} has no gradient, which distributed training waits for; it should be zero: "
                "compute with the empty tensors and do not return early",
            )
        if grad is not None:
            tally.expect(
                bool(grad.isfinite().all()), f"without edges the gradient of {name} is not finite"
            )


def duplicate_edges(subject: Subject, tally: Tally) -> None:
    """An edge that occurs twice is one pair whose attributes are summed: splitting an edge's attributes over two edges changes
    nothing. Whole numbers, categories for example, are no sums: of them the order of such edges has no effect, or a ValueError refuses
    them.
    """
    subject.need_attention("and a convolution may count every edge")
    graph = subject.graph()
    subject.need_edge_list(graph)
    attributes = graph.attributes()
    num_edges = graph.index.size(1)
    twice = [0, 3, 4]
    whole = [n for n, v in attributes.items() if not v.is_floating_point()]
    if whole:
        _expect_categories(subject, tally, graph, whole)
        return
    split = graph.choose(torch.tensor([*range(num_edges), *twice]))
    share = torch.ones(num_edges + len(twice))
    share[twice], share[num_edges:] = 0.25, 0.75
    parts = {n: (split.fields[n].t() * share).t().contiguous() for n in attributes}
    layer = subject.layer()
    tally.close(
        subject.rows(layer, split.with_fields(**parts)),
        subject.rows(layer, graph),
        "duplicate edges are not one pair with their attributes summed (edges.coalesce does it"
        + (f"; attributes: {', '.join(parts)})" if parts else ")"),
    )


def _expect_categories(subject: Subject, tally: Tally, graph: SmallGraph, whole: list[str]) -> None:
    """Edges that occur twice, with other values than before or with the largest ones: an answer comes that their order does not change."""
    values = graph.fields[whole[0]].reshape(graph.index.size(1), -1)
    first = torch.arange(len(values))
    most = values.sum(1).topk(3).indices
    others = torch.stack([(values != values[edge]).any(1).int().argmax() for edge in most])
    names = ", ".join(whole)
    remedy = (
        "edges.coalesce sums the numbers themselves: make a row for each edge first (an embedding, one_hot) and sum those, or refuse such "
        "edges with a ValueError"
    )
    layer = subject.layer()
    for of in (most, others):
        twice = graph.choose(torch.cat([first, most]))
        given = graph.choose(torch.cat([first, of])).attributes()
        twice = twice.with_fields(**given)
        try:
            one, two = (
                subject.rows(layer, twice.choose(order))
                for order in (torch.arange(len(first) + 3), torch.arange(len(first) + 3).flip(0))
            )
        except ValueError as refusal:
            tally.expect(str(refusal), "edges that occur twice are refused without a word")
            continue
        except Exception as error:
            raise Finding(
                f"edges that occur twice fail with {type(error).__name__}: {error}; {names} holds whole numbers, and {remedy}"
            ) from error
        tally.expect(bool(one.isfinite().all()), "rows are NaN or infinite where edges occur twice")
        tally.close(
            two,
            one,
            f"where edges occur twice, with different values of {names}, the order of the edges changes the rows; {remedy}",
        )


def edge_order(subject: Subject, tally: Tally) -> None:
    """The order of the edges has no effect, as long as the attributes are in the same order."""
    graph = subject.graph()
    subject.need_edge_list(graph)
    layer = subject.layer()
    rows = subject.rows(layer, graph)
    num_edges = graph.index.size(1)
    with seeded(1):
        orders = [torch.arange(num_edges).flip(0), torch.randperm(num_edges)]
    for order in orders:
        tally.close(
            subject.rows(layer, graph.choose(order)),
            rows,
            "the same edges in another order, attributes with them, give other rows; pairs are sorted, so attributes have to be "
            "brought into their order by edges.coalesce",
        )


def node_order(subject: Subject, tally: Tally) -> None:
    """The numbering of the nodes has no effect: where they stand in another order, each has the row that it had."""
    graph = subject.graph()
    subject.need_edges(graph)
    others = [n for n in graph.fields if n not in graph.attributes()]
    if others:
        raise NotApplicable(
            f"what becomes of {', '.join(others)} where nodes have other numbers is not known"
        )
    layer = subject.layer()
    rows = subject.rows(layer, graph)
    with seeded(2):
        random = [torch.randperm(n) for n in graph.num_nodes]
    for src, dst in (tuple(torch.arange(n).flip(0) for n in graph.num_nodes), random):
        # Within one node type both ends are the same rows.
        orders = (src, src) if subject.is_within else (src, dst)
        tally.close(
            subject.rows(layer, graph.renumbered(orders)),
            rows[orders[1]],
            "the same graph with its nodes in another order gives other rows: something follows from the numbers of nodes or the order of "
            "the pairs (an edge to a higher number, the first source of a target); what is to count has to be in a field or in x",
        )


def isolated_nodes(subject: Subject, tally: Tally) -> None:
    """Nodes without edges get finite rows and gradients (attention: zero rows) and do not change the rows of others."""
    graph = subject.graph()
    subject.need_edges(graph)
    more = graph.with_isolated_nodes()
    layer = subject.layer()
    call = subject.call(layer, more)
    leaf = call["x_dict"][subject.edge_type[0]].requires_grad_()
    rows = subject.rows(layer, call=call)
    tally.expect(bool(rows.isfinite().all()), "rows are NaN or infinite where nodes have no edges")
    (grad,) = torch.autograd.grad(rows.square().sum(), [leaf])
    tally.expect(
        bool(grad.isfinite().all()),
        "the gradient of x is NaN or infinite where nodes have no edges",
    )
    if not subject.gives_messages:
        edges, _ = subject.pairs_and_bias(layer, call)
        tally.expect(
            bool((rows[~_has_pair(edges)] == 0).all()),
            "targets without a pair get rows that are not zero",
        )
        src, dst = more.num_nodes
        new = (edges.row == dst - 1) | (edges.col == src - 1)
        if bool((new & ~((edges.row == dst - 1) & (edges.col == src - 1))).any()):
            raise NotApplicable("nodes without edges are paired with others")
    tally.close(
        rows[:-1],
        subject.rows(layer, graph),
        "a further node without edges changes the rows of others",
    )


def bipartite(subject: Subject, tally: Tally) -> None:
    """Between two node types of different sizes, more sources or more targets, each target has its row and the pairs fit."""
    for num_nodes in ((9, 4), (4, 9)):
        layer, graph = subject.layer(), subject.graph(num_nodes=num_nodes)
        call = subject.call(layer, graph)
        rows = subject.rows(layer, call=call)
        tally.expect(
            tuple(rows.shape) == (num_nodes[1], OUT),
            f"with {num_nodes[0]} sources and {num_nodes[1]} targets rows are {list(rows.shape)}",
        )
        tally.expect(bool(rows.isfinite().all()), "rows are NaN or infinite")
        if not subject.gives_messages:
            edges, bias = subject.pairs_and_bias(layer, call)
            wanted = dense_rows(layer.convs[subject.edge_type], graph.x, edges, bias)
            tally.close(
                rows.double(),
                wanted,
                "rows differ from dense attention with the kind's pairs and bias",
            )


def batch(subject: Subject, tally: Tally) -> None:
    """A batch of graphs gives what each graph gives alone: nothing leaks between graphs, one without edges included."""
    graphs = [subject.graph(seed=21), subject.graph(seed=22), subject.graph(seed=23).choose(_NONE)]
    if not any(
        n.endswith("_mask") for n in graphs[0].structure
    ):  # masks are stacked, so sizes agree
        sizes = (6, 6) if subject.is_within else (6, 8)
        graphs[1] = subject.graph(seed=22, num_nodes=sizes)
    layer = subject.layer()
    together = layer.collect(Batch.from_data_list([graph.data() for graph in graphs]))
    rows = subject.rows(layer, call=together).split([graph.num_nodes[1] for graph in graphs])
    for number, (graph, part) in enumerate(zip(graphs, rows, strict=True)):
        tally.close(
            part,
            subject.rows(layer, graph),
            f"graph {number} of a batch gets other rows than alone: something leaks between graphs, or is computed over all of "
            "them (a mean, a largest value)",
        )


def padding(subject: Subject, tally: Tally) -> None:
    """A batch of graphs with padding rows (`mask`), which the edges' numbering leaves out, gives what each graph gives alone and
    without them.
    """
    graphs = [subject.graph(seed=seed) for seed in (24, 25)]
    subject.need_edges(graphs[0])
    more = ((2, 2), (2, 2)) if subject.is_within else ((2, 1), (2, 1))
    padded = [graph.with_padding(rows) for graph, rows in zip(graphs, more, strict=True)]
    layer = subject.layer()
    together = layer.collect(Batch.from_data_list([graph.data() for graph in padded]))
    rows = subject.rows(layer, call=together).split([graph.num_nodes[1] for graph in padded])
    for number, (graph, part) in enumerate(zip(graphs, rows, strict=True)):
        tally.close(
            part[: graph.num_nodes[1]],
            subject.rows(layer, graph),
            f"graph {number} of a batch with padding rows gets other rows than alone: there the edges count the nodes alone, and pairs "
            "the rows of x with the padding. inputs.edges_from_index translates a field; an index of your own needs "
            "inputs.rows(index). Padding rows are not inputs.src.alive and not inputs.dst.alive",
        )


def copies(subject: Subject, tally: Tally) -> None:
    """Copies of one graph that share its edges (`x` of shape `[B, N, F]`) give what each gives alone. Where each has deleted nodes of
    its own they do, too, or are refused with a ValueError.
    """
    subject.need_attention("and PyG's convolutions take x of shape [N, F]")
    layer, graph = subject.layer(), subject.graph()
    call = subject.call(layer, graph)
    with seeded(4):
        others = {t: torch.randn_like(x) for t, x in call["x_dict"].items()}
    both = {t: torch.stack([x, others[t]]) for t, x in call["x_dict"].items()}
    rows = subject.rows(layer, call={**call, "x_dict": both})
    for place, x_dict in enumerate((call["x_dict"], others)):
        alone = subject.rows(layer, call={**call, "x_dict": x_dict})
        tally.close(rows[place], alone, f"copy {place} of a graph gets other rows than alone")
    dead = {t: torch.arange(x.size(1)) == torch.tensor([[1], [3]]) for t, x in both.items()}
    shape = "where graphs are copies, inputs.src.alive and inputs.dst.alive are [B, N]"
    try:
        rows = subject.rows(layer, call={**call, "x_dict": both, "pert_mask_dict": dead})
    except ValueError:
        return
    except Exception as error:
        raise Finding(
            f"copies of a graph of which each has deleted nodes of its own fail with {type(error).__name__}: {error}; {shape}. The "
            "copies share pairs and bias, so raise a ValueError where these would differ"
        ) from error
    for place, x_dict in enumerate((call["x_dict"], others)):
        marked = {t: mask[place] for t, mask in dead.items()}
        alone = subject.rows(layer, call={**call, "x_dict": x_dict, "pert_mask_dict": marked})
        tally.close(
            rows[place],
            alone,
            f"copy {place} of a graph, with deleted nodes of its own, gets other rows than alone: {shape}, but the copies share pairs "
            "and bias; raise a ValueError where these would differ",
        )


def deleted_nodes(subject: Subject, tally: Tally) -> None:
    """Deleted nodes (`pert_mask`) neither send nor receive: the others get what they get in the graph without them."""
    graph = subject.graph()
    subject.need_edges(graph)
    num_src, num_dst = graph.num_nodes
    src, dst = torch.arange(num_src) == 1, torch.arange(num_dst) == 3
    dead = (src | dst, src | dst) if subject.is_within else (src, dst)
    layer = subject.layer()
    rows = subject.rows(layer, graph.with_deleted(dead))
    without = graph.without_nodes(dead)
    tally.close(
        rows[~dead[1]],
        subject.rows(layer, without),
        "rows are not those of the graph without the deleted nodes; inputs.src.alive and inputs.dst.alive mark the living "
        "([N]; [B, N] where graphs are copies of one; None where all are alive)",
    )
    tally.expect(bool((rows[dead[1]] == 0).all()), "deleted targets get rows that are not zero")


def alternatives(subject: Subject, tally: Tally) -> None:
    """Where any one of several fields with the edges will do (`edge_index` or `adj_mask`), each gives the same rows."""
    graph = subject.graph()
    layer = subject.layer()
    rows = subject.rows(layer, graph)
    compared = False
    for names in subject.choices:
        first, *others = names
        if first not in graph.structure:
            continue
        for other in filter(is_structure, others):
            compared = True
            structure = [other if name == first else name for name in graph.structure]
            tally.close(
                subject.rows(layer, graph.with_structure(structure)),
                rows,
                f"the same edges give other rows as '{other}' than as '{first}'",
            )
    if not compared:
        raise NotApplicable("no field with the edges can stand for another")


def shared_pairs(subject: Subject, tally: Tally) -> None:
    """`bias` works with pairs that another layer's term found, as in a stack, where pairs are found once for all blocks."""
    subject.need_attention("and has no pairs")
    one, two = subject.module(subject.layer()), subject.module(subject.build())
    assert isinstance(one, EdgeTerm) and isinstance(two, EdgeTerm)
    call = subject.call(subject.build(), subject.graph())
    inputs = subject.inputs(call)
    edges = one.pairs(inputs)
    try:
        bias = two.bias(inputs, edges)
    except Exception as error:
        raise Finding(
            f"bias() of a second layer fails with the pairs of the first: {type(error).__name__}: {error}. All that bias() needs "
            "has to be in inputs and edges, not in self; edges.derived may keep what follows from the edges alone"
        ) from error
    tally.expect(
        (bias is None) == ("bias" not in subject.kind.produces), "bias() of a second layer is None"
    )
    if bias is None:
        return
    two.load_state_dict(one.state_dict())
    tally.close(
        two.bias(inputs, edges),  # type: ignore[arg-type]
        one.bias(inputs, edges),  # type: ignore[arg-type]
        "two layers with the same parameters give the same pairs another bias",
    )


def _has_pair(edges: EdgeSet) -> Tensor:
    """`[num_queries]` bool."""
    found = torch.zeros(edges.num_queries, dtype=torch.bool)
    found[edges.row] = True
    return found
