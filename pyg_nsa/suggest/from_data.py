"""From the fields that a data set has to a configuration to start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from pyg_nsa.api import EdgeKind
from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import ConfigError, Problem
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.suggest.facts import edge_facts, node_facts, rows_of
from pyg_nsa.suggest.text import SuggestedEdge, Suggestion

__all__ = ["heads_for", "suggest_from_data"]

EdgeType = tuple[str, str, str]

#: Full self-attention compares every node with every other; beyond this many, points between them are suggested.
_MANY_NODES = 20_000


def suggest_from_data(
    graphs: Any,
    *,
    source: str = "your data",
    hidden_channels: int = 64,
    check: str = "",
    registry: Registry | None = None,
) -> Suggestion:
    """Suggests a configuration for a data set.

    An edge type gets the first of these kinds that fits its fields in every graph: `stoichiometry_bias` (it has a
    `stoichiometry`), `incidence_mask` (`hyperedge_index` or `inc_mask`), `edge_attr_bias` (`edge_attr`), `adjacency_mask`. One that
    none fits, or that some graphs lack, is left as a comment that says why. Node types without features get learned embeddings.

    Args:
        graphs: A `HeteroData`, or a list of them.
        source: What the first line of the file calls them.
        hidden_channels: Width of the rows.
        check: What the file's comments put behind `pyg-nsa check FILE`.
        registry: Where edge kinds are looked up; the default registry if not given. All its plugins are loaded, to name
            alternatives.

    Raises:
        ConfigError: No edge type could be decided, with the reason for each.
    """
    several = list(graphs) if isinstance(graphs, list | tuple) else [graphs]
    registry = registry or default_registry()
    kinds = [r.declaration for r in registry.load_all() if isinstance(r.declaration, EdgeKind)]
    edge_types = list(dict.fromkeys(t for graph in several for t in graph.edge_types))
    edges = [_edge(several, edge_type, kinds, registry) for edge_type in edge_types]
    if all(edge.kind is None for edge in edges):
        raise ConfigError(
            [
                Problem(f"({', '.join(edge.edge_type)})", edge.reason, "not_decided")
                for edge in edges
            ]
            or [Problem("", f"{source} has no edge types", "not_decided")]
        )
    decided = [edge for edge in edges if edge.kind is not None]
    taken = dict.fromkeys(t for e in decided for t in (e.edge_type[0], e.edge_type[2]))
    nodes, num_nodes = _nodes(several, list(taken))
    more = []
    if any(
        (rows_of(several[0], t) or 0) > _MANY_NODES for t in taken if t in several[0].node_types
    ):
        more.append(
            "sab: {induced_points: 64}  # self-attention by way of 64 learned points: there are many nodes; remove it for full "
            "self-attention"
        )
    which = f"{source} (the first of its {len(several)} graphs in the comments)"
    return Suggestion(
        source=which if len(several) > 1 else source,
        hidden_channels=hidden_channels,
        heads=heads_for(hidden_channels),
        pattern="MS",
        edges=edges,
        nodes=nodes,
        num_nodes=num_nodes,
        more=more,
        check=check,
    )


def heads_for(hidden_channels: int) -> int:
    """The largest number of heads up to 4 that divides the width."""
    return next(heads for heads in (4, 3, 2, 1) if hidden_channels % heads == 0)


# --- nodes ------------------------------------------------------------------------------------------------------------------------


def _nodes(graphs: Sequence[Any], taken: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Comments about the node types, and those that need embeddings with their numbers."""
    facts = node_facts(graphs[0])
    lines, num_nodes = [], {}
    for node_type, line in facts.items():
        having = [graph for graph in graphs if node_type in graph.node_types]
        rows = {rows_of(graph, node_type) for graph in having}
        if node_type not in taken:
            line += "; takes no part"
        elif not any(_has_features(graph[node_type]) for graph in having):
            count = rows.pop() if len(rows) == 1 else None
            if count:
                num_nodes[node_type] = count
            else:
                line += (
                    "; has no features, and the number of nodes differs between graphs or is unknown: give it an x, or, where "
                    "the graphs are parts of one, num_nodes of that one"
                )
        lines.append(line)
    return lines, num_nodes


