"""What a layer of PyG says about itself: edge types, channels, heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch_geometric.nn import HANConv, HeteroConv, HGTConv

from pyg_nsa.nn import HeteroNSAConv

__all__ = ["EdgeType", "Layer", "can_replace", "describe", "read", "replaced_class", "width_of"]

EdgeType = tuple[str, str, str]

_REPLACEABLE = (HeteroConv, HGTConv, HANConv)

#: Linear layers of PyG convs that see the rows of sources and of targets, for convs whose sizes came from their first call.
_ON_SOURCES = ("lin_l", "lin_src", "lin_key", "lin_rel")
_ON_TARGETS = ("lin_r", "lin_dst", "lin_query", "lin_root")


@dataclass
class Layer:
    """One layer of a model, wherever it stands.

    Attributes:
        module: The layer.
        paths: All its places in the model; more than one if it is shared.
        name: `HeteroConv`, `HGTConv` or `HANConv`.
        convs: The conv module of each edge type; None where one module serves all.
        in_channels: Size of `x` per node type; -1 where only a call can tell.
        message_widths: Size of the messages of each edge type; None where the module does not say.
        aggr: HeteroConv's grouping of messages.
        heads: HGTConv's and HANConv's heads.
    """

    module: nn.Module
    paths: list[str]
    name: str
    convs: dict[EdgeType, nn.Module | None]
    in_channels: dict[str, int]
    message_widths: dict[EdgeType, int | None]
    aggr: str | None = "sum"
    heads: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The first of its places."""
        return self.paths[0]

    @property
    def node_types(self) -> list[str]:
        """Node types of its edge types, in their order."""
        return list(dict.fromkeys(t for src, _, dst in self.convs for t in (src, dst)))

    @property
    def targets(self) -> list[str]:
        """Node types that get messages."""
        return list(dict.fromkeys(dst for _, _, dst in self.convs))

    def messages_to(self, target: str) -> dict[EdgeType, int | None]:
        """Sizes of the messages to a node type."""
        return {e: width for e, width in self.message_widths.items() if e[2] == target}

    def replace(self, model: nn.Module, module: nn.Module) -> None:
        """Puts another module at all its places in a model, or in a copy of it."""
        for path in self.paths:
            parent, _, name = path.rpartition(".")
            model.get_submodule(parent)._modules[name] = module

    def describe_conv(self, edge_type: EdgeType) -> str:
        """The class that computed an edge type's messages."""
        conv = self.convs[edge_type]
        return self.name if conv is None else type(conv).__name__


def can_replace(module: nn.Module) -> bool:
    """Whether swap knows the module's call: one of the three, or a subclass that keeps its forward."""
    if isinstance(module, HeteroNSAConv) or not isinstance(module, _REPLACEABLE):
        return False
    kind, base = type(module), replaced_class(module)
    is_called_alike = kind.forward is base.forward and kind.__call__ is base.__call__
    return is_called_alike and "forward" not in vars(module)


def replaced_class(module: nn.Module) -> type[nn.Module]:
    """Which of the three classes a module is of."""
    return next(one for one in _REPLACEABLE if isinstance(module, one))


def describe(module: nn.Module) -> str:
    """The layer in a few words."""
    name = type(module).__name__
    if isinstance(module, HeteroConv):
        return f"{name}(aggr={module.aggr!r})"
    return f"{name}({module.out_channels}, heads={module.heads})"


def read(module: nn.Module, paths: list[str]) -> Layer:
    """Reads a layer that :func:`can_replace` accepts."""
    if isinstance(module, HeteroConv):
        return _read_hetero_conv(module, paths)
    name, edges, projections = "HANConv", [], {}
    if isinstance(module, HGTConv):
        name, edges, projections = "HGTConv", module.edge_types, module.kqv_lin.lins
    elif isinstance(module, HANConv):
        edges, projections = module.metadata[1], module.proj
    edge_types = [_edge_type(e) for e in edges]
    sizes = dict(module.in_channels)  # type: ignore[arg-type]
    for node_type, size in sizes.items():
        if size < 0 and node_type in projections:
            sizes[node_type] = _seen_by(projections[node_type])
    width = int(module.out_channels)  # type: ignore[arg-type]
    layer = Layer(
        module,
        paths,
        name,
        dict.fromkeys(edge_types),
        sizes,
        dict.fromkeys(edge_types, width),
        heads=int(module.heads),  # type: ignore[arg-type]
    )
    layer.in_channels = {t: sizes.get(t, -1) for t in layer.node_types}
    return layer


def _read_hetero_conv(module: HeteroConv, paths: list[str]) -> Layer:
    convs = {_edge_type(e): conv for e, conv in module.convs.items()}
    widths = {e: width_of(conv) for e, conv in convs.items()}
    layer = Layer(module, paths, "HeteroConv", dict(convs), {}, widths, aggr=module.aggr)
    claims: dict[str, set[int]] = {t: set() for t in layer.node_types}
    for (source, _, target), conv in convs.items():
        for node_type, size in zip((source, target), _sizes_in(conv), strict=True):
            if size >= 0:
                claims[node_type].add(size)
    # Convs that disagree do not all read the plain rows (an aggregation that widens them, say); a call will tell.
    layer.in_channels = {t: n.pop() if len(n) == 1 else -1 for t, n in claims.items()}
    return layer


def _edge_type(value: Iterable[str]) -> EdgeType:
    source, name, target = value
    return source, name, target


def width_of(conv: nn.Module) -> int | None:
    """Size of a conv's output rows."""
    width = getattr(conv, "out_channels", None)
    if not isinstance(width, int) or width < 1:
        return _last_width(getattr(conv, "nn", None))  # GINConv and its like are an MLP at heart
    heads = getattr(conv, "heads", None)
    if getattr(conv, "concat", False) is True and isinstance(heads, int):
        each: int = conv.dim if type(conv).__name__ == "RGATConv" else 1  # type: ignore[assignment]
        width *= heads * each
    return width


def _last_width(module: Any) -> int | None:
    if not isinstance(module, nn.Module):
        return None
    for part in [*reversed(list(module.children())), module]:
        for name in ("out_features", "out_channels"):
            if isinstance(width := getattr(part, name, None), int):
                return width
    return None


def _sizes_in(conv: nn.Module) -> tuple[int, int]:
    """Sizes of source and target rows; -1 where only a call can tell."""
    given = getattr(conv, "in_channels", -1)
    if isinstance(given, int):
        given = (given, given)
    if not (isinstance(given, tuple | list) and len(given) == 2):
        return -1, -1
    source, target = (size if isinstance(size, int) else -1 for size in given)
    if isinstance(getattr(conv, "aggr", None), str):  # several aggregations widen what lin_l sees
        source = source if source >= 0 else _first_seen(conv, _ON_SOURCES)
        target = target if target >= 0 else _first_seen(conv, _ON_TARGETS)
    return source, target


def _first_seen(conv: nn.Module, names: tuple[str, ...]) -> int:
    return max((_seen_by(getattr(conv, name, None)) for name in names), default=-1)


def _seen_by(linear: Any) -> int:
    weight = getattr(linear, "weight", None)
    if weight is None or is_lazy(weight) or not hasattr(linear, "in_channels"):
        return -1
    return int(linear.in_channels)
