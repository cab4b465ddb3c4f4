"""A trial build of each plugin, with its default options; what goes wrong is for `pyg-nsa plugins doctor`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pyg_nsa.api import BuildContext, EdgeKind, Operator
from pyg_nsa.registry import PluginRecord, Registry

__all__ = ["Failure", "Trials", "trial_builds"]

_BUILD = "build(context, options)"
_EDGE_TYPE = ("node", "to", "node")


@dataclass(frozen=True)
class Failure:
    """What a plugin failed at.

    Attributes:
        step: The function of the plugin that was called.
        error: What was raised, by it or by the check of what it returned.
    """

    step: str
    error: Exception


@dataclass
class Trials:
    """What the trial builds showed, by plugin.

    Attributes:
        failures: What went wrong.
        left_out: Why a plugin was not built, though nothing is wrong with it.
    """

    failures: dict[str, Failure] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, step: str, trial: Callable[..., str | None], *arguments: Any) -> bool:
        """Runs a trial of one plugin, which returns why nothing was tried; says whether it was tried and succeeded."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reason = trial(*arguments)
            except Exception as error:
                self.failures[name] = Failure(step, error)
                return False
        if reason is not None:
            self.left_out[name] = reason
        return reason is None


def trial_builds(registry: Registry, records: Iterable[PluginRecord]) -> Trials:
    """Builds each loaded edge kind and operator once, within one node type, and checks what was built as the host does.

    Plugins whose options have no defaults are left out, since only a configuration can say whether they can be built. Nothing is
    tried where torch itself does not import.
    """
    trials = Trials()
    try:
        import torch  # noqa: F401
    except Exception:
        return trials
    declared = {
        r.name: r.declaration
        for r in records
        if r.status == "loaded" and r.declaration is not None and r.declaration.name == r.name
    }
    kinds = {name: one for name, one in declared.items() if isinstance(one, EdgeKind)}
    built = [
        name
        for name, kind in kinds.items()
        if trials.run(name, "inputs(options)", _read_inputs, kind)
        and trials.run(name, _BUILD, _build_kind, kind)
    ]
    sound = next((name for name in built if "mask" in kinds[name].produces), None)
    for name, one in declared.items():
        if isinstance(one, Operator):
            trials.run(name, _BUILD, _build_operator, one, sound, registry)
    return trials


def _read_inputs(kind: EdgeKind) -> str | None:
    try:
        options = kind.options()
    except ValidationError as error:
        return _without_defaults(error)
    kind.fields(options)
    return None


def _build_kind(kind: EdgeKind) -> None:
    from pyg_nsa.nn.relations import check_built

    context = BuildContext(edge_type=_EDGE_TYPE, heads=1, in_channels=(8, 8), out_channels=8)
    check_built(kind, kind.build(context, kind.options()), _EDGE_TYPE)


def _build_operator(operator: Operator, kind: str | None, registry: Registry) -> str | None:
    from pyg_nsa.config import HeteroNSAConfig
    from pyg_nsa.operators import build_operator

    try:
        operator.options()
    except ValidationError as error:
        return _without_defaults(error)
    if kind is None:
        return "no edge kind that makes pairs could be built to try it with"
    raw = {
        "operator": operator.name,
        "hidden_channels": 8,
        "edges": [{"edge_type": _EDGE_TYPE, "kind": kind}],
    }
    try:
        config = HeteroNSAConfig.model_validate(raw, context={"registry": registry})
    except ValidationError as error:
        return f"a configuration with default options is refused: {error.errors()[0]['msg']}"
    build_operator(config, (["node"], [_EDGE_TYPE]), registry=registry)
    return None


def _without_defaults(error: ValidationError) -> str:
    """Why options cannot be made without a configuration."""
    problems = error.errors(include_url=False)
    needed = [".".join(map(str, one["loc"])) for one in problems if one["type"] == "missing"]
    if not needed:
        return f"its default options are refused: {problems[0]['msg']}"
    if len(needed) == 1:
        return f"its option {needed[0]!r} has no default"
    return f"its options {', '.join(map(repr, needed))} have no defaults"