def _has_features(store: Any) -> bool:
    x = store.get("x")
    return isinstance(x, Tensor) and x.dim() > 1 and x.size(-1) > 0


# --- edges ------------------------------------------------------------------------------------------------------------------------


def _edge(
    graphs: Sequence[Any], edge_type: EdgeType, kinds: Sequence[EdgeKind], registry: Registry
) -> SuggestedEdge:
    having = [graph for graph in graphs if edge_type in graph.edge_types]
    facts = edge_facts(having[0], edge_type)
    fields = set.intersection(
        *({k for k, v in g[edge_type].items() if v is not None} for g in having)
    )
    tried: list[tuple[str, str]] = []
    for kind in _candidates(fields):
        why = _why_not(kind, having, edge_type, registry)
        if not why:
            chosen = kind
            break
        tried.append((kind, why))
    else:
        return SuggestedEdge(edge_type, None, facts=facts, reason=_reason(tried, fields))
    alternatives = [
        kind.name for kind in kinds if _fits(kind, edge_type, fields) and kind.name != chosen
    ]
    facts += [f"not {kind}: {why}" for kind, why in tried]
    weights = _weights(having[0][edge_type], fields)
    if chosen in ("adjacency_mask", "incidence_mask") and weights:
        facts.append(
            f"to attend by {weights[0]}: kind: edge_attr_bias, options: {{edge_attr: {weights[0]}}}"
        )
    if len(having) < len(graphs):
        return SuggestedEdge(
            edge_type,
            None,
            facts=facts,
            reason=f"{len(graphs) - len(having)} of {len(graphs)} graphs do not have it, which is a problem for what is "
            f"declared; add it to them, with edges of shape [2, 0], and take kind {chosen}",
        )
    return SuggestedEdge(edge_type, chosen, facts=facts, alternatives=alternatives)


def _candidates(fields: set[str]) -> list[str]:
    found = []
    if "stoichiometry" in fields:
        found.append("stoichiometry_bias")
    if fields & {"hyperedge_index", "inc_mask"}:
        found.append("incidence_mask")
    if "edge_attr" in fields:
        found.append("edge_attr_bias")
    if fields & {"edge_index", "adj_mask"}:
        found.append("adjacency_mask")
    return found


def _why_not(kind: str, graphs: Sequence[Any], edge_type: EdgeType, registry: Registry) -> str:
    """Says why a kind does not fit, or nothing if it does."""
    raw = {"unmatched": "skip", "edges": [{"edge_type": list(edge_type), "kind": kind}]}
    try:
        config = HeteroNSAConfig.model_validate(raw, context={"registry": registry})
        for graph in graphs:
            config.bind(graph, registry)
    except ValidationError as error:
        return error.errors()[0]["msg"]
    except ConfigError as error:
        # Numbers of nodes decide about no kind; the comments about node types say them.
        found = (p.message for p in error.problems if p.code in ("missing_input", "wrong_input"))
        return next(found, "")
    return ""


def _reason(tried: Sequence[tuple[str, str]], fields: set[str]) -> str:
    if tried:
        return tried[-1][1]
    if fields & {"adj_t"}:
        return "it has adj_t, which no kind reads; keep edge_index (ToSparseTensor(remove_edge_index=False))"
    listed = ", ".join(sorted(fields)) or "no fields"
    return f"it has {listed}, and no edge_index, hyperedge_index, adj_mask or inc_mask"


def _fits(kind: EdgeKind, edge_type: EdgeType, fields: set[str]) -> bool:
    """Whether a kind with its default options has all that it requires."""
    if kind.deprecated is not None or (kind.within_one_type and edge_type[0] != edge_type[2]):
        return False
    try:
        return not kind.missing(kind.options(), fields)
    except Exception:  # options without defaults, or a plugin's own mistake
        return False


def _weights(store: Any, fields: set[str]) -> list[str]:
    """Fields that hold a floating-point number, or several, for each edge."""
    return [
        name
        for name in sorted(fields)
        if isinstance(store[name], Tensor)
        and torch.is_floating_point(store[name])
        and store[name].dim() in (1, 2)
        and not name.endswith(("_index", "_mask"))
    ]
