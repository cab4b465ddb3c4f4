"""Every case file uncompiled, on any machine: its function, inputs, reference and tolerance belong together.

What only a compiler makes of them, the kernels, is not looked at; ``test_cuda.py`` runs those on a device.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.attention.flex_attention as torch_flex
from gpu_cases import NAMES, check_case, load_case

from pyg_nsa.attention import flex


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "_compiled", lambda kernel: kernel)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)  # gradients on a CPU
    torch._dynamo.reset()
    case = load_case(name, monkeypatch)
    check_case(case, case["args"], case["fn"](*case["args"]))


def test_there_are_cases() -> None:
    assert {"directed_bipartite_bias", "disjoint_union", "full_segments", "bfloat16"} <= set(NAMES)
