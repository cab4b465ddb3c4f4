"""How a plugin gets into a registry: what it is asked, how its answers are checked, and how a refused one leaves no trace.

pluggy holds the plugins and checks their hooks against the specification; what they declare is checked by `plugin_contract`. The
hooks of one plugin are called apart from those of all others, so that an answer or an exception is known to be its own. There is
no lock here: the registry calls all this under its own, and does imports before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from pyg_nsa.api import EdgeKind, Operator
from pyg_nsa.errors import BrokenPluginError, IncompatiblePluginError
from pyg_nsa.registry import hookspecs
from pyg_nsa.registry.discovery import GROUP, Installed, import_of
from pyg_nsa.registry.plugin_contract import (
    HOOKS,
    Declaration,
    Single,
    answers_of,
    brief,
    check_api,
    hashable,
    is_other_class,
    named_by,
    nothing_declared,
    origin_of,
    shown,
)

if TYPE_CHECKING:
    from pyg_nsa.config import EdgeSpec

__all__ = ["Admission", "Admitted"]


@dataclass(frozen=True, eq=False)
class Admitted:
    """A plugin that passed all checks."""

    source: object
    """What was registered, or what the entry point led to: `plugin` itself, or its class."""
    plugin: object
    """What pluggy holds."""
    declared: dict[str, Declaration]
    """What the plugin declares, by name."""


class Admission:
    """The plugins that one registry admitted."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._admitted: dict[int, Admitted] = {}

    def load(self, one: Installed) -> None:
        """Checks one installed plugin, imported before; what goes wrong is kept with it and not raised."""
        try:
            source, error = one.imported or import_of(one.entry_point)
            if error is not None:
                raise error
            one.declaration = named_by(one.entry_point, one.siblings, self.admit(source).declared)
        except (Exception, SystemExit) as error:
            one.status = "incompatible" if isinstance(error, IncompatiblePluginError) else "broken"
            one.error, one.reason = error, brief(error)
        else:
            one.status = "loaded"

    def admit(self, source: Any) -> Admitted:
        """Lets pluggy check a plugin, asks its hooks and checks their answers; a plugin that fails leaves no trace."""
        if isinstance(source, EdgeKind | Operator):
            source = Single(source)
        if id(source) in self._admitted:  # Two entry points may lead to one module.
            return self._admitted[id(source)]
        if isinstance(source, type) and is_other_class(source):
            raise BrokenPluginError(nothing_declared(source))
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
            admitted = Admitted(source, plugin, self._ask(plugin, source))
        except pluggy.PluginValidationError as error:
            self._forget(plugin)
            # pluggy knows the plugin by the name from above.
            said = str(error).replace(repr(str(id(plugin))), repr(origin_of(source)))
            raise BrokenPluginError(
                f"{'; '.join(said.splitlines())}; the hooks are {', '.join(HOOKS)}"
            ) from error
        except BaseException:
            self._forget(plugin)
            raise
        self._admitted[id(source)] = admitted
        return admitted

    def adopt(self, admitted: Admitted) -> None:
        """Takes over what another registry admitted, without asking it again."""
        if not self._manager.is_registered(admitted.plugin):
            self._manager.register(admitted.plugin, name=str(id(admitted.plugin)))
        self._admitted[id(admitted.source)] = admitted

    def dismiss(self, admitted: Admitted) -> None:
        """Undoes `admit` and `adopt`."""
        self._forget(admitted.plugin)
        self._admitted.pop(id(admitted.source), None)

    def spec_from_module(
        self, module: Any, edge_type: tuple[str, str, str], wanted: type[EdgeSpec]
    ) -> EdgeSpec | None:
        """Asks one plugin after the other; see `Registry.spec_from_module`.

        `wanted` is `EdgeSpec` itself, which cannot be imported here: this runs under the registry's lock.
        """
        hook = "pyg_nsa_spec_from_module"
        plugins = [
            one.plugin
            for one in reversed(self._manager.hook.pyg_nsa_spec_from_module.get_hookimpls())
        ]
        for plugin in plugins:
            others = self._manager.get_plugins() - {plugin}
            try:
                answer = self._manager.subset_hook_caller(hook, others)(
                    module=module, edge_type=edge_type
                )
                wrong = (
                    None if isinstance(answer, wanted | None) else f"it returned {shown(answer)}"
                )
            except Exception as error:
                raise BrokenPluginError(
                    f"{hook} of {origin_of(plugin)} failed for a {type(module).__name__}: {brief(error)}"
                ) from error
            if wrong is not None:
                raise BrokenPluginError(
                    f"{hook} of {origin_of(plugin)} must return an EdgeSpec or None, {wrong}"
                )
            if answer is not None and tuple(answer.edge_type) != tuple(edge_type):
                asked, got = (f"({', '.join(one)})" for one in (edge_type, answer.edge_type))
                raise BrokenPluginError(
                    f"{hook} of {origin_of(plugin)} was asked about a {type(module).__name__} of edge type {asked} and returned a "
                    f"spec of {got}; it gets the edge type as edge_type, and its spec must be of that one"
                )
            if answer is not None:
                return answer
        return None

    def _ask(self, plugin: object, source: object) -> dict[str, Declaration]:
        """Calls the hooks of one plugin, so that an answer (or an exception) is known to be its own.

        `source` is what was given for the plugin.
        """
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
            raise BrokenPluginError(nothing_declared(source))
        return declared

    def _forget(self, plugin: object) -> None:
        if self._manager.is_registered(plugin):
            self._manager.unregister(plugin)
