"""All that a plugin imports.

A plugin teaches pyg_nsa a new *edge kind*: a way to say, for one edge type (a relation) of a heterogeneous graph, which nodes may
attend to which, and with what bias. It is an ordinary Python package. Three things make it a plugin:

1. **Options**: a small pydantic model with the settings that a user may write in a configuration.
2. **An `EdgeKind`**: a frozen declaration that names the kind, its options and the function that builds its module.
3. **An entry point** in the group `pyg_nsa` whose name *is the name of the kind*, and which leads to the module with the hook.

The whole of a plugin module, here without the attention code:

```python
from pyg_nsa.api import BuildContext, EdgeKind, Options, hookimpl

class NearestOptions(Options):
    k: int = 8
    "How many nearest sources each target attends to."

def build(context: BuildContext, options: NearestOptions):
    from my_plugin.nearest import Nearest  # torch is imported here, not at the top
    return Nearest(context, options)

@hookimpl
def pyg_nsa_edge_kinds():
    return [
        EdgeKind(
            name="my_lab.nearest",
            options=NearestOptions,
            build=build,
            summary="Each target attends to its k nearest sources.",
            requires=("edge_index", "distance"),
            api=(1, 0),
        )
    ]
```

and in its `pyproject.toml`:

```toml
[project.entry-points.pyg_nsa]
"my_lab.nearest" = "my_plugin.hooks"
```

Three rules, each with its reason:

* **Import no torch at the top of the module that the entry point names.** A listing of plugins loads all of them, and it should
  take a blink. Import it inside `build`.
* **Every name that a plugin answers to is an entry point**, aliases and further kinds of the same module included. So a
  configuration imports only the plugins that it names, and a name that nobody knows is reported without importing anything.
* **Write `api=(1, 0)`** with the numbers that you wrote your plugin against. A pyg_nsa that no longer speaks them then says so,
  and does not fail in the middle of a training.

In a notebook no package is needed: `pyg_nsa.registry.default_registry().register(EdgeKind(...))`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import pluggy
from pydantic import ConfigDict, Field

from pyg_nsa.nested_models import nested_models
from pyg_nsa.scalars import StrictScalars
from pyg_nsa.unfit_return import UnfitReturnError

if TYPE_CHECKING:
    import torch

    from pyg_nsa.config import HeteroNSAConfig
    from pyg_nsa.registry import Registry

__all__ = [
    "PLUGIN_API",
    "BuildContext",
    "EdgeKind",
    "Operator",
    "OperatorContext",
    "Options",
    "PairOptions",
    "hookimpl",
]

PLUGIN_API: tuple[int, int] = (1, 0)
"""The plugin API of this pyg_nsa: a new major number breaks plugins, a new minor number only adds."""

hookimpl = pluggy.HookimplMarker("pyg_nsa")
"""Marks a function of a plugin as an implementation of one of the hooks in `pyg_nsa.registry.hookspecs`."""

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?")
_PRODUCTS = frozenset({"mask", "bias", "message"})


class Options(StrictScalars):
    """The options of one edge kind or operator: derive from it and add fields.

    Unknown keys are refused, instances are frozen, infinite and NaN numbers are refused, and so are numbers in quotes (see
    `pyg_nsa.scalars`); defaults are validated like any other value. The string below a field is its description; it appears in
    listings and in the JSON Schema, so write one for every field. Models in the fields, in lists, mappings and unions too, are
    derived from `Options` as well; `EdgeKind` and `Operator` refuse others.

    A validator that has to know the relation finds it in `(info.context or {}).get("edge_type")`: source node type, name and target
    node type, or None where options are made apart from any relation.

    Example:
        >>> class ClipOptions(Options):
        ...     clip: float = 8.0
        ...     "Largest absolute value of the bias."
        >>> ClipOptions().clip
        8.0
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )


