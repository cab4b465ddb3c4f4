"""What can be made on credit: between what needs none and what linear programs allow, by examples, and against labels."""

import numpy as np
import pytest
import torch
from cell.naive_scope import naive_scope
from cell.random_network import pathways, random_network
from cell.starved_growth import growth_starves
from scipy.optimize import linprog

from pyg_nsa.cell.labels.deletions import simulate_singles
from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.loans import Loans
from pyg_nsa.cell.network.metabolic_model import load_model


def numbers(mask):
    return set(mask.nonzero().view(-1).tolist())


def shut(graph):
    """Nodes that are blocked in the wildtype."""
    return numbers(torch.from_numpy(BlockedReactions(graph).open == 0))


def network(seed):
    """A random network in which isozymes, and the two directions of a reaction, agree on amounts."""
    graph = random_network(seed, metabolites=20, least=3)
    relation = graph["reaction", "rmr", "metabolite"]
    node, metabolite = relation.edge_index
    amount = (7 * graph["reaction"].reaction_index[node] + 3 * metabolite) % 4 + 0.5
    relation.stoichiometry = relation.stoichiometry.sign() * amount
    return graph


def makable(graph, given, dead):
    """Metabolites of which more can be made than is used, if nothing but ``given`` ever runs short: by linear programs."""
    relation, count = graph["reaction", "rmr", "metabolite"], graph["reaction"].num_nodes
    balance = np.zeros((graph["metabolite"].num_nodes, count))
    node, metabolite = relation.edge_index.numpy()
    np.add.at(balance, (metabolite, node), relation.stoichiometry.view(-1).numpy())
    kept = sorted(set(range(len(balance))) - given)
    bounds = [(0, 0 if v in dead else 1) for v in range(count)]
    found = set(given)
    for m in range(len(balance)):
        best = linprog(-balance[m], -balance[kept], np.zeros(len(kept)), bounds=bounds)
        if best.fun < -1e-7:
            found.add(m)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_what_is_there_can_be_made_and_what_needs_no_loan_is_there(seed):
    """Between two bounds: what follows without loans, and what the amounts allow at all."""
    graph = network(seed)
    loans = Loans(graph)
    given, closed = numbers(torch.from_numpy(loans.given)), shut(graph)
    count = graph["reaction"].num_nodes
    dead = torch.rand(6, count, generator=torch.Generator().manual_seed(seed)) < 0.08
    dead[0] = False
    starved, missing = loans(dead)
    assert starved.dtype == missing.dtype == torch.bool
    assert not starved[0].any() and not missing[0].any()
    ran, had = (torch.from_numpy(mask) for mask in (loans.runs, loans.there))
    for row, lost, removed in zip(starved, missing, dead, strict=True):
        runs, there = numbers(ran & ~row), numbers(had & ~lost)
        stopped = closed | numbers(removed)
        assert not runs & stopped
        assert there <= makable(graph, given, stopped)
        # To a fixed point: what does not run blocks no more, and without loans no less would run.
        still = set(range(count)) - runs
        mask = torch.zeros(1, count, dtype=torch.bool)
        mask[0, list(still)] = True
        assert numbers(BlockedReactions(graph)(mask)[0]) <= still
        least_runs, least_there = naive_scope(graph, given, still)
        assert least_runs <= runs and least_there <= there
        alone = loans(removed[None])  # a batch is its instances, and what is known does not change
        assert torch.equal(alone[0][0], row) and torch.equal(alone[1][0], lost)
        # Nor does what is given hide a mistake: without it, too, what is there can be made.
        nothing = np.zeros(len(had), bool)
        alive = loans._open & ~removed.numpy()
        _, there = loans._expand(nothing, alive)
        dead_or_shut = set(range(count)) - numbers(torch.from_numpy(alive))
        assert numbers(torch.from_numpy(there)) <= makable(graph, set(), dead_or_shut)
        again = Loans(graph)(removed[None])
        assert torch.equal(again[0][0], row) and torch.equal(again[1][0], lost)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_given_is_enough_and_not_too_much(seed):
    graph = network(seed)
    loans = Loans(graph)
    assert numbers(torch.from_numpy(loans.runs)) == set(range(graph["reaction"].num_nodes)) - shut(
        graph
    )
    for one in loans.given.nonzero()[0]:
        fewer = loans.given.copy()
        fewer[one] = False
        assert not loans._runs_enough(fewer)[0]


