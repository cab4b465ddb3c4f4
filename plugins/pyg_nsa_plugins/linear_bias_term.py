"""The edge term of kinds that add a linear projection of an edge attribute to the logits."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.nn.dense.linear import Linear

from pyg_nsa import BuildContext, EdgeSet, PairOptions, RelationInputs
from pyg_nsa_plugins.pair_term import PairTerm

__all__ = ["LinearBiasTerm"]


class LinearBiasTerm(PairTerm):
    r"""Pairs of a relation with the bias :math:`b_{ij}^h = \mathbf{w}_h^{\top} \mathbf{a}_{ij}`.

    The attribute stays in PyG's sparse form. Pairs that occur more than once are one pair with the attributes summed. A
    constant per head would cancel in the softmax, so there is none.

    Args:
        attribute: Name of the ``[E]`` or ``[E, F]`` field, in the order of the edges. Where it is missing and the edges are a sparse
            matrix (``adj_t``), its values.
        index_fields: Names of ``[2, E]`` fields, source and target of each pair.
        context: The relation and the number of heads.
        options: Symmetrize and self loops.

    Shapes:
        - **attribute:** ``[E]`` or ``[E, F]``
        - **bias:** ``[P, heads]``
    """

    def __init__(
        self,
        attribute: str,
        index_fields: tuple[str, ...],
        context: BuildContext,
        options: PairOptions,
    ) -> None:
        super().__init__(index_fields, (), options)
        self.attribute = attribute
        self.lin = Linear(context.edge_attr_dim, context.heads, bias=False)

    def bias(self, inputs: RelationInputs, edges: EdgeSet) -> Tensor:
        """``[P, heads]``."""
        try:
            attribute = edges.coalesce(inputs.edge_attr(self.attribute, self.index_fields))
        except ValueError as error:
            if "one row per edge" not in str(error):
                raise
            raise ValueError(
                f"'{self.attribute}' of edge type {inputs.edge_type}: {error}"
            ) from None
        # Two comparisons: torch.compile takes a size that it leaves open for a member of no tuple.
        if self.lin.in_channels != -1 and self.lin.in_channels != attribute.size(-1):
            raise ValueError(
                f"'{self.attribute}' of edge type {inputs.edge_type} has {attribute.size(-1)} columns, but the projection was "
                f"made for {self.lin.in_channels}; give every graph the same number of columns"
            )
        return self.lin(attribute.to(self.lin.weight.dtype))
