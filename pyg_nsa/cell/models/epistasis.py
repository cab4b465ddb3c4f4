"""Gene interaction from predicted fitness, as it is defined: what is left of a product."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Epistasis"]


class Epistasis(nn.Module):
    r"""The interaction that follows from what a head predicts for a deletion and for each of its genes alone.

    .. math::
        \hat f(\cdot) = 1 + a\,(\hat y(\cdot) - \hat y(\varnothing)), \qquad
        c\,\Big(\hat f(D) - \prod_{g \in D} \hat f(g)\Big)

    The head works in standardised units; :math:`a` and :math:`c` learn them, and the wildtype's fitness is 1. A deletion of less
    than two genes gives exactly 0. Of three genes this is not yet :math:`\tau`, from which the interactions of their pairs are
    taken: the head has to learn these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.tensor(0.4))
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(
        self, together: Tensor, alone: Tensor, nothing: Tensor, place: Tensor, owner: Tensor
    ) -> Tensor:
        """The interaction of each instance.

        Args:
            together: ``[B]``, the head's fitness of each instance.
            alone: ``[G]``, of genes alone.
            nothing: Scalar, of the wildtype.
            place: ``[P]`` int64, rows of ``alone``: the genes of the instances with several, one instance after the other.
            owner: ``[P]`` int64, the instance of each, ascending.

        Returns:
            ``[B]``, in the head's units of interaction.
        """
        several, count = owner.unique_consecutive(return_counts=True)
        joint = 1 + self.unit * (together[several] - nothing)
        single = 1 + self.unit * (alone[place] - nothing)
        # Ones beyond an instance's genes; a product has a gradient where a factor is 0, a sum of logarithms has none.
        width = int(count.max()) if count.numel() else 0
        factors = single.new_ones(several.numel(), width)
        first = torch.repeat_interleave(count.cumsum(0) - count, count)
        row = torch.repeat_interleave(torch.arange(several.numel(), device=owner.device), count)
        column = torch.arange(owner.numel(), device=owner.device) - first
        factors = factors.index_put((row, column), single)
        found = self.scale * (joint - factors.prod(dim=1))
        return torch.zeros_like(together).index_put((several,), found)
