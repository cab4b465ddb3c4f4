"""What is wrong with the arguments of a call, or goes wrong in a plugin while it is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pages.error_case import Case, raised
from pyg_nsa import EdgeKind, EdgeSet, EdgeTerm, HeteroNSAConv, RelationInputs
from pyg_nsa.registry import Registry

__all__ = ["CALLS"]

REGULATES, GPR = ("gene", "regulates", "gene"), ("gene", "gpr", "reaction")


def called(
    kinds: dict[Any, str] | None = None, options: dict[str, Any] | None = None, **changes: Any
) -> Callable[[Path], BaseException]:
    """Calls a stack with other arguments than the right ones."""

    def provoke(folder: Path) -> BaseException:
        declared = kinds or {REGULATES: "adjacency_mask", GPR: "incidence_mask"}
        conv = HeteroNSAConv(declared, pattern="MS", hidden_channels=8, **(options or {}))
        call = {
            "x_dict": {"gene": torch.zeros(3, 2), "reaction": torch.zeros(2, 2)},
            "edge_index_dict": {
                REGULATES: torch.tensor([[0, 1], [1, 2]]),
                GPR: torch.tensor([[0, 2], [0, 1]]),
            },
        }
        return raised(lambda: conv(**call | changes))

    return provoke


class Nearness(EdgeTerm):
    """A bias of one column, whatever the number of heads."""

    def pairs(self, inputs: RelationInputs) -> EdgeSet:
        return inputs.edges_from_index("edge_index")

    def bias(self, inputs: RelationInputs, edges: EdgeSet) -> Tensor:
        return inputs.edge_attr("distance").view(-1, 1)


def of_plugin(distance: Any) -> Callable[[Path], BaseException]:
    """Calls a layer whose kind is not first-party."""

    def provoke(folder: Path) -> BaseException:
        registry = Registry(allow=["pyg-nsa"], disable=(), strict=False)
        registry.register(
            EdgeKind(
                name="near",
                summary="Bias by distance.",
                produces={"mask", "bias"},
                build=lambda context, options: Nearness(),
            )
        )
        return called({REGULATES: "near"}, {"registry": registry}, distance_dict=distance)(folder)

    return provoke


CALLS = [
    Case(
        "x_dict",
        "Features without an axis of columns.",
        called(x_dict={"gene": torch.zeros(3), "reaction": torch.zeros(2, 2)}),
        "give each node a row.",
        "ValueError",
    ),
    Case(
        "edge_attr_dict",
        "Something else than a dictionary, such as `None`. HeteroConv does not take it either.",
        called(edge_attr_dict=None),
        "leave the argument out.",
        "TypeError",
    ),
    Case(
        "edge_index_dict",
        "No edge type of the call is one that was declared.",
        called(edge_index_dict={("gene", "regulate", "gene"): torch.tensor([[0], [1]])}),
        "name edge types in the data as in the declaration.",
        "ValueError",
    ),
    Case(
        "edge_index",
        "An edge goes to a node that is not there.",
        called(edge_index_dict={GPR: torch.tensor([[0, 0], [1, 2]])}),
        "put sources above targets, and number the nodes of each type from 0 on.",
        "ValueError",
    ),
    Case(
        "stoichiometry_dict",
        "A kind reads a field that the call does not pass. The last line says which kind; errors in `pairs` and `bias` have it.",
        called({GPR: "stoichiometry_bias"}),
        "pass it; `conv.collect(data)` passes all that the declared kinds read.",
        "ValueError",
    ),
    Case(
        "mask_dict",
        "A mask that is not boolean; other masks (`pert_mask_dict`, `adj_mask_dict`, `inc_mask_dict`) likewise.",
        called(mask_dict={"gene": torch.ones(3)}),
        "convert it as the text says.",
        "TypeError",
    ),
    Case(
        "n_id_dict",
        "Learned embeddings are wanted of a part of the graph, and nothing says which nodes it has.",
        called(options={"num_nodes": {"gene": 7}}),
        "pass `n_id_dict`; or set `num_nodes` to the number of rows, if the graph is whole.",
        "ValueError",
    ),
    Case(
        "bias",
        "A plugin's bias does not fit its pairs; `pairs` that returns no `EdgeSet` is refused likewise.",
        of_plugin({REGULATES: torch.zeros(2)}),
        "tell the plugin's author; `pyg_nsa.testing` finds it.",
        "ValueError",
    ),
]
