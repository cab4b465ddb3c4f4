"""What takes a layer's place: its configuration, derived from the user's and from the layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from torch import nn

from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.errors import Problem, nearest
from pyg_nsa.nn import HeteroNSAConv
from pyg_nsa.plain_values import plain_values
from pyg_nsa.registry import Registry
from pyg_nsa.swapping.layers import EdgeType, Layer
from pyg_nsa.swapping.problems import show
from pyg_nsa.swapping.report import RelationRow
from pyg_nsa.swapping.swapped_conv import SwappedConv
from pyg_nsa.swapping.trial import Call

__all__ = ["Plan", "SwapConfig", "build", "make_plan"]


class SwapConfig(HeteroNSAConfig):
    """A configuration for a swap: without `edges` each edge type of a layer gets a default kind."""

    edges: list[EdgeSpec] = Field(default_factory=list)
    """The edge types that take part; none means those of each layer, with default kinds."""

    @field_validator("heads")
    @classmethod
    def _heads_divide(cls, heads: int, info: ValidationInfo) -> int:
        return heads  # The width is that of each layer, unless it is set; `make_plan` compares.

    @field_validator("sab", "num_nodes")
    @classmethod
    def _of_a_stack(cls, value: Any, info: ValidationInfo) -> Any:
        return value  # Each layer's own configuration says so, with the path of the layer.


@dataclass
class Plan:
    """What takes a layer's place.

    Attributes:
        layer: The layer.
        config: The configuration of its replacement.
        widths: Size of the output rows per target node type.
        project_from: Size of the operator's rows where the widths differ.
        relations: Rows for the report.
        unused: Edge types of the configuration that the layer does not have.
        notes: Sentences for the report.
        warnings: The same, for what would go wrong without a word once the model runs.
    """

    layer: Layer
    config: HeteroNSAConfig
    widths: dict[str, int]
    project_from: int | None
    relations: list[RelationRow]
    unused: list[EdgeType]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def lacks_fields(self) -> bool:
        """Whether the call is known not to pass what a kind requires."""
        return any(r.missing and r.missing_is_known for r in self.relations)


class _Stop(Exception):
    """A layer that can't be planned."""


def make_plan(
    layer: Layer, config: HeteroNSAConfig, call: Call | None, registry: Registry | None
) -> Plan | list[Problem]:
    """Decides what takes a layer's place; problems if nothing can."""
    try:
        specs, problems = _specs(layer, config, call, registry)
        if problems:
            return problems
        return _plan(layer, config, call, registry, specs)
    except _Stop as stop:
        return [Problem(layer.path, str(stop), "layer")]


def build(plan: Plan, registry: Registry | None) -> nn.Module:
    """The module that takes the layer's place: the operator, behind an adapter where its call or result differs.

    Raises:
        ValueError: The operator refuses the plan.
    """
    conv = _build(plan.config, registry)
    layer = plan.layer
    ends = {t for r in plan.relations if r.kind for t in (r.edge_type[0], r.edge_type[2])}
    gives_more = plan.config.pattern is not None and not ends <= set(layer.targets)
    plain = plan.config.operator == "hetero_nsa" and plan.project_from is None and not gives_more
    if plain and layer.name == "HeteroConv":
        return conv
    return SwappedConv(conv, layer.name, layer.targets, plan.widths, plan.project_from)


def _build(config: HeteroNSAConfig, registry: Registry | None) -> nn.Module:
    """The operator that a configuration names. The only place that knows which there are."""
    if config.operator == "hetero_nsa":
        return HeteroNSAConv.from_config(config, registry=registry)
    from pyg_nsa.operators import build_operator

    edge_types = [spec.edge_type for spec in config.edges]
    node_types = list(dict.fromkeys(t for src, _, dst in edge_types for t in (src, dst)))
    return build_operator(config, (node_types, edge_types), registry=registry)


# --- edge types -----------------------------------------------------------------------------------------------------------------


