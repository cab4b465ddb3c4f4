"""Labels of perturbed cells: fitness and genetic interaction, simulated or measured.

``fitness`` is growth relative to the wildtype. ``gene_interaction`` of a pair is ``ε = f_ab − f_a·f_b`` (Costanzo et al.,
*Science* 2010), that of a triple ``τ``, what its pairs leave unexplained (:mod:`pyg_nsa.cell.labels.deletions`). Missing values
are NaN; a loss must mask them. Simulation is not measurement: FBA knows no regulation, no kinetics and no toxicity.

:func:`pyg_nsa.cell.labels.simulated.simulate_labels` and :func:`pyg_nsa.cell.labels.measured.read_label_table` make tables.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyg_nsa.cell.data_names import INTERACTING
from pyg_nsa.cell.files.sealed_file import DamagedFileError, read_sealed, write_sealed

if TYPE_CHECKING:  # simulation needs no torch, and its processes start in half the time without
    from torch_geometric.data import HeteroData

__all__ = ["NUMBERS", "PAD", "TARGETS", "LabelFileError", "LabelTable"]

PAD = -1

TARGETS = ("fitness", "gene_interaction")
"""What is predicted: the columns of labels and predictions, in this order."""

NUMBERS = (*TARGETS, "fitness_std")
"""All that a table may hold of an instance, by the names of its columns."""

_FILE_FORMAT = 2


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
        interacting_above: Instances with a larger ``|gene_interaction|`` count as interacting; a choice of the reader, so it is
            not saved.
    """

    gene_ids: tuple[str, ...]
    genes: NDArray[np.int32]
    fitness: NDArray[np.float32]
    gene_interaction: NDArray[np.float32]
    fitness_std: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    provenance: Mapping[str, Any] = field(default_factory=dict)
    interacting_above: float = INTERACTING

    def __post_init__(self) -> None:
        if not self.fitness_std.size:
            object.__setattr__(self, "fitness_std", np.full(len(self.genes), np.nan, np.float32))
        if self.genes.ndim != 2 or self.genes.dtype != np.int32:
            raise ValueError(
                f"genes: expected an int32 array [n, K], got {self.genes.dtype} of shape {self.genes.shape}."
            )
        for name in NUMBERS:
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
        """[n] bool, whether ``|gene_interaction|`` is known and above :attr:`interacting_above`."""
        return np.nan_to_num(np.abs(self.gene_interaction), nan=0.0) > self.interacting_above

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
        return replace(self, **{name: getattr(self, name)[index] for name in ("genes", *NUMBERS)})

    def ids(self, i: int) -> tuple[str, ...]:
        """Names of the genes that instance ``i`` deletes."""
        return tuple(self.gene_ids[g] for g in self.genes[i] if g != PAD)

    def to_frame(self) -> pd.DataFrame:
        """The table with names, as :func:`~pyg_nsa.cell.labels.measured.read_label_table` reads it.

        Returns:
            Columns ``genes`` (ids joined by ``;``), ``fitness``, ``fitness_std``, ``gene_interaction``.
        """
        names = np.array([*self.gene_ids, ""], dtype=object)[self.genes]  # PAD finds the last
        return pd.DataFrame(
            {
                "genes": [";".join(filter(None, row)) for row in names.tolist()],
                "fitness": self.fitness,
                "fitness_std": self.fitness_std,
                "gene_interaction": self.gene_interaction,
            }
        )

    def check_graph(self, graph: HeteroData) -> None:
        """Make sure that the gene indices mean the same in a graph.

        Args:
            graph: A graph of :func:`pyg_nsa.cell.network.graph.build_graph`.

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
        """Write a NumPy archive with a checksum, atomically: no reader ever sees half a file.

        Args:
            path: The file; its folder is made if need be.

        Returns:
            The path.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {"format": _FILE_FORMAT, "provenance": dict(self.provenance)}
        stream = io.BytesIO()
        np.savez(
            stream,
            head=np.array(json.dumps(head)),
            gene_ids=np.array(self.gene_ids, dtype=np.str_),
            genes=self.genes,
            fitness=self.fitness,
            gene_interaction=self.gene_interaction,
            fitness_std=self.fitness_std,
        )
        write_sealed(path, stream.getvalue())
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
            with np.load(read_sealed(Path(path)), allow_pickle=False) as archive:
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
        except DamagedFileError as error:
            raise LabelFileError(
                f"{error} Delete it; simulated labels are then made again."
            ) from None
        except KeyError as error:
            raise LabelFileError(f"{path}: not a label file: it lacks {error}.") from error
