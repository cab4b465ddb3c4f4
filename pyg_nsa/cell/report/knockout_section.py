"""The section of a report on one knockout: where attention goes with and without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pyg_nsa.cell.network.reaction_nodes import reaction_id
from pyg_nsa.cell.report.gallery import Gallery
from pyg_nsa.cell.report.knockout_figure import knockout_figure, node_label
from pyg_nsa.cell.report.neighbourhood import Neighbourhood, choose_neighbourhood
from pyg_nsa.cell.report.numbers import maybe

__all__ = ["knockout_section"]


def knockout_section(
    attention: pd.DataFrame | None, facts: Mapping[str, Any], gallery: Gallery
) -> dict[str, Any]:
    """What the section on the knockout shows: drawings, the largest changes, and who is who.

    Args:
        attention: What ``attention.csv`` says; ``None`` if there is none.
        facts: The ``knockout`` of ``run.json``.
        gallery: Where the drawings go.
    """
    genes = [str(g) for g in facts.get("genes") or []]
    given = facts.get("names")
    all_names: dict[str, dict[str, str]] = {
        str(t): {str(k): str(v) for k, v in called.items()}
        for t, called in (given.items() if isinstance(given, dict) else ())
        if isinstance(called, dict)
    }
    names = all_names.get("gene", {})
    out: dict[str, Any] = {
        "pictures": [],
        "shifts": [],
        "called": [],
        "genes": [node_label("gene", g, names) for g in genes],
        "chosen": str(facts.get("chosen") or ""),
        "fitness": maybe(facts.get("fitness")),
        "fitness_pred": maybe(facts.get("fitness_pred")),
        "stops": _stops(facts.get("stops"), all_names),
        "why": "",
    }
    if attention is None:
        out["why"] = "This run has no attention.csv, so there is nothing to draw."
    elif attention.empty:
        out["why"] = "attention.csv has no edges, so there is nothing to draw."
    elif not genes:
        out["why"] = "run.json names no knockout, so there is nothing to draw around."
    if out["why"]:
        return out
    assert attention is not None
    near = choose_neighbourhood(attention, genes)
    who = ", ".join(out["genes"])
    kinds = pd.Series([t for t, _ in near.nodes]).value_counts(sort=False)
    size = ", ".join(f"{n} {t}{'s' if n != 1 else ''}" for t, n in kinds.items())
    gone = [node_label(*n, names=names) for n in near.nodes if n in near.deleted]
    for name, weight, cell in (
        ("knockout_wildtype", "weight_wildtype", "in the wildtype"),
        ("knockout", "weight_knockout", f"after deleting {who}"),
    ):
        alt = f"Network of {size} around {who}, in columns by type; edge width is attention {cell}."
        if name == "knockout" and gone:
            alt += f" Deleted: {', '.join(gone)}."
        figure = knockout_figure(near, weight=weight, names=names)
        picture = gallery.add(
            name,
            figure,
            alt,
            f"Attention {cell}: an arrow ends at the node that listens, and is as wide as its attention.",
        )
        out["pictures"].append(picture)
    out["left_out"] = near.left_out
    out["shifts"] = _shifts(near, names)
    out["called"] = _called(near, all_names)
    return out


def _stops(
    given: Any, all_names: Mapping[str, Mapping[str, str]], top: int = 12
) -> dict[str, Any] | None:
    """Reactions and metabolites that the knockout stops, with their names where they are known; the first few of them."""
    if not isinstance(given, Mapping):
        return None
    out: dict[str, Any] = {}
    for key in ("enzymes_lost", "blocked", "missing", "growth"):
        names = all_names.get("metabolite" if key == "missing" else "reaction", {})
        found = given.get(key)
        ids = [str(i) for i in found] if isinstance(found, list) else []
        shown = [f"{i} ({names[i]})" if i in names else i for i in ids[:top]]
        out[key] = {"count": len(ids), "shown": shown, "more": len(ids) - len(shown)}
    return out if any(part["count"] for part in out.values()) else None


def _called(near: Neighbourhood, names: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Per node type the names of what is drawn, each id once."""
    out = []
    for node_type in ("reaction", "metabolite"):
        known = names.get(node_type, {})
        ids = dict.fromkeys(
            reaction_id(i) if t == "reaction" else i for t, i in near.nodes if t == node_type
        )
        rows = [(i, known[i]) for i in ids if i in known]
        if rows:
            out.append({"type": node_type, "rows": rows})
    return out


def _shifts(near: Neighbourhood, names: Mapping[str, str], top: int = 8) -> list[dict[str, str]]:
    """Edges between living nodes whose attention changed most."""
    change = near.edges["weight_knockout"] - near.edges["weight_wildtype"]
    rows = []
    for i in change.abs().sort_values(ascending=False, kind="stable").index:
        row = near.edges.loc[i]
        source, target = (row["source_type"], row["source"]), (row["target_type"], row["target"])
        if source in near.deleted or target in near.deleted or not abs(change[i]) >= 5e-4:
            continue
        rows.append(
            {
                "source": node_label(*source, names=names),
                "target": node_label(*target, names=names),
                "relation": row["relation"],
                "before": f"{row['weight_wildtype']:.3f}",
                "after": f"{row['weight_knockout']:.3f}",
            }
        )
        if len(rows) == top:
            break
    return rows
