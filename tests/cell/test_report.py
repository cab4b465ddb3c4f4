from __future__ import annotations

import base64
import itertools
import json
import re
import struct
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from pyg_nsa.cell.evaluation.metrics import evaluate
from pyg_nsa.cell.report import figure_style
from pyg_nsa.cell.report import gallery as report_gallery
from pyg_nsa.cell.report.figure_style import save
from pyg_nsa.cell.report.figures import loss_figure, scatter_figure
from pyg_nsa.cell.report.knockout_figure import knockout_figure, node_label
from pyg_nsa.cell.report.metrics_figure import metrics_figure
from pyg_nsa.cell.report.metrics_section import headlines
from pyg_nsa.cell.report.neighbourhood import MAX_NODES, choose_neighbourhood
from pyg_nsa.cell.report.page import RunFolderError, write_report

NASTY = "<b>&\"x'$y$</b>"
PREDICTION_COLUMNS = [
    *("model", "part", "genes", "size", "fitness", "gene_interaction"),
    *("fitness_pred", "gene_interaction_pred", "interacting"),
]
REQUIRED = ["config.yaml", "run.json", "history.csv", "predictions.csv", "metrics.csv"]


def make_predictions(n_singles=6, n_pairs=9, seed=0):
    """All four models; missing labels, a constant predictor, a gene whose name is HTML and one called NA."""
    rng = np.random.default_rng(seed)
    genes = [NASTY, "NA", *[f"b{i:04d}" for i in range(max(n_singles, 60))]]
    rows = []
    for part in ("val", "test"):
        instances = [(g,) for g in genes[:n_singles]]
        instances += list(itertools.islice(itertools.combinations(genes, 2), n_pairs))
        size = np.array([len(i) for i in instances])
        fitness = np.where(rng.random(len(size)) < 0.2, 0.0, rng.beta(5, 1, len(size)))
        epsilon = np.where((size == 2) & (rng.random(len(size)) < 0.4), -rng.random(len(size)), 0.0)
        epsilon[size == 1] = np.nan
        fitness[-1] = np.nan
        for model, noise in [
            ("hetero_nsa", 0.1),
            ("hetero_conv", 0.25),
            ("mean", None),
            ("product_of_singles", 0.05),
        ]:
            error = rng.normal(size=(2, len(size))) * (noise or 0)
            pred = 0.7 + 0 * fitness if noise is None else fitness + error[0]
            eps = 0 * epsilon if noise is None else epsilon + error[1]
            if model == "product_of_singles":
                pred[size == 1], eps = np.nan, 0 * epsilon
            rows.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "part": part,
                        "index": np.arange(len(size)),
                        "size": size,
                        "genes": [";".join(i) for i in instances],
                        "fitness": fitness,
                        "gene_interaction": epsilon,
                        "fitness_pred": pred,
                        "gene_interaction_pred": eps,
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def make_attention(n_reactions=4, deleted=NASTY, seed=0):
    """A chain of reactions that share metabolites; the deleted gene's first two reactions are gone."""
    rng = np.random.default_rng(seed)
    rows = []

    def both(a, b, dead):
        for (ta, na), (tb, nb), back in ((a, b, False), (b, a, True)):
            name = {"gene": "gpr", "metabolite": "rmr"}[
                "gene" if "gene" in (ta, tb) else "metabolite"
            ]
            relation = f"rev_{name}" if back else name
            weight = rng.random()
            rows.append((relation, ta, na, tb, nb, weight, 0.0 if dead else min(1, weight * 1.2)))

    for i in range(n_reactions):
        gene = deleted if i < 2 else f"b{i:04d}"
        reaction = ("reaction", f"R{i // 2}|{i % 2}|{'forward' if i % 3 else 'backward'}")
        both(("gene", gene), reaction, i < 2)
        for j in (i, i + 1):
            both(reaction, ("metabolite", f"m{j}_c"), i < 2)
        if i > 2:
            rows.append(("co_complex", "gene", f"b{i:04d}", "gene", f"b{i - 1:04d}", 0.4, 0.5))
    columns = ["relation", "source_type", "source", "target_type", "target"]
    return pd.DataFrame(rows, columns=[*columns, "weight_wildtype", "weight_knockout"])


