"""What a user may configure, as frozen pydantic models; `pyg_nsa.load` reads them from files.

A configuration lists edge types, and gives each an edge kind by name, never by a Python path: what may run is what is installed
and not switched off, and a configuration file can be passed on without passing on code. The options of a kind are validated by
the plugin's own model.

Checking has two phases. Validation needs no data; `HeteroNSAConfig.bind` compares a valid configuration with a graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pyg_nsa.api import Operator, Options
from pyg_nsa.config.across import across, get, items
from pyg_nsa.config.edge_spec import EdgeSpec
from pyg_nsa.config.requirements import unmet
from pyg_nsa.config.validation import (
    ConfigModel,
    as_pydantic,
    checked_options,
    kept,
    registry_of,
    switched_off,
)
from pyg_nsa.errors import ConfigError, PluginWarning, nearest
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.scalars import is_whole, whole

__all__ = ["HeteroNSAConfig", "PluginsConfig", "SABConfig"]


class SABConfig(ConfigModel):
    """The self-attention blocks: every node of a type attends to all others of its type, within its graph."""

    node_types: list[str] | None = None
    """The node types that get self-attention; null means all."""

    induced_points: int | None = Field(default=None, ge=1)
    """Number of learned points that stand between the nodes, as in the Set Transformer's ISAB: memory and time then grow with the
    number of nodes, not with its square. Null means full self-attention."""


class PluginsConfig(ConfigModel):
    """Which plugins a configuration needs, and which it wants switched off."""

    require: list[str] = Field(default=[])
    """Distributions that have to be installed, with versions as pip writes them: `pyg-nsa-stoich>=0.3`."""

    disable: list[str] = Field(default=[])
    """Plugins to switch off for this configuration before anything is imported: a name, a distribution, or
    `name@distribution`."""

    @field_validator("disable")
    @classmethod
    def _near_nothing(cls, disable: list[str], info: ValidationInfo) -> list[str]:
        # What is not installed may well be switched off, but hardly what is almost the name of something that is.
        records = registry_of(info).records() if disable else []
        known = sorted({name for record in records for name in record.spellings})
        for item in disable:
            near = nearest(item, known, cutoff=0.85)
            if near is not None and not any(record.is_called(item) for record in records):
                warnings.warn(
                    f"plugins.disable lists {item!r}, and nothing that is installed has that name; did you mean {near!r}?",
                    PluginWarning,
                    stacklevel=2,
                )
        return disable

    @field_validator("require")
    @classmethod
    def _installed(cls, require: list[str]) -> list[str]:
        found = []
        for index, text in enumerate(require):
            error = unmet(text)
            if error is not None:
                found.append(InitErrorDetails(type=error, loc=(index,), input=text))
        if found:
            raise ValidationError.from_exception_data(cls.__name__, found)
        return require


class HeteroNSAConfig(ConfigModel):
    """The configuration of a HeteroNSA operator."""

    version: Literal[1] = 1
    """The version of this format."""

    # First of all that matters, so that a reader of a file sees early what it needs.
    plugins: PluginsConfig = Field(default_factory=PluginsConfig)
    """Which plugins have to be there, and which are switched off."""

    operator: str = "hetero_nsa"
    """The name of the convolution operator, from an installed plugin."""

    operator_options: SerializeAsAny[Options] = Field(default=None, validate_default=True)
    """The options of the operator; the operator says which there are."""

    in_channels: Annotated[int, Field(ge=-1)] | dict[str, Annotated[int, Field(ge=-1)]] = -1
    """Columns of `x`, for all node types or for each; -1 means that the first forward pass infers them, 0 that there are none."""

    hidden_channels: int = Field(default=64, ge=1)
    """Width of the node embeddings inside of the model; the number of heads divides it."""

    out_channels: int | None = Field(default=None, ge=1)
    """Width of the output; null means `hidden_channels`."""

    heads: int = Field(default=4, ge=1, validate_default=True)
    """Number of attention heads."""

    pattern: str | None = Field(default="MS", json_schema_extra={"pattern": "^[MS]+$"})
    """The blocks, one letter each: M for masked attention along the edge types, S for self-attention within node types. Null means
    one bare step without norm, residual and MLP, as PyG's HeteroConv does it."""

    aggr: Literal["sum", "mean", "min", "max", "cat"] | None = "sum"
    """How the messages of several edge types to one node type are grouped; null stacks them in a new dimension."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the outputs of the blocks and in the MLPs; at least 0 and less than 1. A bare step has none."""

    mlp_ratio: float = Field(default=2.0, ge=0.0)
    """Width of the MLPs' hidden layer, as a multiple of `hidden_channels`; 0 leaves the MLPs out. A bare step has none."""

    sab: SABConfig = Field(default_factory=SABConfig)
    """The self-attention blocks."""

    num_nodes: dict[str, Annotated[int, Field(ge=1)]] = Field(default={})
    """Node types that get a learned embedding for each node, with the number of nodes in the base graph."""

    numbering: Literal["auto", "compact", "wildtype"] = "auto"
    """How graphs with deleted nodes number the rest: `compact` relabels the remaining ones, `wildtype` relabels nothing and marks the
    deleted. `auto` looks at the data."""

    unmatched: Literal["error", "skip"] = "error"
    """What to do about edge types of a graph that `edges` does not mention."""

    edges: list[EdgeSpec] = Field(min_length=1)
    """The edge types that take part, in the order in which their modules are made."""

    @field_validator("operator")
    @classmethod
    def _known_operator(cls, operator: str, info: ValidationInfo) -> str:
        registry = registry_of(info)
        if _is_absent_default(operator, registry):
            return operator
        with as_pydantic("unknown_operator"):
            return registry.operator(operator).name

    @field_validator("operator_options", mode="wrap")
    @classmethod
    def _by_operator(
        cls, options: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        name = info.data.get("operator")
        if name is None:
            return options  # The operator is a problem already.
        registry = registry_of(info)
        if _is_absent_default(name, registry):
            declared = Operator(name=name, build=_no_module, summary="Not installed.")
        else:
            with as_pydantic("unusable_operator"):
                declared = registry.operator(name)
        return checked_options(declared, options, info.context, registry)

    @field_validator("in_channels", mode="wrap")
    @classmethod
    def _columns(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        # By hand: for a union pydantic reports one problem for every member, at paths that no file has.
        found = []
        for node_type, columns in value.items() if isinstance(value, Mapping) else [(None, value)]:
            columns = whole(columns)
            if (
                not is_whole(columns)
                or columns < -1
                or not (node_type is None or isinstance(node_type, str))
            ):
                error = PydanticCustomError(
                    "in_channels",
                    "expected a whole number from -1 on, or one for each node type, got {got}; -1 infers it",
                    {"got": repr(columns)},
                )
                loc = (node_type,) if isinstance(node_type, str) else ()
                found.append(InitErrorDetails(type=error, loc=loc, input=columns))
        if found:
            raise ValidationError.from_exception_data(cls.__name__, found)
        return handler(value)

    @field_validator("heads")
    @classmethod
    def _heads_divide(cls, heads: int, info: ValidationInfo) -> int:
        hidden = info.data.get("hidden_channels")
        if isinstance(hidden, int) and hidden % heads:
            divisors = [number for number in range(1, hidden + 1) if hidden % number == 0]
            below = max(number for number in divisors if number <= heads)
            near = sorted({below, min((n for n in divisors if n > heads), default=below)})
            raise PydanticCustomError(
                "heads",
                "heads={heads} does not divide hidden_channels={hidden}; the nearest numbers that do: {near}",
                {"heads": heads, "hidden": hidden, "near": ", ".join(map(str, near))},
            )
        return heads

    @field_validator("pattern")
    @classmethod
    def _letters(cls, pattern: str | None) -> str | None:
        if pattern is None or (pattern and set(pattern) <= {"M", "S"}):
            return pattern
        better = pattern.upper()
        context = {"got": repr(pattern)}
        if better and set(better) <= {"M", "S"}:
            context["suggestion"] = better
        raise PydanticCustomError(
            "pattern",
            "a pattern is made of the letters M (masked attention) and S (self-attention), such as MSMS, or is null; got {got}",
            context,
        )

    @field_validator("sab", "num_nodes")
    @classmethod
    def _of_a_stack(cls, value: Any, info: ValidationInfo) -> Any:
        is_bare = info.data.get("pattern", "") is None
        # Other operators leave unread what is about blocks.
        if not is_bare or info.data.get("operator") != cls.model_fields["operator"].default:
            return value
        given: dict[str, tuple[str, ...]] = {}
        if info.field_name == "num_nodes":
            given = {"num_nodes": ()} if value else {}
        else:
            names = ("node_types", "induced_points")
            given = {f"sab.{name}": (name,) for name in names if getattr(value, name)}
        found = []
        for name, loc in given.items():
            error = PydanticCustomError(
                "needs_a_stack",
                "{name} belongs to a stack of blocks, but the pattern is null (one bare step); set pattern: MS (or another), or "
                "leave {name} out",
                {"name": name},
            )
            found.append(InitErrorDetails(type=error, loc=loc, input=value))
        if found:
            raise ValidationError.from_exception_data(cls.__name__, found)
        return value

    @field_validator("edges", mode="before")
    @classmethod
    def _in_a_list(cls, edges: Any) -> Any:
        if isinstance(edges, Mapping):
            raise PydanticCustomError(
                "edges_by_name",
                "expected a list with an entry for each edge type, got a mapping with the keys {keys}; write each entry as "
                "'- {edge_type: [source, relation, target], kind: adjacency_mask}', in TOML below a line [[edges]] of its own",
                {"keys": ", ".join(map(str, edges))},
            )
        return edges

    @model_validator(mode="wrap")
    @classmethod
    def _as_a_whole(
        cls, data: Any, handler: ModelWrapValidatorHandler[HeteroNSAConfig], info: ValidationInfo
    ) -> HeteroNSAConfig:
        # `plugins.disable` has to act before the edge specs look up (and import) their kinds.
        listed = items(get(get(data, "plugins"), "disable"))  # not validated yet
        disable = [name for name in listed if isinstance(name, str) and name]
        with switched_off(disable, info):
            try:
                config = handler(data)
            except ValidationError as error:
                # Checks across fields run even so: a user should see all problems at once.
                found = [kept(entry) for entry in error.errors()] + list(across(data))
                raise ValidationError.from_exception_data(cls.__name__, found) from None
        found = list(across(config))
        if found:
            raise ValidationError.from_exception_data(cls.__name__, found)
        return config

    def registry(self, base: Registry | None = None) -> Registry:
        """Returns the registry for this configuration: `base`, or the default one, less what `plugins.disable` lists."""
        return (base or default_registry()).without(self.plugins.disable, by="plugins.disable")

    def bind(self, data: Any, registry: Registry | None = None) -> None:
        """Checks that the configuration fits a graph.

        Args:
            data: A `torch_geometric.data.HeteroData` (or a batch), or its metadata `(node_types, edge_types)`. Metadata do not say
                which fields there are, so with them missing inputs go unnoticed.
            registry: Where to look up the edge kinds; the default registry if not given.

        Raises:
            ConfigError: With all problems: edge types that the graph lacks, edge types of the graph that no spec mentions (unless
                `unmatched` is `skip`), inputs that an edge kind requires and the graph lacks, inputs of a wrong shape, dtype or range, and
                nodes and columns of `x` in other numbers than `num_nodes` and `in_channels` say.
        """
        from pyg_nsa.config.fit import misfits

        problems = misfits(self, data, self.registry(registry))
        if problems:
            raise ConfigError(problems)


def _is_absent_default(operator: str, registry: Registry) -> bool:
    """Says whether it is the default operator in a registry without it.

    A registry of edge kinds alone, such as a test makes, is no mistake in the configuration; `build_operator` says what is missing.
    """
    default = HeteroNSAConfig.model_fields["operator"].default
    return operator == default and operator not in registry.names()


def _no_module(context: Any, options: Any) -> Any:
    raise AssertionError("a stand-in for an operator that is not there is never built")
