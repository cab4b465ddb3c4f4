"""`pyg-nsa compare`: equal terms, nothing trained twice, tables that say what was measured."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.evaluation import cells, compare, step_times
from pyg_nsa.cell.evaluation.compare import plan
from pyg_nsa.cell.evaluation.comparison_page import (
    comparison_figure,
    differences,
    markdown_table,
    over_inits,
    shown_differences,
    shown_rows,
    summary,
    with_every_seed,
)
from pyg_nsa.cell.evaluation.contenders import CompareError, contenders_of
from pyg_nsa.cell.evaluation.equal_terms import (
    MatchError,
    count_parameters,
    match_parameters,
    with_width,
)
from pyg_nsa.cell.evaluation.step_times import measure_step_times, training_step
from pyg_nsa.cell.files.cache import open_dataset
from pyg_nsa.cell.models.build import TRAINED_BASELINES, build_model
from pyg_nsa.cell.report.figure_style import save
from pyg_nsa.cli import main
from pyg_nsa.load import load_config

TEXTBOOK = Path(__file__).parents[2] / "pyg_nsa" / "cell" / "textbook.yaml"
SETTINGS = [
    "training.epochs=1",
    "training.instances_per_epoch=32",
    "data.evaluation_pairs=20",
    "data.features=[degree]",
    "data.embeddings=false",
    "readout={deletion: true, copies: false}",
    "baselines=[mean, product_of_singles, embedding]",
]


def textbook(*overrides):
    return load_config(TEXTBOOK, CellConfig, overrides=[*SETTINGS, *overrides])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(cache):
    return open_dataset(textbook(), cache, progress=False)


def run(folder, cache, *more, configs=(TEXTBOOK,)):
    words = [
        "compare",
        *map(str, configs),
        "-o",
        str(folder),
        "--cache",
        str(cache),
        "--seeds",
        "2",
    ]
    for setting in SETTINGS:
        words += ["--set", setting]
    result = CliRunner().invoke(main, [*words, "--no-progress", *more], catch_exceptions=False)
    return result


# ---- equal terms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", list(TRAINED_BASELINES))
def test_widths_are_chosen_for_equal_numbers_of_parameters(dataset, baseline):
    config, build = textbook(), TRAINED_BASELINES[baseline]
    wanted = count_parameters(config, build_model, dataset.graph)
    before = count_parameters(config, build, dataset.graph)
    assert abs(before - wanted) > 0.05 * wanted  # else there is nothing to match
    matched, count = match_parameters(config, build, dataset.graph, wanted)
    assert abs(count - wanted) <= 0.05 * wanted
    assert count == count_parameters(matched, build, dataset.graph)
    assert matched.operator.hidden_channels % config.operator.heads == 0
    # All but the widths is as it was.
    operator, readout = config.operator.hidden_channels, config.readout.hidden_channels
    assert (
        with_width(matched, operator).model_copy(
            update={"readout": matched.readout.model_copy(update={"hidden_channels": readout})}
        )
        == config
    )


def test_where_no_width_fits_the_head_makes_up_for_the_rest(dataset):
    config = textbook()
    # Widths of the operator are multiples of the heads; a number between two of them is met by the head.
    between = [count_parameters(with_width(config, w), build_model, dataset.graph) for w in (4, 6)]
    wanted = sum(between) // 2
    assert min(abs(b - wanted) for b in between) > 0.05 * wanted
    matched, count = match_parameters(config, build_model, dataset.graph, wanted)
    assert abs(count - wanted) <= 0.05 * wanted
    assert matched.readout.hidden_channels not in (None, matched.operator.hidden_channels)


def test_a_number_that_no_width_has_is_named(dataset):
    with pytest.raises(
        MatchError,
        match=r"no operator.hidden_channels gives 3 parameters within 5%; the nearest is 2 with",
    ):
        match_parameters(textbook(), build_model, dataset.graph, 3)


def test_equal_time_is_as_many_steps_as_take_as_long(dataset, tmp_path, monkeypatch):
    seconds = {"hetero_nsa": 0.2, "embedding": 0.05}
    monkeypatch.setattr(compare, "measure_step_times", lambda steps, progress: seconds)
    settings = ["training.max_minutes=0.5", "training.epochs=3", "training.patience=2"]
    settings += ["training.instances_per_epoch=70", "training.batch_size=16"]
    contenders = contenders_of({"a": textbook(*settings)})

    def planned():
        cells = plan(contenders, "time", tmp_path, 1, lambda config: dataset)
        return {c.contender.name: c.contender.config for c in cells}

    configs = planned()
    how = {name: config.training for name, config in configs.items()}
    assert {(h.max_minutes, h.epochs, h.patience) for h in how.values()} == {(None, 3, None)}
    # Five steps of 16 an epoch, and four times as many.
    assert {n: h.instances_per_epoch for n, h in how.items()} == {
        "hetero_nsa": 80,
        "embedding": 320,
    }
    assert {config.operator.hidden_channels for config in configs.values()} == {16}
    # What was measured holds when a comparison goes on, and not for other models.
    seconds = {"hetero_nsa": 0.2, "embedding": 0.1}
    assert planned() == configs
    contenders = contenders_of({"a": textbook(*settings, "operator.hidden_channels=24")})
    assert planned()["embedding"].training.instances_per_epoch == 160


def test_a_dry_run_keeps_no_times(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(
        compare, "measure_step_times", lambda steps, progress: dict.fromkeys(steps, 1.0)
    )
    contenders = contenders_of({"a": textbook()})
    plan(contenders, "time", tmp_path, 1, lambda config: dataset, keep=False)
    assert not list(tmp_path.iterdir())


def test_steps_are_timed_in_turns(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(step_times.time, "perf_counter", lambda: clock[0])

    def step(name, cost):
        def one():
            calls.append(name)
            busy = 10.0 if len(calls) in (7, 8) else 1.0  # one round of a busy machine
            clock[0] += cost * busy

        return one

    times = measure_step_times({"a": step("a", 0.5), "b": step("b", 2.0)}, 5, progress=False)
    assert calls == ["a", "b"] * 7  # two rounds of warm-up
    assert times == pytest.approx({"a": 0.5, "b": 2.0})


def test_a_step_that_fails_while_it_is_timed_is_named():
    def fails():
        raise RuntimeError("the loss is nan")

    with pytest.raises(RuntimeError, match="the loss is nan") as failed:
        measure_step_times({"a": lambda: None, "b": fails}, progress=False)
    assert failed.value.__notes__ == ["(b, of which a step was timed before any training)"]


def test_a_timed_step_trains(dataset):
    seen = []

    def build(config, graph):
        seen.append(build_model(config, graph))
        return seen[-1]

    step = training_step(textbook(), build, dataset)
    before = {name: p.detach().clone() for name, p in seen[0].named_parameters()}
    for _ in range(20):  # more than its loader has batches
        step()
    assert all(not torch.equal(p, before[name]) for name, p in seen[0].named_parameters())


def test_only_one_split_is_compared():
    with pytest.raises(
        CompareError,
        match=r"b: data.fractions is .*, but .* in a; models are compared on one split",
    ):
        contenders_of({"a": textbook(), "b": textbook("data.fractions=[0.6, 0.2, 0.2]")})
    with pytest.raises(CompareError, match="b: seed is 1, but 0 in a"):
        contenders_of({"a": textbook(), "b": textbook("seed=1")})
    with pytest.raises(CompareError, match="nothing to compare"):
        contenders_of({})
    several = contenders_of(
        {"a": textbook(), "b": textbook("operator.operator=hgt", "data.features=false")}
    )
    assert [(c.name, c.model) for c in several] == [("a", "hetero_nsa"), ("b", "hgt")]


@pytest.mark.parametrize("name", ["mean", "product_of_singles", "scope"])
def test_no_configuration_is_called_like_a_baseline_that_takes_part(name):
    named = textbook(f"baselines=[{name}]")
    with pytest.raises(
        CompareError,
        match=rf"a configuration is called '{name}', as is a baseline that takes part \(baselines in a\).*rename the file",
    ):
        contenders_of({name: textbook("baselines=[]"), "a": named})
    # Nothing is mixed where the baseline takes no part: not named, or trained, which those of several configurations are not.
    none = textbook("baselines=[]")
    assert [c.name for c in contenders_of({name: none, "a": none})] == [name, "a"]
    assert [c.name for c in contenders_of({"hgt": textbook("baselines=[hgt]"), "a": none})] == [
        "hgt",
        "a",
    ]
    # A single configuration's model is called by its operator.
    assert [c.name for c in contenders_of({name: named})] == ["hetero_nsa"]


def test_other_settings_get_another_folder_and_titles_do_not():
    (one, *_), (same, *_), (other, *_) = (
        contenders_of({"a": textbook(*changes)})
        for changes in ((), ("title=Another", "baselines=[]"), ("training.learning_rate=0.1",))
    )
    assert one.key == same.key != other.key


# ---- the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    result = run(folder, cache)
    assert result.exit_code == 0, result.output
    assert "hetero_nsa" in result.output and "embedding" in result.output
    assert "Standard deviations of fewer than three seeds say little." in result.output
    assert "held-out genes, mean ± std over 2 seeds" in result.output
    return folder


def test_it_writes_table_figure_and_facts(folder):
    table = pd.read_csv(folder / "comparison.csv")
    assert set(table["model"]) == {"hetero_nsa", "embedding", "mean", "product_of_singles"}
    assert set(table[table["model"] == "embedding"]["seed"]) == {0, 1}
    facts = json.loads((folder / "comparison.json").read_text())
    row = next(
        r
        for r in facts["summary"]
        if (r["model"], r["subset"], r["target"], r["metric"])
        == ("hetero_nsa", "singles", "fitness", "mse")
    )
    chosen = table.query(
        "model == 'hetero_nsa' and subset == 'singles' and target == 'fitness' and metric == 'mse'"
    )
    assert row["mean"] == pytest.approx(chosen["value"].mean())
    assert row["std"] == pytest.approx(np.std(chosen["value"], ddof=1))
    assert row["std"] > 0  # seeds differ
    sizes = {c["model"]: c["parameters"] for c in facts["cells"]}
    assert abs(sizes["embedding"] - sizes["hetero_nsa"]) <= 0.05 * sizes["hetero_nsa"]
    assert all(c["steps"] == 1 for c in facts["cells"])  # 32 instances, one batch
    assert (folder / "comparison.png").stat().st_size > 10_000
    page = (folder / "comparison.md").read_text()
    assert "instances seen" in page and "±" in page
    # What needs no training is there once, and compared with both seeds.
    (less,) = (
        row
        for row in facts["differences"]
        if (row["model"], row["subset"], row["target"], row["metric"])
        == ("mean", "singles", "fitness", "mse")
    )
    assert less["seeds"] == 2 and f"({less['better']}/2)" in page
    once = table.query("model == 'mean' and subset == 'singles' and metric == 'mse'")["value"]
    assert less["mean"] == pytest.approx(row["mean"] - once.item())
    assert "Held out: genes." in page
    assert "Standard deviations of fewer than three seeds say little." in page


def test_all_models_are_judged_on_the_same_instances(folder):
    tables = [pd.read_csv(f) for f in sorted(folder.glob("cells/*/*/predictions.csv"))]
    assert len(tables) == 4
    for table in tables[1:]:
        assert table["index"].tolist() == tables[0]["index"].tolist()


def test_what_is_done_is_not_trained_again(folder, cache, monkeypatch):
    before = json.loads((folder / "comparison.json").read_text())
    trained = []
    monkeypatch.setattr(cells, "run_experiment", lambda name, *args, **kwargs: trained.append(name))
    result = run(folder, cache)
    assert result.exit_code == 0 and trained == []
    assert result.output.count("done before") == 4
    assert json.loads((folder / "comparison.json").read_text())["summary"] == before["summary"]


def test_what_was_interrupted_is_trained(folder, cache, monkeypatch, tmp_path):
    victim = sorted(folder.glob("cells/embedding-*/seed-1"))[0]
    kept = (victim / "cell.json").read_text()
    (victim / "cell.json").unlink()
    called = []

    def spy(name, build, dataset, split, config, folder, **kwargs):
        called.append((name, kwargs["seed"], kwargs["resume"], Path(folder)))
        raise KeyboardInterrupt

    monkeypatch.setattr(cells, "run_experiment", spy)
    result = run(folder, cache)
    (victim / "cell.json").write_text(kept)
    assert called == [("embedding", 1, True, victim)]
    assert result.exit_code == 130 and "go on with: pyg-nsa" in result.output


def test_a_dry_run_lists_what_would_run(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "run_experiment", None)
    result = run(tmp_path / "none", cache, "--dry-run", "--json")
    listed = json.loads(result.stdout)["cells"]
    assert [(c["model"], c["seed"], c["done"]) for c in listed] == [
        ("hetero_nsa", 0, False),
        ("embedding", 0, False),
        ("hetero_nsa", 1, False),
        ("embedding", 1, False),
    ]
    assert all(c["parameters"] > 100 for c in listed)
    assert not (tmp_path / "none").exists()


def test_each_seed_may_have_a_split_of_its_own(folder, cache, tmp_path):
    result = run(tmp_path, cache, "--new-splits")
    assert result.exit_code == 0, result.output
    judged = {}
    for file in tmp_path.glob("cells/*/*/predictions.csv"):
        index = pd.read_csv(file)["index"].tolist()
        judged.setdefault(file.parent.name, []).append(index)
    assert [len(judged[seed]) for seed in ("seed-0", "seed-1")] == [2, 2]
    assert judged["seed-0"][0] == judged["seed-0"][1] != judged["seed-1"][0] == judged["seed-1"][1]
    facts = json.loads((tmp_path / "comparison.json").read_text())
    assert facts["split_seeds"] == [0, 1]
    assert json.loads((folder / "comparison.json").read_text())["split_seeds"] == [0]
    # What needs no training is computed on each split as well.
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert set(table[table["model"] == "mean"]["seed"]) == {0, 1}
    page = (tmp_path / "comparison.md").read_text()
    assert (
        "Seeds and splits: 0, 1; equal parameters." in page and "hetero_nsa less the others" in page
    )
    # The first split's experiments are those of a comparison on that split alone.
    names = {f.parent.name for f in folder.glob("cells/*/seed-0")}
    assert names == {f.parent.name for f in tmp_path.glob("cells/*/seed-0")}


def test_several_initialisations_of_each_split(cache, tmp_path):
    few = ["--new-splits", "--inits", "2", "--set", "baselines=[mean]"]
    result = run(tmp_path, cache, *few)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "comparison.csv")
    ours = table[(table["model"] == "hetero_nsa") & (table["metric"] == "mse")]
    assert {(s, i) for s, i in zip(ours["split"], ours["seed"], strict=True)} == {
        (0, 0),
        (0, 1),
        (1, 1),
        (1, 2),
    }
    facts = json.loads((tmp_path / "comparison.json").read_text())
    assert (facts["split_seeds"], facts["inits"], len(facts["cells"])) == ([0, 1], 2, 4)
    # The mean of a split's initialisations is one point.
    chosen = ours[(ours["subset"] == "singles") & (ours["target"] == "fitness")]
    each = chosen.groupby("split")["value"].mean()
    (found,) = (
        r
        for r in facts["summary"]
        if (r["model"], r["subset"], r["target"], r["metric"])
        == ("hetero_nsa", "singles", "fitness", "mse")
    )
    assert found["mean"] == pytest.approx(each.mean())
    assert found["std"] == pytest.approx(each.std())
    assert found["seeds"] == 2
    (less,) = (
        r
        for r in facts["differences"]
        if (r["model"], r["subset"], r["target"], r["metric"])
        == ("mean", "singles", "fitness", "mse")
    )
    of_mean = table[table["model"] == "mean"].merge(
        chosen, on=["split", "subset", "target", "metric"]
    )
    of_mean = of_mean.drop_duplicates("split").set_index("split")["value_x"]
    assert less["mean"] == pytest.approx((each - of_mean).mean())
    page = (tmp_path / "comparison.md").read_text()
    assert "Splits: 0, 1; means of 2 initialisations each; equal parameters." in page
    assert "Standard deviations of fewer than three seeds say little." in page  # two splits
    wrong = run(tmp_path, cache, "--inits", "2")
    assert wrong.exit_code == 2
    assert "--inits goes with --new-splits" in wrong.output


def test_initialisations_are_averaged_before_anything_else():
    rows = [
        ("a", 0, 0, "singles", "fitness", "mse", 0.1, 10),
        ("a", 0, 1, "singles", "fitness", "mse", 0.3, 10),
        ("a", 1, 1, "singles", "fitness", "mse", 0.5, 12),
        ("a", 1, 2, "singles", "fitness", "mse", np.nan, 12),
        ("b", 0, 0, "singles", "fitness", "mse", 0.4, 10),
    ]
    metrics = pd.DataFrame(
        rows, columns=["model", "split", "seed", "subset", "target", "metric", "value", "n"]
    )
    found = over_inits(metrics)
    assert found[["model", "seed", "n"]].to_numpy().tolist() == [
        ["a", 0, 10],
        ["a", 1, 12],
        ["b", 0, 10],
    ]
    assert found["value"][0] == pytest.approx(0.2)
    assert np.isnan(found["value"][1])


def test_in_equal_time(cache, tmp_path):
    """The whole command, with steps that are timed for real; and what it says of genes and pairs, and of three seeds."""
    more = ["--match", "time", "--seeds", "3", "--set", "data.split=both"]
    result = run(tmp_path, cache, *more)
    assert result.exit_code == 0, result.output
    times = json.loads((tmp_path / "step_times.json").read_text())
    seconds = {name: one["seconds"] for name, one in times.items()}
    assert set(seconds) == {"hetero_nsa", "embedding"} and min(seconds.values()) > 0
    facts = json.loads((tmp_path / "comparison.json").read_text())
    steps = {(c["model"], c["seed"]): c["steps"] for c in facts["cells"]}
    as_many = max(1, round(seconds["hetero_nsa"] / seconds["embedding"]))
    assert steps == {
        (model, seed): count
        for model, count in (("hetero_nsa", 1), ("embedding", as_many))
        for seed in range(3)
    }
    assert len({c["width"] for c in facts["cells"]}) == 1  # as configured
    page = (tmp_path / "comparison.md").read_text()
    assert "equal time. Held out: genes and pairs." in page
    assert "| new pairs of known genes | gene_interaction | mse |" in page
    assert "held-out genes and pairs, mean ± std over 3 seeds" in result.output
    assert "fewer than three seeds" not in page + result.output
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert set(table[table["subset"] == "new pairs of known genes"]["n"]) == {20}
    # It goes on with the same times, so that nothing is trained again.
    again = run(tmp_path, cache, *more)
    assert again.output.count("done before") == 6
    assert json.loads((tmp_path / "step_times.json").read_text()) == times


def test_two_files_of_one_name_are_refused(cache, tmp_path):
    other = tmp_path / "textbook.yaml"
    other.write_text(TEXTBOOK.read_text())
    result = run(tmp_path, cache, configs=(TEXTBOOK, other))
    assert result.exit_code == 2
    assert "two configurations are called 'textbook'" in result.output


# ---- the table -----------------------------------------------------------------------------------------------------------


def make_metrics():
    rows = []
    for model, values in (("a", [0.5, 0.7, 0.9]), ("b", [0.1, np.nan, 0.3]), ("c", [0.25])):
        for seed, value in enumerate(values):
            rows.append((model, seed, "singles", "fitness", "pearson", value, 10))
            rows.append((model, seed, "pairs", "gene_interaction", "mse", 0.01 * (seed + 1), 20))
    return pd.DataFrame(rows, columns=["model", "seed", "subset", "target", "metric", "value", "n"])


def test_mean_and_standard_deviation_over_seeds():
    table = summary(make_metrics()).set_index(["model", "metric"])
    assert table.loc[("a", "pearson"), "mean"] == pytest.approx(0.7)
    assert table.loc[("a", "pearson"), "std"] == pytest.approx(0.2)  # of a sample of three
    assert np.isnan(
        table.loc[("b", "pearson"), "mean"]
    )  # undefined for one seed is not the mean of the others
    assert np.isnan(table.loc[("c", "pearson"), "std"])
    assert table.loc[("a", "mse"), "seeds"] == 3


def test_differences_are_taken_seed_by_seed():
    rows = []
    for seed, hard in enumerate((0.0, 0.5, 0.1)):  # one split is much harder, for both alike
        for model, value in (("a", 0.2), ("b", 0.3), ("c", 0.15 if seed else 0.4)):
            rows.append((model, seed, "singles", "fitness", "mse", value + hard, 10))
            rows.append((model, seed, "pairs", "fitness", "pearson", value + hard, 10))
    rows.append(("d", 0, "singles", "fitness", "mse", 0.1, 10))
    metrics = pd.DataFrame(
        rows, columns=["model", "seed", "subset", "target", "metric", "value", "n"]
    )
    table = differences(metrics, ["a", "b", "c", "d"]).set_index(["model", "metric"])
    assert len(table) == 4  # d lacks the other seeds
    assert table.loc[("b", "mse"), "mean"] == pytest.approx(-0.1)
    assert table.loc[("b", "mse"), "std"] == pytest.approx(0, abs=1e-12)
    assert table["better"].to_dict() == {
        ("b", "mse"): 3,  # less is better
        ("c", "mse"): 1,
        ("b", "pearson"): 0,
        ("c", "pearson"): 2,
    }
    assert table.loc[("c", "mse"), "mean"] == pytest.approx(-0.1 / 3)
    assert table.loc[("c", "mse"), "std"] == pytest.approx(np.std([-0.2, 0.05, 0.05], ddof=1))
    shown = shown_differences(differences(metrics, ["a", "b", "c"]), ["a", "b", "c"])
    assert shown == [
        ["singles", "fitness", "mse", "-0.1000 ± 0.0000 (3/3)", "-0.0333 ± 0.1443 (1/3)"],
        ["pairs", "fitness", "pearson", "-0.100 ± 0.000 (0/3)", "-0.033 ± 0.144 (2/3)"],
    ]
    assert shown_differences(differences(metrics.query("seed == 0"), ["a", "b"]), ["a", "b"]) == []


def test_what_needs_no_training_is_compared_with_every_seed_of_its_split():
    columns = ["model", "split", "seed", "subset", "target", "metric", "value", "n"]
    rows = [
        ("a", 0, seed, "singles", "fitness", "mse", value, 9)
        for seed, value in enumerate((0.1, 0.4, 0.2))
    ]
    rows.append(("b", 0, 0, "singles", "fitness", "mse", 0.3, 9))  # trained with one seed so far
    rows.append(("mean", 0, 0, "singles", "fitness", "mse", 0.3, 9))
    metrics = with_every_seed(pd.DataFrame(rows, columns=columns), {"mean"})
    assert list(metrics.columns) == columns
    (one,) = differences(metrics, ["a", "b", "mean"]).to_dict("records")
    assert (one["model"], one["better"], one["seeds"]) == ("mean", 2, 3)
    assert one["mean"] == pytest.approx(np.mean([-0.2, 0.1, -0.1]))
    # On splits of their own each has its own.
    rows = [(m, k, k, "singles", "fitness", "mse", 0.1, 9) for m in ("a", "mean") for k in (0, 1)]
    metrics = with_every_seed(pd.DataFrame(rows, columns=columns), {"mean"})
    assert sorted(metrics[columns].itertuples(index=False, name=None)) == sorted(rows)


def test_the_figure_has_a_row_for_each_model_and_no_mean_where_the_table_has_none():
    metrics = make_metrics()
    nothing = metrics[metrics["model"] == "c"].assign(model="d", value=np.nan)
    models = ["a", "b", "c", "d"]
    figure = comparison_figure(pd.concat([metrics, nothing]), models)
    axis = figure.axes[0]  # fitness of singles, Pearson
    assert axis.get_ylim() == (-3.5, 0.5)
    assert [(t.get_text(), t.xy[1]) for t in axis.texts] == [
        ("undefined in 1 of 3", -1),
        ("undefined", -3),
    ]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.7, 0.25])


def test_the_figure_tells_what_is_not_predicted_from_what_is_undefined():
    metrics = make_metrics()
    absent = metrics[metrics["model"] == "c"].assign(model="d", value=np.nan, n=0)
    figure = comparison_figure(pd.concat([metrics, absent]), ["a", "c", "d"])
    assert [t.get_text() for t in figure.axes[0].texts] == ["not predicted"]


def test_dollars_in_names_are_no_mathematics(tmp_path):
    metrics = make_metrics().replace({"a": "a$_$b"})
    figure = comparison_figure(metrics, ["a$_$b"], caption="models/$x$_.xml")
    save(figure, tmp_path / "x.png")
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [r"a\$_\$b"]


def test_the_printed_table():
    rows = shown_rows(summary(make_metrics()), ["b", "a", "c"])
    assert rows == [
        ["singles", "fitness", "pearson", "–", "0.700 ± 0.200", "0.250"],
        ["pairs", "gene_interaction", "mse", "0.0200 ± 0.0100", "0.0200 ± 0.0100", "0.0100"],
    ]
    assert markdown_table(["x", "y"], [["1", "2"]]) == "| x | y |\n|---|---|\n| 1 | 2 |\n"