def make_run(folder, *, n_singles=6, n_pairs=9, n_reactions=4, epochs=3, optional=True):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.yaml").write_text(
        f"version: 1\ntitle: <script>alert(1)</script>  # {NASTY}\n"
    )
    facts = {
        "title": "Deletions <in> E. coli",
        "created": "2026-03-01T12:30:00+00:00",
        "organism": "textbook",
        "graph": {
            "nodes": {"gene": 137, "reaction": 207, "metabolite": 1},
            "edges": {"gene gpr reaction": 251, "reaction rmr metabolite": 1762},
        },
        "split": {
            "train": {"genes": 96, "instances": 4101, "singles": 96, "pairs": 4005},
            "val": {"genes": 14, "instances": 1365, "singles": 14, "pairs": 1351},
            "test": {"genes": 27, "instances": 3056, "singles": 27, "pairs": 3029},
        },
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "machine": "Linux x86_64, 2 cores",
        "seconds": {"labels": 0.4, "training": {"hetero_nsa": 131.0, "hetero_conv": 43.0}},
        "parameters": {"hetero_nsa": 30202, "hetero_conv": 15474},
        "label_source": "simulated by FBA",
        "knockout": {
            "genes": [NASTY],
            "names": {
                "gene": {NASTY: "gltA<i>"},
                "reaction": {"R0": "citrate <synthase>"},
                "metabolite": {},
            },
            "fitness": 0.0,
            "fitness_pred": 0.1,
        },
    }
    (folder / "run.json").write_text(json.dumps(facts))
    t = np.arange(epochs, dtype=float)
    history = pd.concat(
        pd.DataFrame(
            {
                "model": model,
                "epoch": t.astype(int),
                "step": t * 8,
                "seconds": t,
                "train_loss": np.exp(-t / 10) + shift,
                "val_loss": np.where(t == 1, np.nan, 1.1 * np.exp(-t / 12) + shift),
            }
        )
        for model, shift in [("hetero_nsa", 0.1), ("hetero_conv", 0.3)]
    )
    history.to_csv(folder / "history.csv", index=False)
    predictions = make_predictions(n_singles, n_pairs)
    predictions.to_csv(folder / "predictions.csv", index=False)
    with np.errstate(all="ignore"):
        evaluate(predictions, replicates=50).to_csv(folder / "metrics.csv", index=False)
    if optional:
        make_attention(n_reactions).to_csv(folder / "attention.csv", index=False)
        pd.DataFrame(
            [
                ("gene gpr reaction", 5468, 1367, 5877, 473, 200, 108),
                ("ghost <haunts> gene", 3, 0, 0, 0, 0, 0),
            ],
            columns=["relation", "rows", "cols", "pairs", "tiles", "natural", "reordered"],
        ).to_csv(folder / "occupancy.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run, with its report; tests must not change it."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "tiny")
    assert write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(run):
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def fresh(run, tmp_path):
    """A copy of the tiny run's inputs that a test may break."""
    for name in [*REQUIRED, "attention.csv", "occupancy.csv"]:
        (tmp_path / name).write_bytes((run / name).read_bytes())
    return tmp_path


@pytest.fixture
def quick(fresh, monkeypatch):
    """The same, with figures that are made but not rendered."""

    def fake(figure, path):
        assert figure.axes
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not rendered")
        return b"not rendered"

    monkeypatch.setattr(report_gallery, "save", fake)
    return fresh


