"""What a training run is, as frozen pydantic models: one YAML file says everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pyg_nsa.cell.data_names import SHIPPED_MODELS, SIMULATED, FeatureName
from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.config.validation import kept
from pyg_nsa.scalars import StrictScalars

__all__ = [
    "Aggregation",
    "BaselineName",
    "CellConfig",
    "CheckpointEvery",
    "DataConfig",
    "ReadoutConfig",
    "TrainingConfig",
]

BaselineName = Literal[
    "mean", "product_of_singles", "scope", "hetero_conv", "hgt", "no_messages", "embedding"
]

Aggregation = Literal[
    "sum",
    "add",
    "mean",
    "max",
    "min",
    "mul",
    "var",
    "std",
    "median",
    "softmax",
    "power_mean",
    "deep_sets",
    "variance_preserving",
]
"""PyG's aggregations that need no arguments; spelled out, since asking PyG would import torch."""


class _Config(StrictScalars):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )


def _numbers(values: Any, count: int, expected: str) -> Any:
    """Says so where a list is too short or too long; pydantic would speak of `fractions[2]` as of a key that is missing."""
    if isinstance(values, list | tuple) and len(values) != count:
        raise ValueError(f"expected {expected}, got {list(values)}")
    return values


class DataConfig(_Config):
    """The cell, its labels, and how they are split."""

    model: str = "iJO1366"
    """A metabolic model that cobra ships (textbook, iJO1366, salmonella), or the path of an SBML, JSON, YAML or MAT file, also
    compressed (.gz, .bz2)."""

    labels: str = "simulated"
    """Where the labels come from: simulated (exact FBA, single and double deletions), simulated-singles, simulated-triples
    (also triples of interacting genes), or the path of a table of measurements."""

    label_workers: Annotated[int, Field(ge=1)] = 1
    """Processes that simulate labels; they change no result."""

    unknown_labels: Literal["error", "skip"] = "error"
    """Rows of a table of measurements with genes that the graph lacks: error, or skip them with a warning."""

    interacting_above: Annotated[float, Field(ge=0)] | None = None
    """Pairs with a larger |gene_interaction| count as interacting, in splits, sampling and metrics; null: 0.001, for exact labels. Choose it
    above the noise of measured ones (0.08 for yeast in Costanzo et al. 2016)."""

    gene_tables: dict[str, str] = Field(default={})
    """Gene-gene relations by name: CSV, TSV or Parquet files with two columns of gene ids."""

    unknown_genes: Literal["error", "skip", "add"] = "error"
    """Genes in gene_tables that the model lacks: error, skip their pairs with a warning, or add the genes to the graph."""

    proxies: bool | None = None
    """Whether to add the gene-gene relations that the model itself gives; null: only without gene_tables."""

    features: bool | list[FeatureName] = True
    """Node features that the wildtype gives: true, false, or their names."""

    embeddings: bool = True
    """Whether each node also gets a learned embedding; where operator.num_nodes is given, the node types that it names do."""

    split: Literal["gene", "pair", "both"] = "gene"
    """What validation and testing hold out: gene (genes, with all their pairs), pair (pairs of genes that are known by
    themselves), or both."""

    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of the genes (or pairs) for training, validation and testing."""

    rates: tuple[float, float, float] = (0.3, 0.5, 0.2)
    """Shares of single deletions, interacting pairs and random pairs in training; they need not sum to 1."""

    evaluation_pairs: Annotated[int, Field(ge=0)] = 1000
    """How many pairs of a held-out part are evaluated, half of them interacting, and as many triples; 0: all. With split both: as
    many with a held-out gene, and as many of known genes."""

    @field_validator("fractions", "rates", mode="before")
    @classmethod
    def _three(cls, shares: Any) -> Any:
        return _numbers(shares, 3, "three numbers, such as [0.7, 0.1, 0.2]")

    @field_validator("rates")
    @classmethod
    def _something_to_draw(cls, rates: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(rates) < 0 or not sum(rates) > 0:
            raise ValueError(
                f"three numbers of at least 0 (singles, interacting pairs, random pairs), not all 0; got {list(rates)}"
            )
        return rates


class ReadoutConfig(_Config):
    """From nodes to one vector per cell."""

    aggregations: list[Aggregation] = Field(default=["sum"], min_length=1)
    """PyG aggregations by name, concatenated."""

    node_types: Annotated[list[str], Field(min_length=1)] | None = None
    """Node types that are read out; null means all."""

    hidden_channels: int | None = Field(default=None, ge=1)
    """Width of the head (and of the deletion reading); null means that of the operator."""

    copies: bool = True
    """Whether the operator also runs on each perturbed copy of the graph, and z_w - z_i is read. Without copies it runs on the
    wildtype alone, once a batch, so that batches may be many times larger in the same time; needs deletion."""

    difference: Literal["pooled", "nodes"] = "pooled"
    """What is subtracted where copies are read: pooled (the pooled rows of the copy from those of the wildtype), or nodes (its rows
    from the wildtype's, node by node; the differences of the nodes that the copy keeps are pooled). Needs copies."""

    deletion: bool = False
    """Whether the nodes that a deletion removes, and those that lose neighbours, are read from the wildtype's rows."""

    blocked: bool = True
    """Whether the deletion reading also reads the reactions that a deletion blocks: those of which a substrate is made, or a product
    used, by no other reaction any more. They follow from the network's connections alone."""

    starved: bool = True
    """Whether the deletion reading also reads what a deletion starves: reactions and metabolites that can't be reached from the
    nutrients any more. They follow from the network's connections alone."""

    loans: bool = True
    """Whether the deletion reading also reads what a deletion leaves without means even on credit: reactions and metabolites that
    can't be reached from the nutrients any more if each reaction may borrow what one of its products pays back. They follow from
    the network's connections and amounts."""

    response: bool = False
    """Whether the deletion reading also reads what is left of growth if fluxes change as little as they can (MOMA without bounds, in
    closed form). It follows from the network and the wildtype's fluxes; needs deletion, and flux in data.features."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout in the head, and of the operator's rows where deletions are read (node features, which are read beside them, stay).
    The operator's own is operator.dropout: it acts in every block, and wants to be smaller."""

    epistasis: bool = False
    """Whether gene_interaction is what is left of predicted fitness (of all deleted genes together, less the product of each
    alone), beside what the head says; needs deletion, and copies: false."""

    @model_validator(mode="after")
    def _something(self) -> ReadoutConfig:
        if not (self.copies or self.deletion):
            raise ValueError("nothing is read: set readout.deletion or readout.copies to true")
        if self.difference == "nodes" and not self.copies:
            raise ValueError(
                "readout.difference: nodes subtracts the rows of perturbed copies: set readout.copies: true"
            )
        if self.epistasis and (self.copies or not self.deletion):
            raise ValueError(
                "readout.epistasis reads each gene alone: set readout.deletion: true and readout.copies: false"
            )
        if self.response and not self.deletion:
            raise ValueError(
                "readout.response is a part of the deletion reading: set readout.deletion: true"
            )
        return self


class CheckpointEvery(_Config):
    """When a checkpoint is written within an epoch, whichever comes first; one is written after every epoch."""

    minutes: float | None = Field(default=5.0, gt=0)
    """Minutes since the last one; null: not by time."""

    steps: int | None = Field(default=None, ge=1)
    """Steps since the last one; null: not by steps."""


class TrainingConfig(_Config):
    """How the model is trained."""

    epochs: int = Field(default=20, ge=1)
    """Epochs at most."""

    max_minutes: float | None = Field(default=None, gt=0)
    """Stop after this time, at the end of a batch; null: no limit. With a limit the learning rate follows the clock too, so that
    no two runs are the same; without one, runs on a CPU with the same seed are the same bit for bit, resumed ones too."""

    instances_per_epoch: int = Field(default=1024, ge=1)
    """Instances drawn for each epoch."""

    batch_size: int = Field(default=16, ge=1)
    """Instances in a batch, of all processes together: their number changes no result, to rounding."""

    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of AdamW; warm-up, then a cosine to zero over the epochs (or the time) given."""

    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay of AdamW."""

    dropout_fade: tuple[float, float] | None = None
    """Shares of the training between which all dropout (operator.dropout, readout.dropout) fades to zero, linearly; null: it stays to
    the end. Predictions are closer to certain ones then, such as lethal deletions."""

    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""

    interaction_weight: float = Field(default=1.0, ge=0)
    """Weight of gene_interaction in the loss, beside fitness."""

    patience: int | None = Field(default=None, ge=1)
    """Stop when the validation loss has not improved for this many epochs; null: never."""

    keep: Literal["best", "last"] = "best"
    """The epoch whose parameters are kept in best.ckpt, and judged: best (lowest validation loss), or last (the learning rate
    has come down to zero there; a small validation part can't tell epochs apart)."""

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Precision of Lightning's trainer."""

    checkpoint_every: CheckpointEvery = CheckpointEvery()
    """When a checkpoint is written within an epoch: what a killed training loses at most."""

    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Processes on each machine, one for each GPU; auto: what a launcher (torchrun, SLURM) started there, one without a
    launcher."""

    num_nodes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Machines; auto: what the launcher says, one without a launcher."""

    strategy: Literal["auto", "ddp"] = "auto"
    """How processes work together: ddp, each on its share of every batch; auto: ddp where there are several."""

    @field_validator("dropout_fade", mode="before")
    @classmethod
    def _two(cls, shares: Any) -> Any:
        return _numbers(shares, 2, "two numbers, such as [0.3, 0.9]")

    @field_validator("dropout_fade")
    @classmethod
    def _in_order(cls, shares: tuple[float, float] | None) -> tuple[float, float] | None:
        if shares is not None and not 0 <= shares[0] < shares[1] <= 1:
            raise ValueError(
                f"two ascending shares of the training, from 0 to 1, such as [0.3, 0.9]; got {list(shares)}"
            )
        return shares

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last one may be smaller."""
        return -(-self.instances_per_epoch // self.batch_size)


class CellConfig(_Config):
    """A training run of the perturbed-cell application."""

    version: Literal[1] = 1
    """The version of this format."""

    title: str = "Perturbed cell"
    """Title of the report."""

    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of the split, the sampling and the initialisation."""

    data: DataConfig = DataConfig()
    """The cell, its labels, and how they are split."""

    operator: HeteroNSAConfig
    """The operator: which edge types there are, and how nodes attend to each other along them."""

    node_order: Literal["natural", "rcm", "packed"] = "packed"
    """Order of the nodes inside of the operator: natural (of the graph), rcm (reverse Cuthill-McKee), or packed (fewest tiles
    of 128 x 128 that hold a pair). It changes the time of a step on a GPU, and no result beyond rounding; files and tables
    keep the graph's own order."""

    readout: ReadoutConfig = ReadoutConfig()
    """From nodes to one vector per cell."""

    training: TrainingConfig = TrainingConfig()
    """How the model is trained."""

    baselines: list[BaselineName] = Field(default=["mean", "product_of_singles"])
    """What the model is compared with, on the same split: mean, product_of_singles and scope (no growth where the deletion cuts
    it off from the nutrients, else growth as before) compute; hetero_conv (GATv2 layers in HeteroConv), hgt, no_messages (the
    same readout of projected features) and embedding (a learned vector per gene, no graph) are trained as the model is."""

    @field_validator("operator", mode="wrap")
    @classmethod
    def _stack(cls, operator: Any, handler: ValidatorFunctionWrapHandler) -> HeteroNSAConfig:
        error = PydanticCustomError(
            "pattern",
            "the pattern is null (one bare step); the cell model needs a stack, such as MSM",
        )
        null = InitErrorDetails(type=error, loc=("pattern",), input=None)
        is_bare = isinstance(operator, Mapping) and operator.get("pattern", "") is None
        try:
            checked: HeteroNSAConfig = handler(operator)
        except ValidationError as refused:
            if not is_bare:
                raise
            # What a bare step cannot have goes with a stack.
            rest = [kept(e) for e in refused.errors() if e["type"] != "needs_a_stack"]
            raise ValidationError.from_exception_data(cls.__name__, [null, *rest]) from None
        if checked.pattern is None:
            raise ValidationError.from_exception_data(cls.__name__, [null])
        return checked

    @field_validator("baselines")
    @classmethod
    def _unique(cls, names: list[BaselineName]) -> list[BaselineName]:
        if len(set(names)) != len(names):
            raise ValueError("a baseline stands twice in the list")
        return names

    @model_validator(mode="after")
    def _fractions(self) -> CellConfig:
        if abs(sum(self.data.fractions) - 1) > 1e-6 or min(self.data.fractions) <= 0:
            raise ValueError(
                f"data.fractions must be three positive numbers that sum to 1, got {self.data.fractions}"
            )
        return self

    @model_validator(mode="after")
    def _fluxes(self) -> CellConfig:
        features = self.data.features
        known = features if isinstance(features, bool) else "flux" in features
        if self.readout.response and not known:
            raise ValueError(
                "readout.response reads the wildtype's fluxes: put flux into data.features, or set readout.response: false"
            )
        return self

    def relative_to(self, folder: Path) -> CellConfig:
        """The same configuration with absolute file names, taken from ``folder`` (that of the configuration file).

        Names of shipped models and of simulated labels stay, whatever lies there: ``./textbook`` is a file, ``textbook`` is none.
        """

        def resolve(name: str) -> str:
            # Absolute also where nothing is: else a file of that name in the working folder would be taken. And a checkpoint and
            # a run's folder outlive the folder that somebody worked in.
            home = name.startswith("~/")
            return str((Path(name).expanduser() if home else folder / name).absolute())

        return self.with_files(resolve)

    def with_files(self, rename: Callable[[str], str]) -> CellConfig:
        """The same configuration with what ``rename`` makes of every value that names a file of data."""
        data = self.data
        update: dict[str, Any] = {
            "gene_tables": {k: rename(v) for k, v in data.gene_tables.items()}
        }
        if data.model not in SHIPPED_MODELS:
            update["model"] = rename(data.model)
        if data.labels not in SIMULATED:
            update["labels"] = rename(data.labels)
        return self.model_copy(update={"data": data.model_copy(update=update)})
