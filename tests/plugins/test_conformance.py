"""Every first-party edge kind and operator under the public conformance kit."""

import importlib.metadata

import torch

from pyg_nsa import EdgeKind, Operator, default_registry
from pyg_nsa.testing import parametrize_with_checks

KINDS = {
    "adjacency_mask": [{}, {"symmetrize": True, "self_loops": True}, {"source": "adj_mask"}],
    "all_pairs": [{}],
    "distance_bias": [{"max_distance": 2}, {"directed": False, "self_loops": True}],
    "edge_attr_bias": [{}, {"edge_attr": "edge_weight", "self_loops": True}],
    "incidence_mask": [{}, {"self_loops": True}, {"source": "inc_mask", "symmetrize": True}],
    "pyg_conv": [
        {"args": {"edge_dim": 5}},
        {"conv": "SAGEConv"},
        {"conv": "GCNConv", "fields": ["edge_weight"]},
        {"conv": "TransformerConv", "args": {"heads": 4}},
    ],
    "stoichiometry_bias": [{}, {"symmetrize": True, "self_loops": True, "edge_attr": "flux"}],
}
OPERATORS = {
    "hetero_conv": [{}, {"conv": "SAGEConv"}],
    "hetero_nsa": [{}],
    "hgt": [{}],
}


def five_columns(options, edge_index, num_nodes):
    return {"edge_attr": torch.randn(edge_index.size(1), 5)}


@parametrize_with_checks(
    [*KINDS, *OPERATORS],
    {
        "distance_bias": {
            "compiles_pairs": "how many pairs are within reach follows from the edges, and a graph's sizes cannot"
        }
    },
    options={**KINDS, **OPERATORS},
    make_fields={"edge_attr_bias": five_columns, "pyg_conv": five_columns},
)
def test_conformance(check):
    check()


def test_no_first_party_plugin_is_left_out():
    entries = importlib.metadata.distribution("pyg-nsa").entry_points.select(group="pyg_nsa")
    names = {entry.name for entry in entries}
    assert names == set(KINDS) | set(OPERATORS)
    registry = default_registry()
    registry.load_all()
    declared = {r.name: r.declaration for r in registry.records() if r.dist == "pyg-nsa"}
    for wanted, listed in ((EdgeKind, KINDS), (Operator, OPERATORS)):
        assert {n for n, d in declared.items() if isinstance(d, wanted)} == set(listed)
