"""What a deletion stops, by name."""

import pytest

from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.metabolic_model import load_model
from pyg_nsa.cell.network.stopped import what_stops


@pytest.fixture(scope="module")
def textbook():
    return build_graph(load_model("textbook"), features=False)


def test_reactions_are_told_apart_by_why(textbook):
    found = what_stops(textbook, ["b0767"])
    assert found["enzymes_lost"] == ["PGL"] and {"G6PDH2r", "GND"} <= set(found["blocked"])


def test_one_of_two_isozymes_stops_nothing(textbook):
    nothing = {"enzymes_lost": [], "blocked": [], "missing": [], "growth": []}
    assert what_stops(textbook, ["b1723"]) == nothing
    assert what_stops(textbook, []) == nothing
    assert what_stops(textbook, ["b1723", "b3916"])["enzymes_lost"] == ["PFK"]


def test_what_can_not_be_made_is_named_and_whether_growth_needs_it(textbook):
    """Citrate synthase: no citrate, nor what the cycle makes of it."""
    found = what_stops(textbook, ["b0720"])
    assert found["enzymes_lost"] == ["CS"]
    assert {"cit_c", "icit_c", "akg_c"} <= set(found["missing"])
    assert found["growth"] == ["Biomass_Ecoli_core"]
    # Without a way out of the cell: acetate, which growth does not need.
    assert what_stops(textbook, ["b2492", "b0904"])["growth"] == []


def test_without_directions_or_an_objective_less_is_known(textbook):
    other = textbook.clone()
    del other["reaction"].objective
    assert "growth" not in what_stops(other, ["b0720"])
    del other["reaction"].direction
    assert what_stops(other, ["b0720"]) == {}
