"""Dropout that fades to zero while a model is trained.

Under dropout a network is fitted to noisy inputs, and answers are drawn towards the mean: a lethal deletion is not quite lethal, and one
without effect costs a little, for training and held-out genes alike. Without dropout it learns genes by heart. Early dropout and a
late phase without it have both ("annealed dropout", Rennie, Goel & Thomas, *SLT* 2014).
"""

from __future__ import annotations

from torch import nn

__all__ = ["DropoutFade"]


class DropoutFade:
    """Scales all dropouts of a model.

    What is a module's ``dropout`` (a number, or a list of numbers as in PyG's :class:`~torch_geometric.nn.MLP`), or the ``p`` of one of
    torch's dropout layers, is a dropout; so are those of convs from plugins.

    Args:
        model: The model; its dropouts are changed by :meth:`scale`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._found: list[tuple[nn.Module, str, float | list[float]]] = []
        for module in model.modules():
            name = "p" if isinstance(module, nn.modules.dropout._DropoutNd) else "dropout"
            value = getattr(module, name, None)
            if isinstance(value, float):
                self._found.append((module, name, value))
            elif isinstance(value, list) and all(isinstance(p, float) for p in value):
                self._found.append((module, name, list(value)))

    def scale(self, share: float) -> None:
        """Sets every dropout to a share of what it was when this object was made.

        Args:
            share: From 0 (none) to 1 (as it was).
        """
        for module, name, value in self._found:
            scaled = [p * share for p in value] if isinstance(value, list) else value * share
            setattr(module, name, scaled)
