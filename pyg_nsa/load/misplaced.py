"""A configuration of another sort than the one that is wanted: an operator alone, or something around one.

Its keys are all wrong where it was given, and none of the problems would say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.model_types import is_model, members

__all__ = ["Misplaced", "misplaced"]


class Misplaced(NamedTuple):
    """Why a configuration is of another sort."""

    key: str
    """The key at the top that shows it."""
    message: str
    code: str


def misplaced(raw: Any, model: type[BaseModel]) -> Misplaced | None:
    """Says that data which are not valid are a configuration of another sort than `model`, if they look so."""
    if not isinstance(raw, Mapping):
        return None
    if issubclass(model, HeteroNSAConfig):
        if "edges" in raw or not isinstance(raw.get("operator"), Mapping):
            return None
        return Misplaced(
            "operator",
            "this looks like a training run, whose operator stands here: check, explain and fill take it with --training, and "
            "pyg-nsa train runs it; elsewhere the configuration of an operator alone is wanted",
            "training_run",
        )
    names = [
        name
        for name, field in model.model_fields.items()
        if any(
            is_model(one) and issubclass(one, HeteroNSAConfig) for one in members(field.annotation)
        )
    ]
    if len(names) != 1 or "edges" in model.model_fields or "edges" not in raw:
        return None
    (name,) = names
    if isinstance(raw.get(name), Mapping):
        return None
    return Misplaced(
        "edges",
        f"this looks like the configuration of an operator alone; put all of it, indented, under '{name}:' (check, explain and "
        "fill take it as it is without --training)",
        "operator_alone",
    )
