"""From the convs that a model has to a configuration to start from."""

from __future__ import annotations

from pydantic import ValidationError
from torch import nn

from pyg_nsa.config import EdgeSpec
from pyg_nsa.plain_values import plain_values
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.suggest.from_data import heads_for
from pyg_nsa.suggest.text import SuggestedEdge, Suggestion
from pyg_nsa.swapping.find import find
from pyg_nsa.swapping.layers import EdgeType, Layer

__all__ = ["suggest_from_model"]


def suggest_from_model(
    model: nn.Module,
    *,
    source: str = "your model",
    hidden_channels: int | None = None,
    registry: Registry | None = None,
) -> Suggestion:
    """Suggests a configuration that comes near to a model's heterogeneous layers.

    Each conv of a `HeteroConv` is shown to the installed plugins (the hook `pyg_nsa_spec_from_module`); one that none knows, and
    every edge type of an `HGTConv` or `HANConv`, becomes `adjacency_mask`. The first layer with an edge type decides.

    Args:
        model: A model with `HeteroConv`, `HGTConv` or `HANConv` layers.
        source: What the first line of the file calls it.
        hidden_channels: Width of the rows; that of the first layer's messages if not given, and 64 if it does not say.
        registry: Whose plugins are asked; the default registry if not given. All are loaded.

    Raises:
        SwapError: The model has no such layer; the message says what it has.
    """
    registry = registry or default_registry()
    layers, notes = find(model, "*")
    edges: dict[EdgeType, SuggestedEdge] = {}
    for layer in layers:
        for edge_type in layer.convs:
            found = _edge(layer, edge_type, registry)
            first = edges.setdefault(edge_type, found)
            if (found.kind, found.options) != (first.kind, first.options) and first.kind:
                fact = f"in {layer.path} it would be {found.kind}"
                edges[edge_type] = SuggestedEdge(
                    edge_type, first.kind, first.options, (*first.facts, fact)
                )
    width = hidden_channels or next(
        (w for layer in layers for w in layer.message_widths.values() if w), 64
    )
    wanted = next((layer.heads for layer in layers if layer.heads), None)
    return Suggestion(
        source=f"the layers {', '.join(layer.path for layer in layers)} of {source}",
        hidden_channels=width,
        heads=wanted if wanted and width % wanted == 0 else heads_for(width),
        pattern=None,
        edges=list(edges.values()),
        more=[*_aggr(layers), *(f"# {note}" for note in notes)],
    )


def _edge(layer: Layer, edge_type: EdgeType, registry: Registry) -> SuggestedEdge:
    conv = layer.convs[edge_type]
    facts = [f"{layer.path}: {layer.describe_conv(edge_type)}"]
    spec = None if conv is None else registry.spec_from_module(conv, edge_type)
    if spec is not None:
        options = plain_values(spec.options, exclude_defaults=True)
        return SuggestedEdge(edge_type, spec.kind, options, facts)
    if conv is not None:
        facts.append("no plugin knows this conv; targets attend along its edges")
    try:
        raw = {"edge_type": list(edge_type), "kind": "adjacency_mask"}
        EdgeSpec.model_validate(raw, context={"registry": registry})
    except ValidationError as error:
        return SuggestedEdge(edge_type, None, facts=facts, reason=error.errors()[0]["msg"])
    return SuggestedEdge(edge_type, "adjacency_mask", facts=facts)


def _aggr(layers: list[Layer]) -> list[str]:
    """The grouping of the first HeteroConv, where it is not the default."""
    first = next((layer.aggr for layer in layers if layer.name == "HeteroConv"), "sum")
    return [] if first == "sum" else [f"aggr: {'null' if first is None else first}"]