def test_the_random_networks_give_and_starve_something():
    given = more = lost = 0
    for seed in range(90):
        graph = network(seed)
        loans = Loans(graph)
        starved, missing = loans(torch.eye(graph["reaction"].num_nodes, dtype=torch.bool))
        given += int(loans.given.sum())
        more += int((starved.sum(dim=1) > 1).sum())
        lost += int(missing.any(dim=1).sum())
    assert given >= 5 and more > 150 and lost > 150


def test_a_long_way_round_keeps_a_product_there():
    """→ a → b → g →, and the long way a → c → d → b. Without a → b there is still b; without both there is none, and no growth."""
    graph, names = pathways(
        {"a": 1},
        {"a": -1, "b": 1},
        {"a": -1, "c": 1},
        {"c": -1, "d": 1},
        {"d": -1, "b": 1},
        {"b": -1},
    )
    loans = Loans(graph)
    assert not loans.given.any()
    dead = torch.zeros(2, 6, dtype=torch.bool)
    dead[:, 1] = True
    dead[1, 2] = True
    starved, missing = loans(dead)
    # Without both nothing takes a, so its source can't be in balance either.
    assert [numbers(row) for row in starved] == [{1}, {0, 1, 2, 3, 4, 5}]
    assert [{names[m] for m in numbers(row)} for row in missing] == [set(), {"a", "b", "c", "d"}]


def test_a_cycle_does_not_make_what_it_turns():
    """→ a → b → c → b, c →: without a → b the cycle may turn on what it borrows, but nothing leaves it."""
    graph, names = pathways(
        {"a": 1}, {"a": -1, "b": 1}, {"b": -1, "c": 1}, {"c": -1, "b": 1}, {"c": -1}, {"a": -1}
    )
    dead = torch.zeros(1, 6, dtype=torch.bool)
    dead[0, 1] = True
    stopped, unmade = Loans(graph)(dead)
    assert numbers(stopped[0]) == {1, 4}
    assert {names[m] for m in numbers(unmade[0])} == {"b", "c"}


def rest(*reactions, given=(), dead=()):
    """Names of what is there of a small network, of which nothing is balanced, without some of its reactions."""
    graph, names = pathways(*reactions)
    loans = Loans(graph)
    seeds = np.array([name in given for name in names])
    alive = np.array([v not in dead for v in range(len(reactions))])
    return {names[m] for m in loans._expand(seeds, alive)[1].nonzero()[0]}


HEXOKINASE = {"glc": -1, "atp": -1, "g6p": 1, "adp": 1}
RECOVERY = {"pep": -1, "adp": -1, "atp": 1, "pyr": 1}


def test_a_carrier_is_lent_before_it_is_made():
    """ADP is made back into ATP, so the step runs; ADP has paid, and neither carrier has been made."""
    assert rest({"glc": 1}, {"pep": 1}, HEXOKINASE, RECOVERY) == {"glc", "pep", "g6p", "pyr"}


def test_nothing_is_lent_that_is_not_paid_back():
    assert rest({"glc": 1}, {"pep": 1}, HEXOKINASE) == {"glc", "pep"}
    short = {"pep": -1, "adp": -2, "atp": 1, "pyr": 1}  # half of it comes back
    assert rest({"glc": 1}, {"pep": 1}, HEXOKINASE, short) == {"glc", "pep"}
    needs = {"pep": -1, "x": -1, "adp": -1, "atp": 1, "pyr": 1}  # and there is no x
    assert rest({"glc": 1}, {"pep": 1}, HEXOKINASE, needs) == {"glc", "pep"}


def test_one_product_pays_for_one_loan_only():
    """Both carriers would be paid with the same c."""
    step, one, other = {"a": -1, "b": -1, "c": 1, "d": 1}, {"c": -1, "a": 1}, {"c": -1, "b": 1}
    assert rest(step, one, other) == set()
    assert rest(step, one, {"d": -1, "b": 1}) == set()
    assert rest(step | {"e": 1}, one, {"d": -1, "b": 1}) == {"e"}


