"""What stands between a checkpoint and the module, or the machine, that it is loaded on, and how to mend it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from pyg_nsa.api import EdgeKind, Operator
from pyg_nsa.checkpoint import EdgeType, MadeOf, Part
from pyg_nsa.errors import Problem, RegistryError, nearest
from pyg_nsa.registry import Registry, default_registry

__all__ = ["changed_options", "differences", "not_installed"]

_log = logging.getLogger("pyg_nsa")


def differences(before: MadeOf, now: MadeOf, registry: Registry | None = None) -> list[Problem]:
    """Returns what keeps the parameters in a checkpoint from meaning the same in a module.

    Another version of a plugin with the same revision is no difference; it is logged at the level debug.

    Args:
        before: What the checkpoint says.
        now: What the module was made from.
        registry: Where to look whether plugins are installed; the default registry if not given.
    """
    registry = registry or default_registry()
    found: list[Problem] = []
    if before.operator is not None and now.operator is not None:
        found += _compared("operator", "operator", before.operator, now.operator, registry)
    if before.heads is not None and now.heads is not None and before.heads != now.heads:
        found.append(
            Problem(
                "heads",
                f"the checkpoint has heads={before.heads}, this module has heads={now.heads}; the parameters have the same "
                f"shapes and would mean something else: build the module with heads={before.heads}",
                "other_heads",
            )
        )
    for edge_type, old in before.edges.items():
        path = _show(edge_type)
        if edge_type not in now.edges:
            found.append(_absent(edge_type, old, before, now))
        elif (new := now.edges[edge_type]) is not None and old is not None:
            found += _compared(path, "edge kind", old, new, registry)
    for edge_type, new in now.edges.items():
        if edge_type not in before.edges:
            has = f"edge kind {new}" if new is not None else "a conv module"
            found.append(
                Problem(
                    _show(edge_type),
                    f"this module has {has} for this edge type, which the checkpoint does not have; remove the edge type, or "
                    "train anew",
                    "other_edge_types",
                    allowed=tuple(map(_show, before.edges)),
                )
            )
    return found


def changed_options(before: MadeOf, now: MadeOf) -> list[str]:
    """Returns which options differ, by edge type, and the grouping: they change results, and may be meant to.

    Options that one side lacks are left out: another version of the plugin may have added or removed them.

    Args:
        before: What the checkpoint says; one of before options were written says none.
        now: What the module was made from.
    """
    found = []
    if None not in (before.aggr, now.aggr) and before.aggr != now.aggr:
        found.append(_changed("", {"aggr": before.aggr}, {"aggr": now.aggr}, ["aggr"]))
    for edge_type, old in before.options.items():
        new = now.options.get(edge_type, {})
        names = [name for name in old if name in new and old[name] != new[name]]
        if names:
            found.append(_changed(f"{_show(edge_type)}: ", old, new, names))
    return found


def _changed(place: str, old: dict[str, Any], new: dict[str, Any], names: list[str]) -> str:
    before, now = (", ".join(f"{name}={of[name]!r}" for name in names) for of in (old, new))
    return f"{place}the checkpoint has {before}, this module has {now}"


def not_installed(before: MadeOf, registry: Registry | None = None) -> list[Problem]:
    """Returns what a checkpoint needs and this machine does not have: plugins, or their revisions.

    Args:
        before: What the checkpoint says.
        registry: Where to look; the default registry if not given. Only plugins that the checkpoint names are loaded.
    """
    registry = registry or default_registry()
    found = []
    for what, part, path in _used(before):
        try:
            find = registry.operator if what == "operator" else registry.edge_kind
            declared: Operator | EdgeKind = find(part.name)
        except RegistryError:
            found.append(
                Problem(
                    path,
                    f"the checkpoint needs {what} {part}, {_state(part, registry)}; {_mend(part)}",
                    "missing_plugin",
                )
            )
            continue
        found += _compared(path, what, part, Part.of(declared, registry), registry, "this machine")
    return found


def _used(made: MadeOf) -> Iterator[tuple[str, Part, str]]:
    """Every part once, with the place where it is used first."""
    if made.operator is not None:
        yield "operator", made.operator, "operator"
    seen: set[Part] = set()
    for edge_type, part in made.edges.items():
        if part is not None and part not in seen:
            seen.add(part)
            yield "edge kind", part, _show(edge_type)


def _compared(
    path: str, what: str, old: Part, new: Part, registry: Registry, here: str = "this module"
) -> Iterator[Problem]:
    renamed = old.name in new.aliases
    if old.name != new.name and not renamed:
        gone = _is_gone(old, registry)
        state = f", {_state(old, registry)}" if gone else ""
        mend = f"{_mend(old)}, and " if gone else ""
        yield Problem(
            path,
            f"the checkpoint has {what} {old}{state}; {here} has {new}; {mend}build the module with "
            f"{what} '{old.name}'",
            "missing_plugin" if gone else "other_kind",
        )
    elif None not in (old.distribution, new.distribution) and old.distribution != new.distribution:
        same = f"one that was called '{old.name}' before," if renamed else "one of the same name"
        yield Problem(
            path,
            f"the checkpoint has {what} {old}, {here} has {same} from another distribution, {new}; "
            f"{_mend(old)}, and uninstall or switch off {new.distribution}",
            "other_plugin",
        )
    elif old.revision != new.revision:
        yield Problem(
            path,
            f"the checkpoint has {what} {old}, {here} has {new}; with another revision the same parameters give other "
            f"numbers: {_mend(old)}, or train anew",
            "other_revision",
        )
    elif old.version != new.version or old.distribution != new.distribution:
        _log.debug("%s: the checkpoint has %s %s, %s has %s", path, what, old, here, new)


def _is_gone(part: Part, registry: Registry) -> bool:
    record = registry.record(part.name)
    return record is None or record.status not in ("available", "loaded")


def _state(part: Part, registry: Registry) -> str:
    record = registry.record(part.name)
    if record is None:
        return "which is not installed" if part.distribution else "which is not registered"
    return f"which is {record.status} here" + (f" ({record.reason})" if record.reason else "")


def _mend(part: Part) -> str:
    if part.distribution is None:
        return f"register '{part.name}' of revision {part.revision} first (pyg_nsa.register)"
    return f"pip install {part.distribution}=={part.version}"


def _absent(edge_type: EdgeType, old: Part | None, before: MadeOf, now: MadeOf) -> Problem:
    had = f"edge kind {old}" if old is not None else "a conv module"
    new = [_show(one) for one in now.edges if one not in before.edges]
    return Problem(
        _show(edge_type),
        f"the checkpoint has {had} for this edge type, which this module does not have; declare it, or train anew",
        "other_edge_types",
        allowed=tuple(map(_show, now.edges)),
        suggestion=nearest(_show(edge_type), new),
    )


def _show(edge_type: EdgeType) -> str:
    return f"({', '.join(edge_type)})"
