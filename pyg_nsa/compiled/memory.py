"""Memory for results, where the last step's was.

Large tensors get pages that are kept from one step to the next (:mod:`pyg_nsa.compiled.kept_pages`), smaller ones come from
malloc's heap, which is kept as well.
"""

from __future__ import annotations

import functools
import math
import sys

import torch
from torch import Tensor
from torch.nn import Parameter

from pyg_nsa.compiled.kept_pages import on_kept_pages

__all__ = ["empty"]

#: Smaller tensors hold no whole huge page, or hardly one.
_SMALLEST = 1 << 22

#: 32 MiB, less what malloc adds to a block.
_LARGEST_MAPPED = (1 << 25) - (1 << 16)


def empty(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor of the dtype and device of ``like``."""
    _keep_heap()
    large = math.prod(shape) * like.dtype.itemsize >= _SMALLEST
    kept = None
    if large and like.device.type == "cpu" and type(like) in (Tensor, Parameter):
        kept = on_kept_pages(like, *shape)
    return like.new_empty(*shape) if kept is None else kept


@functools.cache
def _keep_heap() -> None:
    """Makes glibc keep up to 64 MiB of freed memory for the next step, once in a process.

    It gives back what is free at the heap's end beyond twice the largest block that it has mapped and freed so far (mallopt(3),
    ``M_MMAP_THRESHOLD``), and a step's smaller tensors would come back page by page. The largest block that counts is 32 MiB; nothing is
    written to it. Where malloc is another one, or was told its thresholds, nothing changes.
    """
    if sys.platform.startswith("linux"):
        torch.empty(_LARGEST_MAPPED, dtype=torch.uint8)
