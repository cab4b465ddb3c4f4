"""Gene rules that cobra cannot parse: it would read such a reaction as one without genes, whose loss harms nothing.

cobra says of a rule only its text. Which reactions have such rules is found in the file, where it holds rules as text; SBML with the fbc
package does not.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cobra.core.gene import GPR
from cobra.io.yaml import yaml
from scipy.io import loadmat

__all__ = ["faulty_rules", "refused_rules"]

_SAID = "Malformed gene_reaction_rule"


@contextmanager
def refused_rules() -> Iterator[None]:
    """Within it cobra raises :class:`SyntaxWarning` at a rule that it cannot parse."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_SAID, category=SyntaxWarning)
        yield


def faulty_rules(path: Path, kind: str, error: BaseException) -> list[str]:
    """The rules of a model's file that cannot be parsed.

    Args:
        path: The file, not compressed.
        kind: The ending that says how to read it.
        error: What cobra raised when it read the file.

    Returns:
        Texts with the reaction's id and its rule; empty if the error is about something else.
    """
    try:
        rules = _rules(path, kind)
    except Exception:  # of a damaged file: cobra's own error is about that
        rules = {}
    found = [f"{reaction}: {rule!r}" for reaction, rule in rules.items() if not _parses(rule)]
    if found:
        return found
    while error is not None:  # an SBML reader wraps what it meets
        if isinstance(error, SyntaxWarning):
            return [str(error).removeprefix(_SAID).strip()]
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return []


def _parses(rule: str) -> bool:
    try:
        with refused_rules():
            GPR.from_string(rule)
    except (
        SyntaxWarning,
        TypeError,
    ):  # the second of an expression that is no rule, such as "a, b"
        return False
    return True


def _rules(path: Path, kind: str) -> Mapping[str, str]:
    """Rules by reaction; empty for a format that holds them otherwise."""
    if kind in (".json", ".yml", ".yaml"):
        text = path.read_text(encoding="utf-8")
        document: Any = json.loads(text) if kind == ".json" else yaml.load(text)
        return {r["id"]: str(r.get("gene_reaction_rule") or "") for r in document["reactions"]}
    if kind == ".mat":
        structs = loadmat(path, simplify_cells=True).values()
        cell = next(s for s in structs if isinstance(s, dict) and "grRules" in s)
        rules = (rule if isinstance(rule, str) else "" for rule in cell["grRules"])
        return dict(zip(cell["rxns"], rules, strict=True))
    return {}
