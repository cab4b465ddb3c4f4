"""Tests of the edge kind `recency_bias`."""

import math

import pytest
import torch
from pyg_nsa import BuildContext, EdgeSet, HeteroNSAConv, RelationInputs, default_registry
from pyg_nsa.testing import parametrize_with_checks
from torch_geometric.data import HeteroData

MEETS = ("person", "meets", "person")
# Persons 0 and 1 meet person 2 several times; the last edges are of the future and too old.
INDEX = torch.tensor([[0, 0, 1, 3, 3, 1], [2, 2, 2, 2, 4, 4]])
AGE = torch.tensor([1.0, 4.0, 2.5, -0.5, 0.0, 10.5])


def recent_edges(options, edge_index, num_nodes):
    """Ages inside of the window: the checks expect of every edge that it counts."""
    return {"age": options.max_age * torch.rand(edge_index.size(1))}


# The one place where this kind differs from what is usual, and why; `test_equals_a_loop_over_edges` has what it does instead.
EXPECTED = {
    "duplicate_edges": "several edges of a pair count by the age of each; ages are not summed"
}


@parametrize_with_checks(
    ["recency_bias"],
    expected_failures={"recency_bias": EXPECTED},
    options={"recency_bias": [{}, {"max_age": 30.0}]},
    make_fields={"recency_bias": recent_edges},
)
def test_conformance(check):
    """What pyg_nsa expects of every edge kind."""
    check()


def make_term(heads=3, max_age=10.0):
    """The module, with rates of its own for each head."""
    kind = default_registry().edge_kind("recency_bias")
    term = kind.build(BuildContext(edge_type=MEETS, heads=heads), kind.options(max_age=max_age))
    torch.nn.init.normal_(term.log_rate)
    return term


def bias_of(term, index=INDEX, age=AGE, num_nodes=5):
    """The bias as a dense `[target, source, head]`; minus infinity where nothing attends."""
    edges = EdgeSet.from_edge_index(index, num_nodes, num_nodes)
    bias = term.bias(RelationInputs(MEETS, None, None, {"age": age}), edges)
    dense = torch.full((num_nodes, num_nodes, bias.size(1)), -math.inf)
    dense[edges.row, edges.col] = bias
    return dense


def test_equals_a_loop_over_edges():
    """The sum over the edges of each pair, written out."""
    term = make_term()
    got = bias_of(term)
    for target in range(5):
        for source in range(5):
            for head, rate in enumerate(term.log_rate.exp().tolist()):
                weight = 0.0
                for (j, i), age in zip(INDEX.t().tolist(), AGE.tolist(), strict=True):
                    if (j, i) == (source, target) and 0 <= age <= 10:
                        weight += math.exp(-rate * age / 10)
                wanted = math.log(weight) if weight > 0 else -math.inf
                assert got[target, source, head].item() == pytest.approx(wanted, abs=1e-5)


def test_heads_start_with_different_memories():
    """Otherwise they would have the same gradients for their rates."""
    kind = default_registry().edge_kind("recency_bias")
    for heads in (1, 4):
        term = kind.build(BuildContext(edge_type=MEETS, heads=heads), kind.options())
        rates = term.log_rate.exp()
        assert rates[0] == 1
        assert (rates.diff() > 0).all()


def test_gradients_are_finite_for_all_ages():
    """Far in the future, far in the past, and exactly at the ends of the window, which count."""
    term = make_term()
    with torch.no_grad():
        term.log_rate[0] = 50.0  # a rate that float32 cannot follow
    age = torch.tensor([-1e30, 1e30, 0.0, 10.0, 10.0, 5.0], requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way, either
        bias = bias_of(term, age=age)
        counting = bias[[2, 2, 4, 4], [1, 3, 3, 1]]
        assert counting.isfinite().all()
        counting.sum().backward()
    assert bias.isfinite().sum() == counting.numel()
    assert term.log_rate.grad.isfinite().all()
    assert age.grad.isfinite().all()
    assert age.grad[:2].eq(0).all()


def graph(index, age):
    """A graph of five persons."""
    data = HeteroData()
    data["person"].x = torch.arange(20.0).view(5, 4).sin()
    data[MEETS].edge_index, data[MEETS].age = index, age
    return data


def test_edges_that_do_not_count_change_nothing():
    """A layer gives the same rows as without them: nothing leaks from the future."""
    torch.manual_seed(0)
    spec = {"kind": "recency_bias", "options": {"max_age": 10}}
    conv = HeteroNSAConv({MEETS: spec}, hidden_channels=8, heads=2)
    counts = (AGE >= 0) & (AGE <= 10)
    whole, recent = graph(INDEX, AGE), graph(INDEX[:, counts], AGE[counts])
    out = conv(**conv.collect(whole))["person"]
    torch.testing.assert_close(out, conv(**conv.collect(recent))["person"])
    # But an edge that counts does change something.
    fewer = graph(INDEX[:, 1:], AGE[1:])
    assert not torch.allclose(out[2], conv(**conv.collect(fewer))["person"][2])


def test_a_layer_from_a_configuration(tmp_path):
    """As in the README."""
    file = tmp_path / "nsa.yaml"
    file.write_text("""\
hidden_channels: 16
edges:
  - edge_type: [person, meets, person]
    kind: recency_bias
    options: {max_age: 30}
""")
    conv = HeteroNSAConv.from_config(file)
    out = conv(**conv.collect(graph(INDEX, AGE)))["person"]
    assert out.shape == (5, 16)
    out.square().sum().backward()
    rates = [p for name, p in conv.named_parameters() if name.endswith("log_rate")]
    assert rates and all(p.grad.abs().sum() > 0 for p in rates)


def test_the_unit_of_time_does_not_matter():
    """Days or seconds: only the ratio to `max_age` counts."""
    torch.manual_seed(0)
    days = make_term(max_age=10.0)
    seconds = make_term(max_age=10.0 * 86_400)
    seconds.load_state_dict(days.state_dict())
    torch.testing.assert_close(bias_of(days), bias_of(seconds, age=AGE * 86_400))


def test_wrong_inputs():
    """Each message says what was expected."""
    kind = default_registry().edge_kind("recency_bias")
    with pytest.raises(ValueError, match=r"max_age\n.*greater than 0"):
        kind.options(max_age=0)
    assert kind.missing(kind.options(age="days"), {"edge_index"}) == [("days",)]
    with pytest.raises(
        ValueError, match=r"'age' of edge type .* must have shape \[E\], .*\[6, 2\]"
    ):
        bias_of(make_term(), age=torch.ones(6, 2))
