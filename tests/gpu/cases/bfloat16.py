"""bfloat16, with bias and deletions; for compiling, since Triton's interpreter computes bfloat16 wrongly."""

import torch
from _common import alive_rows, edge_case, random_edges


def case():
    alive = alive_rows(2, 150)
    return edge_case(
        random_edges(150, 150, 900),
        batch=2,
        dim=32,
        dtype=torch.bfloat16,
        bias_dtype=torch.bfloat16,
        alive_queries=alive,
        alive_keys=alive,
        rtol=2e-2,
    )
