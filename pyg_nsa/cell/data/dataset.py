"""The dataset: one base graph, and instances that are no more than gene ids and labels.

``processed/`` holds the base graph and the labels, under names that contain a hash of everything they were made from,
so that other options never meet old files. Files appear atomically and under a lock: any number of processes may build
one dataset at once. Each has a checksum over all its bytes; a file that does not fit it is made again, with a warning.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cobra
import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch_geometric.data import Dataset, HeteroData

from pyg_nsa.cell.data.batch import Perturbation
from pyg_nsa.cell.data_names import SIMULATED
from pyg_nsa.cell.files.sealed_file import (
    DamagedFileError,
    read_sealed,
    remove_leftovers,
    write_sealed,
)
from pyg_nsa.cell.files.tables import TableError
from pyg_nsa.cell.labels.measured import (
    READER_VERSION,
    UnknownRows,
    read_label_table,
    warn_of_labels,
)
from pyg_nsa.cell.labels.simulated import Deletions, simulate_labels, simulated_label_file
from pyg_nsa.cell.labels.table import PAD, LabelFileError, LabelTable
from pyg_nsa.cell.network.deletion import DeletionRule
from pyg_nsa.cell.network.features import check_features
from pyg_nsa.cell.network.gene_tables import UnknownGenes
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.lost_reactions import lost_reactions
from pyg_nsa.cell.network.materialise import Numbering, perturbed_graph
from pyg_nsa.cell.network.metabolic_model import (
    MetabolicNetwork,
    as_network,
    load_model,
    model_file,
)
from pyg_nsa.cell.network.names import ids_as_written
from pyg_nsa.cell.network.sizes import dense_mask_bytes, graph_bytes, readable
from pyg_nsa.errors import nearest

__all__ = ["MaterialisedDataset", "PerturbationDataset"]

logger = logging.getLogger(__name__)

GRAPH_VERSION = 5  # raised whenever build_graph gives something else for the same input


#: Measured deletions of several genes below which their share that interacts says nothing.
_SEVERAL = 20


class PerturbationDataset(Dataset):
    """Perturbed copies of one cell, with labels.

    An item is a :class:`~pyg_nsa.cell.data.batch.Perturbation`; :class:`~pyg_nsa.cell.data.batch.PerturbationLoader` makes batches
    of them, and :meth:`to_hetero_data` a graph of its own of one. ``dataset[index]`` with a slice, list, array or tensor
    selects, as in PyG; a selection shares graph and labels.

    Args:
        root: Folder of the dataset; files go to ``root/processed``.
        model: A model's name or file (see :func:`~pyg_nsa.cell.network.metabolic_model.load_model`), or the model itself.
        labels: ``"simulated"`` (singles and all pairs, by FBA), ``"simulated-singles"``, ``"simulated-triples"`` (also
            triples of interacting genes; see :func:`~pyg_nsa.cell.labels.simulated.simulate_labels`), the file of a
            measured table (see :func:`~pyg_nsa.cell.labels.measured.read_label_table`), or a label table.
        gene_tables: As for :func:`~pyg_nsa.cell.network.graph.build_graph`.
        unknown: Likewise.
        proxies: Likewise.
        reverse: Likewise.
        features: Likewise.
        progress: Show progress bars on stderr, if that is a terminal.
        force_reload: Build anew, whatever is there. Simulated labels are kept.
        build: Build what is missing. ``False`` reads only.
        workers: Processes that simulate labels; they change no result.
        unknown_labels: What to do with rows of a measured table whose genes the graph lacks: ``"error"``, or ``"skip"``
            them with a warning.
        interacting_above: Pairs with a larger ``|gene_interaction|`` count as interacting, in splits, sampling and metrics; by
            default what the labels say, 0.001, for exact ones are 0 but for rounding where genes do not interact. Measured ones need
            a threshold above their noise.

    Attributes:
        graph: The base graph; not to be changed.
        table: Labels of all instances, also in a selection; see :attr:`index`.

    Raises:
        ModelFileError: If the model cannot be read.
        TableError: If a table cannot be read or joined.
        ValueError: If ``labels`` is a table of another graph, and as for :func:`~pyg_nsa.cell.network.graph.build_graph`.
        FileNotFoundError: If ``build`` is ``False``, and the dataset is not in ``root``.
    """

    graph: HeteroData
    table: LabelTable

    def __init__(
        self,
        root: str | Path,
        model: str | Path | cobra.Model | MetabolicNetwork = "textbook",
        *,
        labels: str | Path | pd.DataFrame | LabelTable = "simulated",
        gene_tables: Mapping[str, str | Path | pd.DataFrame] | None = None,
        unknown: UnknownGenes = "error",
        proxies: bool | None = None,
        reverse: bool = True,
        features: bool | Sequence[str] = True,
        progress: bool = True,
        force_reload: bool = False,
        build: bool = True,
        workers: int = 1,
        unknown_labels: UnknownRows = "error",
        interacting_above: float | None = None,
    ) -> None:
        self.model = model
        self.labels = labels
        self.unknown_labels = unknown_labels
        self.workers = workers
        self.progress = progress
        self._options: dict[str, Any] = {
            "gene_tables": dict(gene_tables or {}),
            "unknown": unknown,
            "proxies": proxies,
            "reverse": reverse,
            "features": check_features(features),
        }
        self._key = self._hash()
        super().__init__(str(Path(root).expanduser()), log=False)
        found = None if force_reload else self._read()
        if found is None and not build:
            raise FileNotFoundError(f"{self.processed_paths[0]}: not built yet, or damaged.")
        if found is None:
            found = self._build(force_reload)
        else:
            name, count = found[0].model_id, len(found[1])
            logger.info("%s: %d instances from %s", name, count, self.processed_dir)
            if build:  # who only reads, to predict say, has been told
                warn_of_labels(found[1])
        self.graph, self.table = found
        if interacting_above is not None:
            self.table = replace(self.table, interacting_above=interacting_above)
        if build and not isinstance(labels, LabelTable) and _simulated(labels) is None:
            _warn_of_noise(self.table)
        self._rule = DeletionRule(self.graph)

    # --- building -------------------------------------------------------------

    @property
    def processed_file_names(self) -> list[str]:
        """Name of the file that the dataset is complete with."""
        return [f"graph-{self._key}.pt"]

    # Not PyG's `process`: that writes files of its own next to ours, without a lock.
    def _build(self, force: bool) -> tuple[HeteroData, LabelTable]:
        """Build what is missing in ``processed/``; waits while another process does."""
        path = Path(self.processed_paths[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            found = None if force else self._read()
            if found is not None:
                return found
            source = self.model
            network = as_network(load_model(source) if isinstance(source, str | Path) else source)
            graph = build_graph(network, **self._options)
            stream = io.BytesIO()
            labels = self._make_labels(network, graph)
            torch.save({"graph": graph.to_dict(), "labels": labels}, stream)
            remove_leftovers(path)
            write_sealed(path, stream.getvalue())
            logger.info("graph of %s: saved to %s", network.model_id, path)
            found = self._read()
        if found is None:
            raise RuntimeError(f"{path}: what was just written cannot be read.")
        return found

    def _make_labels(self, network: MetabolicNetwork, graph: HeteroData) -> str | None:
        """Make the file of labels; its name, or ``None`` where the user gave a table itself."""
        if isinstance(self.labels, LabelTable):
            self.labels.check_graph(graph)
            return None
        folder = Path(self.processed_dir)
        if (deletions := _simulated(self.labels)) is not None:
            simulate_labels(
                network, folder, deletions=deletions, workers=self.workers, progress=self.progress
            )
            return simulated_label_file(network, folder, deletions).name
        file = folder / f"labels-measured-{self._key}.npz"
        listing = file.with_suffix(".problems.txt")
        written = ids_as_written(network)
        table = read_label_table(self.labels, graph, self.unknown_labels, listing, written)
        return table.save(file).name

    def _read(self) -> tuple[HeteroData, LabelTable] | None:
        """Graph and labels from ``processed/``; ``None`` if they are missing or damaged."""
        path = Path(self.processed_paths[0])
        if not path.exists():
            return None
        try:
            saved = torch.load(read_sealed(path), weights_only=True)
            graph = HeteroData.from_dict(saved["graph"])
            if isinstance(self.labels, LabelTable):
                self.labels.check_graph(graph)
                return graph, self.labels
            return graph, LabelTable.load(path.parent / saved["labels"])
        except (
            RuntimeError,
            EOFError,
            KeyError,
            OSError,
            pickle.UnpicklingError,
            DamagedFileError,
            LabelFileError,
        ) as error:
            logger.warning("%s: cannot be read (%s). Building again.", path, error)
            return None

    def _hash(self) -> str:
        """Hash of all that the graph and its labels are made from."""
        digest = hashlib.sha256(f"graph {GRAPH_VERSION}".encode())
        if isinstance(self.model, str | Path):
            digest.update(model_file(self.model).read_bytes())
        else:
            network = as_network(self.model)
            digest.update(network.fingerprint().encode())
            if "subsystem" in self._options["features"]:  # no label depends on it
                digest.update(repr(network.subsystems).encode())
        tables = self._options["gene_tables"]
        simple = {**self._options, "gene_tables": list(tables)}
        digest.update(json.dumps(simple, sort_keys=True).encode())
        for name, table in tables.items():
            digest.update(_content(table, f"gene_tables[{name!r}]"))
        if (deletions := _simulated(self.labels)) is not None:
            digest.update(f"simulated-{deletions}".encode())
        elif not isinstance(self.labels, LabelTable):
            how = f"{self.unknown_labels} {READER_VERSION}"
            digest.update(_content(self.labels, "labels") + how.encode())
        return digest.hexdigest()[:16]

    # --- instances ------------------------------------------------------------

    def len(self) -> int:
        """Number of instances in the label table."""
        return len(self.table)

    def get(self, idx: int) -> Perturbation:
        """Instance ``idx`` of the label table."""
        table = self.table
        genes = table.genes[idx]
        return Perturbation(
            index=int(idx),
            genes=torch.from_numpy(genes[genes != PAD].astype(np.int64)),
            y=torch.tensor([table.fitness[idx], table.gene_interaction[idx]], dtype=torch.float32),
        )

    def __getitems__(self, positions: Sequence[int]) -> list[Perturbation]:
        """Many items at once; a ``DataLoader`` prefers this, and it saves most of the time that single items take."""
        indices = self.indices()  # all of them as an array would take longer than the batch
        index = np.fromiter((indices[i] for i in positions), np.int64, len(positions))
        genes = self.table.genes[index]
        members = torch.from_numpy(genes[genes != PAD].astype(np.int64))
        y = np.stack([self.table.fitness[index], self.table.gene_interaction[index]], axis=1)
        return [
            Perturbation(*item)
            for item in zip(
                index.tolist(),
                members.split((genes != PAD).sum(axis=1).tolist()),
                torch.from_numpy(y).unbind(),
                strict=True,
            )
        ]

    @property
    def index(self) -> NDArray[np.int64]:
        """Numbers of this selection's instances in the label table."""
        return np.asarray(self.indices(), np.int64)

    @functools.cached_property
    def lost_reactions(self) -> NDArray[np.int64]:
        """[len(table)] int64, a number for the set of reactions that each instance of the label table takes away (see
        :func:`~pyg_nsa.cell.network.lost_reactions.lost_reactions`)."""
        return lost_reactions(self.graph, self.table.genes, PAD)

    @property
    def bytes_per_instance(self) -> float:
        """Bytes that an instance takes, in memory and on disk; the base graph is stored once."""
        return self.table.nbytes / max(len(self.table), 1)

    @property
    def sizes(self) -> str:
        """One line for people: what an instance takes, what the base graph does, and what dense masks would."""
        return (
            f"{readable(self.bytes_per_instance)} an instance beside one base graph of "
            f"{readable(graph_bytes(self.graph))}; as dense boolean masks {readable(dense_mask_bytes(self.graph))} "
            "an instance"
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self)} instances of {self.graph.model_id}, "
            f"{readable(self.bytes_per_instance)} each)"
        )

    def to_hetero_data(
        self,
        i: int,
        numbering: Numbering = "compact",
        transform: Callable[[HeteroData], HeteroData] | None = None,
    ) -> HeteroData:
        """An instance as a graph of its own.

        Args:
            i: Position in this (selection of the) dataset.
            numbering: ``"compact"`` or ``"wildtype"``; see :mod:`pyg_nsa.cell.network.materialise`.
            transform: Applied to the graph, e.g. :class:`pyg_nsa.cell.network.transforms.DenseBoolMasks`.

        Returns:
            The graph; with ``y`` [1, 2] float32, fitness and gene_interaction.
        """
        item: Perturbation = self.get(self.indices()[i])
        data = perturbed_graph(self.graph, self._rule.alive_one(item.genes), numbering)
        data.y = item.y[None]
        return data if transform is None else transform(data)

    def materialised(
        self,
        numbering: Numbering = "compact",
        transform: Callable[[HeteroData], HeteroData] | None = None,
    ) -> MaterialisedDataset:
        """The dataset with a ``HeteroData`` for each item, for ``torch_geometric.loader.DataLoader``.

        Use ``follow_batch=["x"]`` there with the compact numbering, whose padded rows PyG's ``batch`` does not count.

        Args:
            numbering: As for :meth:`to_hetero_data`.
            transform: As for :meth:`to_hetero_data`.
        """
        return MaterialisedDataset(self, numbering, transform)


