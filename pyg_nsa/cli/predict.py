"""``pyg-nsa predict``: what a trained model says of deletions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyg_nsa.cli.train import cache_option

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predict"]

#: A word that ends so is a file, there or not: tables that can be read, and others that people have.
_SUFFIXES = (
    *(".csv", ".tsv", ".tab", ".txt", ".parquet", ".gz", ".bz2"),
    *(".xlsx", ".xls", ".ods", ".json", ".zip"),
)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("genes", nargs=-1, required=True, metavar="GENES...|FILE")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the table to this file (.csv, .tsv or .parquet) instead of printing it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--with-labels/--without-labels",
    default=True,
    show_default=True,
    help="Show known labels beside the predictions, where the cache has them.",
)
@cache_option
def predict(
    checkpoint: Path,
    genes: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    with_labels: bool,
    cache: Path | None,
) -> None:
    """Predict fitness and gene interaction of deletions, with the model in CHECKPOINT (such as RUN/hetero_nsa/best.ckpt).

    GENES are ids of genes to delete, '+' joins those that are deleted together: b0116 b0720+b1136. Or FILE is a table (CSV, TSV
    or Parquet) with such deletions in a column 'genes'.

    Exit status: 0 fine, 1 problems, 2 wrong usage.
    """
    if output is not None:
        _check_output(output)

    from pyg_nsa.cell.data_files import labels_are_gone
    from pyg_nsa.cell.training.prediction import predict_deletions
    from pyg_nsa.cell.training.restore import restore
    from pyg_nsa.cell.training.written_deletions import deletion_table, deletion_words

    is_file = len(genes) == 1 and (Path(genes[0]).is_file() or genes[0].lower().endswith(_SUFFIXES))
    written = deletion_table(genes[0]) if is_file else deletion_words(genes)
    restored = restore(checkpoint, cache)
    deletions = written.deletions(set(restored.module.graph["gene"].node_ids))
    table = predict_deletions(restored, deletions, labels=with_labels, places=written.places)
    if with_labels and restored.labels is None:
        labels = restored.config.data.labels
        gone = labels_are_gone(restored.config)
        why = f"{labels}: no such file" if gone else "the cache has no labels of this cell"
        click.echo(f"note: {why}, so only predictions are shown", err=True)
    for target in restored.module.untrained_targets():
        click.echo(
            f"note: {target} is not predicted: the model was trained without a known label of it, or with weight 0",
            err=True,
        )
    if output is not None:
        _write(table, output)
        click.echo(f"wrote {output} ({len(table):,} deletions)", err=True)
    if as_json:
        click.echo(_as_json(table, deletions))
    elif output is None:
        _print(table, restored.config.data.labels)


def _check_output(file: Path) -> None:
    """Refuses a file that could not be written, before anything is computed."""
    if file.suffix.lower() not in (".csv", ".tsv", ".parquet"):
        raise click.UsageError(f"-o {file}: name the file .csv, .tsv or .parquet")
    if file.suffix.lower() == ".parquet" and not any(map(find_spec, ("pyarrow", "fastparquet"))):
        raise click.UsageError(
            f"-o {file}: Parquet files need the package 'pyarrow': pip install pyarrow. Or name the file .csv or .tsv"
        )
    folder = file.parent
    if not folder.is_dir():
        mend = "that is a file" if folder.exists() else f"make it first (mkdir -p {folder})"
        raise click.UsageError(f"-o {file}: there is no folder {folder}; {mend}")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise click.UsageError(f"-o {file}: it may not be written (permission denied)")


def _write(table: pd.DataFrame, file: Path) -> None:
    from pyg_nsa.cell.files.sealed_file import write_atomically
    from pyg_nsa.cell.files.whole_files import write_csv

    suffix = file.suffix.lower()
    if suffix == ".parquet":
        write_atomically(file, table.to_parquet(None, index=False))
    else:
        write_csv(file, table, "," if suffix == ".csv" else "\t")


def _as_json(table: pd.DataFrame, deletions: Sequence[Sequence[str]]) -> str:
    rows = []
    for row, genes in zip(table.to_dict("records"), deletions, strict=True):
        plain = {k: None if isinstance(v, float) and v != v else v for k, v in row.items()}
        rows.append({**plain, "genes": list(genes)})
    return json.dumps(rows, indent=2, ensure_ascii=False)


def _print(table: pd.DataFrame, labels: str) -> None:
    from pyg_nsa.cli.tables import print_table

    kind = "simulated" if labels.startswith("simulated") else "measured"
    titles = {
        "genes": "deleted",
        "fitness_pred": "fitness, predicted",
        "fitness": f"fitness, {kind}",
        "gene_interaction_pred": "interaction, predicted",
        "gene_interaction": f"interaction, {kind}",
    }
    shown = [name for name in titles if name in table]
    rows = [
        [
            str(row[n]) if n == "genes" else "–" if row[n] != row[n] else f"{row[n]:.4f}"
            for n in shown
        ]
        for row in table.to_dict("records")
    ]
    print_table([titles[name] for name in shown], rows)
