"""`pyg-nsa compare` where configurations differ in their data: each gets its own, and all are judged on the same instances."""

import pytest
from cell.tiny import tiny_config

from pyg_nsa.cell.evaluation.compare import datasets
from pyg_nsa.cell.files.tables import TableError

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
