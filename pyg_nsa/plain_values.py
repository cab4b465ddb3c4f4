"""Models as plain data that can be read again, and that are the same in every process.

Pydantic's own dump is neither: it writes a field by its name, where the file that is read has to say its alias, and a set in the
order of hashes, which for text is another one in every process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from typing import Any

from pydantic import BaseModel, RootModel

from pyg_nsa.model_types import written_key

__all__ = ["plain_values"]


def plain_values(model: BaseModel, **how: Any) -> dict[str, Any]:
    """Returns a model as plain data: fields by the keys that a file says them by, sets as sorted lists.

    Args:
        model: A configuration, or options.
        how: Further arguments of pydantic's `model_dump`, such as `exclude_defaults`.
    """
    dumped: dict[str, Any] = _readable(model, model.model_dump(mode="json", by_alias=False, **how))
    return dumped


def _readable(value: Any, dumped: Any) -> Any:
    """What pydantic dumped of a value, mended by what the value is. A serializer's own work stays as it is."""
    if isinstance(value, RootModel):
        return _readable(value.root, dumped)
    if isinstance(value, BaseModel) and isinstance(dumped, dict):
        fields = type(value).model_fields
        return {
            written_key(fields[name], name) if name in fields else name: _readable(
                getattr(value, name, None), one
            )
            for name, one in dumped.items()
        }
    if isinstance(value, Mapping) and isinstance(dumped, dict) and len(value) == len(dumped):
        pairs = zip(value.values(), dumped.items(), strict=True)
        return {name: _readable(one, part) for one, (name, part) in pairs}
    if isinstance(value, Set | list | tuple) and isinstance(dumped, list):
        if len(value) != len(dumped):
            return dumped
        parts = [_readable(one, part) for one, part in zip(value, dumped, strict=True)]
        return _in_order(parts) if isinstance(value, Set) else parts
    return dumped


def _in_order(parts: list[Any]) -> list[Any]:
    try:
        return sorted(parts)
    except TypeError:  # values of several types, or mappings
        return sorted(parts, key=lambda part: json.dumps(part, sort_keys=True))
