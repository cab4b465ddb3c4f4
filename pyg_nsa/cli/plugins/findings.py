"""What is wrong with the installed plugins, where it is, and how to mend it; for ``pyg-nsa plugins doctor``."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from pyg_nsa.cli.plugins.installed import file_of, load_quietly
from pyg_nsa.cli.plugins.near_groups import Misplaced, misplaced
from pyg_nsa.cli.plugins.trial import Failure, trial_builds
from pyg_nsa.errors import BrokenPluginError, PluginWarning, nearest
from pyg_nsa.registry import PluginRecord, Registry
from pyg_nsa.registry.discovery import GROUP
from pyg_nsa.unfit_return import UnfitReturnError

__all__ = ["Finding", "findings"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a user may want to know.

    Attributes:
        status: `broken`, `incompatible`, `conflict`: the plugin cannot be used. `not built`, `disabled` and `setting` are for
            information.
        name: The plugin; None where it is about a whole distribution or about a setting.
        what: What is wrong.
        mend: What to do about it.
        providers: The distributions that it is about, with versions.
        places: The files, `file:line` where the line is known.
        traceback: Of the error behind it, if there is one.
    """

    status: str
    name: str | None
    what: str
    mend: str
    providers: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    traceback: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether something does not work, as against having been switched off."""
        return self.status in ("broken", "incompatible", "conflict")


def findings(registry: Registry) -> list[Finding]:
    """Loads all plugins, builds each once, and returns what is to be said about them, problems first."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry.records()  # Finds the plugins and loads none.
    found = [
        Finding(
            status="broken",
            name=None,
            what=str(one.message),
            mend="reinstall that distribution, or remove it",
        )
        for one in caught
        if issubclass(one.category, PluginWarning)
    ]
    records = load_quietly(registry)
    found += map(_misplaced, misplaced())
    found += _conflicts([r for r in records if r.status == "conflict"])
    for record in records:
        if record.status == "broken":
            found.append(_broken(record))
        elif record.status == "incompatible":
            found.append(_incompatible(record))
    trials = trial_builds(registry, records)
    for record in records:
        if record.name in trials.failures:
            found.append(_unbuildable(record, trials.failures[record.name]))
    found += [_not_built(r, trials.left_out[r.name]) for r in records if r.name in trials.left_out]
    found += [_disabled(record) for record in records if record.status == "disabled"]
    return [*found, *_idle_settings(records)]


def _misplaced(one: Misplaced) -> Finding:
    names = ", ".join(map(repr, one.names))
    are = "is an entry point" if len(one.names) == 1 else "are entry points"
    return Finding(
        status="broken",
        name=None,
        what=f"{names} {are} in the group {one.group!r}, which is not read; the group of plugins is {GROUP!r}",
        mend=f"if {one.dist} is yours, write [project.entry-points.{GROUP}] in its pyproject.toml and install it again; else "
        f"upgrade it (pip install -U {one.dist})",
        providers=(f"{one.dist} {one.version}",),
    )


def _conflicts(records: list[PluginRecord]) -> Iterator[Finding]:
    for name in sorted({record.name for record in records}):
        rivals = [record for record in records if record.name == name]
        switches = [f"{name}@{canonicalize_name(record.dist or '')}" for record in rivals]
        yield Finding(
            status="conflict",
            name=name,
            what=f"{len(rivals)} distributions provide this name, so none of them is used",
            mend=f"uninstall all but one (pip uninstall {rivals[-1].dist}), or switch the others off, for example "
            f"PYG_NSA_DISABLE_PLUGINS={','.join(switches[1:])}",
            providers=tuple(record.provider for record in rivals),
            places=tuple(place for record in rivals for place in _places(record)),
        )


def _broken(record: PluginRecord) -> Finding:
    error, dist = record.error, record.dist
    without = f"do without it: PYG_NSA_DISABLE_PLUGINS={record.name}"
    upgrade = f"upgrade it (pip install -U {dist})"
    if isinstance(
        error, BrokenPluginError
    ):  # the contract was broken; the reason says how it is kept
        mend = (
            f"if {dist} is yours, do what it says and install it again; else {upgrade} or {without}"
        )
    elif isinstance(error, ModuleNotFoundError) and _is_own(error.name, record):
        mend = (
            f"{dist} has no module {error.name!r}: if it is yours, correct the entry point in its pyproject.toml and "
            f"install it again; else {upgrade} or {without}"
        )
    elif isinstance(error, ModuleNotFoundError):
        mend = f"install what brings the module {error.name!r}, {upgrade}, or {without}"
    else:
        mend = f"correct it if {dist} is yours; else {upgrade} or {without}"
    return _finding(record, mend)


