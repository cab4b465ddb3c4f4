"""Metabolic models: where they come from, and the plain arrays that the rest of the package reads.

:func:`load_model` reads a genome-scale model, from a file or from those that cobra ships in its wheel; nothing here
ever opens a network connection. :class:`MetabolicNetwork` holds what graph building and flux-balance analysis need
from it, as arrays: stoichiometry, bounds, objective, and the gene rules in disjunctive normal form.

Vocabulary: a *clause* is one way of catalysing a reaction, a set of genes that are all needed (a complex, or a single
enzyme). A reaction with several clauses has isozymes and works as long as one clause is complete. A gene rule such as
``(a and b) or c`` has the clauses ``{a, b}`` and ``{c}``.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cobra
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from pyg_nsa.cell.data_names import SHIPPED_MODELS
from pyg_nsa.cell.files.file_kind import DECOMPRESS, file_kind
from pyg_nsa.cell.files.tables import problem_list
from pyg_nsa.cell.network.rule_faults import faulty_rules, refused_rules

__all__ = [
    "SHIPPED_MODELS",
    "MetabolicNetwork",
    "ModelFileError",
    "gpr_clauses",
    "load_model",
    "model_file",
]

FORMATS = "SBML (.xml, .sbml), JSON (.json), YAML (.yml, .yaml), MATLAB (.mat), each also with .gz or .bz2"
MAX_CLAUSES = 100_000


class ModelFileError(ValueError):
    """A metabolic model could not be found or read."""


def model_file(name_or_path: str | Path) -> Path:
    """Find the file of a model, without reading it.

    Args:
        name_or_path: A key of :data:`SHIPPED_MODELS`, or the path of a model file.

    Returns:
        The path of an existing file.

    Raises:
        ModelFileError: If there is no shipped model of that name and no such file.
    """
    if str(name_or_path) in SHIPPED_MODELS:
        return Path(str(resources.files("cobra.data").joinpath(SHIPPED_MODELS[str(name_or_path)])))
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise ModelFileError(f"{path}: is a folder, expected a model file: {FORMATS}.")
    shipped = ", ".join(SHIPPED_MODELS)
    if isinstance(name_or_path, str) and "/" not in name_or_path and not path.suffix:
        lower = {name.lower(): name for name in SHIPPED_MODELS}
        close = difflib.get_close_matches(name_or_path.lower(), list(lower), n=1)
        hint = f" Did you mean {lower[close[0]]!r}?" if close else ""
        raise ModelFileError(
            f"Unknown model {name_or_path!r}: expected one of {shipped}, or the path of a model file: {FORMATS}.{hint}"
        )
    raise ModelFileError(
        f"{path}: no such file. Expected a model file: {FORMATS}; or one of the shipped models {shipped}."
    )


def load_model(name_or_path: str | Path) -> cobra.Model:
    """Load a metabolic model, without network access.

    Args:
        name_or_path: ``"textbook"``, ``"iJO1366"`` or ``"salmonella"``, which ship with cobra; or the path of an SBML,
            JSON, YAML or MATLAB file, also compressed (``.gz``, ``.bz2``).

    Returns:
        The model, as cobra reads it.

    Raises:
        ModelFileError: If the name is unknown, the file is missing, or cobra cannot read it. It names the file, what
            cobra said, and the formats that can be read; or the gene rules that cannot be parsed, with their reactions.
    """
    path = model_file(name_or_path)
    kind, compression = file_kind(path)
    readers: dict[str, Any] = {
        ".xml": cobra.io.read_sbml_model,
        ".sbml": cobra.io.read_sbml_model,
        ".json": cobra.io.load_json_model,
        ".yml": cobra.io.load_yaml_model,
        ".yaml": cobra.io.load_yaml_model,
        ".mat": cobra.io.load_matlab_model,
    }
    if kind not in readers:
        raise ModelFileError(f"{path}: unknown ending {kind + compression!r}. Formats: {FORMATS}.")
    try:
        with _quiet_cobra(), refused_rules(), tempfile.TemporaryDirectory() as folder:
            plain = path
            # cobra tells compression and content by its own lists of endings, another one for each format.
            if compression or kind == ".sbml":
                content = (
                    DECOMPRESS[compression](path.read_bytes()) if compression else path.read_bytes()
                )
                plain = Path(folder) / f"model{'.xml' if kind == '.sbml' else kind}"
                try:
                    plain.write_bytes(content)
                except OSError as error:
                    raise ModelFileError(
                        f"{path}: cannot be unpacked into the folder for temporary files ({error.strerror}: {folder}); TMPDIR names "
                        "another folder"
                    ) from error
            try:
                model = readers[kind](str(plain))
            except Exception as error:
                if faults := faulty_rules(plain, kind, error):
                    raise ModelFileError(
                        f"{path}: gene rules that cannot be parsed:\n{problem_list(faults)}\n"
                        "Expected gene ids joined by 'and' and 'or', with parentheses. Mend them in the file; an empty rule is one of a "
                        "reaction without genes."
                    ) from error
                raise
    except ModelFileError:
        raise
    except Exception as error:
        # cobra's readers raise nearly anything: CobraSBMLError, KeyError, OSError, the parsers' own errors.
        raise ModelFileError(
            f"{path}: cobra cannot read this model ({_first_line(error)}). Formats: {FORMATS}."
        ) from error
    if not len(model.reactions):
        raise ModelFileError(f"{path}: cobra read a model without reactions. Formats: {FORMATS}.")
    return model


def _first_line(error: Exception) -> str:
    """The type of an error and the first line that it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "no message"
    return f"{type(error).__name__}: {text[:300]}"


