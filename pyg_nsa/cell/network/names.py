"""What genes, reactions and metabolites are called by people, where the metabolic model says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork, ModelFileError, load_model
from pyg_nsa.cell.network.reaction_nodes import reaction_id

__all__ = ["genes_by_name", "ids_as_written", "node_names"]


def node_names(model: str | Path, nodes: Iterable[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Names of some nodes of the graph of a metabolic model.

    Args:
        model: A model's name or file.
        nodes: (node type, id) of graph nodes.

    Returns:
        Per node type the names by id; those without a name, or named after their id, are left out. Reactions are named by
        the model's id, which all nodes of a reaction share.

    Raises:
        ModelFileError: The model cannot be read.
    """
    cell = load_model(model)
    parts: Mapping[str, object] = {
        "gene": cell.genes,
        "reaction": cell.reactions,
        "metabolite": cell.metabolites,
    }
    names: dict[str, dict[str, str]] = {node_type: {} for node_type in parts}
    for node_type, node_id in nodes:
        if node_type not in parts:
            continue
        known = parts[node_type]
        own = reaction_id(node_id) if node_type == "reaction" else node_id
        if own not in known:  # type: ignore[operator]
            continue
        name = str(known.get_by_id(own).name or "").strip()  # type: ignore[attr-defined]
        if name and name != own:
            names[node_type][own] = name
    return names


def genes_by_name(model: str | Path) -> dict[str, str]:
    """Ids of genes by their names in lower case; empty where the model cannot be read.

    Args:
        model: A model's name or file.
    """
    try:
        genes = load_model(model).genes
    except ModelFileError:
        return {}
    return {str(gene.name).lower(): gene.id for gene in genes if gene.name}


def ids_as_written(network: MetabolicNetwork) -> dict[str, str]:
    """Ids of genes by their names, and by the ids themselves, in lower case.

    What several genes are called is left out, for it does not say which is meant.
    So ``pgi1`` and ``ybr196c`` lead to ``YBR196C``.

    Args:
        network: The model.
    """
    ids = {gene.lower(): gene for gene in network.genes}
    names = [name.lower() for name in network.gene_names]
    times = Counter(names)
    named = {
        name: gene
        for name, gene in zip(names, network.genes, strict=False)
        if name and times[name] == 1
    }
    return {**named, **ids}
