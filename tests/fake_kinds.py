"""Edge kinds for the configuration tests, none of them first-party."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from pyg_nsa.api import EdgeKind, Operator, Options, PairOptions
from pyg_nsa.registry import Registry


class Inner(Options):
    depth: int = 1
    "How deep."


class WeightOptions(Options):
    edge_attr: str = "weight"
    "The field with the weights."

    clip: float = 8.0
    "Largest absolute value."

    sign: Literal["keep", "abs", "split"] = "keep"
    "What to do with the sign."

    normalize: bool = False
    "Whether to normalize."

    size: int | float | None = None
    "A union."

    inner: Inner = Inner()
    "Nested."

    @field_validator("clip")
    @classmethod
    def _positive(cls, clip: float) -> float:
        if clip <= 0:
            raise ValueError("clip must be above 0; leave it out for no clipping")
        return clip


class TouchyOptions(Options):
    key: str = "a"
    "A key."

    @field_validator("key")
    @classmethod
    def _look_up(cls, key: str) -> str:
        return {"a": "a"}[key]


class NeedyOptions(Options):
    radius: float
    "No default."


def build(context, options):
    return None


def fake_registry() -> Registry:
    registry = Registry(discover=False)
    registry.register(
        EdgeKind(
            name="pairs",
            options=PairOptions,
            build=build,
            summary="Pairs.",
            requires=(("edge_index", "adj_mask"),),
            aliases=("pair_mask",),
        )
    )
    registry.register(
        EdgeKind(
            name="weighted",
            options=WeightOptions,
            build=build,
            summary="Weighted pairs.",
            produces=frozenset({"mask", "bias"}),
            requires=("edge_index",),
            inputs=lambda options: ("edge_index", options.edge_attr),
        )
    )
    registry.register(
        EdgeKind(name="touchy", options=TouchyOptions, build=build, summary="Breaks.")
    )
    registry.register(EdgeKind(name="needy", options=NeedyOptions, build=build, summary="Needs."))
    registry.register(Operator(name="other_conv", build=build, summary="Another."))
    return registry
