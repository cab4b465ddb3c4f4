"""What a plugin has to be once it is imported, and how a breach of that is worded."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Collection
from types import FunctionType, ModuleType

from pydantic import ValidationError

from pyg_nsa.api import PLUGIN_API, EdgeKind, Operator, hookimpl, speaks
from pyg_nsa.errors import BrokenPluginError, IncompatiblePluginError, RegistryError, path_text
from pyg_nsa.registry import hookspecs

__all__ = [
    "HOOKS",
    "Declaration",
    "Single",
    "answers_of",
    "brief",
    "check_api",
    "hashable",
    "is_other_class",
    "named_by",
    "nothing_declared",
    "origin_of",
    "shown",
]

Declaration = EdgeKind | Operator

HOOKS = tuple(hook for hook in dir(hookspecs) if hook.startswith("pyg_nsa_"))


class Single:
    """Gives a lone declaration the shape of a plugin."""

    def __init__(self, declaration: Declaration) -> None:
        self._declaration = declaration

    @hookimpl
    def pyg_nsa_edge_kinds(self) -> list[EdgeKind]:
        """The declaration, if it is one."""
        return [self._declaration] if isinstance(self._declaration, EdgeKind) else []

    @hookimpl
    def pyg_nsa_operators(self) -> list[Operator]:
        """The declaration, if it is one."""
        return [self._declaration] if isinstance(self._declaration, Operator) else []


def answers_of(declared: dict[str, Declaration]) -> list[str]:
    """All names that declarations answer to, aliases included."""
    names: list[str] = []
    for name, declaration in declared.items():
        names.append(name)
        if isinstance(declaration, EdgeKind):
            names.extend(declaration.aliases)
    return names


def named_by(
    entry_point: importlib.metadata.EntryPoint,
    siblings: Collection[str],
    declared: dict[str, Declaration],
) -> Declaration:
    """Picks the declaration that the entry point is named after, and checks that every name has an entry point.

    Without the second rule, whether a name is known would depend on what happens to be loaded already.
    """
    name, module = entry_point.name, entry_point.value
    answers = answers_of(declared)
    if name not in answers:
        raise BrokenPluginError(
            f"the entry point is named {name!r} but leads to {', '.join(map(repr, answers))}; an entry point is "
            f'named after what it provides: "{answers[0]}" = "{module}"'
        )
    nameless = [answer for answer in answers if answer not in siblings]
    if nameless:
        raise BrokenPluginError(
            f"it provides {nameless[0]!r} without an entry point of that name, so nobody could find it; add "
            f'"{nameless[0]}" = "{module}"'
        )
    for declaration in declared.values():
        if name in answers_of({declaration.name: declaration}):
            return declaration
    raise AssertionError(name)


def check_api(declaration: Declaration) -> None:
    """Refuses a declaration for a plugin API that this pyg_nsa does not speak."""
    if speaks(declaration.api):
        return
    theirs, ours = (".".join(map(str, api)) for api in (declaration.api, PLUGIN_API))
    mend = "upgrade pyg-nsa" if declaration.api > PLUGIN_API else "upgrade the plugin"
    raise IncompatiblePluginError(
        f"it was written for plugin API {theirs}, and this pyg_nsa speaks {PLUGIN_API[0]}.0 to {ours}; {mend}",
        name=declaration.name,
    )


def hashable(plugin: object) -> ModuleType:
    """Copies the public attributes of an object into one that has a hash."""
    copy = ModuleType(type(plugin).__name__)
    for name in dir(plugin):
        if not name.startswith("__"):
            setattr(copy, name, getattr(plugin, name))
    return copy


def is_other_class(source: type) -> bool:
    """Whether a class cannot be meant as a plugin, as an edge term: it has no hooks, and needs arguments."""
    if any(name.startswith("pyg_nsa_") for name in dir(source)):
        return False
    try:
        inspect.signature(source).bind()
    except TypeError:
        return True
    except ValueError:  # it has no signature
        pass
    return False


def nothing_declared(source: object) -> str:
    """What to say of a plugin that declares nothing."""
    return (
        "it declares nothing: pyg_nsa_edge_kinds or pyg_nsa_operators must return at least one "
        f"declaration{_why_nothing(source)}"
    )


def _why_nothing(source: object) -> str:
    """What to write in the place of a plugin that declares nothing, as far as it shows; a part of a sentence."""
    unmarked = [hook for hook in HOOKS if callable(getattr(source, hook, None))]
    if unmarked:
        return f"; is @hookimpl missing on {unmarked[0]}?"
    if isinstance(source, FunctionType):
        return (
            f"; this is the function {source.__name__}: name its module in its place, {source.__module__!r} without "
            f"{':' + source.__name__!r}"
        )
    if isinstance(source, type):
        return (
            f"; this is the class {source.__name__}: pass a declaration that builds it, EdgeKind(name='my_lab.…', "
            f"build=lambda context, options: {source.__name__}(…), summary='…', …)"
        )
    if isinstance(source, list | tuple | dict):
        return f"; this is a {type(source).__name__}: name the module with the hooks, or one declaration"
    return ""


def origin_of(plugin: object) -> str:
    """The module that a plugin was registered from, as far as it shows."""
    if isinstance(plugin, EdgeKind | Operator):
        return str(getattr(plugin.build, "__module__", "__main__"))
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    return str(getattr(plugin, "__module__", type(plugin).__module__))


def brief(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, RegistryError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r}) at import"
    text = _first_problem(error) if isinstance(error, ValidationError) else _first_line(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _first_problem(error: ValidationError) -> str:
    """What pydantic says below its headline, of the first problem: the model, the place in it, and what is wrong."""
    first, *others = error.errors(include_url=False)
    parts = (error.title, path_text(first["loc"]), " ".join(first["msg"].split()))
    return ": ".join(filter(None, parts)) + (f" (and {len(others)} more)" if others else "")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else ""


def shown(value: object) -> str:
    """A value and its type, cut to what a message bears."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