class Page(HTMLParser):
    """Checks that tags are balanced, and collects them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br", "hr", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())


def rows_of(page, heading):
    """Cells of the table's rows, as text, from a heading to the next."""
    part = page.split(heading, 1)[1]
    part = re.split("<h|<details", part, maxsplit=1)[0]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", part, re.S)
    clean = [re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", row, re.S) for row in rows]
    return [[(a, re.sub(r"<[^>]+>", "", c).strip()) for a, c in row] for row in clean]


# ---- the page ------------------------------------------------------------------------------------


def test_page_is_self_contained(page):
    tags = Page(page).tags
    assert not {"script", "link", "iframe", "object"} & {t for t, _ in tags}
    for _, attributes in tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith("data:image/png;base64,")
    assert "http" not in re.sub(r'src="[^"]*"', "", page)
    assert "@import" not in page
    assert "url(" not in page


def test_pictures_are_the_files_beside_the_page(run, page):
    pictures = [a for t, a in Page(page).tags if t == "img"]
    files = re.findall(r"figures/\w+\.png", page)
    assert sorted(files) == sorted(f"figures/{p.name}" for p in (run / "figures").iterdir())
    assert len(files) == len(pictures) == 8
    for picture, file in zip(pictures, files, strict=True):
        data = base64.b64decode(picture["src"].partition(",")[2])
        assert data == (run / file).read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        assert 400 < width < 2600
        assert 200 < height < 3000
        assert len(picture["alt"]) > 30


def test_nothing_of_the_data_becomes_markup(page):
    words = Page(page).words
    assert "<script" not in page
    assert "<b>&" not in page
    assert "Deletions <in> E. coli" in words
    assert "title: <script>alert(1)</script>" in words
    assert "gltA<i>" in words


def test_page_says_what_was_trained_on_what(page):
    words = Page(page).words
    assert "137 genes, 207 reactions and 1 metabolite." in words
    assert "No measurement went into this: growth was simulated by FBA." in words
    assert "30,202 parameters, trained for 2 min" in words
    assert (
        "counts as lethal if its fitness in the labels is below 0.01 (the wildtype’s is 1)."
        in words
    )
    assert "has noise" not in words
    assert "torch" in words
    assert "2.13.0" in words
    assert "1 March 2026, 12:30" in words
    assert ["test", "27", "3,056", "27", "3,029"] in [
        [c for _, c in row] for row in rows_of(page, "What was trained on what</h2>")
    ]


def test_measured_labels_are_not_called_simulated(quick):
    facts = json.loads((quick / "run.json").read_text())
    facts["label_source"] = "measured (costanzo.csv)"
    facts["organism"] = "/home/somebody/models/yeast.xml"
    (quick / "run.json").write_text(json.dumps(facts))
    words = Page(write_report(quick).read_text()).words
    assert "simulat" not in words
    assert "cell: yeast.xml · labels" in words and "somebody" not in words
    assert "Predicted against measured" in words
    assert "measured (costanzo.csv)" in words
    assert "below 0.01 (the wildtype’s is 1). Measured fitness has noise" in words


# ---- the table of metrics ------------------------------------------------------------------------


def metrics_table(folder, rows):
    columns = ["model", "part", "subset", "target", "metric", "value", "n"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "metrics.csv", index=False)
    page = write_report(folder).read_text()
    return page, rows_of(page, "On genes held out for testing</h3>")


def test_that_tables_scroll_is_said_where_they_do(quick):
    for models, classes in (("abc", "note hint narrow"), ("abcdefgh", "note hint")):
        rows = [(model, "test", "singles", "fitness", "mse", 0.2, 27) for model in models]
        columns = ["model", "part", "index", "size", "genes", "fitness", "gene_interaction"]
        columns += ["fitness_pred", "gene_interaction_pred"]
        pd.DataFrame(columns=columns).to_csv(quick / "predictions.csv", index=False)
        page, _ = metrics_table(quick, rows)
        assert f'<p class="{classes}">Wide figures and tables' in page


def test_best_value_is_marked(quick):
    rows = []
    for model, r, mse in [
        ("a", 0.5, 0.2),
        ("b", 0.7, 0.3),
        ("c", 0.70001, 0.00012),
        ("d", "", 0.4),
    ]:
        rows.append((model, "test", "singles", "fitness", "pearson", r, 27))
        rows.append((model, "test", "singles", "fitness", "mse", mse, 27))
    page, table = metrics_table(quick, rows)
    assert [c for _, c in table[0]] == ["target, metric", "a", "b", "c", "d", "n"]
    pearson, mse = table[2], table[3]
    assert [c for _, c in pearson] == [
        "fitness, Pearson correlation ↑",
        "0.500",
        "0.700 ★",
        "0.700 ★",
        "–*",
        "27",
    ]
    assert ["best" in a for a, _ in pearson] == [False, False, True, True, False, False]
    assert [c for _, c in mse][1:] == ["0.200", "0.300", "1.20×10⁻⁴ ★", "0.400", "27"]
    assert ["best" in a for a, _ in mse] == [False, False, False, True, False, False]
    assert "undefined: a constant has no correlation" in page


def test_a_baseline_that_is_told_the_answer_does_not_compete(quick):
    rows = [
        ("hetero_nsa", "test", "pairs", "fitness", "pearson", 0.5, 100),
        ("hetero_conv", "test", "pairs", "fitness", "pearson", 0.4, 100),
        ("product_of_singles", "test", "pairs", "fitness", "pearson", 0.9, 90),
    ]
    page, table = metrics_table(quick, rows)
    assert [c for _, c in table[0]][3] == "product_of_singles†"
    assert ["best" in a for a, _ in table[2]] == [False, True, False, False, False]
    assert table[2][-1][1] == "90–100"
    assert "† is told the true fitness of held-out genes" in page


def test_singles_and_pairs_are_apart(page):
    rows = rows_of(page, "On genes held out for testing</h3>")
    groups = [row[0][1] for row in rows if len(row) == 1]
    assert groups == ["single deletions", "pairs", "interacting pairs only"]


def test_headlines_say_how_well_how_sure_and_compared_with_what(page):
    words = Page(page).words
    found = re.search(
        r"Growth after one deletion \(simulated fitness\): (hetero_\w+) (predicts|follows) it best, with a correlation of \S+ "
        r"\(95 % interval \S+ to \S+\) over 6 held-out genes\. Next comes (?!\1)hetero_\w+ with \S+; the difference is \S+ "
        r"\(\S+ to \S+\), (which may be chance|more than chance explains)\. (The|But its values are worse than a guess: the) mean "
        r"squared error of \1 is (\S+); always guessing the mean gives ([\d.]*\d)",
        words,
    )
    assert found
    worse = float(found[5]) > float(found[6])
    assert found[2] == ("follows" if worse else "predicts")
    assert found[4].startswith("But" if worse else "The")
    assert "genes, not instances, since pairs that share a gene are not independent" in words


@pytest.mark.parametrize(
    ("errors", "verb", "said"),
    [
        (
            (0.0378, 0.0305, 0.05),
            "follows",
            "But its values are worse than a guess: the mean squared error of a is 0.0378; always guessing the mean gives "
            "0.0305, which is less.",
        ),
        (
            (0.0378, 0.0305, 0.02),
            "follows",
            "always guessing the mean gives 0.0305, which is less, and the least, 0.0200, is that of b.",
        ),
        (
            (0.0205, 0.0305, 0.02),
            "predicts",
            "The mean squared error of a is 0.0205; always guessing the mean gives 0.0305.",
        ),
    ],
)
def test_a_headline_says_so_where_the_mean_is_the_better_guess(errors, verb, said):
    rows = [
        {"model": m, "metric": metric, "value": value}
        for m, r, mse in zip(("a", "mean", "b"), (0.461, np.nan, 0.4), errors, strict=True)
        for metric, value in (("pearson", r), ("mse", mse))
    ]
    rows.append({"model": "product_of_singles", "metric": "mse", "value": 1e-9})  # is told
    metrics = pd.DataFrame(rows).assign(
        part="test", subset="singles", target="fitness", n=20, low=np.nan, high=np.nan
    )
    columns = ["model", "part", "size", "genes", "fitness", "gene_interaction", "fitness_pred"]
    nothing = pd.DataFrame(columns=[*columns, "gene_interaction_pred"])
    (sentence,) = headlines(metrics, nothing, ["a", "mean", "b"], "simulated")
    assert f"a {verb} it best, with a correlation of 0.461" in sentence
    assert sentence.endswith(said)


def test_a_clear_difference_is_told_from_chance(quick):
    rng = np.random.default_rng(0)
    truth = rng.random(60)
    tables = [
        pd.DataFrame(
            {
                "model": model,
                "part": "test",
                "size": 1,
                "genes": [f"g{i}" for i in range(60)],
                "fitness": truth,
                "gene_interaction": np.nan,
                "fitness_pred": truth + noise * rng.normal(size=60),
                "gene_interaction_pred": np.nan,
            }
        )
        for model, noise in (("hetero_nsa", 0.05), ("hetero_conv", 2.0))
    ]
    table = pd.concat(tables)
    table.to_csv(quick / "predictions.csv", index=False)
    evaluate(table, replicates=50).to_csv(quick / "metrics.csv", index=False)
    assert "more than chance explains" in write_report(quick).read_text()
    table["fitness_pred"] = rng.random(120)
    table.to_csv(quick / "predictions.csv", index=False)
    evaluate(table, replicates=50).to_csv(quick / "metrics.csv", index=False)
    assert "which may be chance" in write_report(quick).read_text()


def test_the_page_says_from_where_on_pairs_interact(quick):
    facts = json.loads((quick / "run.json").read_text())
    facts["interacting_above"] = 0.08
    (quick / "run.json").write_text(json.dumps(facts))
    table = pd.read_csv(quick / "predictions.csv", dtype={"genes": str}, keep_default_na=False)
    pairs = (table["part"] == "test") & (table["size"] == 2)
    some = table["genes"].isin(table.loc[pairs, "genes"].unique()[:3])
    table.assign(interacting=pairs & some).to_csv(quick / "predictions.csv", index=False)
    assert "(3 of them interact by more than 0.08" in write_report(quick).read_text()


def test_intervals_stand_under_the_values_where_there_are_any(quick):
    columns = ["model", "part", "subset", "target", "metric", "value", "n", "low", "high"]
    rows = [
        ("a", "test", "singles", "fitness", "pearson", 0.5, 27, 0.25, 0.75),
        ("b", "test", "singles", "fitness", "pearson", 0.4, 27, "", ""),
    ]
    pd.DataFrame(rows, columns=columns).to_csv(quick / "metrics.csv", index=False)
    page = write_report(quick).read_text()
    assert '<span class="ci">0.250 to 0.750</span>' in page
    assert page.count('class="ci"') == 1
    assert "A value without an interval was undefined in more than a tenth of the draws" in page
    # Runs of earlier versions have no intervals.
    pd.DataFrame(rows, columns=columns).drop(columns=["low", "high"]).to_csv(
        quick / "metrics.csv", index=False
    )
    page = write_report(quick).read_text()
    assert 'class="ci"' not in page
    assert "How sure" not in page and "without an interval" not in page


def test_names_of_what_is_drawn(page):
    words = Page(page).words
    assert "What the ids in the drawings stand for" in words
    assert "R0citrate <synthase>" in words.replace(" R0 citrate", "R0citrate")


# ---- missing and broken files --------------------------------------------------------------------


def test_optional_files_may_be_missing(quick):
    write_report(quick)
    (quick / "attention.csv").unlink()
    (quick / "occupancy.csv").unlink()
    page = write_report(quick).read_text()
    assert "This run has no attention.csv" in page
    assert "This run has no occupancy.csv" in page
    # Drawings of the earlier report are gone.
    assert {p.stem for p in (quick / "figures").iterdir()} == {
        "metrics",
        "loss",
        "fitness_singles",
        "fitness_pairs",
        "gene_interaction_pairs",
    }


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_required_file(fresh, name):
    (fresh / name).unlink()
    with pytest.raises(RunFolderError, match=rf"{re.escape(name)}: no such file"):
        write_report(fresh)
    assert not (fresh / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", "run.json: not valid JSON"),
        ("run.json", "[]", "run.json: expected 'title' to be a text"),
        (
            "run.json",
            '{"title": "x", "label_source": "y", "graph": {}}',
            "expected 'split' to be an object",
        ),
        (
            "run.json",
            '{"title": "x", "label_source": "y", "graph": {"nodes": {"gene": "many"}}, "split": {}}',
            "expected 'graph.nodes' to be an object of whole numbers",
        ),
        ("config.yaml", b"\xff\xfe\xfd", "config.yaml: cannot be read as UTF-8"),
        (
            "predictions.csv",
            ",".join(PREDICTION_COLUMNS) + "\na,test,g,1,0,0,0,0,maybe\n",
            "predictions.csv: line 2, column 'interacting': expected True or False, got 'maybe'",
        ),
        ("predictions.csv", '{"a": 1,', "predictions.csv: no column 'model', 'part', 'genes'"),
        ("history.csv", "", "history.csv: cannot be read as CSV"),
        (
            "metrics.csv",
            "model,part\na,test\n",
            "metrics.csv: no column 'subset', 'target', 'metric'",
        ),
        ("occupancy.csv", "relation\nx\n", "occupancy.csv: no column 'rows'"),
        (
            "history.csv",
            "model,epoch,step,seconds,train_loss,val_loss\na,0,1,1,0.5,0.5\na,1,2,2,oops,\n",
            "history.csv: line 3, column 'train_loss': expected a number or nothing, got 'oops'",
        ),
    ],
)
def test_broken_file(fresh, name, content, message):
    path = fresh / name
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    with pytest.raises(RunFolderError, match=re.escape(message)):
        write_report(fresh)


