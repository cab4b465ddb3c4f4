"""An operator behind the call and the result of the layer that it replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn.module_dict import ModuleDict

__all__ = ["SwappedConv"]

_SEMANTIC = "return_semantic_attention_weights"


class SwappedConv(nn.Module):
    """Makes an operator with HeteroConv's call answer as the layer did that it replaces.

    ====================  =============================================================================================
    replaced              result
    ====================  =============================================================================================
    ``HeteroConv``        rows of its target node types only (a stack of blocks gives rows of all node types)
    ``HGTConv``           rows of each target node type in ``x_dict``; zeros where no edge type was passed
    ``HANConv``           an entry for each node type in ``x_dict``; ``None`` where the type is no target
    ====================  =============================================================================================

    Args:
        conv: The operator.
        replaced: Name of the class that it replaces.
        targets: Node types that the replaced layer had an output for.
        widths: Size of its output rows per target node type.
        project_from: Size of the operator's output rows where ``widths`` differ between node types; then one linear layer per
            type brings them to their width.
    """

    def __init__(
        self,
        conv: nn.Module,
        replaced: str,
        targets: Sequence[str],
        widths: Mapping[str, int],
        project_from: int | None = None,
    ) -> None:
        super().__init__()
        self.conv = conv
        self.replaced = replaced
        self.targets = tuple(targets)
        self.widths = dict(widths)
        self.projections: ModuleDict | None = None
        if project_from is not None:
            self.projections = ModuleDict({t: nn.Linear(project_from, widths[t]) for t in targets})

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        self.conv.reset_parameters()  # type: ignore[operator]
        if self.projections is not None:
            for module in self.projections.values():
                module.reset_parameters()

    def collect(self, data: Any) -> dict[str, dict[Any, Any]]:
        """The keyword arguments of a call, gathered from a ``HeteroData`` or a batch of them."""
        collected: dict[str, dict[Any, Any]] = self.conv.collect(data)  # type: ignore[operator]
        return collected

    def forward(self, *args_dict: Any, **kwargs_dict: Any) -> dict[str, Tensor | None]:
        """Runs the operator; the call is the replaced layer's.

        Raises:
            ValueError: ``return_semantic_attention_weights=True`` in place of a HANConv: there are no such weights.
        """
        if self.replaced == "HANConv":
            args_dict = without_semantic(args_dict, kwargs_dict)
            kwargs_dict.pop(_SEMANTIC, None)
        rows: dict[str, Tensor] = self.conv(*args_dict, **kwargs_dict)
        rows = {t: h for t, h in rows.items() if t in self.targets}
        if self.projections is not None:
            rows = {t: self.projections[t](h) for t, h in rows.items()}
        if self.replaced == "HeteroConv":
            return dict(rows)
        x_dict: Mapping[str, Tensor] = args_dict[0] if args_dict else kwargs_dict["x_dict"]
        out: dict[str, Tensor | None] = {}
        for node_type, x in x_dict.items():
            if self.replaced == "HANConv":
                out[node_type] = rows.get(node_type)
            elif node_type in rows:
                out[node_type] = rows[node_type]
            elif node_type in self.targets:
                out[node_type] = x.new_zeros(*x.shape[:-1], self.widths[node_type])
        return out

    def extra_repr(self) -> str:
        """What it stands for."""
        return f"in place of {self.replaced}"


def without_semantic(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """HANConv's positional arguments less the flag that asks for semantic attention weights.

    Raises:
        ValueError: The flag is set.
    """
    if any(args[2:]) or kwargs.get(_SEMANTIC):
        raise ValueError(
            f"{_SEMANTIC}=True was HANConv's; the operator in its place has no semantic attention over edge types (their "
            "messages are grouped by aggr), so there are no such weights to return: remove the argument from the call"
        )
    return args[:2]
