"""Splits by gene, by pair, or by both, and training epochs that are not nearly all zeros.

Many pairs share one LP, and a pair of genes that training has seen is half known: a split of pairs alone mostly measures
memory. So genes are split by default, and the instances follow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pyg_nsa.cell.data.dealing import ATTEMPTS, PARTS, gene_parts, pair_parts, part_shares
from pyg_nsa.cell.labels.table import PAD, LabelTable

__all__ = [
    "HELD_OUT",
    "HELD_OUT_BY",
    "PARTS",
    "MixedSampler",
    "Split",
    "SplitKind",
    "make_split",
    "split_by_both",
    "split_by_gene",
    "split_by_pair",
]

logger = logging.getLogger(__name__)


SplitKind = Literal["gene", "pair", "both"]

HeldOutBy = Literal["gene", "pair"]
HELD_OUT_BY: tuple[HeldOutBy, HeldOutBy] = ("gene", "pair")

HELD_OUT: dict[SplitKind, str] = {"gene": "genes", "pair": "pairs", "both": "genes and pairs"}
"""What each kind of split holds out, for headings."""


@dataclass(frozen=True, eq=False)
class Split:
    """Instances and genes of the three parts.

    Attributes:
        train: int64 instance numbers, ascending: all genes are training genes, and no pair is held out.
        val: At least one gene is a validation gene, none a test gene; or a pair held out for validation.
        test: At least one gene is a test gene; or a pair held out for testing.
        genes: Ascending int32 gene indices of each part.
        sizes: [n] int64, number of genes of every instance of the table.
        seed: The seed that gave this split.
        kind: What was held out: ``"gene"``, ``"pair"`` or ``"both"``.
        seen_genes: [n] bool, whether all genes of an instance are training genes.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    genes: dict[str, NDArray[np.int32]]
    sizes: NDArray[np.int64]
    seed: int
    kind: SplitKind = "gene"
    seen_genes: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

    def held_out(self, name: str, by: HeldOutBy, size: int | None = None) -> NDArray[np.int64]:
        """Instances of a part by what is new in them.

        Args:
            name: ``"val"`` or ``"test"``.
            by: ``"gene"``: a gene that training has not seen; ``"pair"``: genes that it has seen, but not together.
            size: As for :meth:`part`.
        """
        index = self.part(name, size)
        return index[self.seen_genes[index] == (by == "pair")]

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
        """Per part: number of genes, instances, singles and pairs, and of triples where there are any."""
        sizes = {"singles": 1, "pairs": 2} | ({"triples": 3} if (self.sizes == 3).any() else {})
        return {
            name: {
                "genes": len(self.genes[name]),
                "instances": len(self.part(name)),
                **{what: len(self.part(name, size)) for what, size in sizes.items()},
            }
            for name in PARTS
        }

    def lines(self) -> list[str]:
        """A line on each part for people: how many genes, and how many instances of each size."""
        return [
            f"{name}: {', '.join(f'{n:,} {what}' for what, n in counts.items() if what != 'instances')}"
            for name, counts in self.counts().items()
        ]