def test_tables_without_rows(quick):
    for name in ("history.csv", "predictions.csv", "metrics.csv", "attention.csv", "occupancy.csv"):
        header = (quick / name).read_text().splitlines()[0]
        (quick / name).write_text(header + "\n")
    page = write_report(quick).read_text()
    Page(page)
    assert "<img" not in page
    for words in (
        "history.csv has no loss at all",
        "metrics.csv has no values",
        "attention.csv has no edges",
        "occupancy.csv has no relation with tiles",
        "no model has both values: fitness of single deletions; fitness of deleted pairs; gene",
    ):
        assert words in " ".join(page.split())


def test_only_what_is_needed_in_run_json(quick):
    facts = json.loads((quick / "run.json").read_text())
    keep = ("title", "graph", "split", "label_source")
    (quick / "run.json").write_text(json.dumps({k: facts[k] for k in keep}))
    assert "run.json names no knockout" in write_report(quick).read_text()


# ---- figures -------------------------------------------------------------------------------------


def test_thousands_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_style, "DPI", 40)
    folder = make_run(tmp_path / "large", n_singles=200, n_pairs=5000, n_reactions=300, epochs=80)
    page = write_report(folder).read_text()
    assert "n = 4,999" in page  # one label is missing
    assert len(page) < 2_000_000