class PairOptions(Options):
    """Options shared by the edge kinds that make (query, key) pairs.

    The host applies `edge_dropout`. The other two are for the edge term to apply, in `pairs`:

    ```python
    inputs.edges_from_index("edge_index", symmetrize=options.symmetrize, self_loops=options.self_loops)
    ```

    (`edges_from_dense` takes them as well). A kind that cannot refuses them with a validator.
    """

    symmetrize: bool = False
    """Adds the reversed pair of every pair, for data that stores each undirected edge once. Only where the source and the target
    node type agree."""

    self_loops: bool = False
    """Adds the diagonal: every node attends to itself. Only where the source and the target node type agree."""

    edge_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Fraction of the pairs that is dropped before the softmax, during training only. At least 0 and less than 1."""


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """What the host knows about a relation when it builds the module of its edge kind.

    Attributes:
        edge_type: The relation, `(source node type, name, target node type)`. Targets are the queries, sources the keys.
        heads: The number of attention heads; a bias has the shape `[E, heads]`.
        edge_attr_dim: The number of columns of the edge attribute that the kind reads (of the one that an option `edge_attr` names, if
            it reads several); -1 means that the first forward pass infers it. `build_operator` takes it from the graph.
        in_channels: Columns of the source and the target rows; -1 means that the first forward pass infers them.
        out_channels: Columns of the relation's messages.
    """

    edge_type: tuple[str, str, str]
    heads: int
    edge_attr_dim: int = -1
    in_channels: tuple[int, int] = (-1, -1)
    out_channels: int = -1


_T = TypeVar("_T")


def _of_any_api(cls: type[_T]) -> type[_T]:
    """Lets a declaration of another plugin API have other fields, so that it is refused for its API and not for a field."""
    init: Callable[..., None] = cls.__init__
    known = {one.name: one for one in dataclasses.fields(cls)}  # type: ignore[arg-type]
    needed = [name for name, one in known.items() if one.default is dataclasses.MISSING]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **given: Any) -> None:
        if _is_api(api := given.get("api")) and not speaks(api) and "name" in given:
            given = dict.fromkeys(needed) | {k: v for k, v in given.items() if k in known}
        init(self, *args, **given)

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


@_of_any_api
@dataclass(frozen=True, kw_only=True)
class EdgeKind:
    """Declares an edge kind: how the nodes of one relation attend to each other.

    A declaration does no work. The host validates a user's options with `options`, calls `build` once for each relation that uses
    the kind, and the module that it gets turns the inputs of the relation into attention pairs and, if it likes, a bias.

    Attributes:
        name: The name that configurations use, and the name of the entry point: lower case letters, digits and `_`, from a letter
            on. Third parties may put themselves in front: `my_lab.nearest`.
        build: `build(context, options)` returns a `torch.nn.Module`. Import torch inside of it.
        summary: One sentence for listings.
        options: The pydantic model of the options, derived from `Options`.
        produces: What the module makes: `"mask"` (which pairs attend), `"bias"` (added to the logits), or both; the module is a
            `pyg_nsa.EdgeTerm`. Or `"message"` alone: the module is a convolution of its own, called as PyG's convs are, from
            `context.in_channels` to `context.out_channels`.
        requires: The inputs that a relation cannot do without, by the names of their fields in the data. A nested tuple means any
            one of these: `(("edge_index", "adj_mask"), "stoichiometry")`.
        inputs: Where an option names a field (`edge_attr: stoichiometry`), a function from the options to *all* field names that
            the relation wants collected from the data. Names that it returns and `requires` does not mention are required as
            well, since the user asked for them by name. Left out, all names in `requires` are collected.
        api: The plugin API that the kind was written against. Write the numbers; the default is only good in a notebook.
        revision: Raise it when the same options give different numbers than before.
        aliases: Former names. Each needs an entry point, as the name does.
        deprecated: If the kind should no longer be used, the sentence that says what to use instead.
        within_one_type: Whether the kind only works where source and target are of one node type. Other edge types are then refused
            when a configuration is checked, before anything is built.

    Example:
        >>> kind = EdgeKind(
        ...     name="nearest",
        ...     build=lambda context, options: None,
        ...     summary="Each target attends to its nearest sources.",
        ...     requires=(("edge_index", "adj_mask"), "distance"),
        ... )
        >>> kind.fields(kind.options())
        ('edge_index', 'adj_mask', 'distance')
        >>> kind.missing(kind.options(), present={"adj_mask"})
        [('distance',)]
    """

    name: str
    build: Callable[[BuildContext, Any], torch.nn.Module]
    summary: str
    options: type[Options] = Options
    produces: frozenset[str] = frozenset({"mask"})
    requires: tuple[str | tuple[str, ...], ...] = ()
    inputs: Callable[[Any], tuple[str, ...]] | None = None
    api: tuple[int, int] = PLUGIN_API
    revision: int = 1
    aliases: tuple[str, ...] = ()
    deprecated: str | None = None
    within_one_type: bool = False

    def __post_init__(self) -> None:
        _check_api(self)
        if not speaks(self.api):
            return  # Not ours to judge: the registry reports it as incompatible, which is the true reason.
        _check_declaration(self)
        produces = set() if isinstance(self.produces, str) else set(self.produces)
        alone = "message" not in produces or produces == {"message"}
        if not produces or produces - _PRODUCTS or not alone:
            raise ValueError(
                f"edge kind {self.name!r}: produces must be a non-empty set of 'mask' and 'bias', or 'message' alone, "
                f"got {self.produces!r}; write produces=frozenset({{'mask'}}), for example"
            )
        object.__setattr__(self, "produces", frozenset(self.produces))
        if not isinstance(self.requires, tuple) or not all(map(_is_requirement, self.requires)):
            raise TypeError(
                f"edge kind {self.name!r}: requires must be a tuple of field names, or of tuples of "
                f"which any one will do, got {self.requires!r}; a tuple of one needs its comma: "
                "('edge_index',)"
            )
        if self.inputs is not None and not callable(self.inputs):
            raise TypeError(
                f"edge kind {self.name!r}: inputs must be a function from the options to a tuple of "
                f"field names, got {self.inputs!r}; names that never change belong in requires"
            )
        if not isinstance(self.aliases, tuple) or not all(map(_is_name, self.aliases)):
            raise ValueError(
                f"edge kind {self.name!r}: aliases must be a tuple of names such as 'nearest' or "
                f"'my_lab.nearest', got {self.aliases!r}"
            )

    def fields(self, options: Options) -> tuple[str, ...]:
        """Returns the names of all fields that a relation with these options wants from the data.

        Raises:
            UnfitReturnError: `inputs` did not return a tuple of names.
        """
        if self.inputs is None:
            return self._mentioned()
        names = self.inputs(options)
        # A string is iterable, too: each letter would be taken for a field.
        if isinstance(names, Iterable) and not isinstance(names, str | bytes):
            names = tuple(names)
            if all(isinstance(name, str) and name for name in names):
                return tuple(dict.fromkeys(names))
        example = names if isinstance(names, str) and names else "edge_index"
        raise UnfitReturnError(
            f"edge kind {self.name!r}: inputs(options) must return a tuple of field names, got {names!r}; a tuple of one "
            f"needs its comma: ({example!r},)"
        )

    def missing(self, options: Options, present: Collection[str]) -> list[tuple[str, ...]]:
        """Returns the required inputs that are not among the fields `present`.

        Each entry is a tuple of alternatives: any one of its fields would do.

        Raises:
            UnfitReturnError: `inputs` did not return a tuple of names.
        """
        fields = self.fields(options)
        needed = [(entry,) if isinstance(entry, str) else entry for entry in self.requires]
        # Options may narrow the alternatives down: `source: adj_mask` wants that one.
        needed = [tuple(name for name in names if name in fields) or names for names in needed]
        mentioned = self._mentioned()
        needed += [(name,) for name in fields if name not in mentioned]
        return [names for names in needed if not any(name in present for name in names)]

    def _mentioned(self) -> tuple[str, ...]:
        names: list[str] = []
        for entry in self.requires:
            names.extend((entry,) if isinstance(entry, str) else entry)
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, kw_only=True)
class OperatorContext:
    """What the host knows when it builds an operator.

    Attributes:
        config: The configuration, valid and fitting the graph. Its `in_channels` is replaced by what `in_channels` here says.
        node_types: The node types of the graph.
        edge_types: The edge types that take part, in the configuration's order.
        in_channels: Columns of `x` of each node type in `edge_types`; -1 means that the first forward pass infers them.
        edge_attr_dims: Columns of the edge attribute of each edge type that the graph has one of; see `BuildContext.edge_attr_dim`.
        registry: Where edge kinds are looked up, less what the configuration switches off.
    """

    config: HeteroNSAConfig
    node_types: tuple[str, ...]
    edge_types: tuple[tuple[str, str, str], ...]
    in_channels: dict[str, int]
    registry: Registry
    edge_attr_dims: dict[tuple[str, str, str], int] = field(default_factory=dict)

    @property
    def out_channels(self) -> int:
        """Columns of the rows that the operator gives, for every node type."""
        return self.config.out_channels or self.config.hidden_channels

    @property
    def out_types(self) -> tuple[str, ...]:
        """The node types that the operator gives rows of, where the call has rows of them and edges to them.

        A bare step (`pattern: null`) gives those that an edge type leads to. A stack carries the others along.
        """
        ends = (
            (target,) if self.config.pattern is None else (source, target)
            for source, _, target in self.edge_types
        )
        return tuple(dict.fromkeys(name for names in ends for name in names))


@_of_any_api
@dataclass(frozen=True, kw_only=True)
class Operator:
    """Declares a convolution operator for heterogeneous graphs, so that a configuration can choose it by name.

    Every operator's module is called as PyG's `HeteroConv` is: `conv(x_dict, edge_index_dict, **{name}_dict)`, and gives a
    dictionary with rows `[N, context.out_channels]` of the node types in `context.out_types`. Arguments that it has no use for
    it leaves unread, so that one call serves all operators; where leaving one unread would make the rows wrong (deleted nodes
    that would go on sending), it raises. `conv.collect(data)` gathers the call's arguments from a `HeteroData`.

    Attributes:
        name: The name that configurations use (`operator: hgt`), and the name of the entry point; the rules are those of
            `EdgeKind.name`.
        build: `build(context, options)` returns the module, a `torch.nn.Module`: `context` is an `OperatorContext`, `options` is
            an instance of `options` made from the configuration's `operator_options`. Import torch inside of it.
        summary: One sentence for listings.
        options: The pydantic model of the options, derived from `Options`.
        api: The plugin API that the operator was written against.
        revision: Raise it when the same options give different numbers than before.
    """

    name: str
    build: Callable[[OperatorContext, Any], torch.nn.Module]
    summary: str
    options: type[Options] = Options
    api: tuple[int, int] = PLUGIN_API
    revision: int = 1

    def __post_init__(self) -> None:
        _check_api(self)
        if speaks(self.api):
            _check_declaration(self)


def speaks(api: tuple[int, int]) -> bool:
    """Says whether this pyg_nsa can use a plugin that was written against the plugin API `api`."""
    return api[0] == PLUGIN_API[0] and api[1] <= PLUGIN_API[1]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _is_requirement(entry: object) -> bool:
    if isinstance(entry, tuple):
        return bool(entry) and all(isinstance(name, str) and name for name in entry)
    return isinstance(entry, str) and bool(entry)


def _is_api(api: object) -> TypeGuard[tuple[int, int]]:
    return (
        isinstance(api, tuple) and len(api) == 2 and all(isinstance(number, int) for number in api)
    )


def _check_api(declared: EdgeKind | Operator) -> None:
    if not _is_api(declared.api):
        raise TypeError(
            f"{declared.name!r}: api must be two whole numbers such as (1, 0), got {declared.api!r}"
        )


def _check_declaration(declared: EdgeKind | Operator) -> None:
    """Checks what edge kinds and operators have in common."""
    what = "edge kind" if isinstance(declared, EdgeKind) else "operator"
    name = declared.name
    if not _is_name(name):
        raise ValueError(
            f"{what} {name!r}: a name is lower case letters, digits and '_', from a letter on, "
            "perhaps with a vendor in front: 'nearest', 'my_lab.nearest'"
        )
    if not isinstance(declared.summary, str) or not declared.summary.strip():
        raise ValueError(
            f"{what} {name!r}: summary is empty; write one sentence, it is what listings show"
        )
    if not (isinstance(declared.options, type) and issubclass(declared.options, Options)):
        raise TypeError(
            f"{what} {name!r}: options must be a class derived from pyg_nsa.api.Options, "
            f"got {declared.options!r}"
        )
    for place, model in nested_models(declared.options):
        if not issubclass(model, Options):
            raise TypeError(
                f"{what} {name!r}: {model.__name__}, the type of option {place!r}, must be derived from pyg_nsa.api.Options, as "
                f"{declared.options.__name__} is: a plain pydantic model would take unknown keys, and text for numbers"
            )
    if not callable(declared.build):
        raise TypeError(f"{what} {name!r}: build must be a function, got {declared.build!r}")
    if (
        not isinstance(declared.revision, int)
        or isinstance(declared.revision, bool)
        or declared.revision < 1
    ):
        raise ValueError(
            f"{what} {name!r}: revision must be a whole number from 1 on, got {declared.revision!r}"
        )
