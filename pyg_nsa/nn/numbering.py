"""The two numberings of data with deleted nodes, told apart graph by graph, and which rows are living nodes.

*Compact*: deleted nodes are removed and the rest relabelled, and padding rows at the end of each graph keep ``x`` at its full
height. *Wildtype*: nothing is relabelled and ``pert_mask`` marks the deleted rows.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pyg_nsa.nn.row_ranges import RowRanges

__all__ = ["LivingRows", "Numbering", "living_rows", "unmarked"]

Numbering = Literal["auto", "compact", "wildtype"]


class LivingRows(NamedTuple):
    """What masks and padding say of a node type's rows.

    Attributes:
        alive: ``[N]`` bool, living nodes; ``None``: every row is one.
        compact: ``[B]`` bool, graphs whose deleted nodes were removed; ``None`` where nothing can have been.
        found: The numbering that the data shows; ``None`` where nothing is deleted or both would look alike.
    """

    alive: Tensor | None
    compact: Tensor | None
    found: Numbering | None


def living_rows(
    ranges: RowRanges,
    mask: Tensor | None,
    pert_mask: Tensor | None,
    numbering: Numbering,
    name: str,
) -> LivingRows:
    """Tells the numbering and the living rows.

    Args:
        ranges: The rows' graphs.
        mask: ``[N]`` bool, real rows (``True``) against padding rows.
        pert_mask: ``[N]`` bool, deleted nodes by their place in the base graph, in either numbering.
        numbering: Which numbering the data must have; ``"auto"`` accepts either and refuses a mixture.
        name: The node type, for messages.

    Raises:
        ValueError: A batch that mixes the two, masks that do not fit the padding, or another numbering than the one asked for.
    """
    if ranges.are_in_any_order:  # nothing can have been relabelled
        return LivingRows(unmarked(mask, pert_mask), None, None)
    if mask is None and pert_mask is None and not ranges.differ:
        return LivingRows(None, None, None)
    if ranges.differ:
        assert ranges.row_ptr is not None and ranges.index_ptr is not None
        padding = ranges.row_ptr.diff() - ranges.index_ptr.diff()
    else:
        padding = torch.zeros(ranges.num_graphs or 1, dtype=torch.long, device=ranges.device)
    ambiguous = torch.zeros_like(padding, dtype=torch.bool)
    if mask is not None and pert_mask is not None:
        # Without num_nodes the two masks tell: compact data masks as many rows at the end as pert_mask marks elsewhere.
        lost = ranges.count(~mask)
        at_end = ranges.count(mask != ranges.before(lost)) == 0
        looks_compact = at_end & (lost == ranges.count(pert_mask)) & (lost > 0)
        ambiguous = looks_compact & (ranges.count(mask == pert_mask) == 0)
        if not ranges.differ:
            # Rows at the end that pert_mask marks too are the same in either numbering: as the others of the batch.
            compact = looks_compact & ~ambiguous
            padding = torch.where(compact | (ambiguous & compact.any()), lost, padding)
    compact = padding > 0
    real = ranges.before(padding)
    found: Numbering | None = None
    if not torch.compiler.is_compiling():
        deleted = None if pert_mask is None else ranges.count(pert_mask)
        found = _found(padding, deleted, ambiguous, name)
        if found == "compact" and mask is not None and not torch.equal(mask, real):
            raise ValueError(
                f"'mask' of {name} marks {int(mask.sum())} real rows, but the edges' numbering counts "
                f"{int(real.sum())}: in compact numbering the padding rows are the last rows of each graph"
            )
        if numbering != "auto" and found not in (None, numbering):
            raise ValueError(
                f"{name}: the configuration says numbering: {numbering}, but the data is in {found} numbering; "
                f"set numbering: {found} (or auto) or convert the data"
            )
    alive = real if mask is None else real & mask
    if pert_mask is not None:
        alive = alive & ~(pert_mask & ~compact[ranges.graph_of_row()])
    all_live = not torch.compiler.is_compiling() and bool(alive.all())
    told = ranges.differ or pert_mask is not None
    return LivingRows(None if all_live else alive, compact if told else None, found)


def unmarked(mask: Tensor | None, pert_mask: Tensor | None) -> Tensor | None:
    """Rows that neither mask leaves out, where nothing was relabelled.

    Args:
        mask: bool, real rows (``True``).
        pert_mask: bool of the same shape, deleted nodes (``True``).
    """
    if mask is None or pert_mask is None:
        return mask if pert_mask is None else ~pert_mask
    return mask & ~pert_mask


def _found(
    padding: Tensor, deleted: Tensor | None, ambiguous: Tensor, name: str
) -> Numbering | None:
    if bool((padding < 0).any()):
        graph = int((padding < 0).nonzero()[0])
        raise ValueError(
            f"{name}: graph {graph} has fewer rows of x than its edges' numbering has nodes "
            f"({-int(padding[graph])} too few)"
        )
    compact = padding > 0
    wildtype = compact & False if deleted is None else ~compact & (deleted > 0) & ~ambiguous
    if bool(compact.any()) and bool(wildtype.any()):
        raise ValueError(
            f"{name} mixes two numberings in one batch: graph {int(compact.nonzero()[0])} is compact (deleted "
            f"nodes removed, padding rows at the end) and graph {int(wildtype.nonzero()[0])} is wildtype "
            "(nothing relabelled, pert_mask marks the deleted); make all graphs of a data set alike"
        )
    if deleted is not None and bool((wrong := compact & (padding != deleted)).any()):
        graph = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} mixes two numberings: graph {graph} has {int(padding[graph])} padding rows, but its "
            f"pert_mask marks {int(deleted[graph])} deleted nodes; in compact numbering the two are equal"
        )
    return "compact" if bool(compact.any()) else "wildtype" if bool(wildtype.any()) else None
