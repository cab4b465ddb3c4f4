"""bfloat16 in full attention; for compiling, as in ``bfloat16.py``."""

import torch
from _common import full_case

from pyg_nsa.attention.segments import Segments


def case():
    segments = Segments(torch.tensor([0, 60, 230]), 230)
    return full_case(segments, dim=32, dtype=torch.bfloat16, rtol=2e-2)