def _specs(
    layer: Layer, config: HeteroNSAConfig, call: Call | None, registry: Registry | None
) -> tuple[dict[EdgeType, EdgeSpec | None], list[Problem]]:
    """The spec of each edge type of a layer, in the layer's order; None for one that is left out."""
    if not config.edges:
        lookup = config.registry(registry)
        return {e: _default_spec(layer, e, call, lookup) for e in layer.convs}, []
    declared: dict[EdgeType, EdgeSpec] = {
        (spec.edge_type[0], spec.edge_type[1], spec.edge_type[2]): spec for spec in config.edges
    }
    specs = {e: declared.get(e) for e in layer.convs}
    if not any(specs.values()):
        raise _Stop(
            f"none of its edge types has an entry in edges; it has {', '.join(map(show, layer.convs))}, edges has "
            f"{', '.join(map(show, declared))}"
        )
    if config.unmatched == "skip":
        return specs, []
    others = [show(e) for e in declared if e not in layer.convs]
    return specs, [
        Problem(
            layer.path,
            f"edge type {show(e)} has no entry in edges",
            "unmatched_edge_type",
            suggestion=nearest(show(e), others),
        )
        for e, spec in specs.items()
        if spec is None
    ]


def _default_spec(
    layer: Layer, edge_type: EdgeType, call: Call | None, registry: Registry
) -> EdgeSpec:
    conv = layer.convs[edge_type]
    passed = call.fields.get(edge_type, set()) if call is not None else set()
    by_hyperedges = bool(passed & {"hyperedge_index", "inc_mask"}) and "edge_index" not in passed
    raw: dict[str, Any] = {
        "edge_type": list(edge_type),
        "kind": "incidence_mask" if by_hyperedges else "adjacency_mask",
    }
    if edge_type[0] == edge_type[2] and getattr(conv, "add_self_loops", False):
        raw["options"] = {"self_loops": True}
    try:
        default = EdgeSpec.model_validate(raw, context={"registry": registry})
    except ValidationError as error:
        raise _Stop("; ".join(e["msg"] for e in error.errors())) from error
    if conv is None or by_hyperedges:
        return default
    # What a plugin says that the conv is: an attention conv that reads edge attributes keeps them.
    known = registry.spec_from_module(conv, edge_type)
    if known is None or "message" in registry.edge_kind(known.kind).produces:
        return default
    if call is not None and registry.edge_kind(known.kind).missing(known.options, passed):
        return default
    return known


def _relation(
    layer: Layer,
    edge_type: EdgeType,
    spec: EdgeSpec | None,
    by_default: bool,
    reads_kinds: bool,
    call: Call | None,
    registry: Registry,
    notes: list[str],
    warnings: list[str],
) -> RelationRow:
    before = layer.describe_conv(edge_type)
    if spec is None:
        return RelationRow(edge_type, before, None)
    kind = registry.edge_kind(spec.kind)
    # HGTConv and HANConv take nothing else, so a model that calls them passes nothing else.
    passed = {"x", "edge_index"}
    seen = layer.name != "HeteroConv"
    if call is not None and edge_type in call.fields:
        passed, seen = call.fields[edge_type], True
    unread = sorted(passed - {"x", "edge_index"} - set(kind.fields(spec.options)))
    if call is None and getattr(layer.convs[edge_type], "edge_dim", None) is not None:
        unread = [] if "edge_attr" in kind.fields(spec.options) else ["edge_attr"]
    if unread and reads_kinds:
        text = (
            f"{', '.join(unread)} of {show(edge_type)} went into the {before}; kind '{kind.name}' does not read "
            f"{'it' if len(unread) == 1 else 'them'}"
        )
        if by_default:  # nobody has chosen to leave it out
            mend = f"give the edge type an entry in edges, for example with kind 'edge_attr_bias' and options: {{edge_attr: {unread[0]}}}"
            warnings.append(f"{text}: {mend}")
        else:
            notes.append(text)
    missing = tuple(" or ".join(names) for names in kind.missing(spec.options, passed))
    return RelationRow(
        edge_type,
        before,
        kind.name,
        plain_values(spec.options, exclude_defaults=True),
        "default" if by_default else "config",
        missing,
        seen,
        tuple(unread) if reads_kinds else (),
    )


