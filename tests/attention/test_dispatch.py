"""The device decides, and a failure of FlexAttention is never hidden."""

import sys

import pytest
import torch
from torch._dynamo.exc import Unsupported
from torch._inductor.exc import InductorError
from torch._inductor.lowering import lowerings
from torch._subclasses.fake_tensor import FakeTensorMode

from pyg_nsa import (
    EdgeSet,
    HeteroNSA,
    HeteroNSAConv,
    MaskedAttentionBlock,
    NSAConv,
    Segments,
    SelfAttentionBlock,
    edge_attention,
    self_attention,
)
from pyg_nsa.attention import dispatch, flex, full_attention, reference, sdpa, sparse

GENE, USES = ("gene", "near", "gene"), ("gene", "used_in", "reaction")
EDGE_INDEX = torch.tensor([[0, 1, 3], [1, 2, 3]])
X_DICT = {"gene": torch.randn(4, 6), "reaction": torch.randn(5, 6)}
EDGE_INDEX_DICT = {GENE: EDGE_INDEX, USES: EDGE_INDEX}
KINDS = {GENE: "adjacency_mask", USES: "incidence_mask"}


def edges():
    return EdgeSet.from_edge_index(EDGE_INDEX, 4, 4)


def rows(*shape):
    return torch.randn(*shape).requires_grad_()


def attend(dtype=torch.float32, **options):
    q = torch.randn(4, 2, 8).to(dtype)
    return edge_attention(q, q, q, edges(), **options)


def attend_in_copies():
    q, alive = rows(3, 4, 2, 8), torch.ones(3, 4, dtype=torch.bool)
    bias = rows(3, 2)
    return edge_attention(q, q, q, edges(), bias, alive_queries=alive, alive_keys=alive)


def attend_to_oneself(dtype=torch.float32):
    q = torch.randn(4, 2, 8).to(dtype)
    return self_attention(q, q, q, Segments.single(4))


def attend_to_oneself_in_copies():
    q = rows(3, 4, 2, 8)
    return self_attention(q, q, q, alive=torch.ones(3, 4, dtype=torch.bool))


def attend_fully():
    q, k = rows(4, 2, 8), rows(5, 2, 8)
    return full_attention(q, k, k)


#: Every way to attention, and the public function that it goes through.
WAYS = {
    "edge_attention": (attend, "edge_attention"),
    "edge_attention, copies": (attend_in_copies, "edge_attention"),
    "full_attention": (attend_fully, "full_attention"),
    "self_attention": (attend_to_oneself, "full_attention"),
    "self_attention, copies": (attend_to_oneself_in_copies, "full_attention"),
    "NSAConv": (lambda: NSAConv(6, 4, heads=2)(rows(4, 6), EDGE_INDEX), "edge_attention"),
    "NSAConv with edge_attr": (
        lambda: NSAConv(6, 4, heads=2, edge_dim=3)(rows(4, 6), EDGE_INDEX, rows(3, 3)),
        "edge_attention",
    ),
    "MaskedAttentionBlock": (
        lambda: MaskedAttentionBlock(8, heads=2)(rows(4, 8), EDGE_INDEX),
        "edge_attention",
    ),
    "SelfAttentionBlock": (lambda: SelfAttentionBlock(8, heads=2)(rows(4, 8)), "full_attention"),
    "SelfAttentionBlock with points": (
        lambda: SelfAttentionBlock(8, heads=2, induced_points=3)(rows(4, 8)),
        "full_attention",
    ),
    "HeteroNSA, M": (
        lambda: HeteroNSA(6, 8, KINDS, "M", heads=2)(X_DICT, EDGE_INDEX_DICT),
        "edge_attention",
    ),
    "HeteroNSA, S": (
        lambda: HeteroNSA(6, 8, KINDS, "S", heads=2)(X_DICT, EDGE_INDEX_DICT),
        "full_attention",
    ),
    "HeteroNSAConv": (
        lambda: HeteroNSAConv(KINDS, hidden_channels=8, in_channels=6, heads=2)(
            X_DICT, EDGE_INDEX_DICT
        ),
        "edge_attention",
    ),
    "HeteroNSAConv, SM": (
        lambda: HeteroNSAConv(KINDS, pattern="SM", hidden_channels=8, in_channels=6, heads=2)(
            X_DICT, EDGE_INDEX_DICT
        ),
        "full_attention",
    ),
}


@pytest.fixture
def others(monkeypatch):
    """CUDA as seen by the dispatcher; the names of other implementations that are called."""
    called = []

    def spy(module, name):
        def record(*args, **kwargs):
            called.append(f"{module.__name__}.{name}")
            raise AssertionError(called)

        monkeypatch.setattr(module, name, record)

    monkeypatch.setattr(dispatch, "_is_cuda", lambda q: True)
    spy(sparse, "edge_attention")
    spy(sdpa, "full_attention")
    spy(reference, "edge_attention")
    spy(reference, "full_attention")
    spy(torch.nn.functional, "scaled_dot_product_attention")
    spy(sparse, "_call")
    return called


class KernelError(Exception):
    """No error of Python's own, so that nothing could have made it but FlexAttention."""


@pytest.fixture
def flex_calls(monkeypatch):
    """A FlexAttention that fails, called without being compiled; how often it was."""
    called = []

    def fail(*args, **kwargs):
        called.append("flex_attention")
        raise KernelError("kernel failed\nto launch")

    monkeypatch.setattr(flex, "_compiled", lambda kernel: kernel)
    monkeypatch.setattr(flex, "flex_attention", fail)
    return called