def make_split(
    table: LabelTable,
    kind: SplitKind = "gene",
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Split:
    """The split that a configuration names.

    Args:
        table: The labels.
        kind: ``"gene"`` (:func:`split_by_gene`), ``"pair"`` (:func:`split_by_pair`) or ``"both"``
            (:func:`split_by_both`).
        fractions: Shares of training, validation, testing; they sum to 1.
        seed: Seed of ``numpy.random.default_rng``.

    Raises:
        ValueError: For another kind, and as the functions do.
    """
    functions = {"gene": split_by_gene, "pair": split_by_pair, "both": split_by_both}
    if kind not in functions:
        raise ValueError(f"split {kind!r}: expected one of {', '.join(map(repr, functions))}.")
    split: Split = functions[kind](table, fractions, seed)
    return split


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

    Genes with many interactions and genes with few are dealt out in equal shares, so that every part has interacting pairs;
    if there are too few of those, a warning says which part has none.

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
    shares = part_shares(fractions)
    part, genes = gene_parts(table, shares, seed, groups)
    return _split(table, part, genes, seed, "gene", shares)


def split_by_pair(
    table: LabelTable, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> Split:
    """Partition the pairs; all singles are for training, so that every gene has been seen.

    This asks less than :func:`split_by_gene`: what a gene does by itself is known, and many pairs of simulated labels share
    one LP. Interacting pairs and others are dealt out separately, in the same shares. An instance with more genes goes to
    the strictest part of any of its pairs.

    Args:
        table: The labels.
        fractions: Shares of the pairs for training, validation, testing; they sum to 1.
        seed: Seed of ``numpy.random.default_rng``.

    Returns:
        The split; the same for the same arguments, on every machine. All genes are genes of the training part.

    Raises:
        ValueError: If the fractions are none, or there are too few pairs for a part with a positive fraction.
    """
    shares = part_shares(fractions)
    strictest = pair_parts(table, np.arange(len(table)), shares, np.random.default_rng(seed))
    genes = np.unique(table.genes[table.genes != PAD]).astype(np.int32)
    by_part = {name: genes if name == "train" else genes[:0] for name in PARTS}
    return _split(table, strictest, by_part, seed, "pair", shares)


def split_by_both(
    table: LabelTable, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> Split:
    """Hold out genes, and pairs of the genes that are left.

    :func:`split_by_gene` first; then the pairs of training genes are split as :func:`split_by_pair` does.
    :meth:`Split.held_out` tells the two kinds of held-out instances apart.

    Args:
        table: The labels.
        fractions: Shares of the genes, and then of the pairs, for training, validation, testing; they sum to 1.
        seed: Seed of ``numpy.random.default_rng``.

    Returns:
        The split; the same for the same arguments, on every machine.

    Raises:
        ValueError: As the two functions do.
    """
    shares = part_shares(fractions)
    part, genes = gene_parts(table, shares, seed, None)
    left = np.flatnonzero(part == PARTS.index("train"))
    generator = np.random.default_rng((seed, ATTEMPTS))  # no seed of an attempt at the genes
    part[left] = pair_parts(table, left, shares, generator)
    return _split(table, part, genes, seed, "both", shares)


def _split(
    table: LabelTable,
    part: NDArray[np.int64],
    genes: dict[str, NDArray[np.int32]],
    seed: int,
    kind: SplitKind,
    shares: NDArray[np.float64],
) -> Split:
    """The split, with a warning where a part lacks what it should measure."""
    several = table.sizes >= 2
    interacting = part[several & table.interacting]
    for k, name in enumerate(PARTS):
        if len(interacting) and shares[k] > 0 and not (interacting == k).any():
            logger.warning(
                "split by %s: the %s part has none of the %d interacting instances; use a larger fraction, more labels "
                "or another seed.",
                kind,
                name,
                len(interacting),
            )
    train, val, test = (np.flatnonzero(part == k) for k in range(3))
    held_out = np.concatenate([genes["val"], genes["test"]])
    seen = np.asarray(~np.isin(table.genes, held_out).any(axis=1), np.bool_)
    return Split(
        train=train,
        val=val,
        test=test,
        genes=genes,
        sizes=table.sizes,
        seed=seed,
        kind=kind,
        seen_genes=seen,
    )


class MixedSampler(Sampler[int]):
    """Training epochs with given rates of singles, interacting pairs and random pairs.

    Almost all pairs have ε = 0, so a plain epoch teaches to answer 0. Instances are drawn without replacement while
    there are any of their kind left, then a new round begins. An instance with more than two genes counts as a pair.
    Epochs differ, and are the same again under the same seed. In distributed training all processes draw alike, and
    :class:`~pyg_nsa.cell.training.distributed.SharedBatches` around this sampler gives each its share of every batch; a
    ``DistributedSampler`` would repeat instances to make the shares equal.

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
