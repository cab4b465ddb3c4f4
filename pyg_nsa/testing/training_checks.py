"""Checks of what training and deployment need of an edge kind: gradients, saving, compilation, a GPU.

Their target is a :class:`~pyg_nsa.testing.subject.Subject`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.testing.graphs import seeded
from pyg_nsa.testing.results import Finding, NotApplicable, Tally
from pyg_nsa.testing.subject import Call, Layered, Subject

__all__ = [
    "agree",
    "compiles",
    "compiles_pairs",
    "cpu_equals_gpu",
    "directional_derivative",
    "expect_finite_gradients",
    "gradients",
    "gradients_of",
    "reset_parameters",
    "state_dict",
]


_SLOTS = (
    "in a compiled graph an EdgeSet keeps a slot for each edge: where edges occur twice, the last slots of edges.row and edges.col "
    "hold num_queries and num_keys, which are no rows. Sum into num_keys + 1 rows, and read values of nodes by edges.col.clamp(max="
    "edges.num_keys - 1)"
)


def gradients(subject: Subject, tally: Tally) -> None:
    """Every parameter of the kind and every floating-point edge attribute that has an effect on the rows has the gradient that
    finite differences in float64 say.
    """
    layer, graph = subject.layer().double(), subject.graph().double()
    call = subject.call(layer, graph)
    leaves: dict[str, Tensor] = {
        f"parameter {n}": p for n, p in subject.module(layer).named_parameters()
    }
    for name, value in graph.attributes().items():
        if value.is_floating_point() and f"{name}_dict" in call:
            leaf = value.clone().requires_grad_()
            leaves[f"attribute {name}"] = call[f"{name}_dict"][subject.edge_type] = leaf
    if not leaves:
        raise NotApplicable("the kind has no parameters and reads no floating-point attribute")
    effective = 0
    for name, leaf in leaves.items():
        found, wanted = directional_derivative(subject, layer, call, [leaf])
        if name.startswith("parameter"):
            tally.expect(
                found is not None,
                f"{name} gets no gradient: it is unused or detached; distributed training waits for every parameter",
            )
        got = 0.0 if found is None else found
        tally.expect(
            agree(found, wanted),
            f"the gradient of {name} says {got:.6g} where finite differences say {wanted:.6g}"
            + ("; it is detached somewhere" if got == 0 else ""),
        )
        effective += abs(wanted) > 1e-9
    if not effective and subject.is_hard_mask and not list(subject.module(layer).parameters()):
        raise NotApplicable(f"{', '.join(leaves)}: what decides the pairs alone has no gradient")
    tally.expect(effective, f"none of these has any effect on the rows: {', '.join(leaves)}")


def directional_derivative(
    subject: Layered, layer: nn.Module, call: Call, leaves: Sequence[Tensor]
) -> tuple[float | None, float]:
    """How a fixed weighted sum of the rows changes along a random direction of `leaves`: by the gradients (None if there is none
    at all) and by central differences.
    """

    def loss() -> Tensor:
        rows = subject.rows(layer, call=call)
        return (rows * torch.linspace(-1, 1, rows.numel(), dtype=rows.dtype).view_as(rows)).sum()

    def moved(by: float) -> float:
        for leaf, start, step in zip(leaves, starts, steps, strict=True):
            leaf.copy_(start + by * step)
        return float(loss())

    with seeded(7):
        steps = [torch.randn(leaf.shape, dtype=leaf.dtype) for leaf in leaves]
    grads = torch.autograd.grad(loss(), list(leaves), allow_unused=True)
    size = 1e-5
    with torch.no_grad():
        starts = [leaf.clone() for leaf in leaves]
        wanted = (moved(size) - moved(-size)) / (2 * size)
        moved(0.0)
    parts = [float((g * s).sum()) for g, s in zip(grads, steps, strict=True) if g is not None]
    return (sum(parts) if parts else None), wanted


def agree(got: float | None, wanted: float) -> bool:
    """Whether the two numbers of :func:`directional_derivative` are the same but for rounding."""
    return abs((got or 0.0) - wanted) <= 1e-6 + 1e-4 * abs(wanted)


def expect_finite_gradients(layer: nn.Module, rows: Tensor, tally: Tally, when: str = "") -> None:
    """Expects finite gradients of all parameters that have one; `when` begins the sentence of a finding."""
    for name, grad in gradients_of(layer, rows).items():
        tally.expect(
            grad is None or bool(grad.isfinite().all()),
            f"{when}the gradient of {name} is not finite",
        )


def gradients_of(layer: nn.Module, rows: Tensor) -> dict[str, Tensor | None]:
    """The gradients of a weighted sum of the rows by parameter name; None where there is none."""
    names, parameters = zip(*layer.named_parameters(), strict=True)
    weighted = (rows * torch.linspace(-1, 1, rows.numel()).view_as(rows)).sum()
    grads = torch.autograd.grad(weighted, parameters, allow_unused=True)
    return dict(zip(names, grads, strict=True))


def state_dict(subject: Layered, tally: Tally) -> None:
    """A layer that loads the state dict of another one before its first call gives the same rows, be it new or after calls in training
    mode (and an attention kind the same bias): nothing that matters is kept elsewhere.
    """
    layer = subject.layer()
    _expect_same_loaded(
        subject,
        tally,
        layer,
        "a new layer with the state dict of another one gives other rows, or another bias; make all that is learned or drawn at random a "
        "parameter or a buffer",
    )
    layer.train()
    with torch.no_grad():
        for seed in (11, 12):
            subject.rows(layer, subject.graph(seed=seed))
    _expect_same_loaded(
        subject,
        tally,
        layer.eval(),
        "a new layer with the state dict of one that was called in training mode gives other rows, or another bias; make what such calls leave behind, a "
        "running mean for example, a buffer",
    )


def _expect_same_loaded(subject: Layered, tally: Tally, layer: nn.Module, message: str) -> None:
    graph = subject.graph()
    wanted = _rows_and_bias(subject, layer, graph, seed=0)
    state = layer.state_dict()
    fresh = subject.build(seed=9)
    fresh.load_state_dict(state)
    for got, one in zip(_rows_and_bias(subject, fresh, graph, seed=9), wanted, strict=True):
        tally.close(got, one, message)
    tally.expect(
        list(fresh.state_dict()) == list(state), "the state dict has other entries after loading it"
    )


def _rows_and_bias(subject: Layered, layer: nn.Module, graph: Any, seed: int) -> list[Tensor]:
    """The rows of a layer; of an attention kind the bias too, in which a number shows that is the same for all sources of a target."""
    found = [subject.rows(layer, graph, seed=seed)]
    if isinstance(subject, Subject) and not subject.gives_messages:
        _, bias = subject.pairs_and_bias(layer, subject.call(layer, graph), seed)  # type: ignore[arg-type]
        found += [] if bias is None else [bias]
    return found


def reset_parameters(subject: Layered, tally: Tally) -> None:
    """`reset_parameters` gives each learnable parameter an initial value again."""
    layer = subject.layer()
    module = subject.module(layer)
    before = {n: p.detach().clone() for n, p in _learnable(module).items()}
    if not before:
        raise NotApplicable("there are no learnable parameters")
    # A plain module has none; a layer asks its parts for it.
    tally.expect(
        callable(getattr(module, "reset_parameters", None)),
        f"{type(module).__name__} has no reset_parameters, which reset_parameters of a layer calls",
    )
    layer.reset_parameters()  # type: ignore[operator]
    after = _learnable(module)
    for name, value in before.items():
        tally.expect(
            name in after and not torch.equal(after[name], value),
            f"reset_parameters leaves parameter {name} as training left it; let it fill each parameter anew",
        )


def _learnable(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: p
        for name, p in module.named_parameters()
        if p.requires_grad and p.is_floating_point() and p.numel()
    }


def compiles(subject: Subject, tally: Tally) -> None:
    """A layer compiles as one graph (`torch.compile(fullgraph=True)`) and gives the same rows and gradients; an attention kind may
    get its pairs from outside.
    """
    if subject.gives_messages:
        _expect_same_compiled(subject, tally)
        return
    compared, error = _compiled_with_pairs(subject)
    tally.count += compared
    if error is not None:
        _expect_same_compiled(subject, tally, pairs_from_outside=True)


def compiles_pairs(subject: Subject, tally: Tally) -> None:
    """A layer also compiles as one graph where it has to find its pairs inside of that graph, of edges that occur twice, too."""
    subject.need_attention("and has no pairs")
    compared, error = _compiled_with_pairs(subject)
    tally.count += compared
    if isinstance(error, IndexError):
        raise Finding(f"the compiled layer fails with IndexError: {error}; {_SLOTS}") from error
    if error is not None:
        raise error


def _compiled_with_pairs(subject: Subject) -> tuple[int, Exception | None]:
    """What compiling everything gave: how much was compared, and what went wrong. Both checks ask; compiling takes seconds."""
    if subject.compiled is None:
        tally, error = Tally(), None
        try:
            _expect_same_compiled(subject, tally)
        except Exception as found:
            error = found
        subject.compiled = (tally.count, error)
    return subject.compiled


def _expect_same_compiled(subject: Subject, tally: Tally, pairs_from_outside: bool = False) -> None:
    layer = subject.layer()
    graph = subject.graph()
    if subject.has_edge_list(graph):
        graph = graph.choose(torch.tensor([*range(graph.index.size(1)), 0, 3, 4]))
    call = subject.call(layer, graph)
    if pairs_from_outside:
        term = subject.module(layer)
        assert isinstance(term, EdgeTerm)
        inputs = subject.hetero_inputs(call)
        edges = inputs.pairs(inputs.relation(subject.edge_type), term, subject.kind.name)
        call = {**call, "edge_set_dict": {subject.edge_type: edges}}
    rows = subject.rows(layer, call=call)
    wanted = gradients_of(layer, rows)
    torch.compiler.reset()  # torch compiles one function only so many times, and every layer counts
    try:
        # "eager" runs the traced graph as it is: what can go wrong in a kind goes wrong in tracing, and code takes seconds to make.
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        got = subject.rows(compiled, call=call)
        tally.close(got, rows, f"the compiled layer gives other rows; {_SLOTS}")
        for name, grad in gradients_of(layer, got).items():
            if grad is not None and wanted[name] is not None:
                tally.close(grad, wanted[name], f"the compiled layer gives {name} another gradient")  # type: ignore[arg-type]
    finally:
        torch.compiler.reset()


def cpu_equals_gpu(subject: Layered, tally: Tally) -> None:
    """On a CUDA device a layer gives the rows and gradients that it gives on the CPU."""
    if not torch.cuda.is_available():
        raise NotApplicable("there is no CUDA device (torch.cuda.is_available() is False)")
    layer, graph = subject.layer(), subject.graph()
    call = subject.call(layer, graph)
    rows = subject.rows(layer, call=call)
    wanted = gradients_of(layer, rows)
    there = copy.deepcopy(layer).cuda()
    moved = {name: _on_gpu(values) for name, values in call.items()}
    got = subject.rows(there, call=moved)
    tally.expect(got.is_cuda, f"rows are on {got.device}, expected the GPU")
    # TF32 and other summation orders: looser than elsewhere.
    tally.close(got.cpu(), rows, "rows on the GPU are not those on the CPU", 1e-2, 1e-3)
    names, parameters = zip(*there.named_parameters(), strict=True)
    weights = torch.linspace(-1, 1, got.numel(), device=got.device).view_as(got)
    grads = torch.autograd.grad((got * weights).sum(), parameters, allow_unused=True)
    for name, grad in zip(names, grads, strict=True):
        on_cpu = wanted[name]
        tally.expect(
            (grad is None) == (on_cpu is None), f"{name} has a gradient on one device only"
        )
        if grad is not None and on_cpu is not None:
            tally.close(grad.cpu(), on_cpu, f"the gradient of {name} differs", 1e-2, 1e-3)


def _on_gpu(values: Mapping[object, object]) -> dict[object, object]:
    return {k: v.cuda() if isinstance(v, Tensor) else v for k, v in values.items()}
