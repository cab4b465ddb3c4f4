"""Labels of perturbed cells: fitness and genetic interaction, simulated or measured.

``fitness`` is growth relative to the wildtype, and ``gene_interaction`` of a pair is ``ε = f_ab − f_a·f_b`` (Costanzo et
al., *Science* 2010). Missing values are NaN; a loss must mask them. Simulation is not measurement: FBA knows no
regulation, no kinetics and no toxicity.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cobra
import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from pyg_nsa.cell.fba import GrowthSimulator, simulate_pairs, simulate_singles
from pyg_nsa.cell.metabolic_model import MetabolicNetwork, as_network
from pyg_nsa.cell.tables import TableError, problem_list, read_rows, row_name

__all__ = ["INTERACTING", "LabelFileError", "LabelTable", "read_label_table", "simulate_labels"]

logger = logging.getLogger(__name__)

INTERACTING = 1e-3
"""Pairs with a larger ``|ε|`` interact."""

PAD = -1
# Raised whenever simulated labels change: caches of earlier code are then left alone.
SIMULATION_VERSION = 1
_FILE_FORMAT = 1


class LabelFileError(ValueError):
    """A label file is damaged, or was not written by :meth:`LabelTable.save`."""


@dataclass(frozen=True, eq=False)
class LabelTable:
    """``n`` instances: which genes each deletes, and what came of it.

    Attributes:
        gene_ids: Names behind the gene indices; the graph's gene nodes must begin with them.
        genes: [n, K] int32, ascending gene indices of each instance, padded with -1 at the end.
        fitness: [n] float32, growth relative to the wildtype; NaN where unknown.
        gene_interaction: [n] float32, NaN where unknown or not defined (single deletions).
        fitness_std: [n] float32, standard deviation of ``fitness``; NaN where unknown.
        provenance: Where the labels come from: plain JSON values.
    """

    gene_ids: tuple[str, ...]
    genes: NDArray[np.int32]
    fitness: NDArray[np.float32]
    gene_interaction: NDArray[np.float32]
    fitness_std: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.fitness_std.size:
            object.__setattr__(self, "fitness_std", np.full(len(self.genes), np.nan, np.float32))
        if self.genes.ndim != 2 or self.genes.dtype != np.int32:
            raise ValueError(
                f"genes: expected an int32 array [n, K], got {self.genes.dtype} of shape {self.genes.shape}."
            )
        for name in ("fitness", "gene_interaction", "fitness_std"):
            values = getattr(self, name)
            if values.shape != (len(self.genes),) or values.dtype != np.float32:
                raise ValueError(
                    f"{name}: expected a float32 array of shape {(len(self.genes),)}, got {values.dtype} of shape "
                    f"{values.shape}."
                )
        low, high = (
            (int(self.genes.min()), int(self.genes.max())) if self.genes.size else (PAD, PAD)
        )
        if low < PAD or high >= len(self.gene_ids):
            raise ValueError(
                f"genes: indices must be below {len(self.gene_ids)}, the number of gene_ids; -1 pads."
            )

    def __len__(self) -> int:
        return len(self.genes)

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{np.sum(self.sizes == size)} of {size}" for size in np.unique(self.sizes)
        )
        return f"LabelTable({len(self)} instances: {sizes} deleted genes)"

    @property
    def sizes(self) -> NDArray[np.int64]:
        """[n] int64, number of deleted genes of each instance."""
        return (self.genes != PAD).sum(axis=1)

    @property
    def interacting(self) -> NDArray[np.bool_]:
        """[n] bool, whether ``|gene_interaction|`` is known and above :data:`INTERACTING`."""
        return np.nan_to_num(np.abs(self.gene_interaction), nan=0.0) > INTERACTING

    @property
    def y(self) -> NDArray[np.float32]:
        """[n, 2] float32: fitness, gene_interaction."""
        return np.stack([self.fitness, self.gene_interaction], axis=1)

    @property
    def nbytes(self) -> int:
        """Bytes of all instances, names and provenance not counted."""
        return sum(
            a.nbytes for a in (self.genes, self.fitness, self.gene_interaction, self.fitness_std)
        )

    def select(self, index: NDArray[Any]) -> LabelTable:
        """The instances at ``index`` (positions or a bool mask), with the same names and provenance."""
        fields = ("genes", "fitness", "gene_interaction", "fitness_std")
        return replace(self, **{name: getattr(self, name)[index] for name in fields})

    def ids(self, i: int) -> tuple[str, ...]:
        """Names of the genes that instance ``i`` deletes."""
        return tuple(self.gene_ids[g] for g in self.genes[i] if g != PAD)

    def check_graph(self, graph: HeteroData) -> None:
        """Make sure that the gene indices mean the same in a graph.

        Args:
            graph: A graph of :func:`pyg_nsa.cell.graph.build_graph`.

        Raises:
            ValueError: If its gene nodes do not begin with ``gene_ids``.
        """
        names = graph["gene"].node_ids
        if tuple(names[: len(self.gene_ids)]) != self.gene_ids:
            raise ValueError(
                f"The labels belong to another graph: their {len(self.gene_ids)} genes are not the first of its "
                f"{len(names)} gene nodes. Build graph and labels from one model."
            )

    def save(self, path: str | Path) -> Path:
        """Write a NumPy archive, atomically: no reader ever sees half a file.

        Args:
            path: The file; its folder is made if need be.

        Returns:
            The path.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {"format": _FILE_FORMAT, "provenance": dict(self.provenance)}
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(
                    file,
                    head=np.array(json.dumps(head)),
                    gene_ids=np.array(self.gene_ids, dtype=np.str_),
                    genes=self.genes,
                    fitness=self.fitness,
                    gene_interaction=self.gene_interaction,
                    fitness_std=self.fitness_std,
                )
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return path

    @classmethod
    def load(cls, path: str | Path) -> LabelTable:
        """Read what :meth:`save` wrote.

        Args:
            path: The file.

        Returns:
            The table.

        Raises:
            FileNotFoundError: If there is no such file.
            LabelFileError: If it is damaged or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                head = json.loads(str(archive["head"]))
                if head.get("format") != _FILE_FORMAT:
                    raise LabelFileError(
                        f"{path}: written in format {head.get('format')!r}, expected {_FILE_FORMAT}. Simulate again."
                    )
                return cls(
                    gene_ids=tuple(archive["gene_ids"].tolist()),
                    genes=archive["genes"],
                    fitness=archive["fitness"],
                    gene_interaction=archive["gene_interaction"],
                    fitness_std=archive["fitness_std"],
                    provenance=head["provenance"],
                )
        except (FileNotFoundError, LabelFileError):
            raise
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            AttributeError,
            zipfile.BadZipFile,
        ) as error:
            raise LabelFileError(
                f"{path}: damaged, or not a label file ({type(error).__name__}: {error}). "
                "Delete it; simulated labels are then made again."
            ) from error


def simulate_labels(
    model: cobra.Model | MetabolicNetwork,
    cache_dir: str | Path,
    *,
    pairs: bool = True,
    progress: bool = True,
) -> LabelTable:
    """Fitness of all single deletions and of all pairs of non-lethal genes, by exact FBA, cached on disk.

    The cache's key is the model's id, a hash of all that growth depends on, and this code's version. Any number of
    processes may call this at once: one simulates and the others wait and read. A damaged cache is made again.

    Args:
        model: The metabolic model, with its medium (bounds) and objective.
        cache_dir: Folder of the cache.
        pairs: Whether to simulate pairs too (about half a minute for iJO1366).
        progress: Show progress bars on stderr, if that is a terminal.

    Returns:
        All singles in the model's order of genes, ``gene_interaction`` NaN; then all pairs.
    """
    network = as_network(model)
    path = simulated_label_file(network, cache_dir, pairs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.exists():
            try:
                table = LabelTable.load(path)
                logger.info("labels of %s: read from %s", network.model_id, path)
                return table
            except LabelFileError as error:
                logger.warning("%s Simulating again.", error)
        table = _simulate(network, pairs, progress)
        table.save(path)
        logger.info(
            "labels of %s: simulated %d instances with %d LPs, saved to %s",
            network.model_id,
            len(table),
            table.provenance["lps"],
            path,
        )
    return table


def simulated_label_file(
    network: MetabolicNetwork, cache_dir: str | Path, pairs: bool = True
) -> Path:
    """The file in which :func:`simulate_labels` keeps its result."""
    kind = "pairs" if pairs else "singles"
    name = f"labels-{network.safe_id}-{network.fingerprint()}-{kind}-v{SIMULATION_VERSION}.npz"
    return Path(cache_dir).expanduser() / name


def _simulate(network: MetabolicNetwork, pairs: bool, progress: bool) -> LabelTable:
    """All singles, then all pairs, as one table."""
    simulator = GrowthSimulator(network)
    singles = simulate_singles(simulator, progress)
    genes = np.stack([singles.genes, np.full(len(singles.genes), PAD, np.int32)], axis=1)
    fitness, interaction = singles.fitness, np.full(len(singles.genes), np.nan)
    if pairs:
        doubles = simulate_pairs(simulator, progress=progress)
        genes = np.concatenate([genes, doubles.pairs])
        fitness = np.concatenate([fitness, doubles.fitness])
        interaction = np.concatenate([interaction, doubles.interaction])
    else:
        genes = genes[:, :1].copy()
    return LabelTable(
        gene_ids=network.genes,
        genes=genes,
        fitness=fitness.astype(np.float32),
        gene_interaction=interaction.astype(np.float32),
        provenance={
            "source": "simulation: flux-balance analysis, HiGHS, feasibility tolerance 1e-9",
            "model": network.model_id,
            "fingerprint": network.fingerprint(),
            "version": SIMULATION_VERSION,
            "wildtype_growth": simulator.wildtype_growth,
            "lps": simulator.lp_count,
        },
    )


def read_label_table(path: str | Path | pd.DataFrame, graph: HeteroData) -> LabelTable:
    """Join a table of measurements to a graph.

    Columns, by name in the header: ``genes`` (ids separated by ``,``, ``;``, ``|`` or spaces) and ``fitness`` (relative
    to the wildtype), and optionally ``gene_interaction`` and ``fitness_std``; others are left alone. An empty cell,
    ``NA`` or ``NaN`` is a missing value.

    Args:
        path: A CSV, TSV or Parquet file, or a table in memory.
        graph: A graph of :func:`pyg_nsa.cell.graph.build_graph`, whose gene nodes the ids must name.

    Returns:
        One instance a row, in the table's order.

    Raises:
        TableError: If the file cannot be read, a column is missing, or rows have unknown genes, numbers that are none,
            or the genes of an earlier row. All such rows are named with their line numbers.
    """
    rows, where, has_first_line = read_rows(path, "measured labels")
    if has_first_line:
        header = list(rows.iloc[0]) if len(rows) else []
        rows = rows.iloc[1:].set_axis(header, axis=1)
    for name in ("genes", "fitness"):
        if list(rows.columns).count(name) != 1:
            raise TableError(
                f"{where}: expected one column {name!r}, got the columns {', '.join(map(repr, rows.columns))}. "
                "Needed: genes, fitness; optional: gene_interaction, fitness_std."
            )
    row = row_name(has_first_line)
    names: list[str] = graph["gene"].node_ids
    index = {gene: i for i, gene in enumerate(names)}
    problems: list[tuple[int, str]] = []  # position and text
    numbers: dict[str, NDArray[np.float32]] = {}
    for name in ("fitness", "gene_interaction", "fitness_std"):
        numbers[name] = np.full(len(rows), np.nan, np.float32)
        for i, cell in enumerate(rows[name] if name in rows.columns else ()):
            try:
                value = np.nan if cell.lower() in ("", "na", "nan") else float(cell)
                if np.isinf(value):
                    raise ValueError
                numbers[name][i] = value
            except ValueError:
                problems.append((i, f"{name} {cell!r} is not a finite number"))
    members: list[tuple[int, ...]] = []
    first_seen: dict[tuple[int, ...], int] = {}
    for i, cell in enumerate(rows["genes"]):
        ids = [gene for gene in re.split(r"[,;|\s]+", cell) if gene]
        missing = [gene for gene in dict.fromkeys(ids) if gene not in index]
        genes = tuple(sorted(index[gene] for gene in set(ids) & index.keys()))
        members.append(genes)
        if not ids:
            problems.append((i, "no genes"))
        elif missing:
            problems.append((i, f"unknown gene {', '.join(map(repr, missing))}"))
        elif len(genes) < len(ids):
            problems.append((i, f"a gene twice in {cell!r}"))
        elif (j := first_seen.setdefault(genes, i)) != i:
            same = all(np.array_equal(v[i], v[j], equal_nan=True) for v in numbers.values())
            verdict = "repeats" if same else "contradicts"
            problems.append((i, f"{verdict} {row} {rows.index[j]} ({cell})"))
    if problems:
        lines = [f"{row} {rows.index[i]}: {text}" for i, text in sorted(problems)]
        raise TableError(
            f"{where}: {len(problems)} problems. Genes are named as in the graph ({names[0]!r}, …), and every set of "
            f"genes has one row:\n{problem_list(lines)}"
        )
    width = max((len(genes) for genes in members), default=1)
    padded = np.full((len(members), width), PAD, np.int32)
    for i, genes in enumerate(members):
        padded[i, : len(genes)] = genes
    return LabelTable(
        gene_ids=tuple(names),
        genes=padded,
        provenance={"source": "measured", "file": where, "model": graph.model_id},
        **numbers,
    )
