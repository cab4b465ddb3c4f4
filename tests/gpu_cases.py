"""The case files of the GPU path, in ``tests/gpu/cases``, and how one is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

CASES = Path(__file__).parent / "gpu" / "cases"
NAMES = sorted(path.stem for path in CASES.glob("*.py") if not path.stem.startswith("_"))


def load_case(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the file's ``case()`` returns."""
    monkeypatch.syspath_prepend(str(CASES))
    spec = importlib.util.spec_from_file_location(f"case_{name}", CASES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.case()


def assert_close(got: Tensor, expected: Tensor, rtol: float) -> None:
    """Finite, and close in the norm; where zeros are expected, zeros."""
    got, expected = got.detach().cpu().float(), expected.detach().float()
    assert got.shape == expected.shape
    assert torch.isfinite(got).all()
    assert (got - expected).norm() <= rtol * expected.norm().clamp(min=1e-30)


def check_case(case: dict[str, Any], args: tuple[Any, ...], out: Tensor) -> None:
    """Compares a result and its gradients with the case's reference.

    Args:
        case: The case.
        args: Its arguments, as they were given to ``fn``: copies on the device on which it ran.
        out: What ``fn`` returned.
    """
    expected = case["reference"](*case["args"])
    assert_close(out, expected, case["rtol"])
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    weight = weight.to(expected.dtype)
    index = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
    assert index
    got = torch.autograd.grad(out, [args[i] for i in index], weight.to(out.device))
    wanted = torch.autograd.grad(expected, [case["args"][i] for i in index], weight)
    for a, b in zip(got, wanted, strict=True):
        assert_close(a, b, case["rtol"])