# --- sizes ----------------------------------------------------------------------------------------------------------------------


def _plan(
    layer: Layer,
    config: HeteroNSAConfig,
    call: Call | None,
    registry: Registry | None,
    specs: Mapping[EdgeType, EdgeSpec | None],
) -> Plan:
    notes = list(layer.notes)
    kept = {e: spec for e, spec in specs.items() if spec is not None}
    given = config.model_fields_set
    is_stack = config.pattern is not None
    _check_targets(layer, kept, is_stack)
    aggr = _aggr(layer, config, notes)
    widths = _widths(layer, call)
    lookup = config.registry(registry)
    warnings: list[str] = []
    # Another operator says itself which kinds it reads, if any.
    reads_kinds = config.operator == "hetero_nsa"
    relations = [
        _relation(layer, e, spec, not config.edges, reads_kinds, call, lookup, notes, warnings)
        for e, spec in specs.items()
    ]
    different = len(set(widths.values())) > 1
    project_from: int | None = None
    if not is_stack and aggr in ("cat", None):
        hidden = _one_message_width(layer, widths, aggr, len(kept) < len(specs))
    else:
        hidden = max(widths.values())
        if "hidden_channels" in given and (is_stack or different):
            hidden = config.hidden_channels
        elif "hidden_channels" in given and hidden != config.hidden_channels:
            notes.append(
                f"hidden_channels={config.hidden_channels} is not used: a bare step (pattern: null) is as wide as its output"
            )
        if different:
            project_from = hidden
            notes.append(
                f"its outputs differ in width, so one linear layer per node type follows rows of {hidden}"
            )
    nodes = list(dict.fromkeys(t for src, _, dst in kept for t in (src, dst)))
    sizes = {**layer.in_channels, **(call.sizes if call is not None else {})}
    in_channels = {t: sizes.get(t, -1) for t in nodes}
    for name in ("in_channels", "out_channels"):
        if name in given and getattr(config, name) not in (-1, None):
            notes.append(f"{name} of the configuration is not used: the layer says it")
    if not reads_kinds:
        notes.append(
            f"operator '{config.operator}' says which parts of the configuration, kinds included, it reads"
        )
    elif not is_stack:
        notes.append(_bare(layer))
    raw: dict[str, Any] = {name: getattr(config, name) for name in given - _DERIVED}
    raw |= {
        "operator": config.operator,
        "pattern": config.pattern,
        "edges": list(kept.values()),
        "in_channels": in_channels,
        "hidden_channels": hidden,
        "heads": config.heads if "heads" in given else _heads(hidden, layer.heads or 4),
        "aggr": aggr,
    }
    width = next(iter(widths.values()))
    if is_stack and not different and width != hidden:
        raw["out_channels"] = width
    if config.num_nodes:
        raw["num_nodes"] = {t: n for t, n in config.num_nodes.items() if t in nodes}
    if config.sab.node_types is not None:
        named = [t for t in config.sab.node_types if t in nodes]
        raw["sab"] = config.sab.model_copy(update={"node_types": named})
    try:
        own = HeteroNSAConfig.model_validate(raw, context={"registry": lookup})
    except ValidationError as error:
        hint = ""
        if any(e["type"] == "heads" for e in error.errors()):
            hint = "; leave 'heads' out, and each layer gets a number that divides its width" + (
                ", or set 'hidden_channels'" if is_stack else ""
            )
        raise _Stop("; ".join(e["msg"] for e in error.errors()) + hint) from error
    unused = [
        (s.edge_type[0], s.edge_type[1], s.edge_type[2])
        for s in config.edges
        if s.edge_type not in layer.convs
    ]
    return Plan(layer, own, widths, project_from, relations, unused, notes, warnings)


#: Fields that each layer has a say in; all others go on as the user set them.
_DERIVED = frozenset(
    {"edges", "in_channels", "out_channels", "hidden_channels", "heads", "aggr", "num_nodes", "sab"}
)