@contextmanager
def _quiet_cobra() -> Iterator[None]:
    """Keep cobra's remarks about every odd annotation from the user's terminal."""
    names = [
        "cobra",
        *(name for name in logging.root.manager.loggerDict if name.startswith("cobra.")),
    ]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def gpr_clauses(rule: ast.AST | None, reaction: str = "") -> list[frozenset[str]]:
    """Disjunctive normal form of a gene rule: its clauses, in reading order, without duplicates.

    A clause that contains another is kept: it is a node of its own in the graph, and changes no result, for it is lost
    whenever the smaller is.

    Args:
        rule: The body of cobra's ``GPR`` (names, ``and``, ``or``), or ``None`` for a reaction without genes.
        reaction: The reaction's id, for the error.

    Returns:
        One set of gene ids per clause; empty without a rule.

    Raises:
        ValueError: If the rule expands to more than 100,000 clauses, or holds anything but names, ``and``, ``or``.
    """
    if rule is None:
        return []
    if isinstance(rule, ast.Name):
        return [frozenset((rule.id,))]
    if not isinstance(rule, ast.BoolOp):
        raise ValueError(
            f"Reaction {reaction!r}: the gene rule holds {type(rule).__name__}; expected gene ids, 'and', 'or'."
        )
    parts = [gpr_clauses(value, reaction) for value in rule.values]
    if isinstance(rule.op, ast.Or):
        return list(dict.fromkeys(clause for part in parts for clause in part))
    product: list[frozenset[str]] = [frozenset()]
    for part in parts:
        if len(product) * len(part) > MAX_CLAUSES:
            raise ValueError(
                f"Reaction {reaction!r}: the gene rule expands to more than {MAX_CLAUSES:,} clauses. Simplify it, "
                "for instance by naming the isozymes of one subunit only once."
            )
        product = list(dict.fromkeys(left | right for left in product for right in part))
    return product