def test_scatter_panels_share_axes_and_tell_n():
    predictions = make_predictions()
    figure = scatter_figure(predictions, "fitness")
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title().split("\n")[0] for ax in panels] == [
        "hetero_nsa",
        "hetero_conv",
        "mean",
        "product_of_singles",
    ]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in panels}) == 1
    assert panels[0].get_xlim() == panels[0].get_ylim()
    assert panels[0].get_title().endswith("n = 28 deletions")


@pytest.mark.parametrize("n", [1, 5, 2000])
def test_constant_truth_and_constant_predictor(tmp_path, n):
    table = pd.DataFrame({"model": "mean", "fitness": np.ones(n), "fitness_pred": np.full(n, 0.7)})
    save(scatter_figure(table, "fitness"), tmp_path / "x.png")


@pytest.mark.parametrize("n", [20, 2000])
def test_a_wild_prediction_does_not_squash_the_axes(tmp_path, n):
    truth = np.linspace(0, 1, n)
    pred = truth.copy()
    pred[:3] = [1e6, -1e6, np.inf]
    table = pd.DataFrame({"model": "m", "fitness": truth, "fitness_pred": pred})
    figure = scatter_figure(table, "fitness")
    low, high = figure.axes[0].get_xlim()
    assert -1.3 < low < high < 2.3
    assert [t.get_text() for t in figure.axes[0].texts] == ["2 outside"]
    save(figure, tmp_path / "x.png")


