"""What a module was made from, as its state dict says it: edge kinds and operator with plugin, version and revision.

A module with declared edge kinds writes one entry more into its state dict, `made_from._extra_state`. It is JSON in a tensor of
bytes: so `torch.load(weights_only=True)` reads it, and code that takes every entry for a tensor (`{name: value.cpu()}`) keeps
working. `describe_checkpoint` shows it; `pyg_nsa.checkpoint_problems` says what is missing or
differs. This module imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyg_nsa
from pyg_nsa.api import EdgeKind, Operator
from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.errors import CheckpointMismatchError, Problem, RegistryError
from pyg_nsa.plain_values import plain_values
from pyg_nsa.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ENTRY", "MadeOf", "Part", "describe_checkpoint", "made_of", "read_entry"]

CHILD = "made_from"
"""The name of the submodule whose extra state the entry is."""

ENTRY = f"{CHILD}._extra_state"
"""The name of the entry in the state dict of a module; in that of a model the module's path stands in front."""

_FORMAT = 1

EdgeType = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Part:
    """An edge kind or an operator that a module was made from.

    Attributes:
        name: Its name.
        distribution: The distribution of its plugin; None for one that was registered by hand.
        version: The distribution's version.
        revision: The revision of the edge kind or operator: another one gives other numbers.
        api: The plugin API that it was written against.
        aliases: Former names of an edge kind; a checkpoint that has one of them has this part.
    """

    name: str
    distribution: str | None = None
    version: str | None = None
    revision: int = 1
    api: tuple[int, int] = (1, 0)
    # Not compared: a later version of a plugin may have one more and is the same part.
    aliases: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        source = (
            f"{self.distribution} {self.version}" if self.distribution else "registered by hand"
        )
        return f"'{self.name}' ({source}, revision {self.revision})"

    @classmethod
    def of(cls, declared: EdgeKind | Operator, registry: Registry) -> Part:
        """The part that a declaration of a registry is."""
        record = registry.record(declared.name)
        return cls(
            name=declared.name,
            distribution=record.dist if record is not None else None,
            version=record.version if record is not None else None,
            revision=declared.revision,
            api=declared.api,
            aliases=declared.aliases if isinstance(declared, EdgeKind) else (),
        )


