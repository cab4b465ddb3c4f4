"""The real topology of the yeast cell, from a folder of tables that the repository does not hold.

Needed there: ``genes.tsv.gz`` (column ``orf``), ``physical_irefindex.tsv.gz`` (two columns of ORFs, unordered pairs) and
``yeast-GEM_9.0.2.npz`` (the metabolic model as arrays).
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

FILES = ("genes.tsv.gz", "physical_irefindex.tsv.gz", "yeast-GEM_9.0.2.npz")


def missing_files(folder: str) -> list[str]:
    """Names of the tables that the folder lacks."""
    return [name for name in FILES if not (Path(folder) / name).is_file()]


def yeast_physical(folder: str) -> HeteroData:
    """All ORFs, and the physical interactions in both directions."""
    genes = _orfs(folder)
    data = HeteroData()
    data["gene"].num_nodes = len(genes)
    data["gene", "physical", "gene"].edge_index = _physical(folder, genes)
    return data


def yeast_cell(folder: str) -> HeteroData:
    """Physical interactions and metabolism: one reaction node per reaction, clause of its gene rule, and direction."""
    # Here, because processes that measure memory start faster without it.
    from pyg_nsa.cell.network.reaction_nodes import expand_reactions

    with np.load(Path(folder) / "yeast-GEM_9.0.2.npz") as arrays:
        network = _network({name: arrays[name] for name in arrays})
    nodes = expand_reactions(network)
    genes = _orfs(folder)
    for orf in network.genes:
        genes.setdefault(orf, len(genes))
    data = yeast_physical(folder)
    data["gene"].num_nodes = len(genes)
    data["reaction"].num_nodes = len(nodes.ids)
    data["metabolite"].num_nodes = len(network.metabolites)
    names = np.array([genes[orf] for orf in network.genes])
    gene, reaction = nodes.gene_edges
    gpr = torch.from_numpy(np.stack([names[gene], reaction]))
    data["gene", "gpr", "reaction"].edge_index = gpr
    rmr = data["reaction", "rmr", "metabolite"]
    rmr.edge_index = torch.from_numpy(nodes.metabolite_edges)
    rmr.stoichiometry = torch.from_numpy(nodes.stoichiometry.astype(np.float32))
    return data


def _network(arrays: dict[str, np.ndarray]) -> Any:
    from scipy.sparse import csc_array

    from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork

    shape = (len(arrays["mets"]), len(arrays["rxns"]))
    matrix = csc_array((arrays["S_data"], arrays["S_indices"], arrays["S_indptr"]), shape=shape)
    clauses: list[list[tuple[int, ...]]] = [[] for _ in arrays["rxns"]]
    starts = arrays["clause_ptr"]
    for number, reaction in enumerate(arrays["clause_rxn"]):
        members = arrays["clause_gene"][starts[number] : starts[number + 1]]
        clauses[reaction].append(tuple(sorted(members.tolist())))
    return MetabolicNetwork(
        model_id="yeast-GEM 9.0.2",
        genes=tuple(arrays["genes"].tolist()),
        reactions=tuple(arrays["rxns"].tolist()),
        metabolites=tuple(arrays["mets"].tolist()),
        stoichiometry=matrix,
        lower=arrays["lb"],
        upper=arrays["ub"],
        objective=arrays["c"],
        clauses=tuple(map(tuple, clauses)),
    )


def _orfs(folder: str) -> dict[str, int]:
    return {row[0]: number for number, row in enumerate(_rows(folder, "genes.tsv.gz"))}


def _physical(folder: str, genes: dict[str, int]) -> torch.Tensor:
    rows = _rows(folder, "physical_irefindex.tsv.gz")
    pairs = torch.tensor([[genes[a], genes[b]] for a, b, *_ in rows]).t()
    other = pairs[0] != pairs[1]  # a self interaction has one direction
    return torch.cat([pairs, pairs[:, other].flip(0)], dim=1)


def _rows(folder: str, name: str) -> list[list[str]]:
    with gzip.open(Path(folder) / name, "rt", newline="") as file:
        return list(csv.reader(file, delimiter="\t"))[1:]