def _incompatible(record: PluginRecord) -> Finding:
    return _finding(
        record,
        f"bring both to versions that fit (pip install -U pyg-nsa {record.dist}), or do without it: "
        f"PYG_NSA_DISABLE_PLUGINS={record.name}",
    )


def _unbuildable(record: PluginRecord, failure: Failure) -> Finding:
    error = failure.error
    text = (str(error).strip().splitlines() or [""])[0]
    if not isinstance(error, UnfitReturnError):
        text = f"{failure.step} with default options raises {type(error).__name__}: {text}"
    dist = record.dist
    own = "" if dist is None else f" if {dist} is yours; else upgrade it (pip install -U {dist})"
    return Finding(
        status="broken",
        name=record.name,
        what=f"it loads, but {text}".rstrip(": "),
        mend=f"correct it{own} or do without it: PYG_NSA_DISABLE_PLUGINS={record.name}",
        providers=(record.provider,),
        places=tuple(_places(record, error)),
        traceback="".join(traceback.format_exception(error)),
    )


def _not_built(record: PluginRecord, reason: str) -> Finding:
    return Finding(
        status="not built",
        name=record.name,
        what=f"it was loaded but not built: {reason}",
        mend="nothing; only a configuration can build it: pyg-nsa check FILE --build",
        providers=(record.provider,),
        places=tuple(_places(record)),
    )


def _disabled(record: PluginRecord) -> Finding:
    return _finding(record, "nothing, if that is what you want; else change that setting")


def _finding(record: PluginRecord, mend: str) -> Finding:
    error = record.error
    return Finding(
        status=record.status,
        name=record.name,
        what=record.reason,
        mend=mend,
        providers=(record.provider,),
        places=tuple(_places(record)),
        traceback="" if error is None else "".join(traceback.format_exception(error)),
    )


def _is_own(module: str | None, record: PluginRecord) -> bool:
    """Whether a module is the one that the entry point names, or a package around it."""
    target = (record.module or "").partition(":")[0].strip()
    return module is not None and f"{target}.".startswith(f"{module}.")


def _places(record: PluginRecord, error: BaseException | None = None) -> Iterator[str]:
    """The place of an error, or else of the one at loading, in the plugin's own code; the plugin's file if there is none."""
    target = (record.module or "").partition(":")[0].strip()
    file, top = file_of(target), file_of(target.partition(".")[0])
    error = error or record.error
    if isinstance(error, SyntaxError) and error.filename:
        yield f"{error.filename}:{error.lineno}"
        return
    if error is not None and file is not None:
        # A plugin's error may come from deep inside of a library; the plugin's own last line is where to look.
        is_package = top is not None and os.path.basename(top) == "__init__.py"
        own = os.path.dirname(top) + os.sep if top is not None and is_package else file
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename.startswith(own):
                yield f"{frame.filename}:{frame.lineno}"
                return
    if file is not None:
        yield file


def _idle_settings(records: Iterable[PluginRecord]) -> Iterator[Finding]:
    """Names in the environment variables that mean nothing here: misspelt, or no longer installed."""
    known: set[str] = set()
    for record in records:
        dist = canonicalize_name(record.dist or "")
        known |= {record.name, dist, f"{record.name}@{dist}"}
    for variable in ("PYG_NSA_DISABLE_PLUGINS", "PYG_NSA_PLUGINS"):
        for item in filter(None, map(str.strip, os.environ.get(variable, "").split(","))):
            name, at, project = item.rpartition("@")
            if known & {item, f"{name}{at}{canonicalize_name(project)}"}:
                continue
            near = nearest(item, known)
            yield Finding(
                status="setting",
                name=None,
                what=f"{variable} lists {item!r}, and nothing that is installed has that name",
                mend=f"did you mean {near!r}?" if near else "remove it, or install what it means",
            )
