"""A kind that is registered anew after a configuration with it was loaded, as by a notebook's cell that runs again."""

from __future__ import annotations

import pytest
import torch
from pydantic import Field

from pyg_nsa import ConfigError, EdgeKind, EdgeTerm, HeteroNSA, HeteroNSAConv, build_operator
from pyg_nsa.api import Options
from pyg_nsa.load import load_config
from pyg_nsa.registry import Registry

AA = ("a", "r", "a")
CALL = ({"a": torch.randn(4, 3)}, {AA: torch.tensor([[0, 1, 2], [1, 2, 3]])})


class Near(EdgeTerm):
    def __init__(self, options):
        super().__init__()
        self.options = options

    def pairs(self, inputs):
        return inputs.edges_from_index("edge_index")


def cell(registry, **fields):
    """What the cell does: an options class of these fields, and the kind with it."""
    annotations = {name: int for name in fields}
    options = type("NearOptions", (Options,), {"__annotations__": annotations, **fields})
    registry.register(
        EdgeKind(
            name="near",
            options=options,
            build=lambda context, options: Near(options),
            summary="Near.",
            requires=("edge_index",),
            # Reads the options, as a kind may at any time.
            inputs=lambda options: ("edge_index",)[: getattr(options, next(iter(fields)))],
        ),
        replace=True,
    )


def loaded(registry, **options):
    edges = [{"edge_type": list(AA), "kind": "near", "options": options}]
    return load_config({"hidden_channels": 8, "heads": 2, "edges": edges}, registry=registry)


@pytest.fixture
def registry():
    return Registry(allow=["pyg-nsa"])


BUILD = {
    "from_config": lambda config, r: HeteroNSAConv.from_config(config, registry=r).stack,
    "build_operator": lambda c, r: build_operator(c, (["a"], [AA]), 3, r).stack,
    "specs": lambda c, r: HeteroNSA(3, 8, {AA: c.edges[0]}, "M", heads=2, registry=r),
}


@pytest.mark.parametrize("build", BUILD)
def test_what_was_set_stays_and_new_options_have_their_defaults(build, registry):
    cell(registry, k=1, lambda_=Field(default=1, alias="lambda"))
    config = loaded(registry, **{"lambda": 7})
    cell(registry, m=3, k=2, lambda_=Field(default=1, alias="lambda"))
    stack = BUILD[build](config, registry)
    stack(*CALL)
    (options,) = (m.options for m in stack.modules() if isinstance(m, Near))
    assert (options.m, options.k, options.lambda_) == (3, 2, 7)
    assert isinstance(options, registry.edge_kind("near").options)


@pytest.mark.parametrize("build", BUILD)
def test_an_option_that_is_gone_is_told(build, registry):
    cell(registry, k=1)
    config = loaded(registry, k=2)
    cell(registry, m=3)
    with pytest.raises(ConfigError) as caught:
        BUILD[build](config, registry)
    (problem,) = caught.value.problems
    assert problem.path == "edge type ('a', 'r', 'a'): options.k"
    assert problem.message == "unknown key 'k'" and problem.allowed == ("m",)


def test_a_configuration_of_the_same_options_is_left_alone(registry):
    cell(registry, k=1)
    config = loaded(registry, k=2)
    assert HeteroNSAConv.from_config(config, registry=registry).config is config
