"""The submodule that writes into a state dict what a module was made from, and compares it when one is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_nsa.checkpoint import CHILD, ENTRY, MadeOf, made_of, read_entry, with_config
from pyg_nsa.checkpoint_problems import changed_options, differences
from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.errors import CheckpointMismatchError
from pyg_nsa.nn.grouping import Aggr
from pyg_nsa.registry import Registry, default_registry

__all__ = ["MadeFrom", "describe_config", "describe_relations"]


class MadeFrom(nn.Module):
    """What the module around it was made from. It has no parameters, and nobody calls it.

    Its extra state is the entry ``made_from._extra_state`` of the state dict, ``[bytes]`` uint8: JSON, see
    :mod:`pyg_nsa.checkpoint`. A state dict without the entry loads as it always did.

    Args:
        described: What it says.
    """

    def __init__(self, described: MadeOf) -> None:
        super().__init__()
        self.described = described

    @property
    def described(self) -> MadeOf:
        """What it says."""
        return MadeOf.from_json(self._text)

    @described.setter
    def described(self, described: MadeOf) -> None:
        self._text = described.to_json()  # once: a training writes many checkpoints

    def get_extra_state(self) -> Tensor:
        """The entry of the state dict."""
        return torch.frombuffer(bytearray(self._text.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compares an entry of a state dict with what this module was made from.

        Raises:
            CheckpointMismatchError: They differ, with all differences.

        Warns:
            UserWarning: Options of kinds, or ``aggr``, differ alone.
        """
        self._compare(state, ENTRY)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # Not torch's own: it calls a missing entry a missing key, and older state dicts have none.
        key = f"{prefix}_extra_state"
        if key in state_dict:
            self._compare(state_dict[key], key)

    def _compare(self, state: Tensor, key: str) -> None:
        if isinstance(state, Tensor) and state.is_meta:
            return  # Shapes without values.
        if isinstance(state, Tensor) and state.cpu().equal(self.get_extra_state()):
            return
        before, now = read_entry(state), self.described
        found = differences(before, now)
        if found:
            raise CheckpointMismatchError(found, key)
        if changed := changed_options(before, now):
            module = key.removesuffix(ENTRY).rstrip(".")
            lines = "".join(f"\n    {line}" for line in changed)
            warnings.warn(
                f"{module + ': ' if module else ''}the parameters fit, but may give other results, since options differ:{lines}\n"
                "Build the module with the checkpoint's options, unless the change is meant.",
                UserWarning,
                stacklevel=2,
            )

    def extra_repr(self) -> str:
        """The kinds."""
        return ", ".join(part.name for part in self.described.parts)


def describe_relations(
    module: nn.Module,
    relations: Mapping[tuple[str, str, str], nn.Module | EdgeSpec],
    registry: Registry | None,
    heads: int,
    aggr: Aggr,
) -> None:
    """Lets a module say in its state dict what its relations are; nothing if none of them is declared."""
    if any(isinstance(relation, EdgeSpec) for relation in relations.values()):
        grouping = type(aggr).__name__ if isinstance(aggr, nn.Module) else str(aggr)
        _attach(module, made_of(relations, registry or default_registry(), heads, grouping))


def describe_config(module: nn.Module, config: HeteroNSAConfig, registry: Registry) -> None:
    """Lets a module say in its state dict which configuration it was built from.

    Args:
        module: What an operator built; what it says of itself already is completed.
        config: The configuration.
        registry: Where its operator and kinds are from.
    """
    if not isinstance(module, nn.Module):
        return
    for holder in (module, getattr(module, "stack", None)):
        own = getattr(holder, CHILD, None)
        if isinstance(own, MadeFrom):
            own.described = with_config(own.described, config, registry)
            return
    described = made_of(config.edges, registry, config.heads, str(config.aggr))
    _attach(module, with_config(described, config, registry))


def _attach(module: nn.Module, described: MadeOf) -> None:
    if hasattr(module, CHILD):  # A plugin's module that has a use of its own for the name.
        return
    module.add_module(CHILD, MadeFrom(described))
    # In front of all others: what does not fit is told before a parameter is written to.
    for name in [name for name in module._modules if name != CHILD]:
        module._modules[name] = module._modules.pop(name)
