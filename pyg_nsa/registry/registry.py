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
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from pyg_nsa.api import EdgeKind, Operator
from pyg_nsa.errors import (
    DisabledPluginError,
    PluginConflictError,
    UnknownEdgeKindError,
    UnknownNameError,
    UnknownOperatorError,
)
from pyg_nsa.registry.admission import Admission, Admitted
from pyg_nsa.registry.by_hand import ByHand, Entry
from pyg_nsa.registry.discovery import (
    Installed,
    PluginRecord,
    discover,
    import_of,
    switched_on,
    warn,
)
from pyg_nsa.registry.plugin_contract import Declaration, answers_of, origin_of
from pyg_nsa.registry.refusals import of_another_sort, unknown_name, unusable
from pyg_nsa.registry.switches import Switches, name_list, note_misspelt, sorted_out

if TYPE_CHECKING:
    from pyg_nsa.config import EdgeSpec

__all__ = ["Registry", "default_registry", "register", "use_registry"]

D = TypeVar("D", EdgeKind, Operator)


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
        self._switches = Switches.chosen(disable, allow)

        # One lock for all state. It is reentrant because a plugin may use the registry while it is loaded. No import runs under
        # it: a thread that imports a plugin's module by itself holds that module's import lock, and may wait for this one.
        self._lock = threading.RLock()
        self._admission = Admission()
        self._installed: dict[str, list[Installed]] | None = None
        self._by_hand = ByHand()
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
                hidden = self._by_hand.find(name) is not None
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
            by_hand = self._by_hand.find(name)
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
            by_hand = self._by_hand.find(name)
            if by_hand is not None:
                return by_hand.record().provider
            found = self._found().get(name)
            if not found:
                raise self._unknown(name, UnknownNameError)
            active = switched_on(found)
            if len(active) > 1:
                raise unusable(name, active)
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
        with self._lock:
            admitted = self._admission.admit(plugin)
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
                self._by_hand[name] = Entry(declaration, admitted, origin_of(plugin))
            return tuple(admitted.declared)

    def unregister(self, name: str) -> None:
        """Takes a plugin that was registered by hand out again; an installed one that it had replaced is back.

        Raises:
            UnknownNameError: Nothing was registered by hand under the name.
        """
        with self._lock:
            if self._by_hand.find(name) is not None:
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
                if active[0].status == "disabled" or self._by_hand.find(name) is not None:
                    continue
                if active[0].status == "available":
                    self._admission.load(active[0])
                if active[0].status == "loaded":
                    continue
                error = unusable(name, active)
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
        listed = name_list("disable", disable)
        if not listed:
            return self
        with self._lock:
            other = Registry(discover=self._discover, strict=self._strict, disable=(), allow=())
            other._switches = self._switches.with_off(listed, by)
            for name, entry in self._by_hand.items():
                if not set(entry.answers) & set(listed):
                    other._by_hand[name] = entry
                    other._admission.adopt(entry.admitted)
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
        with self._lock, use_registry(self):
            return self._admission.spec_from_module(module, edge_type, EdgeSpec)

    # --- finding ----------------------------------------------------------------------------------------------------------

    def _found(self) -> dict[str, list[Installed]]:
        """The installed plugins by name, found at the first call; nothing is imported."""
        if self._installed is None:
            # A list first: `discover` warns of what it cannot read, in the name of the frame that iterates.
            found = list(discover()) if self._discover else []
            self._installed = sorted_out(found, self._switches)
            note_misspelt(found, self._switches)
        return self._installed

    def _owner(self, name: str) -> str | None:
        """Who answers to the name, or None if it is free."""
        entry = self._by_hand.find(name)
        if entry is not None:
            return entry.record().provider
        active = [one for one in self._found().get(name, ()) if one.status != "disabled"]
        return ", ".join(one.record().provider for one in active) or None

    def _remove_by_hand(self, name: str, keep: Admitted | None = None) -> None:
        entry = self._by_hand.find(name)
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
            raise of_another_sort(name, declaration, unknown, self._names_of(wanted))

    def _declaration(self, name: str, unknown: type[UnknownNameError]) -> Declaration:
        entry = self._by_hand.find(name)
        if entry is not None:
            return entry.declaration
        found = self._found().get(name)
        if not found:
            disabled = self._switches.disabled
            # Registered by hand in the registry that this one was made from, perhaps.
            if name in disabled:
                raise DisabledPluginError(
                    f"plugin {name!r} is disabled: switched off by {disabled[name]}, which lists {name!r}.",
                    name=name,
                )
            raise self._unknown(name, unknown)
        active = switched_on(found)
        if active[0].status == "available":
            self._admission.load(active[0])
        if active[0].declaration is None:
            raise unusable(name, active) from active[0].error
        return active[0].declaration

    def _import(self, name: str) -> None:
        """Imports the plugin of that name, if that is what it still needs; what goes wrong is kept with it."""
        with self._lock:
            active = switched_on(self._found().get(name, []))
            one = active[0] if active and active[0].status == "available" else None
            if one is None or self._by_hand.find(name) is not None:
                return
        if one.imported is None:
            one.imported = import_of(one.entry_point)

    def _dismiss_unused(self, admitted: Admitted) -> None:
        """Undoes an admission, unless something that the plugin declared is still in the registry."""
        in_use = [entry.declaration for entry in self._by_hand.values()]
        in_use += [
            one.declaration for found in self._found().values() for one in found if one.declaration
        ]
        mine = admitted.declared.values()
        if not any(declaration is other for declaration in mine for other in in_use):
            self._admission.dismiss(admitted)

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
        wanted = {UnknownEdgeKindError: EdgeKind, UnknownOperatorError: Operator}.get(error)
        names = self.names() if wanted is None else self._names_of(wanted)
        return unknown_name(name, error, names, looks=self._discover)


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