@dataclass(frozen=True, kw_only=True)
class MadeOf:
    """What a module was made from.

    Attributes:
        edges: The edge kind of each edge type; None where a conv module was passed.
        operator: The operator, where a configuration named it.
        heads: The number of heads, which no parameter's shape shows.
        options: The options of each edge type's kind as plain data, without those that act in training alone.
        aggr: How the messages of several relations are grouped, as text; None where it is not said.
        config: The configuration as plain data, where there was one; `load_config` reads it.
        version: The version of pyg_nsa.
    """

    edges: dict[EdgeType, Part | None] = field(default_factory=dict)
    operator: Part | None = None
    heads: int | None = None
    options: dict[EdgeType, dict[str, Any]] = field(default_factory=dict)
    aggr: str | None = None
    config: dict[str, Any] | None = None
    version: str = pyg_nsa.__version__

    @property
    def parts(self) -> list[Part]:
        """The operator and all edge kinds, each once."""
        found = [self.operator, *self.edges.values()]
        return list(dict.fromkeys(part for part in found if part is not None))

    def to_json(self) -> str:
        """Returns it as JSON, the same text for the same content."""
        edges = [
            {
                "edge_type": edge_type,
                **(_plain(part) if part is not None else {"kind": None}),
                **({"options": self.options[edge_type]} if edge_type in self.options else {}),
            }
            for edge_type, part in self.edges.items()
        ]
        plain = {
            "format": _FORMAT,
            "pyg_nsa": self.version,
            "operator": _plain(self.operator, "name") if self.operator is not None else None,
            "heads": self.heads,
            "aggr": self.aggr,
            "edges": edges,
            "config": self.config,
        }
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> MadeOf:
        """Reads what `to_json` wrote.

        Raises:
            CheckpointMismatchError: It is of a newer format, or damaged.
        """
        try:
            plain = json.loads(text)
            if plain["format"] > _FORMAT:
                raise CheckpointMismatchError(
                    [
                        Problem(
                            "",
                            f"the checkpoint was written by pyg-nsa {plain['pyg_nsa']}, whose description of it is newer than "
                            f"this pyg-nsa {pyg_nsa.__version__} knows; upgrade: pip install -U pyg-nsa",
                            "newer_checkpoint",
                        )
                    ]
                )
            operator = plain["operator"]
            return cls(
                edges={
                    tuple(one["edge_type"]): None if one["kind"] is None else _part(one, "kind")
                    for one in plain["edges"]
                },
                operator=None if operator is None else _part(operator, "name"),
                heads=plain["heads"],
                # Not said by checkpoints of before.
                options={
                    tuple(one["edge_type"]): dict(one["options"])
                    for one in plain["edges"]
                    if "options" in one
                },
                aggr=plain.get("aggr"),
                config=plain["config"],
                version=plain["pyg_nsa"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointMismatchError(
                [
                    Problem(
                        "",
                        f"what the checkpoint says of the module cannot be read ({type(error).__name__}: {error}); the file is "
                        "damaged, or the entry was changed",
                        "damaged_checkpoint",
                    )
                ]
            ) from error


def _plain(part: Part, key: str = "kind") -> dict[str, Any]:
    return {
        key: part.name,
        "distribution": part.distribution,
        "version": part.version,
        "revision": part.revision,
        "api": part.api,
        **({"aliases": part.aliases} if part.aliases else {}),
    }


def _part(plain: Mapping[str, Any], key: str) -> Part:
    major, minor = plain["api"]
    return Part(
        name=plain[key],
        distribution=plain["distribution"],
        version=plain["version"],
        revision=plain["revision"],
        api=(major, minor),
        aliases=tuple(plain.get("aliases", ())),
    )


def made_of(
    relations: Mapping[EdgeType, Any] | Sequence[EdgeSpec],
    registry: Registry,
    heads: int | None,
    aggr: str | None = None,
) -> MadeOf:
    """Describes relations: a spec by its kind, anything else as a module.

    Args:
        relations: What each edge type is, or a list of specs.
        registry: Where the kinds are from.
        heads: The number of heads.
        aggr: How messages are grouped, as text.
    """
    if not isinstance(relations, Mapping):
        relations = {_edge_type(spec): spec for spec in relations}
    parts: dict[str, Part] = {}
    for spec in relations.values():
        if isinstance(spec, EdgeSpec) and spec.kind not in parts:
            parts[spec.kind] = Part.of(registry.edge_kind(spec.kind), registry)
    edges = {
        edge_type: parts[spec.kind] if isinstance(spec, EdgeSpec) else None
        for edge_type, spec in relations.items()
    }
    options = {
        edge_type: _settings(spec)
        for edge_type, spec in relations.items()
        if isinstance(spec, EdgeSpec)
    }
    return MadeOf(edges=edges, heads=heads, options=options, aggr=aggr)


def _settings(spec: EdgeSpec) -> dict[str, Any]:
    """The options of a kind that act whenever it is called."""
    # Not the repr of what is no plain value: it may hold an address, which is another one in every process.
    plain = plain_values(spec.options, fallback=lambda v: type(v).__name__)
    return _without_dropout(plain)


def _without_dropout(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {
        key: _without_dropout(one) for key, one in value.items() if not str(key).endswith("dropout")
    }


def with_config(described: MadeOf, config: HeteroNSAConfig, registry: Registry) -> MadeOf:
    """Adds the configuration and its operator."""
    try:
        operator = Part.of(registry.operator(config.operator), registry)
    except RegistryError:  # A registry of edge kinds alone will do for `HeteroNSAConv.from_config`.
        operator = None
    plain = plain_values(config, fallback=repr)
    return replace(described, operator=operator, heads=config.heads, config=plain)


def _edge_type(spec: EdgeSpec) -> EdgeType:
    source, name, target = spec.edge_type
    return source, name, target


# --- reading ----------------------------------------------------------------------------------------------------------------------


def describe_checkpoint(checkpoint: str | Path | Mapping[str, Any]) -> dict[str, MadeOf]:
    """Says what the modules in a checkpoint were made from.

    ```python
    for path, made in describe_checkpoint("model.pt").items():
        print(path, made.operator, *made.edges.items())
    config = load_config(made.config)  # the configuration, ready to build the module again
    ```

    Args:
        checkpoint: A state dict, a mapping that holds one (Lightning's `{"state_dict": …}`), or the file of either, which is read
            with `weights_only=True`.

    Returns:
        What is said, by the path of the module; `""` is the whole. Empty if nothing is: the state dict holds no module with
        declared edge kinds, or was written before pyg_nsa wrote this.

    Raises:
        CheckpointMismatchError: An entry is damaged or newer than this pyg_nsa.
        OSError: There is no such file.
    """
    if not isinstance(checkpoint, Mapping):
        import torch

        checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, Mapping):
        return {}
    return {
        key.removesuffix(ENTRY).rstrip("."): read_entry(value)
        for key, value in _entries(checkpoint)
    }


def _entries(mapping: Mapping[Any, Any], depth: int = 3) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(key, str) and (key == ENTRY or key.endswith(f".{ENTRY}")):
            yield key, value
        elif isinstance(value, Mapping) and depth:
            yield from _entries(value, depth - 1)


def read_entry(state: Tensor) -> MadeOf:
    """Reads an entry of a state dict.

    Args:
        state: `[bytes]` uint8.

    Raises:
        CheckpointMismatchError: It is damaged, or newer than this pyg_nsa.
    """
    try:
        text = bytes(state.cpu().tolist())
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointMismatchError(
            [
                Problem(
                    "",
                    f"what the checkpoint says of the module is a {type(state).__name__}, not a tensor of bytes; the file is "
                    "damaged, or the entry was changed",
                    "damaged_checkpoint",
                )
            ]
        ) from error
    return MadeOf.from_json(text)
