"""Starting configurations: for a data set, from the fields that it has, or for a model, from the convs that it has."""

from __future__ import annotations

from pyg_nsa.lazy import lazy_names

_HOMES = {
    "pyg_nsa.suggest.from_data": ("suggest_from_data",),
    "pyg_nsa.suggest.from_model": ("suggest_from_model",),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = ["suggest_from_data", "suggest_from_model"]
