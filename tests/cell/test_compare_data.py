"""`pyg-nsa compare` where configurations differ in their data: each gets its own, and all are judged on the same instances."""

import hashlib
import json
from importlib import resources

import numpy as np
import pytest
from cell.tiny import tiny_config

from pyg_nsa.cell.evaluation.compare import datasets, plan
from pyg_nsa.cell.evaluation.contenders import CompareError, contenders_of
from pyg_nsa.cell.evaluation.same_instances import instances_apart
from pyg_nsa.cell.evaluation.step_times import save_step_times
from pyg_nsa.cell.files.tables import TableError
from pyg_nsa.cell.labels.table import PAD, LabelTable

# b9991 and b9992 are no genes of the model.
PAIRS = "source,target\nb0116,b0118\nb0720,b0116\nb9991,b0118\nb9992,b0720\n"


@pytest.fixture
def configured(tmp_path):
    (tmp_path / "pairs.csv").write_text(PAIRS)

    def of(*overrides):
        return tiny_config(tmp_path, "data.labels=simulated-singles", *overrides).relative_to(
            tmp_path
        )

    return of


# ---- the dataset of each -------------------------------------------------------------------------------------------------


def test_each_configuration_gets_its_own_unknown_genes(configured, cell_cache):
    of = datasets(cell_cache, False)
    table = "data.gene_tables={physical: pairs.csv}"
    skip, add = (of(configured(table, f"data.unknown_genes={what}")) for what in ("skip", "add"))
    assert skip.graph["gene", "physical", "gene"].edge_index.shape[1] == 2
    assert add.graph["gene", "physical", "gene"].edge_index.shape[1] == 4
    assert add.graph["gene"].num_nodes == skip.graph["gene"].num_nodes + 2
    with pytest.raises(TableError, match="b9991"):
        of(configured(table, "data.unknown_genes=error"))


def test_each_configuration_gets_its_own_unknown_labels(configured, tmp_path, cell_cache):
    (tmp_path / "screen.csv").write_text("genes,fitness\nb0116,0.5\nb0118,0.7\nb9991,0.9\n")
    of = datasets(cell_cache, False)
    assert len(of(configured("data.labels=screen.csv", "data.unknown_labels=skip")).table) == 2
    with pytest.raises(TableError, match="b9991"):
        of(configured("data.labels=screen.csv", "data.unknown_labels=error"))


def test_what_says_nothing_of_the_data_opens_no_dataset_again(configured, cell_cache):
    of = datasets(cell_cache, False)
    first = of(configured())
    assert (
        of(configured("training.epochs=9", "data.label_workers=2", "data.rates=[1, 0, 0]")) is first
    )


# ---- the instances of all ------------------------------------------------------------------------------------------------


def test_other_instances_are_refused_before_anything_is_trained(configured, tmp_path, cell_cache):
    """Equal settings of the split, but one graph has two genes more, which moves most of the others."""
    of_model = datasets(cell_cache, False)(configured()).table.gene_ids
    rows = [f"{gene},0.{i % 10}" for i, gene in enumerate((*of_model[:40], "b9991", "b9992"))]
    (tmp_path / "screen.csv").write_text("\n".join(["genes,fitness", *rows]))
    shared = ["data.labels=screen.csv", "data.unknown_labels=skip", "operator.unmatched=skip"]
    table = "data.gene_tables={physical: pairs.csv}"
    skip = configured(*shared, table, "data.unknown_genes=skip")
    add = configured(*shared, table, "data.unknown_genes=add")
    contenders = contenders_of({"skip": skip, "add": add})
    with pytest.raises(CompareError) as refused:
        plan(contenders, "none", tmp_path / "out", 1, datasets(cell_cache, False))
    text = str(refused.value)
    assert text.startswith(
        "add: its data come to other instances than those of skip, on the split with seed 0:\n    train: "
    )
    assert "    test: " in text and "of which" in text
    assert "these settings are not the same: data.unknown_genes. Make them equal" in text
    # Labels of genes that both graphs have come to the same instances, and may be compared.
    (tmp_path / "screen.csv").write_text("\n".join(["genes,fitness", *rows[:-2]]))
    cells = plan(contenders, "none", tmp_path / "out", 2, datasets(cell_cache, False), True)
    assert [cell.contender.name for cell in cells] == ["skip", "add"] * 2


def label_table(gene_ids, instances):
    """``instances``: genes, fitness."""
    genes = [[gene_ids.index(g) for g in ids] for ids, _ in instances]
    padded = [sorted(row) + [PAD] * (2 - len(row)) for row in genes]
    fitness = np.array([value for _, value in instances], np.float32)
    return LabelTable(gene_ids, np.array(padded, np.int32), fitness, np.full_like(fitness, np.nan))


