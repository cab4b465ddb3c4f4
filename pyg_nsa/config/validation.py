"""What the models of a configuration share: their base, and how a validation asks the plugins.

A validation looks names up in one registry, which its context may give and which `plugins.disable` makes smaller. The options of a
kind or operator are checked by the plugin's own model, and an error of the registry becomes one problem among others.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from pydantic import ConfigDict, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from pyg_nsa.api import EdgeKind, Operator, Options
from pyg_nsa.errors import RegistryError, UnknownNameError
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.scalars import StrictScalars

__all__ = ["ConfigModel", "as_pydantic", "checked_options", "kept", "registry_of", "switched_off"]

# The registry that the configuration under validation leaves over (`plugins.disable`). A context variable, because pydantic's own
# context belongs to the caller, and an edge spec does not see the model that it is a part of.
_restricted: ContextVar[Registry | None] = ContextVar("pyg_nsa_restricted_registry", default=None)


class ConfigModel(StrictScalars):
    """The base of all models of a configuration."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def registry_of(info: ValidationInfo) -> Registry:
    """Returns the registry that a validation uses: from its context (`{"registry": …}`) or else the default one."""
    restricted = _restricted.get()
    if restricted is not None:
        return restricted
    return _registry_in(info.context)


@contextlib.contextmanager
def switched_off(disable: Iterable[str], info: ValidationInfo) -> Iterator[None]:
    """Lets `registry_of` leave out what `plugins.disable` of the configuration under validation lists."""
    token = _restricted.set(_registry_in(info.context).without(disable, by="plugins.disable"))
    try:
        yield
    finally:
        _restricted.reset(token)


def _registry_in(context: Any) -> Registry:
    found = context.get("registry") if isinstance(context, Mapping) else None
    return found if isinstance(found, Registry) else default_registry()


def checked_options(
    declared: EdgeKind | Operator, options: Any, context: Any, registry: Registry
) -> Options:
    """Validates the options of an edge kind or operator with the plugin's own model."""
    what = "edge kind" if isinstance(declared, EdgeKind) else "operator"
    if isinstance(options, Options) and not isinstance(options, declared.options):
        raise PydanticCustomError(
            "options_of_another_kind",
            "{what} '{kind}' takes {expected}, got {got}; pass its own options, or a mapping",
            {
                "what": what,
                "kind": declared.name,
                "expected": declared.options.__name__,
                "got": type(options).__name__,
            },
        )
    try:
        found = declared.options.model_validate({} if options is None else options, context=context)
    except ValidationError:
        raise  # Its problems keep their paths, below the path of the options.
    except Exception as error:
        raise PydanticCustomError(
            "broken_options",
            "the options of {what} '{kind}' cannot be checked: its plugin, {provider}, raised {error}",
            {
                "what": what,
                "kind": declared.name,
                "provider": registry.provider(declared.name),
                "error": f"{type(error).__name__}: {error}",
            },
        ) from error
    _warn_of_deprecated(found, f"{what} '{declared.name}'")
    return found


def _warn_of_deprecated(options: Options, owner: str) -> None:
    """Says of each option that is given, not left at its default, what its plugin says to use instead."""
    fields = type(options).model_fields
    for name in sorted(options.model_fields_set & fields.keys()):
        message = fields[name].deprecation_message
        if message is not None:
            said = "" if fields[name].deprecated is True else f": {message}"
            # Shown by default, for it speaks to those who write configurations.
            warnings.warn(
                f"option '{name}' of {owner} is deprecated{said}", FutureWarning, stacklevel=2
            )


@contextlib.contextmanager
def as_pydantic(code: str) -> Iterator[None]:
    """Lets a registry's error be one problem among others in a validation."""
    try:
        yield
    except UnknownNameError as error:
        context: dict[str, Any] = {
            "reason": str(error),
            "name": error.name,
            "what": error.what,
            "allowed": list(error.available),
        }
        if error.suggestion is not None:
            context["suggestion"] = error.suggestion
        raise PydanticCustomError(code, "{reason}", context) from error
    except RegistryError as error:
        raise PydanticCustomError("unusable_plugin", "{reason}", {"reason": str(error)}) from error


def kept(entry: Any) -> InitErrorDetails:
    """Turns a reported error into one that can be raised again, with its type, text and context."""
    context = {key: value for key, value in entry.get("ctx", {}).items() if key != "error"}
    return InitErrorDetails(
        type=PydanticCustomError(entry["type"], entry["msg"], context),
        loc=entry["loc"],
        input=entry["input"],
    )
