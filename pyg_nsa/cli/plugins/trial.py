"""A trial build of each plugin, with its default options; what it raises is for `pyg-nsa plugins doctor`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from pyg_nsa.api import BuildContext, EdgeKind, Operator
from pyg_nsa.registry import PluginRecord, Registry

__all__ = ["trial_errors"]

_EDGE_TYPE = ("node", "to", "node")


def trial_errors(registry: Registry, records: Iterable[PluginRecord]) -> dict[str, Exception]:
    """Builds each loaded edge kind and operator once, within one node type; returns what was raised, by name.

    Plugins whose options have no defaults are left out, since only a configuration can say whether they can be built; so are all
    where torch itself does not import.
    """
    try:
        import torch  # noqa: F401
    except Exception:
        return {}
    declared = {
        r.name: r.declaration
        for r in records
        if r.status == "loaded" and r.declaration is not None and r.declaration.name == r.name
    }
    kinds = {name: one for name, one in declared.items() if isinstance(one, EdgeKind)}
    errors: dict[str, Exception] = {}
    sound: list[str] = []
    for name, kind in kinds.items():
        error = _raised(_build_kind, kind)
        if error is not None:
            errors[name] = error
        elif "mask" in kind.produces:
            sound.append(name)
    for name, one in declared.items():
        if isinstance(one, Operator) and sound:
            error = _raised(_build_operator, name, sound[0], registry)
            if error is not None:
                errors[name] = error
    return errors


def _raised(build: Any, *arguments: Any) -> Exception | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            build(*arguments)
        except Exception as error:
            return error
    return None


def _build_kind(kind: EdgeKind) -> None:
    try:
        options = kind.options()
    except ValidationError:
        return
    context = BuildContext(edge_type=_EDGE_TYPE, heads=1, in_channels=(8, 8), out_channels=8)
    kind.build(context, options)


def _build_operator(name: str, kind: str, registry: Registry) -> None:
    from pyg_nsa.config import HeteroNSAConfig
    from pyg_nsa.operators import build_operator

    raw = {
        "operator": name,
        "hidden_channels": 8,
        "edges": [{"edge_type": _EDGE_TYPE, "kind": kind}],
    }
    try:
        config = HeteroNSAConfig.model_validate(raw, context={"registry": registry})
    except ValidationError:
        return
    build_operator(config, (["node"], [_EDGE_TYPE]), registry=registry)
