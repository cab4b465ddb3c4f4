"""float16 against float32 on the same values, the bias too; the tolerance is that of a float16 result."""

import torch
from _common import edge_case, random_edges


def case():
    return edge_case(
        random_edges(140, 140, 700), dtype=torch.float16, bias_dtype=torch.float16, rtol=2e-3
    )
