"""Attention weights of a model's calls, relation by relation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import HeteroConv

from pyg_nsa.nn.hetero_inputs import EdgeType
from pyg_nsa.nn.nsa_conv import NSAConv
from pyg_nsa.nn.relation_attention import RelationAttention

__all__ = ["AttentionMap", "attention_maps"]


@dataclass(frozen=True)
class AttentionMap:
    """Attention weights of one layer, in one call, along one relation.

    Attributes:
        layer: Path of the layer in the model.
        edge_type: The relation; ``None`` for a layer that stands in no heterogeneous one.
        edge_index: ``[2, P]`` int64, source and target of each pair, as rows of the call's ``x``. An edge that occurs twice is one
            pair, and a kind may add pairs.
        weights: ``[P, heads]``, of each target's pairs they sum to one; ``[B, P, heads]`` for B copies of one base graph.
    """

    layer: str
    edge_type: EdgeType | None
    edge_index: Tensor
    weights: Tensor


@contextmanager
def attention_maps(model: nn.Module) -> Iterator[list[AttentionMap]]:
    """Keeps the attention weights of all calls inside of the ``with`` block.

    .. code-block:: python

        with attention_maps(model) as maps:
            model(x_dict, edge_index_dict)
        for found in maps:
            print(found.layer, found.edge_type, found.weights.mean(dim=-1).topk(3))

    Attention itself never holds weights; here they are computed beside it from the same rows, one number for each pair and head,
    without gradients. Self-attention (S blocks), whose weights would be a dense matrix, is left out.

    Args:
        model: A module with :class:`~pyg_nsa.HeteroNSAConv`, :class:`~pyg_nsa.HeteroNSA` or :class:`~pyg_nsa.NSAConv` in it, or one
            of them.

    Yields:
        A list that every layer adds to as it is called. Calls of a compiled model add nothing (and a warning says so): call the model that
        was given to ``torch.compile``, or after ``model.compile()`` its ``forward``. Activation checkpointing, which calls layers
        again in the backward pass, adds nothing there.

    Raises:
        ValueError: The model has no such layer.
    """
    maps: list[AttentionMap] = []
    handles = []
    edge_types: dict[nn.Module, EdgeType] = {}
    for module in model.modules():
        if isinstance(module, HeteroConv):
            edge_types |= {conv: edge_type for edge_type, conv in module.convs.items()}
    inner = set()
    for path, module in model.named_modules():
        if isinstance(module, RelationAttention):
            orders: list[Tensor | None] = [None, None]
            handles.append(module.register_forward_pre_hook(_orders_to(orders)))
            look = _weights_to(maps, path, module.edge_type, orders)
            handles.append(module.conv.register_forward_pre_hook(look, with_kwargs=True))
            inner.add(module.conv)
        elif isinstance(module, NSAConv) and module not in inner:
            look = _weights_to(maps, path, edge_types.get(module), [None, None])
            handles.append(module.register_forward_pre_hook(look, with_kwargs=True))
    if not handles:
        raise ValueError(
            f"{type(model).__name__} has no layer with attention along edges (NSAConv, or a declared edge kind of HeteroNSAConv)"
        )
    try:
        yield maps
        if not maps:
            warnings.warn(
                f"attention_maps: no layer of {type(model).__name__} was called inside of the with block, or it was compiled: torch.compile "
                "leaves out what looks at layers. Call the model that was given to torch.compile, not what it returned (after "
                "model.compile(): model.forward(…))",
                stacklevel=3,
            )
    finally:
        for handle in handles:
            handle.remove()


def _orders_to(orders: list[Tensor | None]) -> Callable[..., None]:
    """A hook that keeps in which order the rows of sources and targets are, inside of a stack that was given one."""

    def look(relation: Any, args: tuple[Any, ...]) -> None:
        source, _, target = relation.edge_type
        orders[:] = [args[1].layout(t).order for t in (source, target)]

    return look


def _weights_to(
    maps: list[AttentionMap], path: str, edge_type: EdgeType | None, orders: list[Tensor | None]
) -> Callable[..., None]:
    def look(conv: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # What a compiled graph holds stays in it after the block, and one that was compiled before has nothing to call.
        if torch.compiler.is_compiling() or _is_in_backward_pass():
            return
        named = {k: v for k, v in kwargs.items() if k != "return_attention_weights"}
        with torch.no_grad():
            index, weights = conv.attention_weights(*args[:3], **named)
        ends = [
            end if order is None else order[end] for end, order in zip(index, orders, strict=True)
        ]
        maps.append(AttentionMap(path, edge_type, torch.stack(ends), weights))

    return look


def _is_in_backward_pass() -> bool:
    """Whether autograd runs this: then activation checkpointing calls what was called before."""
    return torch._C._current_graph_task_id() != -1
