"""float16 in full attention, against float32 on the same values."""

import torch
from _common import full_case

from pyg_nsa.attention.segments import Segments


def case():
    segments = Segments(torch.tensor([0, 60, 100]), 100)
    return full_case(segments, dtype=torch.float16, rtol=2e-3)