def test_instances_are_compared_by_the_names_of_their_genes():
    rows = [(("a",), 0.1), (("a", "b"), 0.2), (("c",), np.nan)]
    mine = label_table(("a", "b", "c"), rows)
    theirs = label_table(("d", "c", "b", "a"), rows[::-1])
    index = np.arange(3)
    assert instances_apart(mine, theirs, {"test": index}, {"test": index}) == []
    assert instances_apart(mine, theirs, {"test": index[:2]}, {"test": index[1:]}) == []
    assert instances_apart(
        mine, theirs, {"train": index[:2], "test": index}, {"train": index[:2], "test": index[1:]}
    ) == [
        "train: 2 instances and 2, of which 1 are the same",
        "test: 3 instances and 2, of which 2 are the same",
    ]
    other = label_table(("a", "b", "c"), [rows[0], (("a", "b"), 0.3), rows[2]])
    assert instances_apart(mine, other, {"test": index}, {"test": index}) == [
        "test: the same 3 instances, 1 of them with other labels"
    ]


# ---- what was trained before ---------------------------------------------------------------------------------------------


def a_project(folder):
    """A configuration with files of data of its own."""
    folder.mkdir()
    model = resources.files("cobra.data").joinpath("textbook.xml.gz").read_bytes()
    (folder / "model.xml.gz").write_bytes(model)
    (folder / "pairs.csv").write_text("source,target\nb0116,b0118\n")
    settings = ["data.model=model.xml.gz", "data.gene_tables={physical: pairs.csv}"]
    settings += ["data.labels=simulated-singles", "operator.unmatched=skip"]

    def of(*overrides, taken_from=folder):
        return tiny_config(folder, *settings, *overrides).relative_to(taken_from)

    return of


def key(config):
    (contender, *_) = contenders_of({"a": config})
    return contender.key


def test_what_changes_no_result_loses_no_finished_work(tmp_path):
    of = a_project(tmp_path / "here")
    before = key(of())
    assert key(of("data.label_workers=3")) == before
    assert key(of("training.checkpoint_every={minutes: 1.5, steps: 7}")) == before
    assert key(of("training.devices=1", "training.strategy=ddp", "node_order=rcm")) == before
    assert key(of(taken_from=tmp_path / "here" / ".." / "here")) == before
    copied = a_project(tmp_path / "there")
    assert copied().data.model != of().data.model and key(copied()) == before
    # What matters still does: settings, and what the files say.
    assert key(of("training.learning_rate=0.1")) != before
    assert key(of("data.rates=[1, 0, 0]")) != before
    for name in ("model.xml.gz", "pairs.csv"):
        file = tmp_path / "there" / name
        kept = file.read_bytes()
        file.write_bytes(kept + b"\n")
        assert key(copied()) != before
        file.write_bytes(kept)


def test_one_model_in_two_folders_is_one_model(tmp_path):
    here, there = a_project(tmp_path / "here"), a_project(tmp_path / "there")
    assert [c.name for c in contenders_of({"a": here(), "b": there()})] == ["a", "b"]
    (tmp_path / "there" / "model.xml.gz").write_bytes(b"other")
    with pytest.raises(CompareError, match=r"b: data.model is '.*there.*', but '.*here.*' in a"):
        contenders_of({"a": here(), "b": there()})


def test_a_comparison_of_an_earlier_version_is_recognised(configured, tmp_path, cell_cache):
    """Names of folders and step times as version 0.1.0 wrote them."""
    of, contenders = datasets(cell_cache, False), contenders_of({"a": configured()})
    first = plan(contenders, "none", tmp_path, 1, of)[0]
    unread = {"title", "baselines", "node_order"}
    content = [first.contender.model, first.contender.data]
    content.append(first.contender.config.model_dump(mode="json", exclude=unread))
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
    earlier = tmp_path / "cells" / f"{first.contender.name}-{digest}" / "seed-0"
    assert first.folder != earlier
    earlier.mkdir(parents=True)
    assert plan(contenders, "none", tmp_path, 1, of)[0].folder == earlier
    first.folder.mkdir(parents=True)  # what this version began has precedence
    assert plan(contenders, "none", tmp_path, 1, of)[0].folder == first.folder
    # Step times, which decide how long the others are trained.
    seconds = {c.name: 1.0 + i for i, c in enumerate(contenders)}
    save_step_times(tmp_path, {c.name: c.earlier_key for c in contenders}, seconds)
    written = (tmp_path / "step_times.json").read_text()
    plan(contenders, "time", tmp_path, 1, of, progress=False)
    assert (tmp_path / "step_times.json").read_text() == written
