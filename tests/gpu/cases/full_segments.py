"""Self-attention inside each graph of a batch, an empty graph and rows of padding included."""

import torch
from _common import full_case

from pyg_nsa.attention.segments import Segments


def case():
    batch = torch.tensor([0] * 60 + [1] * 170 + [3] * 50)
    mask = torch.ones(280, dtype=torch.bool)
    mask[55:60] = mask[275:] = False
    return full_case(Segments.from_batch(batch, 280, mask))
