"""The module behind `recency_bias`."""

from __future__ import annotations

import math

import torch
from pyg_nsa import EdgeSet, EdgeTerm, RelationInputs
from torch import Tensor, nn

# exp(-80) is the last round number that float32 still holds, and by then an edge has no weight anyway.
_MAX_RATE = 80.0


class RecencyBiasTerm(EdgeTerm):
    r"""Every edge lends its pair a weight that decays with the edge's age, and the weights of a pair's edges add up.

    With the ages :math:`a_e` of the edges :math:`e` from source :math:`j` to target :math:`i`, the logits of head :math:`h` get

    .. math:: b_{ij}^h = \log \sum_{e:\, 0 \le a_e \le a_{\max}} \exp(-\lambda_h \, a_e / a_{\max}),

    so that ten meetings count ten times as much as one of the same age, and a pair without a recent edge does not attend.
    Edges of the future (negative age) do not count: attention cannot look ahead.

    Args:
        heads: Number of heads; each learns a rate :math:`\lambda_h`.
        age: Name of the field `[E]` with the ages.
        max_age: The window, in the unit of the ages.
    """

    def __init__(self, heads: int, age: str, max_age: float) -> None:
        super().__init__()
        self.age = age
        self.max_age = max_age
        self.log_rate = nn.Parameter(torch.empty(heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Rates from 1 to 8, so that the heads start with longer and shorter memories."""
        with torch.no_grad():
            self.log_rate.copy_(torch.linspace(0, math.log(8), self.log_rate.numel()))

    def pairs(self, inputs: RelationInputs) -> EdgeSet:
        """All edges; those that do not count get a bias of minus infinity, so that sizes do not depend on the ages."""
        return inputs.edges_from_index("edge_index")

    def bias(self, inputs: RelationInputs, edges: EdgeSet) -> Tensor:
        """`[pairs, heads]`."""
        age = inputs.edge_attr(self.age)
        if age.dim() == 2 and age.size(1) != 1:
            raise ValueError(
                f"'{self.age}' of edge type {inputs.edge_type} must have shape [E], one age for each edge, got "
                f"{list(age.shape)}"
            )
        # Logarithms of small numbers need float32 even where the model is in half precision.
        dtype = torch.promote_types(self.log_rate.dtype, torch.float32)
        age = age.reshape(-1, 1).to(dtype) / self.max_age
        rate = self.log_rate.to(dtype).exp().clamp(max=_MAX_RATE)
        counts = (age >= 0) & (age <= 1)
        # Clamped before the exponential: a huge one that is thrown away would still make gradients NaN.
        weight = torch.where(counts, torch.exp(-rate * age.clamp(0, 1)), 0.0)
        total = edges.coalesce(weight)  # summed over the edges of each pair
        tiny = torch.finfo(dtype).tiny
        return torch.where(total > 0, total.clamp(min=tiny).log(), -math.inf)

    def extra_repr(self) -> str:
        """The options."""
        return f"age={self.age!r}, max_age={self.max_age}"
