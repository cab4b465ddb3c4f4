"""What to say of a field that goes by rows where ``x`` has fewer of them."""

from __future__ import annotations

__all__ = ["how_to_cut"]


def how_to_cut(field: str, num_entries: int, num_rows: int) -> str:
    """How a field is brought to the length of ``x``, for the end of a message; empty where it is not longer.

    PyG's ``trim_to_layer`` cuts ``x`` and what goes by edges, and has no place for other fields.

    Args:
        field: Name of the field, without ``_dict``.
        num_entries: Length of the field.
        num_rows: Rows of ``x``.
    """
    if num_entries <= num_rows:
        return ""
    return f"; if the rows were cut, as trim_to_layer does, cut it alike: {{t: {field}_dict[t][:x.size(0)] for t, x in x_dict.items()}}"