def test_no_points_no_figure():
    table = pd.DataFrame({"model": ["m"], "fitness": [np.nan], "fitness_pred": [1.0]})
    assert scatter_figure(table, "fitness") is None
    empty = pd.DataFrame(
        {"model": ["m"], "epoch": [0], "train_loss": [np.nan], "val_loss": [np.inf]}
    )
    assert loss_figure(empty) is None


def test_the_figure_of_metrics_draws_what_is_known():
    rows = [
        ("a", "test", "singles", "fitness", "pearson", 0.5, 0.2, 0.7),
        ("b", "test", "singles", "fitness", "pearson", 0.4, np.nan, np.nan),
        ("c", "test", "singles", "fitness", "pearson", np.nan, np.nan, np.nan),
        ("a", "val", "pairs", "fitness", "pearson", 0.5, 0.2, 0.7),
    ]
    names = ["model", "part", "subset", "target", "metric", "value", "low", "high"]
    table = pd.DataFrame(rows, columns=names)
    (ax,) = metrics_figure(table).axes
    assert ax.get_title().startswith("fitness of single deletions")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "a"]
    lines = [list(line.get_xdata()) for line in ax.lines]
    assert [0.2, 0.7] in lines
    assert [0.5] in lines
    assert [0.4] in lines
    assert metrics_figure(table[table["part"] == "val"]) is None