def test_the_other_direction_of_a_reaction_pays_nothing():
    graph, names = pathways({"a": -1, "b": 1, "x": 1}, {"b": -1, "a": 1, "x": -1})
    nothing = np.zeros(3, bool)
    graph["reaction"].reaction_index = torch.tensor([0, 0])
    graph["reaction"].direction = torch.tensor([1, -1])
    assert not Loans(graph)._expand(nothing, np.ones(2, bool))[1].any()


GLUTAMINE = {"glu": -1, "n": -1, "gln": 1}
AMMONIA = ({"n": 1}, {"akg": 1}, {"oaa": 1}, GLUTAMINE)


def test_what_gives_back_more_than_it_borrowed_is_made():
    """Glutamate synthase makes two of one, by glutamine; asparagine synthetase, or transaminases, make one of one."""
    two = {"gln": -1, "akg": -1, "glu": 2}
    one = {"gln": -1, "oaa": -1, "glu": 1, "asn": 1}
    assert rest(*AMMONIA, two) == {"n", "akg", "oaa", "glu", "gln"}
    assert rest(*AMMONIA, one) == {"n", "akg", "oaa", "asn"}


GLYOXYLATE = (
    {"ac": 1},
    {"oaa": -1, "ac": -1, "cit": 1},
    {"cit": -1, "glx": 1, "succ": 1},
    {"succ": -1, "mal": 1},
    {"mal": -1, "oaa": 1, "nadh": 1},
)


def test_a_loan_may_be_paid_back_in_many_steps():
    steps = {"adp": -1, "x": 1, "y": 1}, {"x": -1, "z": 1}, {"pep": -1, "z": -1, "atp": 1}
    found = rest({"glc": 1}, {"pep": 1}, HEXOKINASE, *steps)
    assert found == {
        "glc",
        "pep",
        "g6p",
        "y",
    }  # what is left on the way is made, what comes back is not
    half = {"x": -2, "z": 1}
    assert rest({"glc": 1}, {"pep": 1}, HEXOKINASE, steps[0], half, steps[2]) == {"glc", "pep"}


def test_branches_pay_together():
    """A turn of the glyoxylate cycle makes two malates of an oxaloacetate, one by each branch; the citrate cycle makes one."""
    synthase = {"glx": -1, "ac": -1, "mal": 1}
    every = {"ac", "oaa", "cit", "glx", "succ", "mal", "nadh"}
    assert rest(*GLYOXYLATE, synthase) == every
    # One comes back: the cycle turns, and only what leaves it is made.
    assert rest(*GLYOXYLATE) == {"ac", "glx", "nadh"}
    short = {"succ": -3, "mal": 1}  # and not even one
    assert rest(*GLYOXYLATE[:3], short, *GLYOXYLATE[4:]) == {"ac"}
    thirds = {"succ": -3, "mal": 1}, {"glx": -3, "ac": -1, "mal": 2}
    assert rest(*GLYOXYLATE[:3], *thirds, *GLYOXYLATE[4:]) == {"ac", "nadh"}


def test_the_payer_that_nothing_else_needs_pays():
    """Of what a condensation makes, the free carrier loads the next unit, or the chain would have to be given up for it."""
    load, prime = {"acp": -1, "unit": 1}, {"acp": -1, "start": 1}
    condense = {"start": -1, "unit": -1, "chain": 1, "acp": 1}
    assert rest(load, prime, condense, {"chain": -1, "acp": 1, "lipid": 1}) == {"lipid"}
    assert rest(load, prime, condense) == set()


def test_two_reactions_pay_together():
    """Glycolysis: the ADP of one step is made back into ATP with half of what the step leads to, and the rest takes up sugar."""
    take, step = (
        {"glc": -1, "pep": -1, "f6p": 1, "pyr": 1},
        {"f6p": -1, "atp": -1, "fdp": 1, "adp": 1},
    )
    kinase = {"pep": -1, "adp": -1, "atp": 1, "pyr": 1}
    assert rest({"glc": 1}, take, step, {"fdp": -1, "pep": 2}, kinase) == {"glc", "pyr"}
    assert rest({"glc": 1}, take, step, {"fdp": -1, "pep": 1}, kinase) == {"glc"}
    assert rest({"glc": 1}, take, step, {"fdp": -1, "pep": 3}, kinase) >= {"pep", "fdp", "f6p"}


