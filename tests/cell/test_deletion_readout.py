"""What a deletion touches, against loops over the graph; and the parts of the reading."""

import copy

import pytest
import torch
from cell.naive_blocked import naive_blocked
from cell.naive_scope import naive_scope
from torch.nn import functional as F

from pyg_nsa.cell.data.batch import Perturbation, PerturbationCollate
from pyg_nsa.cell.models.deletion_readout import DeletionReadout
from pyg_nsa.cell.models.epistasis import Epistasis
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.loans import Loans
from pyg_nsa.cell.network.metabolic_model import load_model
from pyg_nsa.cell.network.scope import Scope

TYPES = ["gene", "reaction", "metabolite"]


@pytest.fixture(scope="module")
def graph():
    return build_graph(load_model("textbook"), features=["degree", "isozymes"])


def make_batch(graph, *deletions):
    items = [
        Perturbation(i, torch.tensor(genes, dtype=torch.long), torch.zeros(2))
        for i, genes in enumerate(deletions)
    ]
    return PerturbationCollate(graph)(items)


def make_rows(graph, channels=4):
    generator = torch.Generator().manual_seed(0)
    return {t: torch.randn(graph[t].num_nodes, channels, generator=generator) for t in TYPES}


def width(readout):
    """Columns of a reading before they are compared, without those of growth."""
    return (readout.out_channels - readout.growth_channels) // 3


def scopes(graph, dead):
    """Without and with the removed reaction nodes."""
    scope = Scope(graph)
    given = set(scope.given.nonzero()[0].tolist())
    shut = {v for v in range(graph["reaction"].num_nodes) if not scope.runs[v]}
    return naive_scope(graph, given, shut), naive_scope(graph, given, shut | dead)


def naive_shares(graph, genes):
    """Per node type and node: shares by name, from the definition."""
    dead_genes = set(genes)
    gpr = graph["gene", "gpr", "reaction"].edge_index.t().tolist()
    dead = {"gene": dead_genes, "reaction": {r for g, r in gpr if g in dead_genes}}
    found = {t: [dict() for _ in range(graph[t].num_nodes)] for t in TYPES}
    for t, nodes in dead.items():
        for v in nodes:
            found[t][v][f"{t} removed"] = 1.0
    for source, name, target in graph.edge_types:
        if source not in dead:
            continue
        sources = {}
        for u, v in graph[source, name, target].edge_index.t().tolist():
            sources.setdefault(v, set()).add(u)
        for v, all_of_them in sources.items():
            lost = all_of_them & dead[source]
            if lost:
                found[target][v][f"{name} of {source}"] = len(lost) / len(all_of_them)
    for v in naive_blocked(graph, dead["reaction"]):
        found["reaction"][v]["blocked"] = 1.0
    (runs, there), (still, left) = scopes(graph, dead["reaction"])
    for v in runs - still:
        found["reaction"][v]["starved"] = 1.0
    for m in there - left:
        found["metabolite"][m]["missing"] = 1.0
    mask = torch.zeros(1, graph["reaction"].num_nodes, dtype=torch.bool)
    mask[0, list(dead["reaction"])] = True
    stopped, unmade = (lost[0].nonzero().view(-1).tolist() for lost in Loans(graph)(mask))
    for v in stopped:
        found["reaction"][v]["stopped"] = 1.0
    for m in unmade:
        found["metabolite"][m]["unmade"] = 1.0
    index = graph["reaction"].reaction_index.tolist()
    for v, reaction in enumerate(index):
        members = {u for u, other in enumerate(index) if other == reaction}
        if members & dead["reaction"]:
            found["reaction"][v]["isozyme of reaction"] = len(members & dead["reaction"]) / len(
                members
            )
    return found


