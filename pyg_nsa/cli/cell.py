"""``pyg-nsa cell``: metabolic models and their labels, without training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pyg_nsa.cli.tables import print_table

__all__ = ["cell"]

_SHOWN = 5


@click.group()
def cell() -> None:
    """Look at metabolic models, and simulate labels."""


def _tables(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    tables: dict[str, str] = {}
    for value in values:
        name, equals, file = value.partition("=")
        if not (name and equals and file):
            raise click.BadParameter(
                f"expected NAME=FILE, such as physical=pairs.tsv, got {value!r}"
            )
        if name in tables:
            raise click.BadParameter(f"the name {name!r} stands twice")
        tables[name] = file
    return tables


@cell.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, all ids included.")
@click.option(
    "--gene-table",
    "gene_tables",
    metavar="NAME=FILE",
    multiple=True,
    callback=_tables,
    help="A gene-gene relation: CSV, TSV or Parquet. May be given several times.",
)
@click.option(
    "--proxies/--no-proxies",
    default=None,
    help="Whether to add the relations that the model itself gives (default: only without --gene-table).",
)
@click.option(
    "--features", is_flag=True, help="Compute node features too (seconds for large models)."
)
def info(
    model: str, as_json: bool, gene_tables: dict[str, str], proxies: bool | None, features: bool
) -> None:
    """Print whether MODEL grows, and its graph: nodes, edges, fields, bytes, and what was left out.

    MODEL is the name of a model that cobra ships (textbook, iJO1366, salmonella) or a file (SBML, JSON, YAML, MATLAB, also .gz
    or .bz2).
    """
    from pyg_nsa.cell.network.metabolic_model import load_model, model_file
    from pyg_nsa.cell.network.model_info import model_info

    file = model_file(model)
    found = model_info(load_model(model), gene_tables, proxies=proxies, features=features)
    found["model"]["file"] = str(file)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    _print(found, features)


@cell.command()
@click.argument("model")
@click.option(
    "--deletions",
    type=click.Choice(["singles", "pairs", "triples"]),
    default="pairs",
    show_default=True,
    help="How many genes are deleted at most; triples: of interacting genes.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that solve LPs.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where labels are kept (default: PYG_NSA_CACHE or ~/.cache/pyg_nsa); training looks there.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write a table: .csv or .tsv.",
)
@click.option("--no-progress", is_flag=True, help="Do not draw progress bars.")
def labels(
    model: str,
    deletions: Any,
    workers: int,
    cache: Path | None,
    output: Path | None,
    no_progress: bool,
) -> None:
    """Simulate growth of MODEL after gene deletions, by exact flux-balance analysis.

    What was solved is kept: an interrupted simulation goes on where it was.
    """
    if output is not None and output.suffix not in (".csv", ".tsv"):
        raise click.BadParameter(
            f"{output}: expected a name ending in .csv or .tsv", param_hint="--output"
        )

    from pyg_nsa.cell.files.cache import cache_folder, naming_the_cache
    from pyg_nsa.cell.files.whole_files import write_csv
    from pyg_nsa.cell.labels.simulated import simulate_labels, simulated_label_file
    from pyg_nsa.cell.network.metabolic_model import as_network, load_model

    network = as_network(load_model(model))
    folder = (cache or cache_folder()) / "processed"
    with naming_the_cache(folder.parent):
        table = simulate_labels(
            network, folder, deletions=deletions, workers=workers, progress=not no_progress
        )
    for size, name in ((1, "single"), (2, "pair"), (3, "triple")):
        chosen = table.sizes == size
        if chosen.any():
            many = int((table.interacting & chosen).sum())
            interacting = f", {many:,} of them interacting" if size > 1 else ""
            click.echo(f"{int(chosen.sum()):,} {name} deletions{interacting}")
    click.echo(f"kept in {simulated_label_file(network, folder, deletions)}")
    if output is not None:
        write_csv(output, table.to_frame(), "\t" if output.suffix == ".tsv" else ",")
        click.echo(f"wrote {output}")


# ---- printing --------------------------------------------------------------------------------------------------------


def _print(found: dict[str, Any], features: bool) -> None:
    from pyg_nsa.cell.network.sizes import readable

    click.echo(f"{found['model']['id']} ({found['model']['file']})")
    for line in _growth_lines(found["growth"]):
        click.echo(line)
    nodes = [
        (name, f"{of['count']:,}", _described(of["fields"])) for name, of in found["nodes"].items()
    ]
    print_table(("node type", "nodes", "fields"), nodes)
    edges = [
        (" ".join(of["edge_type"]), f"{of['count']:,}", _described(of["fields"]))
        for of in found["edges"]
    ]
    print_table(("edge type", "edges", "fields"), edges)
    size = found["bytes"]
    click.echo(
        f"base graph: {readable(size['graph'])}{'' if features else ' without node features (--features)'}, stored once\n"
        f"instance of two deleted genes: {size['instance']} bytes; as dense boolean masks it would be "
        f"{readable(size['dense_masks'])}"
    )
    click.echo("left out, or without connection:")
    texts = {
        "blocked_reactions": "reactions blocked by their bounds, which keep one node",
        "reactions_without_genes": "reactions without genes, whose nodes no deletion removes",
        "genes_without_reactions": "genes without reactions, nodes without gpr edges",
        "metabolites_without_reactions": "metabolites without reactions, nodes without rmr edges",
        "unjoined_metabolites": "metabolites of more than 20 reactions, which producer_consumer leaves out",
    }
    lines = [
        f"{texts[name]}: {len(ids):,} ({_some(ids, ', ')})"
        for name, ids in found["left_out"].items()
        if ids
    ]
    for name, table in found["gene_tables"].items():
        if table["unknown_rows"]:
            lines.append(
                f"rows of {name} with ids that the model lacks: {len(table['unknown_rows']):,} of {table['rows']:,} "
                f"({_some(table['unknown_rows'], '; ')})"
            )
        if table["repeated_rows"]:
            lines.append(
                f"rows of {name} that repeat a pair: {len(table['repeated_rows']):,} of {table['rows']:,} "
                f"({_some(table['repeated_rows'], '; ')})"
            )
    for line in lines or ["nothing"]:
        click.echo(f"  {line}")


def _growth_lines(found: dict[str, Any]) -> list[str]:
    verb = "minimises" if found["objective"]["direction"] == "min" else "maximises"
    parts = [
        reaction if value == 1 else f"{value:g} {reaction}"
        for reaction, value in found["objective"]["reactions"].items()
    ]
    growth = found["growth"]
    uptakes = [
        f"{of['reaction']} {'without limit' if of['limit'] is None else format(of['limit'], 'g')}"
        for of in found["uptakes"]
    ]
    rate = f"{growth:.4g} (1/h for biomass)" if growth is not None else found["growth_problem"]
    some = f" ({_some(uptakes, ', ')})" if uptakes else ""
    return [
        f"objective: {verb} {_some(parts, ' + ')}" if parts else "objective: none",
        f"growth of the wildtype: {rate}",
        f"open uptakes, and their limits: {len(uptakes):,}{some}",
    ]


def _described(fields: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {of['dtype']}[{', '.join(map(str, of['shape']))}]" for name, of in fields.items()
    )


def _some(texts: list[str], separator: str) -> str:
    more = f"{separator}… {len(texts) - _SHOWN:,} more (--json)" if len(texts) > _SHOWN else ""
    return separator.join(texts[:_SHOWN]) + more
