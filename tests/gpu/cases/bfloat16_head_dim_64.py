"""The dtype and head dimension that need most of a GPU's shared memory; for compiling, as in ``bfloat16.py``."""

import torch
from _common import alive_rows, edge_case, random_edges


def case():
    alive = alive_rows(2, 140)
    return edge_case(
        random_edges(140, 140, 700),
        batch=2,
        dim=64,
        dtype=torch.bfloat16,
        alive_queries=alive,
        alive_keys=alive,
        rtol=2e-2,
    )