class MaterialisedDataset(torch.utils.data.Dataset):
    """A :class:`PerturbationDataset` whose items are graphs, made when they are asked for.

    Args:
        dataset: The dataset.
        numbering: As for :meth:`PerturbationDataset.to_hetero_data`.
        transform: Likewise.
    """

    def __init__(
        self,
        dataset: PerturbationDataset,
        numbering: Numbering = "compact",
        transform: Callable[[HeteroData], HeteroData] | None = None,
    ) -> None:
        self.dataset = dataset
        self.numbering: Numbering = numbering
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> HeteroData:
        if not -len(self) <= i < len(self):
            raise IndexError(f"instance {i} of {len(self)}")
        return self.dataset.to_hetero_data(i, self.numbering, self.transform)


def _simulated(labels: Any) -> Deletions | None:
    """Which deletions are simulated, if any are."""
    return SIMULATED.get(labels) if isinstance(labels, str) else None


def _warn_of_noise(table: LabelTable) -> None:
    """Warn where most measured pairs count as interacting, as they do if the threshold is below the noise."""
    several = (table.sizes >= 2) & ~np.isnan(table.gene_interaction)
    number, interacting = int(several.sum()), int((several & table.interacting).sum())
    if number >= _SEVERAL and interacting > number / 2:
        logger.warning(
            "%d of %d measured deletions of several genes count as interacting, |gene_interaction| > %g. Above the noise of the "
            "measurements the share is small, and sampling and metrics tell more: data.interacting_above sets the threshold "
            "(Costanzo et al. 2016 use 0.08 for yeast)",
            interacting,
            number,
            table.interacting_above,
        )


def _content(table: str | Path | pd.DataFrame, what: str) -> bytes:
    """What a table says, for hashing."""
    if isinstance(table, pd.DataFrame):
        return table.to_csv().encode()
    path = Path(table).expanduser()
    if not path.is_file():
        near = nearest(table, SIMULATED) if what == "labels" else None
        hint = f" Did you mean {near!r}?" if near else ""
        raise TableError(f"{path}: no such file ({what}).{hint}")
    return hashlib.sha256(path.read_bytes()).digest() + path.suffix.encode()
