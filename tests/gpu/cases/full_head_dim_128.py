"""Self-attention in float32 with 128 channels a head, whose kernels take sizes of their own."""

import torch
from _common import full_case

from pyg_nsa.attention.segments import Segments


def case():
    return full_case(Segments(torch.tensor([0, 70, 150]), 150), dim=128)