@pytest.mark.parametrize("genes", [[5], [7, 30], [0, 1, 2, 3, 60, 99], [24], []])
def test_a_reading_is_what_its_definition_says(graph, genes):
    torch.manual_seed(0)
    readout = DeletionReadout(graph, TYPES, 4, 6, ["sum", "max"])
    rows = make_rows(graph)
    got = readout(rows, graph, make_batch(graph, [9], genes)).together[1]
    shares, parts = naive_shares(graph, genes), []
    for t in TYPES:
        names = [f"{t} {n}" if n == "removed" else n for n in readout.columns[t]]
        units = {}
        for v in range(graph[t].num_nodes):
            if shares[t][v]:
                s = torch.tensor([shares[t][v].get(n, 0.0) for n in names])
                s = torch.cat([s, (s > 0.9999).float()])
                known = torch.cat([rows[t][v], graph[t].x[v]])
                gate = readout.gate[t](s)
                response = readout.outer[t](F.gelu(readout.context[t](known)) * gate)
                # A reaction's isozymes are one reaction.
                name, _, direction = graph[t].node_ids[v].rpartition("|")
                unit = (name.split("|")[0], direction) if t == "reaction" else v
                units.setdefault(unit, []).append(response)
        means = [torch.stack(rows_of).mean(0) for rows_of in units.values()]
        stacked = torch.stack(means) if means else torch.zeros(1, 6)
        parts += [stacked.sum(0), stacked.max(0).values]
        if t == "reaction":
            (node,) = (graph[t].objective > 0).nonzero().view(-1).tolist()
            growth = torch.tensor([shares[t][node].get(n, 0.0) for n in names])
    wanted = torch.cat(parts)
    at = 3 * width(readout)
    torch.testing.assert_close(got[at : at + growth.numel()], growth)
    torch.testing.assert_close(got[: wanted.numel()], wanted, rtol=1e-4, atol=1e-4)


def test_isozymes_are_told_from_the_reaction_that_both_are_needed_for(graph):
    """b1723 and b3916 are the clauses of PFK: each alone leaves the other, both leave none."""
    ids = graph["gene"].node_ids
    a, b = ids.index("b1723"), ids.index("b3916")
    alone, both = naive_shares(graph, [a]), naive_shares(graph, [a, b])
    pfk = [v for v, name in enumerate(graph["reaction"].node_ids) if name.split("|")[0] == "PFK"]
    assert [alone["reaction"][v]["isozyme of reaction"] for v in pfk] == [0.5, 0.5]
    assert [both["reaction"][v]["isozyme of reaction"] for v in pfk] == [1.0, 1.0]
    torch.manual_seed(0)
    readout = DeletionReadout(graph, ["reaction"], 4, 6)
    read = readout(make_rows(graph), graph, make_batch(graph, [a], [b], [a, b])).together
    size = width(readout)
    joint, excess, product = (read[:, k * size : (k + 1) * size] for k in range(3))
    assert (excess[:2] == 0).all() and (product[:2] == 0).all()
    torch.testing.assert_close(excess[2], joint[2] - joint[0] - joint[1])
    assert excess[2].abs().max() > 1e-3
    torch.testing.assert_close(
        product[2], joint[0].asinh() * joint[1].asinh(), rtol=1e-4, atol=1e-6
    )


def test_a_reaction_with_isozymes_is_read_as_one_reaction(graph):
    """PFK with both of its two clauses lost, against the same reaction with one clause of the same rows."""
    ids, names = graph["gene"].node_ids, graph["reaction"].node_ids
    a, b = ids.index("b1723"), ids.index("b3916")
    torch.manual_seed(0)
    readout = DeletionReadout(
        graph, ["reaction"], 4, 6, ["sum", "max"], blocked=False, starved=False, loans=False
    )
    rows = make_rows(graph)
    first, second = (v for v, name in enumerate(names) if name.split("|")[0] == "PFK")
    rows["reaction"][second] = rows["reaction"][first]
    other = copy.copy(graph)
    other["reaction"].x = graph["reaction"].x.clone()
    other["reaction"].x[second] = other["reaction"].x[first]
    size = width(readout)
    got = readout(rows, other, make_batch(graph, [a, b])).together[0, :size]
    shares = naive_shares(graph, [a, b])["reaction"][first]
    s = torch.tensor(
        [shares.get(n, 0.0) for n in ("reaction removed", *readout.columns["reaction"][1:])]
    )
    s = torch.cat([s, (s > 0.9999).float()])
    known = torch.cat([rows["reaction"][first], other["reaction"].x[first]])
    alone = readout.outer["reaction"](
        F.gelu(readout.context["reaction"](known)) * readout.gate["reaction"](s)
    )
    torch.testing.assert_close(got, alone.repeat(2), rtol=1e-4, atol=1e-5)