def test_many_metrics_take_several_rows():
    kinds = [
        ("singles", "fitness", "pearson"),
        ("singles", "lethality", "auroc"),
        ("pairs", "fitness", "pearson"),
        ("interacting pairs", "gene_interaction", "pearson"),
        ("triples", "gene_interaction", "pearson"),
    ]
    names = ["model", "part", "subset", "target", "metric", "value"]
    table = pd.DataFrame([("a", "test", *kind, 0.5) for kind in kinds], columns=names)
    figure = metrics_figure(table)
    assert figure.get_size_inches()[0] < 11  # on a page the letters are hardly smaller than it is
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert len({ax.get_subplotspec().rowspan.start for ax in shown}) == 2
    titles = [" ".join(ax.get_title().split()) for ax in shown]
    assert len(titles) == 5
    assert (
        titles[3] == "interaction of pairs that interact, Pearson"
    )  # the metric is of these alone


def test_loss_over_decades_is_logarithmic():
    t = np.arange(10.0)
    table = pd.DataFrame({"model": "m", "epoch": t, "train_loss": 10.0**-t, "val_loss": np.nan})
    assert loss_figure(table).axes[0].get_yscale() == "log"


def test_neighbourhood_is_connected_and_small():
    attention = make_attention(300)
    near = choose_neighbourhood(attention, [NASTY])
    assert len(near.nodes) == MAX_NODES
    assert near.nodes[0] == ("gene", NASTY)
    assert near.left_out + len(near.nodes) == len(
        set(zip(attention.source_type, attention.source, strict=True))
        | set(zip(attention.target_type, attention.target, strict=True))
    )
    reached, edge_ends = {near.nodes[0]}, []
    for row in near.edges.to_dict("records"):
        edge_ends.append(((row["source_type"], row["source"]), (row["target_type"], row["target"])))
    for _ in near.nodes:
        reached |= {b for a, b in edge_ends if a in reached}
        reached |= {a for a, b in edge_ends if b in reached}
    assert reached == set(near.nodes)


