"""Checks of what a plugin declares, for edge kinds and operators alike; they build nothing.

Their target is a :class:`Declared`.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from pyg_nsa.api import PLUGIN_API, EdgeKind, Operator, Options, speaks
from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.errors import ConfigError
from pyg_nsa.load import load_config
from pyg_nsa.model_types import written_keys
from pyg_nsa.plain_values import plain_values
from pyg_nsa.registry import Registry
from pyg_nsa.schema import undescribed
from pyg_nsa.testing.results import Finding, NotApplicable, Tally

__all__ = ["declaration", "default_options", "options_described", "round_trip", "unknown_option"]


class Declared(Protocol):
    """What a declaration check looks at."""

    @property
    def declared(self) -> EdgeKind | Operator:
        """The declaration."""

    @property
    def registry(self) -> Registry:
        """Where it is found by its name."""

    @property
    def labelled_options(self) -> list[tuple[str, Options]]:
        """Validated options, each with a label for messages."""

    def raw_config(self, options: Any) -> tuple[dict[str, Any], str]:
        """A configuration with these options, and the path at which they stand in it."""


def declaration(target: Declared, tally: Tally) -> None:
    """The declaration can be used by this pyg_nsa and shown in a listing: api, summary, names, the fields that it asks for."""
    declared = target.declared
    tally.expect(
        speaks(declared.api),
        f"api={declared.api} is not spoken by this pyg_nsa, whose plugin API is {PLUGIN_API}; write the numbers that you "
        "tested against",
    )
    found = target.registry.records()
    tally.expect(declared.name in {r.name for r in found}, f"{declared.name!r} is not registered")
    tally.expect(
        "\n" not in declared.summary.strip(),
        "summary has several lines; listings show it as one sentence",
    )
    if isinstance(declared, Operator):
        return
    tally.expect(
        declared.name not in declared.aliases,
        f"the name {declared.name!r} is among its own aliases",
    )
    tally.expect(
        declared.requires or declared.inputs,
        "requires is empty, so no field of the edge type would be collected and the relation skipped; name edge_index, or what "
        "your kind reads",
    )


def default_options(target: Declared, tally: Tally) -> None:
    """Every option has a default, and all defaults together are valid."""
    model = target.declared.options
    try:
        options = model()
    except ValidationError as error:
        missing = [".".join(map(str, e["loc"])) for e in error.errors() if e["type"] == "missing"]
        why = f"no default for {', '.join(missing)}" if missing else f"invalid defaults:\n{error}"
        raise Finding(f"{model.__name__}() fails: {why}") from None
    tally.expect(
        options.model_config.get("frozen"),
        f"{model.__name__} is not frozen; do not override model_config of pyg_nsa.Options",
    )


def options_described(target: Declared, tally: Tally) -> None:
    """Every option has a description, the string below the field, which listings and the JSON Schema show."""
    model = target.declared.options
    if not model.model_fields:
        raise NotApplicable("there are no options")
    missing = undescribed(model.model_json_schema())
    tally.expect(
        not missing,
        f"no description for {', '.join(missing)}; write a string below the field",
    )


def unknown_option(target: Declared, tally: Tally) -> None:
    """A key that is no option is refused, with its place and the option that was meant."""
    known = list(written_keys(target.declared.options).values())
    misspelt = [(f"{name}_", name) for name in known if f"{name}_" not in known]
    for wrong, meant in [*misspelt, ("no_such_option_of_any_plugin", None)]:
        raw, path = target.raw_config({wrong: 1})
        try:
            load_config(raw, registry=target.registry)
        except ConfigError as error:
            problems = [p for p in error.problems if p.path == f"{path}.{wrong}"]
        else:
            problems = []
        tally.expect(
            problems,
            f"the unknown key {wrong!r} is not refused; keep extra='forbid' of pyg_nsa.Options",
        )
        if meant is not None:
            suggestion = problems[0].suggestion
            tally.expect(
                suggestion == meant,
                f"for the unknown key {wrong!r} the suggestion is {suggestion!r}, expected {meant!r}",
            )


def round_trip(target: Declared, tally: Tally) -> None:
    """Options, and a configuration with them, survive JSON, YAML, pickle and a copy unchanged."""
    for label, options in target.labelled_options:
        raw, _ = target.raw_config(plain_values(options))
        config = load_config(raw, registry=target.registry)
        parts: list[BaseModel] = [options, config, *config.edges]
        for part in parts:
            for way, again in _ways(part, target.registry).items():
                what = type(part).__name__
                try:
                    came_back = again()
                except Exception as error:
                    raise Finding(
                        f"{label}: {what} does not survive {way}: {type(error).__name__}: {error}"
                    ) from error
                tally.expect(
                    came_back == part,
                    f"{label}: {what} comes back from {way} as {came_back!r}, it was {part!r}",
                )
        tally.expect(
            _options_in(config, target) == options,
            f"{label}: a configuration with the options as JSON holds {_options_in(config, target)!r}, they were {options!r}",
        )


def _ways(part: BaseModel, registry: Registry) -> Mapping[str, Callable[[], Any]]:
    model, context = type(part), {"registry": registry}

    def yaml() -> Any:
        text = io.StringIO()
        YAML(typ="safe", pure=True).dump(plain_values(part), text)
        raw = YAML(typ="safe", pure=True).load(text.getvalue())
        return model.model_validate(raw, context=context)

    def plain() -> Any:
        return model.model_validate(plain_values(part), context=context)

    return {
        "JSON": lambda: model.model_validate_json(json.dumps(plain_values(part)), context=context),
        "plain values": plain,
        "YAML": yaml,
        "pickle": lambda: pickle.loads(pickle.dumps(part)),
        "a deep copy": lambda: copy.deepcopy(part),
    }


def _options_in(config: HeteroNSAConfig, target: Declared) -> Options:
    if isinstance(target.declared, Operator):
        return config.operator_options
    spec: EdgeSpec = config.edges[0]
    return spec.options
