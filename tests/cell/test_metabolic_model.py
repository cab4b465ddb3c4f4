from __future__ import annotations

import bz2
import gzip
import logging
import re
import socket
from dataclasses import replace
from itertools import product

import cobra
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from pyg_nsa.cell.network.metabolic_model import (
    SHIPPED_MODELS,
    MetabolicNetwork,
    ModelFileError,
    gpr_clauses,
    load_model,
    model_file,
)
from pyg_nsa.cell.network.rule_faults import faulty_rules, refused_rules


@pytest.fixture
def toy_model():
    model = cobra.Model("toy")
    metabolite = cobra.Metabolite("A_c", compartment="c")
    take, grow = cobra.Reaction("take", lower_bound=-7), cobra.Reaction("grow")
    take.add_metabolites({metabolite: 1.0})
    grow.add_metabolites({metabolite: -1.0})
    model.add_reactions([take, grow])
    take.gene_reaction_rule = "(a and b) or c"
    model.objective = "grow"
    return model


def clauses(rule):
    return gpr_clauses(cobra.core.GPR.from_string(rule).body)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("", []),
        ("a", [{"a"}]),
        ("a and b or c", [{"a", "b"}, {"c"}]),
        ("(a or b) and (c or d)", [{"a", "c"}, {"a", "d"}, {"b", "c"}, {"b", "d"}]),
        ("a or (a and b)", [{"a"}, {"a", "b"}]),  # supersets stay
        ("(a and b) or (b and a) or a or a", [{"a", "b"}, {"a"}]),  # duplicates go
        ("a and (b or (c and (d or e)))", [{"a", "b"}, {"a", "c", "d"}, {"a", "c", "e"}]),
    ],
)
def test_clauses(rule, expected):
    assert clauses(rule) == [frozenset(clause) for clause in expected]


@pytest.mark.parametrize("rule", ["(a or b) and (c or (d and a))", "(a and b) or (c and (d or e))"])
def test_clauses_agree_with_evaluating_the_rule(rule):
    gpr = cobra.core.GPR.from_string(rule)
    genes = sorted(gpr.genes)
    for state in product((False, True), repeat=len(genes)):
        lost = {g for g, deleted in zip(genes, state, strict=True) if deleted}
        assert gpr.eval(lost) == any(not clause & lost for clause in clauses(rule))


def test_a_rule_that_explodes_is_refused():
    rule = " and ".join(f"(a{i} or b{i})" for i in range(20))
    with pytest.raises(
        ValueError, match=r"Reaction 'R1': the gene rule expands to more than 100,000"
    ):
        gpr_clauses(cobra.core.GPR.from_string(rule).body, "R1")