def test_deleted_nodes_are_the_gene_and_its_reactions():
    near = choose_neighbourhood(make_attention(4), [NASTY])
    # Metabolite m0_c has only dead reactions, and lives.
    assert near.deleted == {
        ("gene", NASTY),
        ("reaction", "R0|0|backward"),
        ("reaction", "R0|1|forward"),
    }


def test_a_gene_that_attention_does_not_mention(tmp_path):
    near = choose_neighbourhood(make_attention(30), ["elsewhere"], max_nodes=10)
    assert len(near.nodes) == 10
    save(knockout_figure(near, weight="weight_knockout"), tmp_path / "x.png")


def test_unknown_node_types_are_drawn(tmp_path):
    attention = make_attention(4).replace({"metabolite": "compartment"})
    near = choose_neighbourhood(attention, [NASTY])
    figure = knockout_figure(near, weight="weight_wildtype")
    assert "compartments" in [t.get_text() for t in figure.axes[0].texts]
    save(figure, tmp_path / "x.png")


@pytest.mark.parametrize("last", ["metabolite", "a rather long type of node"])
def test_words_above_short_labels_stay_on_the_drawing(last):
    attention = make_attention(4).replace({"metabolite": last})
    for end in ("source", "target"):
        attention[end] = attention[end].str.removesuffix(
            "_c"
        )  # labels that are shorter than the word
    figure = knockout_figure(choose_neighbourhood(attention, [NASTY]), weight="weight_wildtype")
    for words in figure.axes[0].texts:
        extent = words.get_window_extent(figure.canvas.get_renderer())
        assert 0 < extent.x0 < extent.x1 < figure.bbox.width, words.get_text()


def test_what_a_knockout_stops_is_told(quick):
    facts = json.loads((quick / "run.json").read_text())

    def text(stops):
        facts["knockout"]["stops"] = stops
        (quick / "run.json").write_text(json.dumps(facts))
        return " ".join(write_report(quick).read_text().split())

    many = [f"R{i}" for i in range(15)]
    page = text({"enzymes_lost": ["R0"], "blocked": many})
    assert "1 reaction (R0 (citrate &lt;synthase&gt;)) lost the last enzyme." in page
    assert "15 reactions (R0 (citrate" in page and "R11 and 3 more) can carry no flux then" in page
    page = text({"enzymes_lost": ["R0", "R<1>"], "blocked": []})
    assert "2 reactions (R0 (citrate &lt;synthase&gt;), R&lt;1&gt;) lost the last enzyme." in page
    assert "lost the last enzyme. No other reaction is blocked by that." in page
    lost = {"enzymes_lost": ["R0"], "blocked": [], "missing": ["m<1>"], "growth": ["growth"]}
    page = text(lost)
    assert (
        "1 metabolite (m&lt;1&gt;) can&#39;t be made from the nutrients any more, and growth needs"
        in page.replace("can't", "can&#39;t")
    )
    page = text(lost | {"missing": ["a", "b"], "growth": []})
    assert "2 metabolites (a, b)" in page and "growth needs" not in page
    for nothing in ({"enzymes_lost": [], "blocked": []}, {}, None):
        assert "What it stops" not in text(nothing)


def test_both_drawings_of_a_knockout_have_the_same_size(run):
    sizes = {
        struct.unpack(">II", (run / "figures" / f"{name}.png").read_bytes()[16:24])
        for name in ("knockout", "knockout_wildtype")
    }
    assert len(sizes) == 1


@pytest.mark.parametrize(
    ("node", "label"),
    [
        (("gene", "b0720"), "gltA (b0720)"),
        (("gene", "b0001"), "b0001"),
        (("reaction", "CS|0|forward"), "CS →"),
        (("reaction", "a|b|2|backward"), "a|b #3 ←"),
        (("reaction", "plain"), "plain"),
        (("metabolite", "x" * 30), "x" * 23 + "…"),
    ],
)
def test_labels(node, label):
    assert node_label(*node, names={"b0720": "gltA"}) == label


def test_pyplot_is_left_alone(run):
    del run
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
