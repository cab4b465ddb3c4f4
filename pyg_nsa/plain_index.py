"""Plain tensors out of PyG's own kinds of index."""

from __future__ import annotations

from torch import Tensor

__all__ = ["plain_index"]


def plain_index(index: Tensor) -> Tensor:
    """The tensor inside of PyG's ``EdgeIndex`` or ``Index``; any other tensor as it is.

    They are wrappers without memory of their own (``data_ptr()`` is 0, also after ``as_subclass``), check themselves at every operation, and keep
    caches that are of no use here.
    """
    inside = getattr(index, "as_tensor", None)
    # Others stay what they are: torch.export traces with tensors of a class of its own.
    plain: Tensor = index if inside is None else inside()
    return plain
