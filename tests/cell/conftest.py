from __future__ import annotations

import os

import numpy as np
import pytest
from cell.networks import YEAST, toy_network
from cell.tiny import TEXT, tiny_config
from scipy.sparse import csc_array

from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork, load_model


@pytest.fixture(scope="session")
def textbook_model():
    return load_model("textbook")


@pytest.fixture(scope="session")
def textbook(textbook_model):
    return MetabolicNetwork.from_cobra(textbook_model)


@pytest.fixture(scope="session")
def ijo1366():
    return MetabolicNetwork.from_cobra(load_model("iJO1366"))


@pytest.fixture(scope="session")
def yeast():
    if not YEAST.exists():
        if os.environ.get("PYG_NSA_YEAST"):
            pytest.fail(f"PYG_NSA_YEAST names a folder without {YEAST.name}: {YEAST.parent}")
        pytest.skip(
            f"needs {YEAST.name} in ../shared/data/yeast, or in the folder that PYG_NSA_YEAST names"
        )
    with np.load(YEAST) as z:
        clauses: list[list[tuple[int, ...]]] = [[] for _ in z["rxns"]]
        for k, reaction in enumerate(z["clause_rxn"]):
            members = z["clause_gene"][z["clause_ptr"][k] : z["clause_ptr"][k + 1]]
            clauses[reaction].append(tuple(sorted(int(g) for g in members)))
        shape = (len(z["mets"]), len(z["rxns"]))
        return MetabolicNetwork(
            model_id="yeast-GEM",
            genes=tuple(z["genes"].tolist()),
            reactions=tuple(z["rxns"].tolist()),
            metabolites=tuple(z["mets"].tolist()),
            stoichiometry=csc_array((z["S_data"], z["S_indices"], z["S_indptr"]), shape=shape),
            lower=z["lb"],
            upper=z["ub"],
            objective=z["c"],
            clauses=tuple(map(tuple, clauses)),
        )


@pytest.fixture(scope="session")
def toy():
    """Uptake of A; A -> B by isozymes (a and b) or c, reversible; B -> C by d; C drained as growth."""
    return toy_network(
        {
            "uptake": {"A": 1.0},
            "ab": {"A": -1.0, "B": 2.0},
            "bc": {"B": -1.0, "C": 1.0},
            "growth": {"C": -1.0},
        },
        {"ab": [{"a", "b"}, {"c"}], "bc": [{"d"}]},
        {"ab": (-10.0, 10.0)},
    )


@pytest.fixture(scope="session")
def cell_cache(tmp_path_factory):
    """Graphs and labels, for all tests that train."""
    return tmp_path_factory.mktemp("cell-cache")


@pytest.fixture(scope="session")
def tiny_run(cell_cache, tmp_path_factory):
    """The folder of a finished run of seconds; tests must not change it."""
    from pyg_nsa.cell.training.run import run_training

    folder = tmp_path_factory.mktemp("tiny-run")
    config = tiny_config(folder)
    run_training(config, folder / "run", cache=cell_cache, config_text=TEXT, progress=False)
    return folder / "run"