def _check_targets(layer: Layer, kept: Mapping[EdgeType, EdgeSpec], is_stack: bool) -> None:
    reached = {t for src, _, dst in kept for t in ((src, dst) if is_stack else (dst,))}
    for target in layer.targets:
        if target not in reached:
            raise _Stop(
                f"node type '{target}' would get no output, since all edge types to it are left out; give one of "
                f"{', '.join(show(e) for e in layer.convs if e[2] == target)} an entry in edges"
            )


def _aggr(layer: Layer, config: HeteroNSAConfig, notes: list[str]) -> str | None:
    """How messages are grouped: as HeteroConv did it; as the configuration says in place of the others."""
    chosen = config.aggr
    if layer.name == "HeteroConv":
        chosen = layer.aggr  # type: ignore[assignment]
        if "aggr" in config.model_fields_set and config.aggr != chosen:
            notes.append(f"aggr={config.aggr!r} is not used: the HeteroConv had aggr={chosen!r}")
    elif chosen in ("cat", None):
        raise _Stop(
            f"aggr={chosen!r} would change the size of {layer.name}'s output; use sum, mean, min or max"
        )
    if config.pattern is None or chosen not in ("cat", None):
        return chosen
    if chosen is None:
        raise _Stop(
            "its HeteroConv has aggr=None, which stacks messages in a new dimension; blocks can't: use 'pattern: null', "
            "a bare step"
        )
    notes.append("aggr='cat' becomes 'sum' in the blocks; the output is as wide as before")
    return "sum"


def _widths(layer: Layer, call: Call | None) -> dict[str, int]:
    """Size of the output rows of each target."""
    if call is not None and set(layer.targets) <= set(seen := call.widths()):
        return {t: seen[t] for t in layer.targets}
    out = {}
    for target in layer.targets:
        messages = layer.messages_to(target)
        unknown = [e for e, width in messages.items() if width is None]
        if unknown:
            raise _Stop(
                f"the {layer.describe_conv(unknown[0])} of {show(unknown[0])} does not say how wide its output is; pass data=…, "
                "so that a call shows it"
            )
        sizes = [width for width in messages.values() if width is not None]
        if layer.aggr == "cat":
            out[target] = sum(sizes)
        elif len(set(sizes)) == 1:
            out[target] = sizes[0]
        else:
            listed = ", ".join(f"{show(e)}: {width}" for e, width in messages.items())
            raise _Stop(
                f"messages to node type '{target}' differ in width ({listed}), which aggr={layer.aggr!r} can't group; make "
                "their out_channels alike"
            )
    return out


def _one_message_width(
    layer: Layer, widths: Mapping[str, int], aggr: str | None, leaves_out: bool
) -> int:
    if leaves_out:
        raise _Stop(
            f"with aggr={aggr!r} the size of the output depends on the number of edge types, so none can be left out; give "
            "each an entry in edges"
        )
    sizes = set()
    for target in layer.targets:
        messages = layer.messages_to(target).values()
        if any(width is None for width in messages):
            parts = len(messages) if aggr == "cat" else 1
            sizes.add(widths[target] / parts)
        else:
            sizes |= {float(width) for width in messages if width is not None}
    size = sizes.pop()
    if sizes or size != int(size):
        raise _Stop(
            f"its messages differ in width, which one operator with aggr={aggr!r} can't give; use aggr='sum', or make their "
            "out_channels alike"
        )
    return int(size)


def _heads(hidden: int, most: int) -> int:
    return max(n for n in range(1, most + 1) if hidden % n == 0)


def _bare(layer: Layer) -> str:
    text = "a bare step has no norm, residual or MLP, and no term of the target's own row"
    if layer.name == "HGTConv":
        return f"{text}; HGTConv had a gated residual where sizes agree"
    roots = {
        type(conv).__name__
        for conv in layer.convs.values()
        if getattr(conv, "root_weight", False) is True
        or getattr(conv, "lin_root", None) is not None
    }
    return f"{text}, as {' and '.join(sorted(roots))} had" if roots else text
