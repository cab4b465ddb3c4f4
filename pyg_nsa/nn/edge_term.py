"""What an edge kind builds: the module that says which pairs of a relation attend, and with which bias."""

from __future__ import annotations

from torch import Tensor, nn

from pyg_nsa.attention import EdgeSet
from pyg_nsa.nn.relation_inputs import RelationInputs

__all__ = ["EdgeTerm"]


class EdgeTerm(nn.Module):
    """Base class of edge terms; a plugin overrides :meth:`pairs` and, if it adds a bias, :meth:`bias`.

    The two are apart because pairs depend on the data alone and are computed once for all layers, while each layer
    learns a bias of its own.
    """

    def pairs(self, inputs: RelationInputs) -> EdgeSet:
        """Which (query, key) pairs attend. Must not depend on parameters."""
        raise NotImplementedError(f"{type(self).__name__} must override pairs(inputs) -> EdgeSet")

    def bias(self, inputs: RelationInputs, edges: EdgeSet) -> Tensor | None:
        """``[P, heads]`` added to the logits in the order of ``edges``, or ``None``."""
        return None

    def forward(
        self, inputs: RelationInputs, edges: EdgeSet | None = None
    ) -> tuple[EdgeSet, Tensor | None]:
        """Pairs (taken over when another layer has computed them) and bias."""
        edges = self.pairs(inputs) if edges is None else edges
        return edges, self.bias(inputs, edges)

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for child in self.children():
            if hasattr(child, "reset_parameters"):
                child.reset_parameters()
