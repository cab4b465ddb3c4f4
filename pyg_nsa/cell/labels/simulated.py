"""Simulated labels: exact flux-balance growth, kept on disk, and resumed where it was interrupted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, get_args

import cobra
import numpy as np
from filelock import FileLock

from pyg_nsa.cell.files.sealed_file import remove_leftovers
from pyg_nsa.cell.labels.deletions import simulate_pairs, simulate_singles, simulate_triples
from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.labels.lp_journal import LpJournal
from pyg_nsa.cell.labels.lp_runner import LpRunner
from pyg_nsa.cell.labels.table import PAD, LabelFileError, LabelTable
from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork, as_network

__all__ = ["Deletions", "simulate_labels", "simulated_label_file"]

logger = logging.getLogger(__name__)

Deletions = Literal["singles", "pairs", "triples"]
"""How many genes are deleted at most; each includes those before it."""

# Raised whenever simulated labels change: caches of earlier code are then left alone.
SIMULATION_VERSION = 2


def simulate_labels(
    model: cobra.Model | MetabolicNetwork,
    cache_dir: str | Path,
    *,
    deletions: Deletions = "pairs",
    workers: int = 1,
    progress: bool = True,
) -> LabelTable:
    """Fitness of all single deletions, all pairs of non-lethal genes, and triples of interacting ones, by exact FBA.

    The result is kept in the folder, and read from there the next time. The file's name holds the model's id, a hash of all
    that growth depends on, and this code's version. Any number of processes may call this at once: one simulates and the
    others wait and read. A damaged file is made again, with a warning.

    Beside it lies a journal of the solved LPs. A simulation that was killed goes on from there, and loses at most
    :data:`~pyg_nsa.cell.labels.lp_runner.CHUNK` LPs a process; triples use what pairs have solved. The table is the same to the
    last bit, however often it was interrupted and whatever the number of processes. The journal may be deleted at any
    time.

    Args:
        model: The metabolic model, with its medium (bounds) and objective.
        cache_dir: Folder of the cache.
        deletions: ``"singles"``; ``"pairs"``: those too (about half a minute for iJO1366); ``"triples"``: also those of
            :func:`~pyg_nsa.cell.labels.deletions.interacting_triples`.
        workers: Processes that solve LPs. More than one pays where there are thousands of LPs. A script that uses several
            does its work under ``if __name__ == "__main__":``.
        progress: Show progress bars on stderr, if that is a terminal.

    Returns:
        All singles in the model's order of genes, ``gene_interaction`` NaN; then all pairs; then triples.

    Raises:
        ValueError: For unknown ``deletions``; if the wildtype does not grow, or without limit.
        RuntimeError: If HiGHS gives up on an LP, or a process ends before its time.
    """
    if deletions not in get_args(Deletions):
        names = ", ".join(map(repr, get_args(Deletions)))
        raise ValueError(f"deletions={deletions!r}: expected one of {names}.")
    network = as_network(model)
    path = simulated_label_file(network, cache_dir, deletions)
    if (kept := _kept(path, network)) is not None:  # needs no lock, so a cache may be read-only
        return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    journal_file = _file(network, cache_dir, "lps", ".journal")
    # One lock for all of a model's labels, for they share the journal.
    with FileLock(f"{journal_file}.lock"):
        # Another process may have made it meanwhile.
        if (kept := _kept(path, network, warn=True)) is not None:
            return kept
        remove_leftovers(path)
        with (
            LpJournal(journal_file, network) as journal,
            LpRunner(network, journal, workers) as runner,
        ):
            table = _simulate(network, runner, deletions, progress)
        table.save(path)
        logger.info(
            "labels of %s: simulated %d instances with %d LPs (%d of them solved before), saved to %s",
            network.model_id,
            len(table),
            table.provenance["lps"],
            runner.reused,
            path,
        )
    return table


def _kept(path: Path, network: MetabolicNetwork, warn: bool = False) -> LabelTable | None:
    """The table in a file; ``None`` if it is missing or damaged, which may be warned of."""
    if not path.exists():
        return None
    try:
        table = LabelTable.load(path)
    except LabelFileError as error:
        if warn:
            logger.warning("%s Simulating again.", error)
        return None
    logger.info("labels of %s: read from %s", network.model_id, path)
    return table


def simulated_label_file(
    network: MetabolicNetwork, cache_dir: str | Path, deletions: Deletions = "pairs"
) -> Path:
    """The file in which :func:`simulate_labels` keeps its result."""
    return _file(network, cache_dir, "labels", f"-{deletions}.npz")


def _file(network: MetabolicNetwork, cache_dir: str | Path, what: str, ending: str) -> Path:
    name = f"{what}-{network.safe_id}-{network.fingerprint()}-v{SIMULATION_VERSION}{ending}"
    return Path(cache_dir).expanduser() / name


def _simulate(
    network: MetabolicNetwork, runner: LpRunner, deletions: Deletions, progress: bool
) -> LabelTable:
    """Singles, pairs and triples as one table."""
    simulator = GrowthSimulator(network)
    singles = simulate_singles(simulator, progress, runner)
    genes = [singles.genes[:, None]]
    fitness, interaction = [singles.fitness], [np.full(len(singles.genes), np.nan)]
    if deletions != "singles":
        pairs = simulate_pairs(simulator, None, progress, runner)
        genes.append(pairs.pairs)
        fitness.append(pairs.fitness)
        interaction.append(pairs.interaction)
        if deletions == "triples":
            triples = simulate_triples(simulator, singles, pairs, progress, runner)
            genes.append(triples.triples)
            fitness.append(triples.fitness)
            interaction.append(triples.interaction)
    width = genes[-1].shape[1]
    padded = [np.pad(g, ((0, 0), (0, width - g.shape[1])), constant_values=PAD) for g in genes]
    return LabelTable(
        gene_ids=network.genes,
        genes=np.concatenate(padded),
        fitness=np.concatenate(fitness).astype(np.float32),
        gene_interaction=np.concatenate(interaction).astype(np.float32),
        provenance={
            "source": "simulation: flux-balance analysis, HiGHS, feasibility tolerance 1e-9",
            "model": network.model_id,
            "fingerprint": network.fingerprint(),
            "version": SIMULATION_VERSION,
            "wildtype_growth": simulator.wildtype_growth,
            "lps": simulator.lp_count,
        },
    )
