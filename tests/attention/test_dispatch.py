"""The device decides, and a failure of FlexAttention is never hidden."""

import sys
import types

import pytest
import torch

from pyg_nsa import EdgeSet, Segments, edge_attention, self_attention
from pyg_nsa.attention import dispatch, sdpa, sparse


@pytest.fixture
def broken_flex(monkeypatch):
    """CUDA as seen by the dispatcher, with a FlexAttention that fails and spies on everything else."""
    calls = []

    def fail(*args, **kwargs):
        calls.append("flex")
        raise RuntimeError("kernel failed to launch")

    def spy(name):
        return lambda *args, **kwargs: calls.append(name)

    flex = types.ModuleType("pyg_nsa.attention.flex")
    flex.edge_attention = flex.full_attention = fail
    monkeypatch.setitem(sys.modules, "pyg_nsa.attention.flex", flex)
    import pyg_nsa.attention

    monkeypatch.setattr(pyg_nsa.attention, "flex", flex, raising=False)
    monkeypatch.setattr(dispatch, "_is_cuda", lambda q: True)
    monkeypatch.setattr(sparse, "edge_attention", spy("sparse"))
    monkeypatch.setattr(sdpa, "full_attention", spy("sdpa"))
    return calls


def test_edge_attention_fails_with_the_original_error_and_one_added_line(broken_flex):
    q = torch.randn(4, 2, 8)
    edges = EdgeSet.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 4, 4)
    with pytest.raises(RuntimeError, match="^kernel failed to launch\n") as caught:
        edge_attention(q, q, q, edges)
    assert str(caught.value) == "kernel failed to launch"
    (note,) = caught.value.__notes__
    assert "\n" not in note
    assert "FlexAttention failed in edge_attention with q [4, 2, 8]" in note
    assert "2 pairs" in note
    assert broken_flex == ["flex"]


def test_self_attention_fails_with_the_original_error(broken_flex):
    q = torch.randn(4, 2, 8)
    with pytest.raises(RuntimeError, match="^kernel failed to launch\n") as caught:
        self_attention(q, q, q, Segments.single(4))
    assert len(caught.value.__notes__) == 1
    assert broken_flex == ["flex"]


def test_cpu_tensors_never_touch_flex(monkeypatch):
    import pyg_nsa.attention

    monkeypatch.setitem(sys.modules, "pyg_nsa.attention.flex", None)
    monkeypatch.delattr(pyg_nsa.attention, "flex", raising=False)
    q = torch.randn(4, 2, 8)
    edge_attention(q, q, q, EdgeSet.empty(4, 4))
    self_attention(q, q, q)


def test_other_devices_are_refused():
    q = torch.randn(4, 2, 8, device="meta")
    with pytest.raises(RuntimeError, match="runs on CUDA .* and on the CPU, not on 'meta'"):
        self_attention(q, q, q)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (dict(q=(5, 2, 8)), r"4 queries and 4 keys, but q has 5 rows and k has 4"),
        (
            dict(v=(4, 2, 4)),
            r"k and v of one shape; got q \[4, 2, 8\], k \[4, 2, 8\], v \[4, 2, 4\]",
        ),
        (dict(q=(4, 1, 8)), r"must agree in heads, head_dim and batch"),
        (dict(bias=(3, 2)), r"bias must have shape \[pairs, heads\] = \[2, 2\], got \[3, 2\]"),
    ],
)
def test_shapes_that_do_not_fit(change, match):
    shapes = dict(q=(4, 2, 8), k=(4, 2, 8), v=(4, 2, 8), bias=(2, 2)) | change
    t = {name: torch.randn(shape) for name, shape in shapes.items()}
    edges = EdgeSet.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 4, 4)
    with pytest.raises(ValueError, match=match):
        edge_attention(t["q"], t["k"], t["v"], edges, t["bias"])


def test_masks_must_be_boolean_and_fit():
    q = torch.randn(4, 2, 8)
    edges = EdgeSet.empty(4, 4)
    with pytest.raises(TypeError, match="alive_keys must be a boolean tensor, got torch.float32"):
        edge_attention(q, q, q, edges, alive_keys=torch.ones(4))
    with pytest.raises(ValueError, match=r"alive_queries must have shape \[4\], got \[5\]"):
        edge_attention(q, q, q, edges, alive_queries=torch.ones(5).bool())
    with pytest.raises(ValueError, match="dead rows are left out of the segments"):
        self_attention(q, q, q, alive=torch.ones(4).bool())
    with pytest.raises(ValueError, match="each entry of the batch is a graph"):
        self_attention(q[None], q[None], q[None], Segments.single(4))
