"""Tiles that a block-sparse kernel visits, before and after reordering the nodes."""

from __future__ import annotations

from typing import Any

from torch_geometric.data import HeteroData


def occupancy(graph: HeteroData) -> list[dict[str, Any]]:
    """One row for each relation: ``relation``, ``pairs``, ``tiles``, ``natural`` and ``reordered`` (occupied tiles)."""
    # The one place that knows where the library keeps this.
    from pyg_nsa.cell.report.occupancy import tile_occupancy

    rows = tile_occupancy(graph).to_dict("records")
    wanted = ("relation", "pairs", "tiles", "natural", "reordered")
    return [{name: _plain(row[name]) for name in wanted} for row in rows]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else int(value)