def test_shipped_models_need_no_network(monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with caplog.at_level(logging.INFO):
        model = load_model("textbook")
    assert (len(model.genes), len(model.reactions), len(model.metabolites)) == (137, 95, 72)
    assert not caplog.records
    assert all(model_file(name).is_file() for name in SHIPPED_MODELS)


@pytest.mark.parametrize("compression", ["", ".gz", ".bz2"])
@pytest.mark.parametrize("ending", ["json", "yml", "xml", "sbml", "mat"])
def test_files_of_every_kind(tmp_path, ending, compression, toy_model):
    path = tmp_path / f"cell.{ending}"
    writers = {
        "json": cobra.io.save_json_model,
        "yml": cobra.io.save_yaml_model,
        "mat": cobra.io.save_matlab_model,
    }
    writers.get(ending, cobra.io.write_sbml_model)(toy_model, str(path))
    if compression:
        packed = path.with_name(path.name + compression)
        packed.write_bytes({".gz": gzip, ".bz2": bz2}[compression].compress(path.read_bytes()))
        path = packed
    read = MetabolicNetwork.from_cobra(load_model(path))
    assert sorted(read.reactions) == ["grow", "take"]
    assert read.lower[read.reactions.index("take")] == -7
    assert read.objective[read.reactions.index("grow")] == 1
    ids = {frozenset(read.genes[g] for g in c) for c in read.clauses[read.reactions.index("take")]}
    assert ids == {frozenset(("a", "b")), frozenset(("c",))}


def test_unknown_name():
    with pytest.raises(ModelFileError) as error:
        load_model("ijo1336")
    assert str(error.value) == (
        "Unknown model 'ijo1336': expected one of textbook, iJO1366, salmonella, or the path of a model file: "
        "SBML (.xml, .sbml), JSON (.json), YAML (.yml, .yaml), MATLAB (.mat), each also with .gz or .bz2. "
        "Did you mean 'iJO1366'?"
    )


def test_missing_file(tmp_path):
    with pytest.raises(
        ModelFileError, match=r"cell\.xml: no such file\. Expected a model file: SBML"
    ):
        load_model(tmp_path / "cell.xml")


def test_folder(tmp_path):
    with pytest.raises(ModelFileError, match=r": is a folder, expected a model file: SBML"):
        load_model(tmp_path)


@pytest.mark.parametrize("ending", ["xml", "xml.gz", "sbml", "json", "json.bz2", "yml", "mat"])
def test_damaged_file(tmp_path, ending):
    path = tmp_path / f"cell.{ending}"
    path.write_text("{]: this is no model")
    with pytest.raises(
        ModelFileError, match=r"cell\..*: cobra cannot read this model \(.+\)\. Formats: SBML"
    ):
        load_model(path)


_RULES = {"take": "(a and b", "grow": "a b", "drain": "c or"}


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("ending", ["json", "yml", "mat"])
def test_rules_that_cannot_be_parsed_are_named_with_their_reactions(
    tmp_path, ending, compression, toy_model
):
    """cobra would read these reactions as ones without genes, which no deletion harms."""
    toy_model.add_reactions([cobra.Reaction("drain")])
    path = tmp_path / f"cell.{ending}"
    for reaction, rule in (("take", "ab1"), ("grow", "ab2"), ("drain", "ab3")):
        toy_model.reactions.get_by_id(reaction).gene_reaction_rule = rule
    if ending == "mat":
        cobra.io.save_matlab_model(toy_model, str(path))
        cell = next(v for k, v in loadmat(path).items() if not k.startswith("__"))
        for i, reaction in enumerate(cell["rxns"][0, 0].ravel()):
            cell["grRules"][0, 0].ravel()[i] = np.array([_RULES[str(reaction[0])]])
        savemat(path, {"cell": cell}, oned_as="column")
    else:
        save = {"json": cobra.io.save_json_model, "yml": cobra.io.save_yaml_model}[ending]
        save(toy_model, str(path))
        text = path.read_text()
        for rule, broken in zip(("ab1", "ab2", "ab3"), _RULES.values(), strict=True):
            text = re.sub(rf'(gene_reaction_rule"?: ?)"?{rule}"?', rf'\1"{broken}"', text)
        path.write_text(text)
    if compression:
        packed = path.with_name(path.name + compression)
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    with pytest.raises(ModelFileError) as error:
        load_model(path)
    text = str(error.value)
    assert text.startswith(f"{path}: gene rules that cannot be parsed:\n")
    for reaction, rule in _RULES.items():
        assert f"\n  {reaction}: {rule!r}" in text
    assert "Expected gene ids joined by 'and' and 'or'" in text


def test_an_expression_that_is_no_rule(tmp_path, toy_model):
    path = tmp_path / "cell.json"
    cobra.io.save_json_model(toy_model, str(path))
    path.write_text(path.read_text().replace("(a and b) or c", "a, b"))
    with pytest.raises(ModelFileError, match=r"cannot be parsed:\n  take: 'a, b'\nExpected"):
        load_model(path)


def test_a_format_without_rules_as_text(tmp_path):
    """SBML holds them in notes, if not as a tree; its reader wraps what it meets."""
    with pytest.raises(SyntaxWarning) as met, refused_rules():
        cobra.core.GPR.from_string("a or")
    wrapped = ValueError("not valid")
    assert faulty_rules(tmp_path / "cell.xml", ".xml", wrapped) == []
    wrapped.__cause__ = met.value
    assert faulty_rules(tmp_path / "cell.xml", ".xml", wrapped) == ["'a or'"]


def test_unknown_ending(tmp_path):
    (tmp_path / "cell.csv").touch()
    with pytest.raises(ModelFileError, match=r"unknown ending '\.csv'\. Formats: SBML"):
        load_model(tmp_path / "cell.csv")


def test_arrays(textbook_model, textbook):
    dense = cobra.util.create_stoichiometric_matrix(textbook_model)
    np.testing.assert_array_equal(textbook.stoichiometry.toarray(), dense)
    assert textbook.reactions[int(textbook.objective.argmax())] == "Biomass_Ecoli_core"
    assert textbook.objective.sum() == 1


def test_constraints_beside_mass_balance_are_refused():
    model = load_model("textbook")
    extra = model.problem.Constraint(model.reactions[0].flux_expression, ub=1, name="ratio")
    model.add_cons_vars(extra)
    with pytest.raises(ValueError, match=r"constraints beside mass balance \(ratio\)"):
        MetabolicNetwork.from_cobra(model)


def test_fingerprint(textbook):
    again = MetabolicNetwork.from_cobra(load_model("textbook"))
    assert again.fingerprint() == textbook.fingerprint() == "01f7a70323effb5d"
    upper = textbook.upper.copy()
    upper[3] += 1
    assert replace(textbook, upper=upper).fingerprint() != textbook.fingerprint()
    rules = (((0,),), *textbook.clauses[1:])
    assert replace(textbook, clauses=rules).fingerprint() != textbook.fingerprint()
    filed = replace(textbook, subsystems=("core",) * 95)
    assert filed.fingerprint() == textbook.fingerprint()  # labels do not depend on subsystems


def test_subsystems(tmp_path, textbook):
    assert textbook.subsystems == ("",) * 95
    model = load_model("textbook")
    model.reactions.PFK.subsystem = " Glycolysis "
    cobra.io.save_json_model(model, tmp_path / "cell.json")
    network = MetabolicNetwork.from_cobra(load_model(tmp_path / "cell.json"))
    filed = [(r, s) for r, s in zip(network.reactions, network.subsystems, strict=True) if s]
    assert filed == [("PFK", "Glycolysis")]


def test_lengths_are_checked(textbook):
    with pytest.raises(ValueError, match=r"lower: expected one entry per reaction \(95\), got 3"):
        replace(textbook, lower=textbook.lower[:3])
    with pytest.raises(
        ValueError, match=r"subsystems: expected one entry per reaction \(95\), got 1"
    ):
        replace(textbook, subsystems=("core",))
