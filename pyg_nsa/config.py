"""What a user may configure, as frozen pydantic models; `pyg_nsa.load` reads them from files.

A configuration lists edge types, and gives each an edge kind by name, never by a Python path: what may run is what is installed
and not switched off, and a configuration file can be passed on without passing on code. The options of a kind are validated by
the plugin's own model.

Checking has two phases. Validation needs no data; `HeteroNSAConfig.bind` compares a valid configuration with a graph.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pyg_nsa.across import across, get, items
from pyg_nsa.api import EdgeKind, Operator, Options
from pyg_nsa.errors import (
    ConfigError,
    PluginWarning,
    RegistryError,
    UnknownNameError,
    nearest,
)
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.requirements import unmet
from pyg_nsa.scalars import StrictScalars, whole

__all__ = [
    "EdgeSpec",
    "EdgeType",
    "HeteroNSAConfig",
    "PluginsConfig",
    "SABConfig",
]

# The registry that the configuration under validation leaves over (`plugins.disable`). A context variable, because pydantic's own
# context belongs to the caller, and an edge spec does not see the model that it is a part of.
_restricted: ContextVar[Registry | None] = ContextVar("pyg_nsa_restricted_registry", default=None)


def registry_of(info: ValidationInfo) -> Registry:
    """Returns the registry that a validation uses: from its context (`{"registry": …}`) or else the default one."""
    restricted = _restricted.get()
    if restricted is not None:
        return restricted
    return _registry_in(info.context)


def _registry_in(context: Any) -> Registry:
    found = context.get("registry") if isinstance(context, Mapping) else None
    return found if isinstance(found, Registry) else default_registry()


def _check_type_name(name: str) -> str:
    if not name:
        raise PydanticCustomError("type_name", "a type name must not be empty")
    for mark in ("__", "#"):
        if mark in name:
            raise PydanticCustomError(
                "type_name",
                "type name '{name}' must not contain '{mark}': PyG joins the names of an edge type with '__' and writes "
                "'.' as '#' in parameter names, so it could not be told apart; rename the type",
                {"name": name, "mark": mark},
            )
    if name.endswith("_"):
        raise PydanticCustomError(
            "type_name",
            "type name '{name}' must not end in '_': PyG joins the names of an edge type with '__' in parameter names, "
            "so the '_' would move to the next name; rename the type",
            {"name": name},
        )
    return name


def _check_edge_type(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) == 3:
        return value
    raise PydanticCustomError(
        "edge_type",
        "an edge type is a list of three names, source node type, relation, target node type, such as "
        "[gene, interacts, gene]; got {got}",
        {"got": repr(value)},
    )


_NAME_SCHEMA: dict[str, Any] = {
    "type": "string",
    # The rules of `_check_type_name`: single '_' between or before other characters, no '#'.
    "pattern": "^_?[^_#]+(_[^_#]+)*$",
    "description": "A name without '__' and '#' that does not end in '_'.",
}

TypeName = Annotated[str, AfterValidator(_check_type_name), WithJsonSchema(_NAME_SCHEMA)]

EdgeType = Annotated[
    tuple[TypeName, TypeName, TypeName],
    BeforeValidator(_check_edge_type),
    # `items` in place of pydantic's `prefixItems`, which editors know less of.
    WithJsonSchema({"type": "array", "items": _NAME_SCHEMA, "minItems": 3, "maxItems": 3}),
]
"""An edge type `(source, relation, target)`. In JSON, YAML and TOML it is a list."""


class _Config(StrictScalars):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def _checked_options(
    declared: EdgeKind | Operator, options: Any, context: Any, registry: Registry
) -> Options:
    """Validates the options of an edge kind or operator with the plugin's own model."""
    what = "edge kind" if isinstance(declared, EdgeKind) else "operator"
    if isinstance(options, Options) and not isinstance(options, declared.options):
        raise PydanticCustomError(
            "options_of_another_kind",
            "{what} '{kind}' takes {expected}, got {got}; pass its own options, or a mapping",
            {
                "what": what,
                "kind": declared.name,
                "expected": declared.options.__name__,
                "got": type(options).__name__,
            },
        )
    try:
        return declared.options.model_validate({} if options is None else options, context=context)
    except ValidationError:
        raise  # Its problems keep their paths, below the path of the options.
    except Exception as error:
        raise PydanticCustomError(
            "broken_options",
            "the options of {what} '{kind}' cannot be checked: its plugin, {provider}, raised {error}",
            {
                "what": what,
                "kind": declared.name,
                "provider": registry.provider(declared.name),
                "error": f"{type(error).__name__}: {error}",
            },
        ) from error