@dataclass(frozen=True, eq=False)
class MetabolicNetwork:
    """A metabolic model as arrays: ``R`` reactions, ``M`` metabolites, ``G`` genes.

    Attributes:
        model_id: The model's name.
        genes: ``G`` gene ids.
        reactions: ``R`` reaction ids.
        metabolites: ``M`` metabolite ids.
        stoichiometry: ``[M, R]`` float64; negative entries are consumed.
        lower: ``[R]`` float64, lower flux bounds (mmol per gram dry weight and hour, in most models).
        upper: ``[R]`` float64, upper flux bounds.
        objective: ``[R]`` float64, coefficients of the objective, which is maximised.
        clauses: Per reaction its clauses, each an ascending tuple of gene indices; empty for a reaction without genes.
        subsystems: Per reaction the pathway that the model files it under, empty without one; ``()`` if none is known.
        gene_names: Per gene what people call it, empty without a name; ``()`` if none is known.
    """

    model_id: str
    genes: tuple[str, ...]
    reactions: tuple[str, ...]
    metabolites: tuple[str, ...]
    stoichiometry: csc_array
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    objective: NDArray[np.float64]
    clauses: tuple[tuple[tuple[int, ...], ...], ...]
    subsystems: tuple[str, ...] = ()
    gene_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.metabolites), len(self.reactions))
        if self.stoichiometry.shape != shape:
            raise ValueError(
                f"stoichiometry: expected shape {shape} (metabolites, reactions), got {self.stoichiometry.shape}."
            )
        if self.gene_names and len(self.gene_names) != len(self.genes):
            raise ValueError(
                f"gene_names: expected one entry per gene ({len(self.genes)}), got {len(self.gene_names)}."
            )
        given = ("subsystems",) if self.subsystems else ()
        for name in ("lower", "upper", "objective", "clauses", *given):
            if len(getattr(self, name)) != shape[1]:
                raise ValueError(
                    f"{name}: expected one entry per reaction ({shape[1]}), got {len(getattr(self, name))}."
                )

    @classmethod
    def from_cobra(cls, model: cobra.Model) -> MetabolicNetwork:
        """Read the arrays of a cobra model.

        Args:
            model: The model; its present bounds and objective are used.

        Returns:
            The network, genes, reactions and metabolites in the model's order.

        Raises:
            ValueError: If the model has constraints beside mass balance and bounds, or an objective that is not a
                weighted sum of reaction fluxes: neither is represented here.
        """
        # Every steady-state row is named after its metabolite; anything else would be dropped silently.
        balance = {metabolite.id for metabolite in model.metabolites}
        extra = [row.name for row in model.constraints if row.name not in balance]
        if extra:
            raise ValueError(
                f"Model {model.id!r}: has constraints beside mass balance ({', '.join(extra[:5])}). "
                "Remove them with model.remove_cons_vars."
            )
        coefficients = cobra.util.solver.linear_reaction_coefficients(model)
        if not model.objective.is_Linear:
            raise ValueError(f"Model {model.id!r}: the objective is not linear.")
        row_of = {metabolite.id: i for i, metabolite in enumerate(model.metabolites)}
        gene_of = {gene.id: i for i, gene in enumerate(model.genes)}
        rows: list[int] = []
        values: list[float] = []
        starts = [0]
        clauses = []
        for reaction in model.reactions:
            column = sorted(
                (row_of[m.id], float(v)) for m, v in reaction.metabolites.items() if v != 0
            )
            rows.extend(i for i, _ in column)
            values.extend(v for _, v in column)
            starts.append(len(rows))
            found = gpr_clauses(reaction.gpr.body, reaction.id)
            clauses.append(tuple(tuple(sorted(gene_of[g] for g in clause)) for clause in found))
        shape = (len(model.metabolites), len(model.reactions))
        sign = -1.0 if model.objective_direction == "min" else 1.0
        index = {reaction.id: i for i, reaction in enumerate(model.reactions)}
        objective = np.zeros(shape[1])
        for reaction, coefficient in coefficients.items():
            objective[index[reaction.id]] = sign * float(coefficient)
        return cls(
            model_id=model.id or "model",
            genes=tuple(gene_of),
            reactions=tuple(index),
            metabolites=tuple(row_of),
            stoichiometry=csc_array(
                (
                    np.array(values, np.float64),
                    np.array(rows, np.int64),
                    np.array(starts, np.int64),
                ),
                shape=shape,
            ),
            lower=np.array([reaction.lower_bound for reaction in model.reactions], np.float64),
            upper=np.array([reaction.upper_bound for reaction in model.reactions], np.float64),
            objective=objective,
            clauses=tuple(clauses),
            subsystems=tuple(str(reaction.subsystem or "").strip() for reaction in model.reactions),
            gene_names=tuple(str(gene.name or "").strip() for gene in model.genes),
        )

    def fingerprint(self) -> str:
        """Hash of everything that a simulated label depends on: ids, stoichiometry, bounds, objective, gene rules.

        Returns:
            16 hexadecimal digits, the same on every machine.
        """
        digest = hashlib.sha256()
        for ids in (self.genes, self.reactions, self.metabolites):
            digest.update("\0".join(ids).encode())
            digest.update(b"\1")
        digest.update(repr(self.clauses).encode())
        matrix = self.stoichiometry
        for index in (matrix.indptr, matrix.indices):
            digest.update(np.asarray(index).astype("<i8").tobytes())
        for numbers in (matrix.data, self.lower, self.upper, self.objective):
            digest.update(np.asarray(numbers).astype("<f8").tobytes())
        return digest.hexdigest()[:16]

    @property
    def safe_id(self) -> str:
        """The model's id with everything replaced that does not belong in a file name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.model_id)


def as_network(model: cobra.Model | MetabolicNetwork) -> MetabolicNetwork:
    """The arrays of a model, which may be those already."""
    return model if isinstance(model, MetabolicNetwork) else MetabolicNetwork.from_cobra(model)