def test_the_spies_see_what_the_cpu_runs(monkeypatch):
    """Each by itself, since the dispatcher's own would hide what lies behind it."""

    def calls(module, name, run):
        called = []

        def record(*args, **kwargs):
            called.append(name)
            raise KernelError

        with monkeypatch.context() as patch:
            patch.setattr(module, name, record)
            with pytest.raises(KernelError):
                run()
        return called

    assert calls(sparse, "_call", attend) == ["_call"]
    assert calls(sparse, "edge_attention", attend) == ["edge_attention"]
    assert calls(sdpa, "full_attention", attend_fully) == ["full_attention"]


def note_of(error):
    """The one line that was added."""
    (note,) = error.__notes__
    assert "\n" not in note
    return note


@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("way", WAYS)
def test_a_failure_of_flex_attention_reaches_the_user(way, grad, others, flex_calls):
    run, function = WAYS[way]
    with torch.set_grad_enabled(grad), pytest.raises(KernelError) as caught:
        run()
    assert type(caught.value) is KernelError
    assert caught.value.args == ("kernel failed\nto launch",)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert f"pyg_nsa: FlexAttention failed in {function} with q [" in note_of(caught.value)
    assert flex_calls == ["flex_attention"]  # tried once
    assert others == []


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_while_torch_traces_reaches_the_user(way, monkeypatch, others):
    """Really compiled: torch simulates the ``raise``, so that the error it makes is all there is; it quotes the original."""

    def fail(*args, **kwargs):
        raise KernelError("kernel failed")

    monkeypatch.setattr(flex, "flex_attention", fail)
    run, function = WAYS[way]
    torch._dynamo.reset()
    with pytest.raises(Unsupported) as caught:
        run()
    # torch 2.11 writes KernelError((ConstantVariable(str: 'kernel failed'),)).
    assert "raised exception KernelError(" in str(caught.value)
    assert "'kernel failed'" in str(caught.value)
    assert f"pyg_nsa: FlexAttention failed in {function} with q [" in note_of(caught.value)
    assert others == []


def test_a_failure_of_the_compiler_reaches_the_user(monkeypatch, others):
    """Torch's error has the original's type and message in its text."""
    lowered = []

    def fail(*args, **kwargs):
        lowered.append("flex_attention")
        raise KernelError("no such kernel")

    monkeypatch.setitem(lowerings, torch.ops.higher_order.flex_attention, fail)
    torch._dynamo.reset()
    with (
        torch.no_grad(),
        pytest.raises(InductorError, match="KernelError: no such kernel") as caught,
    ):
        attend()
    assert "FlexAttention failed in edge_attention with q [4, 2, 8]" in note_of(caught.value)
    assert lowered == ["flex_attention"]
    assert others == []


def test_a_failure_of_a_compiled_kernel_reaches_the_user(monkeypatch, others):
    """What is raised when compiled code runs is the original."""
    launched = []

    def launch(*args):
        launched.append("kernel")
        raise KernelError("kernel failed\nto launch")

    def compiled(kernel):
        return torch.compile(kernel, fullgraph=True, dynamic=False, backend=lambda *_: launch)

    monkeypatch.setattr(flex, "_compiled", compiled)
    torch._dynamo.reset()
    with pytest.raises(KernelError) as caught:
        attend()
    assert caught.value.args == ("kernel failed\nto launch",)
    assert "FlexAttention failed in edge_attention with q [4, 2, 8]" in note_of(caught.value)
    assert launched == ["kernel"]
    assert others == []


def test_the_added_line_says_what_was_computed(others, flex_calls):
    with pytest.raises(KernelError) as caught:
        attend()
    assert note_of(caught.value) == (
        "pyg_nsa: FlexAttention failed in edge_attention with q [4, 2, 8], k [4, 2, 8], torch.float32, "
        "3 pairs; on a GPU there is no other implementation to fall back to"
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32], ids=str)
@pytest.mark.parametrize("attention", [attend, attend_to_oneself])
def test_an_unsupported_dtype_reaches_the_user(attention, dtype, others):
    """FlexAttention's own refusal, on a CPU that the dispatcher takes for a GPU."""
    torch._dynamo.reset()
    with pytest.raises(InductorError, match="supported in FlexAttention") as caught:
        attention(dtype)
    assert f"`{dtype}`" in str(caught.value)
    assert str(dtype) in note_of(caught.value)
    assert others == []


def test_a_failure_in_the_backward_pass_reaches_the_user(monkeypatch, others):
    """It is raised by ``backward``, where no code of this package is on the stack that could add a line."""

    def run(kernel, q, *args):
        class Fails(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 1

            @staticmethod
            def backward(ctx, grad):
                raise KernelError("no gradient")

        return Fails.apply(q)

    monkeypatch.setattr(flex, "_run", run)
    out = attend_in_copies()
    with pytest.raises(KernelError, match="^no gradient$") as caught:
        out.sum().backward()
    assert not hasattr(caught.value, "__notes__")
    assert others == []


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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_queries_and_keys_of_other_graphs_are_no_failure_of_flex_attention(device):
    """With the segments' own error, and no note."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        q, k = torch.empty(4, 2, 8, device=device), torch.empty(6, 2, 8, device=device)
    two, three = Segments(torch.tensor([0, 1, 4]), 4), Segments(torch.tensor([0, 1, 4, 6]), 6)
    with pytest.raises(ValueError, match="2 graphs of queries and 3 graphs of keys") as caught:
        full_attention(q, k, k, two, three)
    assert not getattr(caught.value, "__notes__", [])