class EdgeSpec(_Config):
    """How the nodes of one edge type attend to each other."""

    edge_type: EdgeType
    """The edge type: source node type, relation, target node type. Targets are the queries, sources the keys."""

    # `kind` stands before `options`: a validator sees only the fields that were declared before its own.
    kind: str
    """The name of an edge kind, from an installed plugin."""

    options: SerializeAsAny[Options] = Field(default=None, validate_default=True)
    """The options of the edge kind; the kind says which there are."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str, info: ValidationInfo) -> str:
        with _as_pydantic("unknown_edge_kind"):
            return registry_of(info).edge_kind(kind).name  # An alias becomes the name.

    @field_validator("options", mode="wrap")
    @classmethod
    def _by_plugin(
        cls, options: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        name = info.data.get("kind")
        if name is None:
            return options  # The kind is a problem already, and who could check its options?
        registry = registry_of(info)
        return _checked_options(registry.edge_kind(name), options, info.context, registry)

    @model_validator(mode="after")
    def _one_node_type(self) -> EdgeSpec:
        source, _, target = self.edge_type
        if source != target:
            found = [
                InitErrorDetails(
                    type=PydanticCustomError(
                        "needs_one_node_type",
                        "'{option}' needs an edge type within one node type, but ({edge_type}) goes from '{source}' to "
                        "'{target}'; remove the option",
                        {
                            "option": option,
                            "edge_type": ", ".join(self.edge_type),
                            "source": source,
                            "target": target,
                        },
                    ),
                    loc=("options", option),
                    input=True,
                )
                for option in ("symmetrize", "self_loops")
                if getattr(self.options, option, False) is True
            ]
            if found:
                raise ValidationError.from_exception_data(type(self).__name__, found)
        return self

    def resolved(self, registry: Registry | None = None) -> EdgeKind:
        """Returns the edge kind itself.

        Args:
            registry: Where to look; the default registry if not given. Take `HeteroNSAConfig.registry()` for a spec of a
                configuration that switches plugins off.
        """
        return (registry or default_registry()).edge_kind(self.kind)


class SABConfig(_Config):
    """The self-attention blocks: every node of a type attends to all others of its type, within its graph."""

    node_types: list[str] | None = None
    """The node types that get self-attention; null means all."""

    induced_points: int | None = Field(default=None, ge=1)
    """Number of learned points that stand between the nodes, as in the Set Transformer's ISAB: memory and time then grow with the
    number of nodes, not with its square. Null means full self-attention."""


class PluginsConfig(_Config):
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


class HeteroNSAConfig(_Config):
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

    heads: int = Field(default=4, ge=1)
    """Number of attention heads."""

    pattern: str | None = Field(default="MS", json_schema_extra={"pattern": "^[MS]+$"})
    """The blocks, one letter each: M for masked attention along the edge types, S for self-attention within node types. Null means
    one bare step without norm, residual and MLP, as PyG's HeteroConv does it."""

    aggr: Literal["sum", "mean", "min", "max", "cat"] | None = "sum"
    """How the messages of several edge types to one node type are grouped; null stacks them in a new dimension."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the outputs of the blocks and in the MLPs; at least 0 and less than 1."""

    mlp_ratio: float = Field(default=2.0, gt=0.0)
    """Width of the MLPs' hidden layer, as a multiple of `hidden_channels`."""

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
        with _as_pydantic("unknown_operator"):
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
            with _as_pydantic("unusable_operator"):
                declared = registry.operator(name)
        return _checked_options(declared, options, info.context, registry)

    @field_validator("in_channels", mode="wrap")
    @classmethod
    def _columns(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        # By hand: for a union pydantic reports one problem for every member, at paths that no file has.
        found = []
        for node_type, columns in value.items() if isinstance(value, Mapping) else [(None, value)]:
            columns = whole(columns)
            is_whole = isinstance(columns, int) and not isinstance(columns, bool)
            if (
                not is_whole
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

    @model_validator(mode="wrap")
    @classmethod
    def _as_a_whole(
        cls, data: Any, handler: ModelWrapValidatorHandler[HeteroNSAConfig], info: ValidationInfo
    ) -> HeteroNSAConfig:
        # `plugins.disable` has to act before the edge specs look up (and import) their kinds.
        disable = [name for name in items(get(get(data, "plugins"), "disable")) if name]
        token = _restricted.set(_registry_in(info.context).without(disable, by="plugins.disable"))
        try:
            config = handler(data)
        except ValidationError as error:
            # Checks across fields run even so: a user should see all problems at once.
            found = [_kept(entry) for entry in error.errors()] + list(across(data))
            raise ValidationError.from_exception_data(cls.__name__, found) from None
        finally:
            _restricted.reset(token)
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
                `unmatched` is `skip`), inputs that an edge kind requires and the graph lacks, and inputs of a wrong shape,
                dtype or range.
        """
        from pyg_nsa.fit import misfits

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


def _kept(entry: Any) -> InitErrorDetails:
    """Turns a reported error into one that can be raised again, with its type, text and context."""
    context = {key: value for key, value in entry.get("ctx", {}).items() if key != "error"}
    return InitErrorDetails(
        type=PydanticCustomError(entry["type"], entry["msg"], context),
        loc=entry["loc"],
        input=entry["input"],
    )


@contextlib.contextmanager
def _as_pydantic(code: str) -> Iterator[None]:
    """Lets a registry's error be one problem among others in a validation."""
    try:
        yield
    except UnknownNameError as error:
        context: dict[str, Any] = {
            "reason": str(error),
            "name": error.name,
            "what": error.what,
            "allowed": list(error.available),
        }
        if error.suggestion is not None:
            context["suggestion"] = error.suggestion
        raise PydanticCustomError(code, "{reason}", context) from error
    except RegistryError as error:
        raise PydanticCustomError("unusable_plugin", "{reason}", {"reason": str(error)}) from error
