"""Logits from -1e4 to 1e4, of each query near one value, so that several keys share its attention.

The kernels multiply logits by log2(e) and round, as they round the sum with the bias and the log-sum-exp: with numbers of
this size by up to 2 ** -11 each. A probability is known to about that, and to no more.
"""

import torch
from _common import edge_case, random_edges


def case():
    return edge_case(random_edges(150, 140, 900), shift=torch.linspace(-1e4, 1e4, 150), rtol=1e-3)
