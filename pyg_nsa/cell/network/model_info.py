"""What the graph of a metabolic model holds, and what it leaves out: plain values, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cobra
import numpy as np
import pandas as pd
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.cell.labels.table import LabelTable
from pyg_nsa.cell.network.gene_tables import GenePairs, read_gene_pairs
from pyg_nsa.cell.network.graph import MAX_DEGREE, build_graph
from pyg_nsa.cell.network.growth_info import growth_info
from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork, as_network
from pyg_nsa.cell.network.names import ids_as_written
from pyg_nsa.cell.network.sizes import dense_mask_bytes, graph_bytes

__all__ = ["model_info"]


def model_info(
    model: cobra.Model | MetabolicNetwork,
    gene_tables: Mapping[str, str | Path] | None = None,
    *,
    proxies: bool | None = None,
    features: bool | Sequence[str] = False,
) -> dict[str, Any]:
    """Build a model's graph and say what became of everything.

    Args:
        model: The metabolic model.
        gene_tables: Gene–gene relations; rows with unknown ids are counted and left out.
        proxies: As for :func:`~pyg_nsa.cell.network.graph.build_graph`.
        features: Likewise.

    Returns:
        Plain JSON values. ``model``: ``id`` and ``fingerprint``. ``growth``: see
        :func:`~pyg_nsa.cell.network.growth_info.growth_info`. ``nodes``: by type, ``count`` and ``fields``. ``edges``: a
        list of ``edge_type``, ``count``, ``fields``. ``bytes``: ``graph`` (all tensors), ``instance`` (one of two deleted
        genes, labels included), ``dense_masks`` (what dense boolean masks would add to *each* instance). ``left_out``:
        lists of ids, see :func:`_idle`. ``gene_tables``: by name, ``rows``, ``edges``, ``unknown_ids``, ``unknown_rows`` and
        ``repeated_rows`` (texts with line numbers).

    Raises:
        TableError: If a table cannot be read.
        ValueError: As :func:`~pyg_nsa.cell.network.graph.build_graph`.
    """
    network = as_network(model)
    written = ids_as_written(network)
    tables = {
        name: read_gene_pairs(name, table, list(network.genes), "skip", written=written, quiet=True)
        for name, table in (gene_tables or {}).items()
    }
    names = np.array(network.genes, dtype=object)
    known = {name: pd.DataFrame(names[found.pairs.T]) for name, found in tables.items()}
    graph = build_graph(network, gene_tables=known, proxies=proxies, features=features)
    return {
        "model": {"id": network.model_id, "fingerprint": network.fingerprint()},
        "growth": growth_info(network),
        "nodes": {
            t: {"count": int(graph[t].num_nodes), "fields": _fields(graph, t)}
            for t in graph.node_types
        },
        "edges": [
            {
                "edge_type": list(e),
                "count": int(graph[e].edge_index.size(1)),
                "fields": _fields(graph, e),
            }
            for e in graph.edge_types
        ],
        "bytes": {
            "graph": graph_bytes(graph),
            "instance": _instance_bytes(),
            "dense_masks": dense_mask_bytes(graph),
        },
        "left_out": _idle(network, graph),
        "gene_tables": {name: _table(found) for name, found in tables.items()},
    }


def _fields(graph: HeteroData, key: Any) -> dict[str, Any]:
    """Names of a store's fields, with dtype and shape, or length."""
    found: dict[str, Any] = {}
    for name, value in graph[key].items():
        if isinstance(value, Tensor):
            found[name] = {
                "dtype": str(value.dtype).removeprefix("torch."),
                "shape": list(value.shape),
            }
        elif isinstance(value, list):
            found[name] = {"dtype": "str", "shape": [len(value)]}
    return found


def _idle(network: MetabolicNetwork, graph: HeteroData) -> dict[str, list[str]]:
    """Ids of what the graph leaves out, or holds without a connection.

    ``blocked_reactions``: both bounds are 0; a forward node stays. ``reactions_without_genes``: their nodes have no gene, and
    no deletion removes them. ``genes_without_reactions`` and ``metabolites_without_reactions``: nodes without such edges.
    ``unjoined_metabolites``: of more than 20 reactions, so that ``producer_consumer`` leaves them out; empty without that
    relation.
    """
    matrix = network.stoichiometry.tocsr()
    degree = np.diff(matrix.indptr)
    busy = ("gene", "producer_consumer", "gene") in graph.edge_types
    named = {gene for clauses in network.clauses for clause in clauses for gene in clause}
    blocked = (network.lower == 0) & (network.upper == 0)
    return {
        "blocked_reactions": [r for r, b in zip(network.reactions, blocked, strict=True) if b],
        "reactions_without_genes": [
            r for r, clauses in zip(network.reactions, network.clauses, strict=True) if not clauses
        ],
        "genes_without_reactions": [g for i, g in enumerate(network.genes) if i not in named],
        "metabolites_without_reactions": [
            m for m, d in zip(network.metabolites, degree, strict=True) if d == 0
        ],
        "unjoined_metabolites": [
            m for m, d in zip(network.metabolites, degree, strict=True) if busy and d > MAX_DEGREE
        ],
    }


def _table(found: GenePairs) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "edges": int(found.pairs.shape[1]),
        "unknown_ids": found.unknown_ids,
        "unknown_rows": found.unknown,
        "repeated_rows": found.repeated,
    }


def _instance_bytes() -> int:
    nothing = np.zeros(1, np.float32)
    return LabelTable(("a", "b"), np.zeros((1, 2), np.int32), nothing, nothing).nbytes
