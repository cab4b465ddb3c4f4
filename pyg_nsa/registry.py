"""Finds plugins, loads each at its first use, keeps a broken one from spoiling the rest, and explains what is wrong.

An installed plugin is an entry point in the group `pyg_nsa`, and the entry point's name is the name of what it provides. So the
names are known without importing anything, and asking for one imports one plugin. A plugin is in one of these states:

* *available*: found, not imported yet
* *loaded*: imported, checked, ready
* *disabled*: switched off before any import, by name or by distribution
* *broken*: failed at import, or breaks the contract
* *incompatible*: written for a plugin API that this pyg_nsa does not speak
* *conflict*: more than one distribution provides the name; nobody wins silently

`Registry.load_all` warns of the plugins that it has to leave out; asking for one of them by name raises the error that says why.
With `PYG_NSA_STRICT_PLUGINS=1` it raises where it would warn.

Environment variables, read when a registry is made:

* `PYG_NSA_DISABLE_PLUGINS=a,b` switches plugins off. An item is a name, a distribution, or `name@distribution`.
* `PYG_NSA_PLUGINS=a,b` is an allow-list: installed plugins that are not on it are off. Empty, it allows none.
* `PYG_NSA_STRICT_PLUGINS=1` turns the warnings into errors.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy
from packaging.utils import canonicalize_name

from pyg_nsa import hookspecs
from pyg_nsa.api import EdgeKind, Operator
from pyg_nsa.discovery import (
    GROUP,
    Installed,
    PluginRecord,
    Status,
    discover,
    import_of,
    spellings,
    switched_on,
    warn,
)
from pyg_nsa.errors import (
    BrokenPluginError,
    DisabledPluginError,
    IncompatiblePluginError,
    PluginConflictError,
    PluginWarning,
    RegistryError,
    UnknownEdgeKindError,
    UnknownNameError,
    UnknownOperatorError,
    nearest,
)
from pyg_nsa.plugin_contract import (
    HOOKS,
    Declaration,
    Single,
    answers_of,
    brief,
    check_api,
    hashable,
    named_by,
    origin_of,
    shown,
)

if TYPE_CHECKING:
    from pyg_nsa.config import EdgeSpec

__all__ = [
    "GROUP",
    "BrokenPluginError",
    "DisabledPluginError",
    "IncompatiblePluginError",
    "PluginConflictError",
    "PluginRecord",
    "PluginWarning",
    "Registry",
    "RegistryError",
    "Status",
    "UnknownEdgeKindError",
    "UnknownOperatorError",
    "default_registry",
    "register",
    "use_registry",
]

D = TypeVar("D", EdgeKind, Operator)


@dataclass(frozen=True, eq=False)
class _Admitted:
    """A plugin that passed all checks."""

    source: object
    """What was registered, or what the entry point led to: `plugin` itself, or its class."""
    plugin: object
    """What pluggy holds."""
    declared: dict[str, Declaration]
    """What the plugin declares, by name."""


@dataclass(frozen=True, eq=False)
class _ByHand:
    """One declaration that came through `Registry.register`."""

    declaration: Declaration
    admitted: _Admitted
    origin: str

    def record(self) -> PluginRecord:
        return PluginRecord(
            name=self.declaration.name,
            status="loaded",
            module=self.origin,
            declaration=self.declaration,
        )


class Registry:
    """The edge kinds and operators that configurations may name.

    Registries are independent of each other; `default_registry` is the one that is used where none is given.

    Args:
        discover: Whether to look for installed plugins. Without it, only what is registered by hand is there.
        strict: Whether a plugin that cannot be used is an error for `load_all` and not a warning. None asks
            `PYG_NSA_STRICT_PLUGINS`.
        disable: Plugins to switch off before anything is imported: names, distributions, or `name@distribution`. None asks
            `PYG_NSA_DISABLE_PLUGINS`.
        allow: The only installed plugins to admit, in the same form. None asks `PYG_NSA_PLUGINS`; if that is not set either, all
            are admitted.

    Example:
        >>> from pyg_nsa.api import EdgeKind
        >>> registry = Registry(discover=False)
        >>> registry.register(
        ...     EdgeKind(
        ...         name="nearest",
        ...         build=lambda context, options: ...,
        ...         summary="Each target attends to its nearest sources.",
        ...     )
        ... )
        ('nearest',)
        >>> registry.edge_kind("nearest").summary
        'Each target attends to its nearest sources.'
    """

    def __init__(
        self,
        *,
        discover: bool = True,
        strict: bool | None = None,
        disable: Iterable[str] | None = None,
        allow: Iterable[str] | None = None,
    ) -> None:
        if strict is None:
            strict = os.environ.get("PYG_NSA_STRICT_PLUGINS", "") not in ("", "0")
        self._discover = discover
        self._strict = strict
        # What is switched off, with the words for who did it.
        self._disabled: dict[str, str] = {}
        if disable is None:
            listed = _items(os.environ.get("PYG_NSA_DISABLE_PLUGINS", ""))
            self._disabled.update(dict.fromkeys(listed, "PYG_NSA_DISABLE_PLUGINS"))
        else:
            listed = _names("disable", disable)
            self._disabled.update(dict.fromkeys(listed, "Registry(disable=…)"))
        self._allowed: tuple[str, ...] | None = None
        self._allowed_by = ""
        if allow is not None:
            self._allowed, self._allowed_by = _names("allow", allow), "Registry(allow=…)"
        elif (listed_text := os.environ.get("PYG_NSA_PLUGINS")) is not None:
            self._allowed, self._allowed_by = _items(listed_text), "PYG_NSA_PLUGINS"

        # One lock for all state. It is reentrant because a plugin may use the registry while it is loaded. No import runs under
        # it: a thread that imports a plugin's module by itself holds that module's import lock, and may wait for this one.
        self._lock = threading.RLock()
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._installed: dict[str, list[Installed]] | None = None
        self._by_hand: dict[str, _ByHand] = {}
        self._admitted: dict[int, _Admitted] = {}
        self._warned: set[str] = set()

    # --- asking -----------------------------------------------------------------------------------------------------------

    def edge_kind(self, name: str) -> EdgeKind:
        """Returns the edge kind of that name (or alias), importing its plugin and no other.

        Raises:
            UnknownEdgeKindError: Nothing provides the name; nothing was imported to find out.
            RegistryError: The plugin cannot be used; the subclass and the message say why.
        """
        kind = self._of_type(name, EdgeKind, UnknownEdgeKindError)
        if kind.deprecated is not None and f"deprecated {kind.name}" not in self._warned:
            self._warned.add(f"deprecated {kind.name}")
            warnings.warn(
                f"edge kind {kind.name!r} is deprecated: {kind.deprecated}",
                FutureWarning,  # Shown by default, for it speaks to those who write configurations.
                stacklevel=2,
            )
        return kind

    def operator(self, name: str) -> Operator:
        """Returns the operator of that name, importing its plugin and no other.

        Raises:
            UnknownOperatorError: Nothing provides the name; nothing was imported to find out.
            RegistryError: The plugin cannot be used; the subclass and the message say why.
        """
        return self._of_type(name, Operator, UnknownOperatorError)

    def names(self) -> list[str]:
        """Returns the names that may be asked for, sorted, without importing anything.

        Edge kinds and operators share one set of names. Plugins that are switched off, in conflict, or known by now to be
        unusable are left out; `records` has all.
        """
        with self._lock:
            usable = {
                name
                for name, found in self._found().items()
                if any(one.status in ("available", "loaded") for one in found)
            }
            return sorted(usable | set(self._by_hand))

    def records(self) -> list[PluginRecord]:
        """Returns a record of every plugin name of every provider, by name, without importing anything."""
        with self._lock:
            records = [entry.record() for entry in self._by_hand.values()]
            for name, found in self._found().items():
                hidden = self._find_by_hand(name) is not None
                for one in found:
                    record = one.record()
                    if hidden and one.status != "disabled":
                        record = replace(record, status="disabled", reason=_HIDDEN, error=None)
                    records.append(record)
        return sorted(records, key=lambda record: (record.name, record.dist or ""))

    def record(self, name: str) -> PluginRecord | None:
        """Returns the record of the plugin that answers to a name, without importing anything; None if there is none.

        Of several providers it is one that is not switched off.
        """
        with self._lock:
            by_hand = self._find_by_hand(name)
            if by_hand is not None:
                return by_hand.record()
            found = self._found().get(name)
            return switched_on(found)[0].record() if found else None

    def provider(self, name: str) -> str:
        """Returns who provides a name, such as `pyg-nsa 0.1.0`, without importing anything.

        Raises:
            UnknownNameError: Nothing provides the name.
            PluginConflictError: More than one distribution does.
        """
        with self._lock:
            by_hand = self._find_by_hand(name)
            if by_hand is not None:
                return by_hand.record().provider
            found = self._found().get(name)
            if not found:
                raise self._unknown(name, UnknownNameError)
            active = switched_on(found)
            if len(active) > 1:
                raise self._why_not(name, active)
            return active[0].record().provider

    # --- changing ---------------------------------------------------------------------------------------------------------

    def register(self, plugin: object, *, replace: bool = False) -> tuple[str, ...]:
        """Registers a plugin by hand: in a notebook, a test, or an application without installed metadata.

        Args:
            plugin: An `EdgeKind`, an `Operator`, or anything with hook implementations: a module, a class, an object.
            replace: Whether it may take the place of plugins of the same names.

        Returns:
            The names that it provides.

        Raises:
            PluginConflictError: A name is taken and `replace` is not set; then nothing is registered.
            BrokenPluginError: The plugin breaks the contract.
            IncompatiblePluginError: The plugin was written for another plugin API.
        """
        source = Single(plugin) if isinstance(plugin, EdgeKind | Operator) else plugin
        with self._lock:
            admitted = self._admit(source)
            answers = answers_of(admitted.declared)
            taken = [name for name in answers if self._owner(name) is not None]
            if taken and not replace:
                self._dismiss_unused(admitted)
                owner = self._owner(taken[0])
                raise PluginConflictError(
                    f"{taken[0]!r} is already provided by {owner}. Pass replace=True to put the new one in "
                    "its place in this registry, or give the new one another name.",
                    name=taken[0],
                    provider=owner,
                )
            for name in answers:
                self._remove_by_hand(name, keep=admitted)
            for name, declaration in admitted.declared.items():
                self._by_hand[name] = _ByHand(declaration, admitted, origin_of(plugin))
            return tuple(admitted.declared)

    def unregister(self, name: str) -> None:
        """Takes a plugin that was registered by hand out again; an installed one that it had replaced is back.

        Raises:
            UnknownNameError: Nothing was registered by hand under the name.
        """
        with self._lock:
            if self._find_by_hand(name) is not None:
                self._remove_by_hand(name)
            elif name in self._found():
                raise UnknownNameError(
                    f"{name!r} was not registered by hand, it is installed. To switch it off use "
                    f"Registry(disable=[{name!r}]), PYG_NSA_DISABLE_PLUGINS={name}, or plugins.disable in a "
                    "configuration.",
                    name=name,
                    available=sorted(self._by_hand),
                )
            else:
                raise self._unknown(name, UnknownNameError)

    def load_all(self) -> list[PluginRecord]:
        """Loads every plugin that is available, warns of those that cannot be used, and returns the records.

        Raises:
            RegistryError: A plugin cannot be used and the registry is strict.
        """
        with self._lock:
            names = list(self._found())
        for name in names:
            self._import(name)
            with self._lock:
                active = switched_on(self._found()[name])
                if active[0].status == "disabled" or self._find_by_hand(name) is not None:
                    continue
                if active[0].status == "available":
                    self._load(active[0])
                if active[0].status == "loaded":
                    continue
                error = self._why_not(name, active)
                if self._strict:
                    raise error from active[0].error
                if name not in self._warned:
                    self._warned.add(name)
                    warn(error)
        return self.records()

    def without(self, disable: Iterable[str], *, by: str = "Registry.without") -> Registry:
        """Returns a registry like this one with more plugins switched off; this one stays as it is.

        Args:
            disable: Names, distributions, or `name@distribution`.
            by: Who switches them off, in the words of the error message.
        """
        listed = _names("disable", disable)
        if not listed:
            return self
        with self._lock:
            other = Registry(discover=self._discover, strict=self._strict, disable=(), allow=())
            other._allowed, other._allowed_by = self._allowed, self._allowed_by
            other._disabled = {**self._disabled, **dict.fromkeys(listed, by)}
            for name, entry in self._by_hand.items():
                if not set(answers_of({name: entry.declaration})) & set(listed):
                    other._by_hand[name] = entry
                    other._adopt(entry.admitted)
            return other

    def spec_from_module(self, module: Any, edge_type: tuple[str, str, str]) -> EdgeSpec | None:
        """Asks all plugins what a conv of a model would be as an edge spec; those of others are asked before pyg_nsa's own.

        Args:
            module: A convolution, as it stands in a `HeteroConv`.
            edge_type: Its relation.

        Returns:
            The answer of the first plugin that has one, or None.

        Raises:
            BrokenPluginError: A plugin fails at the question, or answers something else.
        """
        from pyg_nsa.config import EdgeSpec

        self.load_all()
        with self._lock:
            hook = "pyg_nsa_spec_from_module"
            plugins = [
                one.plugin
                for one in reversed(self._manager.hook.pyg_nsa_spec_from_module.get_hookimpls())
            ]
            for plugin in plugins:
                others = self._manager.get_plugins() - {plugin}
                try:
                    with use_registry(self):
                        answer = self._manager.subset_hook_caller(hook, others)(
                            module=module, edge_type=edge_type
                        )
                    wrong = (
                        None
                        if isinstance(answer, EdgeSpec | None)
                        else f"it returned {shown(answer)}"
                    )
                except Exception as error:
                    raise BrokenPluginError(
                        f"{hook} of {origin_of(plugin)} failed for a {type(module).__name__}: {brief(error)}"
                    ) from error
                if wrong is not None:
                    raise BrokenPluginError(
                        f"{hook} of {origin_of(plugin)} must return an EdgeSpec or None, {wrong}"
                    )
                if answer is not None:
                    return answer
        return None

    # --- finding ----------------------------------------------------------------------------------------------------------

    def _found(self) -> dict[str, list[Installed]]:
        """The installed plugins by name, found at the first call; nothing is imported."""
        if self._installed is None:
            found: dict[str, list[Installed]] = {}
            for one in discover() if self._discover else ():
                reason = self._switched_off(one.entry_point.name, one.dist)
                if reason is not None:
                    one.status, one.reason = "disabled", reason
                found.setdefault(one.entry_point.name, []).append(one)
            for name, providers in found.items():
                active = [one for one in providers if one.status == "available"]
                for one in active if len(active) > 1 else ():
                    others = ", ".join(other.dist for other in active if other is not one)
                    one.status, one.reason = "conflict", f"{name!r} is provided by {others} too"
            self._installed = dict(sorted(found.items()))
        return self._installed

    def _switched_off(self, name: str, dist: str) -> str | None:
        """Says why a plugin is off, or returns None if it is on."""
        project = canonicalize_name(dist)
        called = {name, project, f"{name}@{project}"}
        for item, by in self._disabled.items():
            if spellings(item) & called:
                return f"switched off by {by}, which lists {item!r}"
        allowed = self._allowed
        if allowed is not None and not any(spellings(item) & called for item in allowed):
            return f"not on the allow-list of {self._allowed_by}, which is {','.join(allowed) or 'empty'}"
        return None

    def _find_by_hand(self, name: str) -> _ByHand | None:
        for entry in self._by_hand.values():
            if name in answers_of({entry.declaration.name: entry.declaration}):
                return entry
        return None

    def _owner(self, name: str) -> str | None:
        """Who answers to the name, or None if it is free."""
        entry = self._find_by_hand(name)
        if entry is not None:
            return entry.record().provider
        active = [one for one in self._found().get(name, ()) if one.status != "disabled"]
        return ", ".join(one.record().provider for one in active) or None

    def _remove_by_hand(self, name: str, keep: _Admitted | None = None) -> None:
        entry = self._find_by_hand(name)
        if entry is not None:
            del self._by_hand[entry.declaration.name]
            if entry.admitted is not keep:
                self._dismiss_unused(entry.admitted)

    # --- loading ----------------------------------------------------------------------------------------------------------

    def _of_type(self, name: str, wanted: type[D], unknown: type[UnknownNameError]) -> D:
        self._import(name)
        with self._lock:
            declaration = self._declaration(name, unknown)
            if isinstance(declaration, wanted):
                return declaration
            is_a = "an operator" if isinstance(declaration, Operator) else "an edge kind"
            names = self._names_of(wanted)
            raise unknown(
                f"{name!r} is {is_a}, not an {unknown.what}. Available: {', '.join(names) or 'none'}.",
                name=name,
                available=names,
            )

    def _declaration(self, name: str, unknown: type[UnknownNameError]) -> Declaration:
        entry = self._find_by_hand(name)
        if entry is not None:
            return entry.declaration
        found = self._found().get(name)
        if not found:
            if (
                name in self._disabled
            ):  # Registered by hand in the registry that this one was made from, perhaps.
                raise DisabledPluginError(
                    f"plugin {name!r} is disabled: switched off by {self._disabled[name]}, which lists {name!r}.",
                    name=name,
                )
            raise self._unknown(name, unknown)
        active = switched_on(found)
        if active[0].status == "available":
            self._load(active[0])
        if active[0].declaration is None:
            raise self._why_not(name, active) from active[0].error
        return active[0].declaration

    def _import(self, name: str) -> None:
        """Imports the plugin of that name, if that is what it still needs; what goes wrong is kept with it."""
        with self._lock:
            active = switched_on(self._found().get(name, []))
            one = active[0] if active and active[0].status == "available" else None
            if one is None or self._find_by_hand(name) is not None:
                return
        if one.imported is None:
            one.imported = import_of(one.entry_point)

    def _load(self, one: Installed) -> None:
        """Checks one installed plugin, imported before; what goes wrong is kept with it and not raised."""
        try:
            source, error = one.imported or import_of(one.entry_point)
            if error is not None:
                raise error
            if isinstance(source, EdgeKind | Operator):
                source = Single(source)
            one.declaration = named_by(one.entry_point, one.siblings, self._admit(source).declared)
        except (Exception, SystemExit) as error:
            one.status = "incompatible" if isinstance(error, IncompatiblePluginError) else "broken"
            one.error, one.reason = error, brief(error)
        else:
            one.status = "loaded"

    def _admit(self, source: Any) -> _Admitted:
        """Lets pluggy check a plugin, asks its hooks and checks their answers; a plugin that fails leaves no trace."""
        if id(source) in self._admitted:  # Two entry points may lead to one module.
            return self._admitted[id(source)]
        plugin = source() if isinstance(source, type) else source
        if (
            type(plugin).__hash__ is None
        ):  # A SimpleNamespace, for example; pluggy keeps plugins in sets.
            plugin = hashable(plugin)
        try:
            # The name is of no use to us; by default it is the module's, and two modules of one name would clash.
            self._manager.register(plugin, name=str(id(plugin)))
            # Without this a misspelt hook is ignored, and the plugin just seems to do nothing.
            self._manager.check_pending()
            admitted = _Admitted(source, plugin, self._ask(plugin))
        except pluggy.PluginValidationError as error:
            self._forget(plugin)
            raise BrokenPluginError(
                f"{'; '.join(str(error).splitlines())}; the hooks are {', '.join(HOOKS)}"
            ) from error
        except BaseException:
            self._forget(plugin)
            raise
        self._admitted[id(source)] = admitted
        return admitted

    def _ask(self, plugin: object) -> dict[str, Declaration]:
        """Calls the hooks of one plugin, so that an answer (or an exception) is known to be its own."""
        others = self._manager.get_plugins() - {plugin}
        declared: dict[str, Declaration] = {}
        for hook, wanted in (("pyg_nsa_edge_kinds", EdgeKind), ("pyg_nsa_operators", Operator)):
            for answer in self._manager.subset_hook_caller(hook, others)():
                if isinstance(answer, str | bytes) or not isinstance(answer, Iterable):
                    raise BrokenPluginError(
                        f"{hook} must return a list of {wanted.__name__}, got {shown(answer)}"
                    )
                for declaration in answer:
                    if not isinstance(declaration, wanted):
                        raise BrokenPluginError(
                            f"{hook} must return a list of {wanted.__name__}, got one that holds "
                            f"{shown(declaration)}"
                        )
                    check_api(declaration)
                    new = answers_of({declaration.name: declaration})
                    twice = [name for name in new if name in answers_of(declared)]
                    if twice or len(set(new)) < len(new):
                        raise BrokenPluginError(f"it declares {(twice or new)[0]!r} twice")
                    declared[declaration.name] = declaration
        if not declared:
            unmarked = [hook for hook in HOOKS if callable(getattr(plugin, hook, None))]
            raise BrokenPluginError(
                "it declares nothing: pyg_nsa_edge_kinds or pyg_nsa_operators must return at least one "
                "declaration" + (f"; is @hookimpl missing on {unmarked[0]}?" if unmarked else "")
            )
        return declared

    def _adopt(self, admitted: _Admitted) -> None:
        if not self._manager.is_registered(admitted.plugin):
            self._manager.register(admitted.plugin, name=str(id(admitted.plugin)))
        self._admitted[id(admitted.source)] = admitted

    def _forget(self, plugin: object) -> None:
        if self._manager.is_registered(plugin):
            self._manager.unregister(plugin)

    def _dismiss_unused(self, admitted: _Admitted) -> None:
        """Undoes `_admit`, unless something that the plugin declared is still in the registry."""
        in_use = [entry.declaration for entry in self._by_hand.values()]
        in_use += [
            one.declaration for found in self._found().values() for one in found if one.declaration
        ]
        mine = admitted.declared.values()
        if not any(declaration is other for declaration in mine for other in in_use):
            self._forget(admitted.plugin)
            self._admitted.pop(id(admitted.source), None)

    # --- explaining -------------------------------------------------------------------------------------------------------

    def _names_of(self, wanted: type[Declaration]) -> list[str]:
        """The names that are of the wanted sort, and those that may be: only a loaded plugin shows what it is."""
        other = {
            record.name
            for record in self.records()
            if record.declaration is not None and not isinstance(record.declaration, wanted)
        }
        return [name for name in self.names() if name not in other]

    def _unknown(self, name: str, error: type[UnknownNameError]) -> UnknownNameError:
        if error is UnknownEdgeKindError:
            names = self._names_of(EdgeKind)
        elif error is UnknownOperatorError:
            names = self._names_of(Operator)
        else:
            names = self.names()
        suggestion = nearest(name, names)
        text = f"unknown {error.what} {name!r}"
        text += f", did you mean {suggestion!r}?" if suggestion is not None else "."
        if names:
            text += f" Available: {', '.join(names)}."
        elif self._discover:
            text += " No plugin is installed or allowed; pyg-nsa brings its own once it is installed: pip install pyg-nsa."
        else:
            text += (
                " This registry is empty and does not look for installed plugins; register() one."
            )
        return error(text, name=name, available=names, suggestion=suggestion)

    def _why_not(self, name: str, found: list[Installed]) -> RegistryError:
        """The error for a plugin that cannot be used."""
        first = found[0]
        providers = ", ".join(one.record().provider for one in found)
        if first.status == "conflict":
            ways = [f"{name}@{canonicalize_name(one.dist)}" for one in found]
            return PluginConflictError(
                f"plugin {name!r} is provided more than once: by {providers}. Uninstall all but one, or switch "
                f"the others off, for example with PYG_NSA_DISABLE_PLUGINS={','.join(ways[1:])}.",
                name=name,
                provider=providers,
            )
        if first.status == "broken":
            return BrokenPluginError(
                f"plugin {name!r} of {providers} ({first.entry_point.value}) is broken: {first.reason}. "
                f"Mend it, upgrade it (pip install -U {first.dist}), or do without it.",
                name=name,
                provider=providers,
            )
        kind = DisabledPluginError if first.status == "disabled" else IncompatiblePluginError
        return kind(
            f"plugin {name!r} of {providers} is {first.status}: {first.reason}.",
            name=name,
            provider=providers,
        )


_default: Registry | None = None
_default_lock = threading.Lock()
_in_use: ContextVar[Registry | None] = ContextVar("pyg_nsa_registry", default=None)


def default_registry() -> Registry:
    """Returns the registry that is used where none is given; it is made at the first call."""
    global _default
    in_use = _in_use.get()
    if in_use is not None:
        return in_use
    with _default_lock:
        if _default is None:
            _default = Registry()
        return _default


@contextlib.contextmanager
def use_registry(registry: Registry) -> Iterator[Registry]:
    """Makes `registry` the default one inside a `with` block, in this thread (or task) only."""
    token = _in_use.set(registry)
    try:
        yield registry
    finally:
        _in_use.reset(token)


def register(plugin: object, *, replace: bool = False) -> tuple[str, ...]:
    """Registers a plugin by hand in the default registry; see `Registry.register`."""
    return default_registry().register(plugin, replace=replace)


_HIDDEN = "replaced by hand with register(…, replace=True)"


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _names(argument: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"{argument} must be a list of names, got {names!r}; write [{names!r}]")
    return tuple(names)