def test_genes_that_share_nothing_have_no_excess(graph):
    """Far apart, so that no node is touched by both."""
    touched = [
        {(t, v) for t in TYPES for v, s in enumerate(naive_shares(graph, [g])[t]) if s}
        for g in range(40)
    ]
    a, b = next(
        (i, j)
        for i in range(len(touched))
        for j in range(i)
        if touched[i] and touched[j] and not touched[i] & touched[j]
    )
    readout = DeletionReadout(graph, TYPES, 4, 6)
    read = readout(make_rows(graph), graph, make_batch(graph, [b, a])).together[0]
    size = width(readout)
    assert read[size : 2 * size].abs().max() < 1e-4
    assert read[2 * size :].abs().max() > 0


def test_growth_is_read_as_it_is_and_compared(graph):
    """One loss of growth is a loss of either gene; two are one loss too many."""
    readout = DeletionReadout(graph, TYPES, 4, 6)
    starved = readout.columns["reaction"].index("starved")
    size = readout.growth_channels // 3
    assert size == len(readout.columns["reaction"])
    # Citrate synthase and glutamine synthetase: without either there is no growth. The last gene takes none of it.
    read = readout(
        make_rows(graph), graph, make_batch(graph, [24], [53], [24, 53], [5], [5, 24])
    ).together
    joint, excess, product = read[:, -3 * size :].split(size, dim=1)
    assert joint[:, starved].tolist() == [1, 1, 1, 0, 1]
    assert excess[:, starved].tolist() == [0, 0, -1, 0, 0]
    squeezed = torch.tensor(1.0).asinh()
    torch.testing.assert_close(
        product[:, starved], torch.tensor([0, 0, squeezed * squeezed, 0, 0]), rtol=0, atol=1e-6
    )


def test_without_an_objective_or_reactions_growth_is_not_read(graph):
    other = graph.clone()
    del other["reaction"].objective
    for readout in (
        DeletionReadout(other, TYPES, 4, 6),
        DeletionReadout(graph, ["gene", "metabolite"], 4, 6),
    ):
        assert readout.growth_channels == 0
        read = readout(make_rows(graph), other, make_batch(graph, [24], [5, 24])).together
        assert read.shape == (2, readout.out_channels)


def test_an_empty_batch_is_read(graph):
    readout = DeletionReadout(graph, TYPES, 4, 6)
    read = readout(make_rows(graph), graph, make_batch(graph))
    assert read.together.shape == (0, readout.out_channels)
    read.together.sum().backward()
    assert all(p.grad is not None for p in readout.parameters())


def test_nothing_to_read_is_named(graph):
    other = copy.copy(graph)
    with pytest.raises(
        ValueError, match=r"touches no node of type protein; it touches gene, reaction, metabolite"
    ):
        DeletionReadout(other, ["protein"], 4, 6)


def test_epistasis_is_what_is_left_of_a_product():
    module = Epistasis()
    with torch.no_grad():
        module.unit.fill_(0.5)
        module.scale.fill_(3.0)
    together = torch.tensor([0.2, -1.0, 0.3, 0.7])
    alone = torch.tensor([-0.4, 0.1, -2.0], requires_grad=True)
    nothing = torch.tensor(0.0)
    place, owner = torch.tensor([0, 2, 0, 1, 2]), torch.tensor([1, 1, 3, 3, 3])
    got = module(together, alone, nothing, place, owner)
    f = [1 + 0.5 * value for value in alone.tolist()]
    wanted = [0, 3 * (0.5 - f[0] * f[2]), 0, 3 * (1.35 - f[0] * f[1] * f[2])]
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=got.dtype))
    got.sum().backward()
    # The last gene alone has fitness 0: others still have a gradient where it is a factor, and so has it.
    assert f[2] == 0 and alone.grad[2] != 0 and alone.grad.isfinite().all()
    none = torch.empty(0, dtype=torch.long)
    assert (module(together, alone[:0], nothing, none, none) == 0).all()


def test_dropout_drops_rows_and_keeps_features(graph):
    torch.manual_seed(0)
    readout = DeletionReadout(graph, TYPES, 4, 6, dropout=0.9)
    rows, batch = make_rows(graph), make_batch(graph, [5])
    nothing = {t: torch.zeros_like(h) for t, h in rows.items()}

    def read(h):
        return readout(h, graph, batch).together

    assert (read(rows) - read(rows)).abs().max() > 1e-4
    torch.testing.assert_close(read(nothing), read(nothing))
    assert read(nothing).abs().max() > 1e-4
    readout.eval()
    torch.testing.assert_close(read(rows), read(rows))
