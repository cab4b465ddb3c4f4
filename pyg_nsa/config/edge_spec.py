"""An edge type of a configuration, and how its nodes attend to each other.

The names of an edge type are checked here, since PyG would join them in ways that cannot be told apart. Which options there are
says the edge kind, so they are validated by the plugin's own model.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pyg_nsa.api import EdgeKind, Options
from pyg_nsa.config.validation import ConfigModel, as_pydantic, checked_options, registry_of
from pyg_nsa.registry import Registry, default_registry

__all__ = ["EdgeSpec", "EdgeType"]


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


class EdgeSpec(ConfigModel):
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
        with as_pydantic("unknown_edge_kind"):
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
        context = {**(info.context or {}), "edge_type": info.data.get("edge_type")}
        return checked_options(registry.edge_kind(name), options, context, registry)

    @model_validator(mode="after")
    def _one_node_type(self, info: ValidationInfo) -> EdgeSpec:
        source, _, target = self.edge_type
        if source == target:
            return self
        facts = {"edge_type": ", ".join(self.edge_type), "source": source, "target": target}
        found = [
            InitErrorDetails(
                type=PydanticCustomError(
                    "needs_one_node_type",
                    "'{option}' needs an edge type within one node type, but ({edge_type}) goes from '{source}' to "
                    "'{target}'; remove the option",
                    {"option": option, **facts},
                ),
                loc=("options", option),
                input=True,
            )
            for option in ("symmetrize", "self_loops")
            if getattr(self.options, option, False) is True
        ]
        if registry_of(info).edge_kind(self.kind).within_one_type:
            text = (
                "edge kind '{kind}' cannot be used here: it needs an edge type within one node type, but ({edge_type}) goes "
                "from '{source}' to '{target}'; take another kind"
            )
            error = PydanticCustomError("needs_one_node_type", text, {"kind": self.kind, **facts})
            found = [InitErrorDetails(type=error, loc=("kind",), input=self.kind)]
        if found:
            raise ValidationError.from_exception_data(type(self).__name__, found)
        return self

    @model_validator(mode="after")
    def _says_what_it_reads(self, info: ValidationInfo) -> EdgeSpec:
        registry = registry_of(info)
        try:
            registry.edge_kind(self.kind).fields(self.options)
        except Exception as raised:  # `inputs` is a plugin's function
            text = "edge kind '{kind}' cannot say which fields it reads: its plugin, {provider}, raised {error}"
            facts = {"kind": self.kind, "provider": registry.provider(self.kind)}
            error = PydanticCustomError(
                "broken_inputs", text, {**facts, "error": f"{type(raised).__name__}: {raised}"}
            )
            found = InitErrorDetails(type=error, loc=("kind",), input=self.kind)
            raise ValidationError.from_exception_data(type(self).__name__, [found]) from raised
        return self

    def resolved(self, registry: Registry | None = None) -> EdgeKind:
        """Returns the edge kind itself.

        Args:
            registry: Where to look; the default registry if not given. Take `HeteroNSAConfig.registry()` for a spec of a
                configuration that switches plugins off.
        """
        return (registry or default_registry()).edge_kind(self.kind)
