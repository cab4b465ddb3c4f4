"""Who takes part in a comparison: the models of its configurations, and the baselines that these name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data_files import by_content
from pyg_nsa.cell.models.baselines import BASELINES
from pyg_nsa.cell.training.checkpoint import relevant
from pyg_nsa.cell.training.experiment import Builder, builders
from pyg_nsa.plain_values import plain_values

__all__ = ["CompareError", "Contender", "computed_names", "contenders_of"]

_SHARED = (
    "model",
    "labels",
    "split",
    "fractions",
    "evaluation_pairs",
)  # what makes a split, in `data`


class CompareError(ValueError):
    """Configurations that can't be compared."""


@dataclass(frozen=True)
class Contender:
    """A model that takes part.

    Attributes:
        name: What it is called in tables.
        config: Its configuration, on the terms of the comparison.
        model: Its name in checkpoints: that of an operator or baseline.
        build: What builds it.
        parameters: How many it has; 0 until :func:`~pyg_nsa.cell.evaluation.compare.plan` has counted.
        data: What graph, labels and split are, as a hash.
    """

    name: str
    config: CellConfig
    model: str
    build: Builder
    parameters: int = 0
    data: str = ""

    @property
    def key(self) -> str:
        """Name of its folder, with a hash of all that its result depends on."""
        config = plain_values(by_content(self.config), exclude={"node_order"})
        return self._named([self.model, self.data, relevant(config)])

    @property
    def earlier_key(self) -> str:
        """What :attr:`key` was in versions up to 0.1.0, which hashed where files lie, and settings that change no result."""
        unread = {"title", "baselines", "node_order"}
        # Not `plain_values`: those versions hashed pydantic's own dump.
        config = self.config.model_dump(mode="json", exclude=unread)
        return self._named([self.model, self.data, config])

    def _named(self, content: list[Any]) -> str:
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.name}-{digest}"


def contenders_of(configs: Mapping[str, CellConfig]) -> list[Contender]:
    """Who is compared: each configuration; with a single one also the baselines that it names and that are trained.

    Args:
        configs: Configurations by name. The first sets the terms.

    Raises:
        CompareError: None, configurations with different splits, or one that is called like a baseline that is computed.
    """
    if not configs:
        raise CompareError("nothing to compare: give at least one configuration")
    (first_name, first), *others = configs.items()
    for name, config in others:
        said, wanted = by_content(config).data, by_content(first).data
        for field in _SHARED:
            if getattr(said, field) != getattr(wanted, field):
                mine, theirs = getattr(config.data, field), getattr(first.data, field)
                raise CompareError(
                    f"{name}: data.{field} is {mine!r}, but {theirs!r} in {first_name}; models are compared on one split, so "
                    "make them equal"
                )
        if config.seed != first.seed:
            raise CompareError(
                f"{name}: seed is {config.seed}, but {first.seed} in {first_name}; it makes the split, so make them equal"
            )
    if len(configs) > 1:
        _check_names(configs)
        return [
            Contender(name, config, *next(iter(builders(config).items())))
            for name, config in configs.items()
        ]
    return [Contender(name, first, name, build) for name, build in builders(first).items()]


def computed_names(configs: Mapping[str, CellConfig]) -> list[str]:
    """The baselines that need no training and that a configuration names."""
    named = dict.fromkeys(b for config in configs.values() for b in config.baselines)
    return [name for name in named if name in BASELINES]


def _check_names(configs: Mapping[str, CellConfig]) -> None:
    """Tables and figures tell models apart by their names."""
    for name in computed_names(configs):
        if name in configs:
            by = next(n for n, config in configs.items() if name in config.baselines)
            raise CompareError(
                f"a configuration is called {name!r}, as is a baseline that takes part (baselines in {by}), and names tell the "
                f"models of a comparison apart: rename the file, or leave {name} out of all baselines (--set 'baselines=[]')"
            )
