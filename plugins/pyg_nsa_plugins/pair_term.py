"""The edge term of kinds that say which pairs attend and add no bias."""

from __future__ import annotations

from pyg_nsa import EdgeSet, EdgeTerm, PairOptions, RelationInputs

__all__ = ["PairTerm"]


class PairTerm(EdgeTerm):
    """Pairs from the first field that is there: sparse index fields before dense boolean masks.

    Args:
        index_fields: Names of ``[2, E]`` fields, source and target of each pair.
        mask_fields: Names of dense boolean fields, ``mask[src, dst] = True``.
        options: Symmetrize and self loops.
    """

    def __init__(
        self, index_fields: tuple[str, ...], mask_fields: tuple[str, ...], options: PairOptions
    ) -> None:
        super().__init__()
        self.index_fields = index_fields
        self.mask_fields = mask_fields
        self.symmetrize = options.symmetrize
        self.self_loops = options.self_loops

    def pairs(self, inputs: RelationInputs) -> EdgeSet:
        """The pair set of the relation."""
        options = {"symmetrize": self.symmetrize, "self_loops": self.self_loops}
        for name in self.index_fields:
            if inputs.has(name):
                return inputs.edges_from_index(name, **options)
        for name in self.mask_fields:
            if inputs.has(name):
                return inputs.edges_from_dense(name, **options)
        first, *others = (*self.index_fields, *self.mask_fields)
        inputs.field(first, f" (nor {', '.join(others)})" if others else "")
        raise AssertionError("field() raises for a missing field")

    def extra_repr(self) -> str:
        """Fields, in the order in which they are looked for."""
        return ", ".join((*self.index_fields, *self.mask_fields))
