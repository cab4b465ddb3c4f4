"""The hooks that a plugin may implement: the whole contract between pyg_nsa and a plugin.

A hook returns declarations and does no work. An implementation is a function of the same name, marked with
`pyg_nsa.api.hookimpl`, in the module (or the class, or the object) that the plugin's entry point names. Arguments may be left out
by an implementation that does not use them; new versions of pyg_nsa only ever add some.

See `pyg_nsa.api` for the declarations, and for a whole plugin to start from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from pyg_nsa.api import EdgeKind, Operator

if TYPE_CHECKING:
    import torch

    from pyg_nsa.config import EdgeSpec

__all__ = ["pyg_nsa_edge_kinds", "pyg_nsa_operators", "pyg_nsa_spec_from_module"]

hookspec = pluggy.HookspecMarker("pyg_nsa")


@hookspec
def pyg_nsa_edge_kinds() -> Iterable[EdgeKind]:  # type: ignore[empty-body]
    """Returns the edge kinds that this plugin provides.

    Every one of them has an entry point of its own name; several may lead to the same module.
    """


@hookspec
def pyg_nsa_operators() -> Iterable[Operator]:  # type: ignore[empty-body]
    """Returns the convolution operators that this plugin provides, each with an entry point of its own name."""


@hookspec(firstresult=True)
def pyg_nsa_spec_from_module(
    module: torch.nn.Module, edge_type: tuple[str, str, str]
) -> EdgeSpec | None:
    """Translates a PyG convolution of one relation into an edge spec.

    It serves those who move an existing model over. The first plugin with an answer is heard.

    Args:
        module: A convolution instance, as it stands in a `HeteroConv`.
        edge_type: The relation that it convolves.

    Returns:
        The spec, or None if this plugin does not know such a module.
    """
    return None
