"""Splits by gene, and training epochs that are not nearly all zeros.

Many pairs share one LP, and a pair of genes that training has seen is half known: a split of pairs alone would
measure memory. So genes are split, and the instances follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pyg_nsa.cell.labels import PAD, LabelTable

__all__ = ["PARTS", "MixedSampler", "Split", "split_by_gene"]

PARTS: tuple[str, str, str] = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Instances and genes of the three parts.

    Attributes:
        train: int64 instance numbers, ascending: all genes are training genes.
        val: At least one gene is a validation gene, none a test gene.
        test: At least one gene is a test gene.
        genes: Ascending int32 gene indices of each part.
        sizes: [n] int64, number of genes of every instance of the table.
        seed: The seed that gave this split.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    genes: dict[str, NDArray[np.int32]]
    sizes: NDArray[np.int64]
    seed: int

    def part(self, name: str, size: int | None = None) -> NDArray[np.int64]:
        """Instances of a part, all or those with a number of genes.

        Args:
            name: ``"train"``, ``"val"`` or ``"test"``.
            size: 1 for singles, 2 for pairs, …; ``None`` for all.
        """
        if name not in PARTS:
            raise ValueError(f"Unknown part {name!r}: expected one of {', '.join(PARTS)}.")
        index: NDArray[np.int64] = getattr(self, name)
        return index if size is None else index[self.sizes[index] == size]

    @property
    def singles(self) -> dict[str, NDArray[np.int64]]:
        """Single deletions of each part."""
        return {name: self.part(name, 1) for name in PARTS}

    @property
    def pairs(self) -> dict[str, NDArray[np.int64]]:
        """Double deletions of each part."""
        return {name: self.part(name, 2) for name in PARTS}

    def counts(self) -> dict[str, dict[str, int]]:
        """Per part: number of genes, instances, singles and pairs."""
        return {
            name: {
                "genes": len(self.genes[name]),
                "instances": len(self.part(name)),
                "singles": len(self.part(name, 1)),
                "pairs": len(self.part(name, 2)),
            }
            for name in PARTS
        }


def split_by_gene(
    table: LabelTable,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    *,
    groups: NDArray[np.int64] | None = None,
) -> Split:
    """Partition the genes; an instance goes to the strictest part of any of its genes.

    An instance is for training only if all its genes are training genes; with a test gene it is for testing, else with a
    validation gene for validation. With fractions (0.8, 0.1, 0.1) that leaves about 64 % of the pairs for training. An
    instance without genes (the wildtype) is for training.

    Args:
        table: The labels.
        fractions: Shares of the genes for training, validation, testing; they sum to 1.
        seed: Seed of ``numpy.random.default_rng``.
        groups: [len(table.gene_ids)] int64: genes with one number stay together, for example the members of a complex,
            whose deletions have the same effect. ``None``: each gene by itself.

    Returns:
        The split; the same for the same arguments, on every machine.

    Raises:
        ValueError: If the fractions are none, or there are too few genes for a part with a positive fraction.
    """
    shares = np.array(fractions, np.float64)
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(
            f"fractions: expected three numbers >= 0 (train, val, test) that sum to 1, got {tuple(fractions)}."
        )
    genes = np.unique(table.genes[table.genes != PAD])
    if groups is not None and np.shape(groups) != (len(table.gene_ids),):
        raise ValueError(
            f"groups: expected one number per gene ({len(table.gene_ids)}), got shape {np.shape(groups)}."
        )
    of_gene = genes.astype(np.int64) if groups is None else np.asarray(groups, np.int64)[genes]
    names, member = np.unique(of_gene, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    # Groups are dealt in random order until a part has its share of the genes.
    sizes = np.bincount(member, minlength=len(names))[order]
    middle = np.cumsum(sizes) - sizes / 2
    bounds = np.cumsum(shares)[:2] * len(genes)
    part_of_group = np.empty(len(names), np.int64)
    part_of_group[order] = np.searchsorted(bounds, middle, side="right")
    part = np.full(len(table.gene_ids) + 1, 0, np.int64)  # the last entry is what PAD (-1) finds
    part[genes] = part_of_group[member]
    by_part = {name: genes[part[genes] == k].astype(np.int32) for k, name in enumerate(PARTS)}
    for name, share in zip(PARTS, shares, strict=True):
        if share > 0 and not len(by_part[name]):
            raise ValueError(
                f"Too few genes ({len(genes)}, in {len(names)} groups) for a {name} part of {share:g}. "
                "Use larger fractions or more labels."
            )
    strictest = part[table.genes].max(axis=1, initial=0)
    train, val, test = (np.flatnonzero(strictest == k) for k in range(3))
    return Split(
        train=train,
        val=val,
        test=test,
        genes=by_part,
        sizes=table.sizes,
        seed=seed,
    )


class MixedSampler(Sampler[int]):
    """Training epochs with given rates of singles, interacting pairs and random pairs.

    Almost all pairs have ε = 0, so a plain epoch teaches to answer 0. Instances are drawn without replacement while
    there are any of their kind left, then a new round begins. An instance with more than two genes counts as a pair.
    Epochs differ, and are the same again under the same seed. For DDP give every process its own share: a
    ``DistributedSampler`` around this one (Lightning adds it).

    Args:
        table: The labels.
        index: Instance numbers to draw from, such as ``split.train``; all by default.
        rates: Shares of singles, interacting pairs (``|ε| > 1e-3``) and random pairs (of any ε). They are scaled to sum
            to 1 over the kinds that exist.
        size: Instances an epoch; by default the number of singles and interacting pairs, divided by their share.
        seed: Seed of ``numpy.random.default_rng``.
        positions: Yield positions in ``index`` (for ``dataset[index]``) rather than instance numbers (for the whole
            ``dataset``).

    Raises:
        ValueError: For rates that are none, or nothing to draw from.
    """

    KINDS: tuple[str, str, str] = ("singles", "interacting", "random")

    def __init__(
        self,
        table: LabelTable,
        index: NDArray[np.int64] | None = None,
        *,
        rates: Sequence[float] = (0.25, 0.5, 0.25),
        size: int | None = None,
        seed: int = 0,
        positions: bool = False,
    ) -> None:
        chosen = np.arange(len(table)) if index is None else np.asarray(index, np.int64)
        share = np.array(rates, np.float64)
        if share.shape != (3,) or (share < 0).any() or not share.sum() > 0:
            raise ValueError(
                f"rates: expected three numbers >= 0 ({', '.join(self.KINDS)}), not all 0, got {tuple(rates)}."
            )
        single = table.sizes[chosen] < 2
        kinds = (single, ~single & table.interacting[chosen], ~single)
        self._pools = [np.flatnonzero(kind) for kind in kinds]
        share[[not len(pool) for pool in self._pools]] = 0.0
        if not share.sum() > 0:
            raise ValueError(
                f"No instance to draw: {len(chosen)} instances, and none of a kind with a positive rate."
            )
        self.rates = share / share.sum()
        self.seed = seed
        self.epoch = 0
        self._values = np.arange(len(chosen)) if positions else chosen
        if size is None:
            known = sum(
                len(p) for p, r in zip(self._pools[:2], self.rates[:2], strict=True) if r > 0
            )
            informative = float(self.rates[:2].sum())
            size = round(known / informative) if informative > 0 else len(self._pools[2])
        # Largest remainders: the counts sum to the size exactly.
        exact = self.rates * size
        counts = np.floor(exact).astype(np.int64)
        rest = np.argsort(-(exact - counts), kind="stable")[: size - int(counts.sum())]
        counts[rest] += 1
        self.counts: dict[str, int] = dict(zip(self.KINDS, counts.tolist(), strict=True))

    def __len__(self) -> int:
        return sum(self.counts.values())

    def set_epoch(self, epoch: int) -> None:
        """Choose the next epoch's number, as ``DistributedSampler`` does; Lightning calls this."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        self.epoch += 1
        drawn = []
        for pool, count in zip(self._pools, self.counts.values(), strict=True):
            rounds = [generator.permutation(pool) for _ in range(-(-count // max(len(pool), 1)))]
            drawn.append(np.concatenate([*rounds, np.empty(0, np.int64)])[:count])
        mixed = generator.permutation(np.concatenate(drawn).astype(np.int64))
        yield from self._values[mixed].tolist()