def test_who_pays_back_may_borrow_himself():
    """Adenylate kinase: AMP + ATP give 2 ADP, and those 2 ATP; so AMP pays for an ATP that a step has made AMP of."""
    step, kinase = {"r5p": -1, "atp": -1, "prpp": 1, "amp": 1}, {"amp": -1, "atp": -1, "adp": 2}
    found = rest({"r5p": 1}, {"pep": 1}, step, kinase, RECOVERY)
    assert found == {"r5p", "pep", "prpp", "pyr"}
    assert rest({"r5p": 1}, {"pep": 1}, step, RECOVERY) == {"r5p", "pep"}
    # A made AMP makes all of them.
    every = rest({"amp": 1}, {"pep": 1}, kinase, RECOVERY)
    assert every == {"amp", "pep", "atp", "adp", "pyr"}


def test_no_carrier_is_given_that_is_lent():
    graph, names = pathways({"glc": 1}, {"pep": 1}, HEXOKINASE, RECOVERY, {"g6p": -1}, {"pyr": -1})
    loans = Loans(graph)
    assert not loans.given.any() and loans.runs.all()
    assert {names[m] for m in loans.there.nonzero()[0]} == {"glc", "pep", "g6p", "pyr"}
    dead = torch.zeros(1, 6, dtype=torch.bool)
    dead[0, 3] = True
    starved, missing = loans(dead)
    assert {2, 3, 4, 5} <= numbers(starved[0]) and {names[m] for m in numbers(missing[0])} >= {
        "g6p",
        "pyr",
    }
    assert not loans(torch.zeros(0, 6, dtype=torch.bool))[0].numel()


def test_a_graph_has_one_object_for_all_who_share_it():
    graph, _ = pathways({"a": 1}, {"a": -1})
    loans = Loans.of(graph)
    assert Loans.of(graph) is loans
    assert Loans.of(pathways({"a": 1}, {"a": -1})[0]) is not loans


def test_nothing_has_to_be_given_for_growth():
    """What can't run in the wildtype is left out, unless the objective needs it."""
    reactions = (
        {"a": 1},
        {"a": -1, "b": 1},
        {"b": -1},
        {"x": -1, "y": 1},
        {"y": -1, "x": 1, "z": 1},
    )
    graph, names = pathways(*reactions, {"z": -1, "x": -1}, {"x": -1, "y": -1})
    assert Loans(graph).given.any()  # without an objective all has to run
    graph["reaction"].objective = torch.tensor([0, 0, 1.0, 0, 0, 0, 0])
    loans = Loans(graph)
    assert not loans.given.any() and {0, 1, 2} <= numbers(torch.from_numpy(loans.runs))
    assert not loans.runs[6]
    graph["reaction"].objective = torch.tensor([0, 0, 0, 0, 0, 0, 1.0])
    assert Loans(graph).given.any()


def stopped_and_lethal(model, limit=1e-6):
    """How many single deletions are lethal, stop growth, and both; and how many metabolites are given."""
    graph = build_graph(model, features=False, proxies=False)
    fitness = torch.from_numpy(simulate_singles(GrowthSimulator(model)).fitness)
    starved, lethal = growth_starves(graph, Loans.of), fitness < limit
    given = int(Loans.of(graph).given.sum())
    return int(lethal.sum()), int(starved.sum()), int((starved & lethal).sum()), given


def test_lethal_deletions_starve_growth_in_the_textbook_model():
    """All seven do, and no others, though nothing is given."""
    assert stopped_and_lethal(load_model("textbook")) == (7, 7, 7, 0)


@pytest.mark.slow
def test_lethal_deletions_of_ijo1366(ijo1366):
    """The figures of docs/design.md: growth stops in the 208 lethal single deletions, and in no others."""
    assert stopped_and_lethal(ijo1366) == (208, 208, 208, 0)


@pytest.mark.slow
def test_lethal_deletions_of_salmonella():
    """The figures of docs/comparison.md: growth stops in 156 of the 158 lethal single deletions, and in no others."""
    assert stopped_and_lethal(load_model("salmonella")) == (158, 156, 156, 0)


@pytest.mark.slow
def test_lethal_deletions_of_yeast(yeast):
    """The figures of docs/design.md: growth stops in 187 of the 192 lethal single deletions of yeast-GEM 9.0.2, and in no others."""
    assert stopped_and_lethal(yeast, 1e-3) == (192, 187, 187, 0)
