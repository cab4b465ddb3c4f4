"""Dealing genes or pairs out to the parts of a split, so that every part is alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyg_nsa.cell.labels import PAD, LabelTable

__all__ = ["PARTS", "deal", "pair_parts", "part_shares"]

PARTS: tuple[str, str, str] = ("train", "val", "test")


def part_shares(fractions: Sequence[float]) -> NDArray[np.float64]:
    """Shares of the parts, checked.

    Raises:
        ValueError: If they are not three numbers >= 0 that sum to 1.
    """
    shares = np.array(fractions, np.float64)
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(
            f"fractions: expected three numbers >= 0 (train, val, test) that sum to 1, got {tuple(fractions)}."
        )
    return shares


def deal(
    weights: NDArray[np.int64],
    strata: NDArray[np.int64],
    shares: NDArray[np.float64],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Deal items out, stratum by stratum, each to whichever part is furthest behind its share.

    Args:
        weights: [n] int64, what each item counts.
        strata: [n] int64; items of one stratum are in random order.
        shares: Of the parts.
        generator: Where the order comes from.

    Returns:
        [n] int64, the part of each.
    """
    order = generator.permutation(len(weights))
    order = order[np.argsort(strata[order], kind="stable")]
    part = np.empty(len(weights), np.int64)
    dealt, total = [0.0, 0.0, 0.0], 0.0
    for item in order.tolist():
        weight = float(weights[item])
        total += weight
        behind = [share * total - got for share, got in zip(shares.tolist(), dealt, strict=True)]
        part[item] = to = behind.index(max(behind))
        dealt[to] += weight
    return part


def pair_parts(
    table: LabelTable,
    index: NDArray[np.int64],
    shares: NDArray[np.float64],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Deal the pairs of some instances out, interacting ones and others each in the same shares.

    Args:
        table: The labels.
        index: Numbers of the instances.
        shares: Of the parts.
        generator: Where the order comes from.

    Returns:
        [len(index)] int64, the strictest part of any pair of each instance; training for those without a pair.

    Raises:
        ValueError: If there are too few pairs for a part with a positive share.
    """
    genes = table.genes[index].astype(np.int64)
    sizes, size = table.sizes[index], len(table.gene_ids)
    # All pairs within each instance: `owner` is its position, `code` the pair. Genes ascend, PAD stands last.
    columns = [(a, b) for b in range(genes.shape[1]) for a in range(b)]
    found = [np.empty((2, 0), np.int64)]
    for a, b in columns:
        owner = np.flatnonzero(genes[:, b] != PAD)
        found.append(np.stack([owner, genes[owner, a] * size + genes[owner, b]]))
    owner, code = np.concatenate(found, axis=1)
    pairs, number = np.unique(code, return_inverse=True)
    interacting = np.zeros(len(pairs), np.bool_)
    of_pair = (sizes == 2)[owner]
    interacting[number[of_pair]] = table.interacting[index][owner[of_pair]]
    part = np.empty(len(pairs), np.int64)
    for stratum in (interacting, ~interacting):
        members = generator.permutation(np.flatnonzero(stratum))
        bounds = np.round(np.cumsum(shares)[:2] * len(members)).astype(np.int64)
        part[members] = np.searchsorted(bounds, np.arange(len(members)), side="right")
    for k, (name, share) in enumerate(zip(PARTS, shares, strict=True)):
        if share > 0 and not (part == k).any():
            raise ValueError(
                f"Too few pairs ({len(pairs)}) for a {name} part of {share:g}. Use larger fractions or more labels."
            )
    strictest = np.zeros(len(index), np.int64)
    np.maximum.at(strictest, owner, part[number])
    return strictest
