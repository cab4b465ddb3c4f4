"""``pyg-nsa report``: a run's report, written anew from its folder."""

from __future__ import annotations

from pathlib import Path

import click

from pyg_nsa.cli.train import cache_option

__all__ = ["report"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--knockout",
    metavar="GENES",
    help="Draw this knockout: a gene, or several joined by '+'. It is computed with the run's best checkpoint.",
)
@cache_option
def report(run: Path, knockout: str | None, cache: Path | None) -> None:
    """Write report.html and the figures of the folder RUN anew, without training.

    Exit status: 0 fine, 1 problems, 2 wrong usage.
    """
    from pyg_nsa.cell.report.page import write_report

    if knockout is not None:
        from pyg_nsa.cell.report.knockout import write_chosen_knockout
        from pyg_nsa.cell.training.written_deletions import deletion_words

        write_chosen_knockout(run, deletion_words([knockout]), cache)
    click.echo(f"report: {write_report(run)}")
