"""Dealing genes or pairs out to the parts of a split, so that every part is alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyg_nsa.cell.labels.table import PAD, LabelTable

__all__ = ["ATTEMPTS", "PARTS", "deal", "gene_parts", "pair_parts", "part_shares"]

PARTS: tuple[str, str, str] = ("train", "val", "test")
ATTEMPTS = 20
"""Seeds that are tried to give every part an interacting pair."""


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


def gene_parts(
    table: LabelTable, shares: NDArray[np.float64], seed: int, groups: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int32]]]:
    """Deal the genes of a table out, those with many interactions and those with few in equal shares.

    Args:
        table: The labels.
        shares: Of the parts.
        seed: Seed of ``numpy.random.default_rng``.
        groups: [len(table.gene_ids)] int64: genes with one number stay together; ``None``: each by itself.

    Returns:
        [n] int64, the strictest part of any gene of each instance, so chosen that every part has interacting ones, if that
        is found within :data:`ATTEMPTS` attempts; and by part its genes, ascending int32 indices.

    Raises:
        ValueError: If there are too few genes for a part with a positive share, or ``groups`` has another shape.
    """
    genes = np.unique(table.genes[table.genes != PAD])
    if groups is not None and np.shape(groups) != (len(table.gene_ids),):
        raise ValueError(
            f"groups: expected one number per gene ({len(table.gene_ids)}), got shape {np.shape(groups)}."
        )
    of_gene = genes.astype(np.int64) if groups is None else np.asarray(groups, np.int64)[genes]
    names, member = np.unique(of_gene, return_inverse=True)
    sizes = np.bincount(member, minlength=len(names))
    several = (table.sizes >= 2) & table.interacting
    partners = table.genes[several]
    degree = np.bincount(partners[partners != PAD], minlength=len(table.gene_ids))[genes]
    busiest = np.zeros(len(names), np.int64)
    np.maximum.at(busiest, member, degree)
    strata = np.ceil(np.log2(1 + busiest)).astype(np.int64)
    for attempt in range(ATTEMPTS):
        generator = np.random.default_rng((seed, attempt) if attempt else seed)
        dealt = deal(sizes, strata, shares, generator)
        part = np.zeros(len(table.gene_ids) + 1, np.int64)  # the last entry is what PAD (-1) finds
        part[genes] = dealt[member]
        by_part = {name: genes[part[genes] == k].astype(np.int32) for k, name in enumerate(PARTS)}
        for name, share in zip(PARTS, shares, strict=True):
            if share > 0 and not len(by_part[name]):
                raise ValueError(
                    f"Too few genes ({len(genes)}, in {len(names)} groups) for a {name} part of {share:g}. "
                    "Use larger fractions or more labels."
                )
        strictest = part[table.genes].max(axis=1, initial=0)
        if all((strictest[several] == k).any() for k in np.flatnonzero(shares)):
            break
    return strictest, by_part


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
