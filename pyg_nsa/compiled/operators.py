"""Functions of tensors with a gradient of their own: a node of the graph under ``torch.compile``, an autograd function otherwise.

Compiled graphs need a custom operator. Called from Python it takes some 50 microseconds for each pass besides what it computes, which is
as long as a layer takes on a small graph; an autograd function takes a fifth of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pyg_nsa.compiled.first_order import first_order

__all__ = ["differentiable", "operator"]


def operator(name: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Registers a function that writes to none of its arguments.

    Args:
        name: ``namespace::name``.
        function: Computes; its annotations are the operator's.
        fake: Gives outputs of the same shapes and dtypes without computing.
    """
    registered = torch.library.custom_op(name, function, mutates_args=())
    registered.register_fake(fake)
    return registered


def differentiable(
    forward: tuple[Any, Callable[..., Any]],
    backward: tuple[Any, Callable[..., Any]],
    setup_context: Callable[..., None],
    gradients: Callable[..., Any],
) -> Callable[..., Any]:
    """A function that computes ``forward`` and has a gradient. Of the gradient there is none: torch raises an error.

    Args:
        forward: Its operator, and the function behind that.
        backward: The same of what computes gradients.
        setup_context: ``(ctx, inputs, output)`` keeps what the gradient needs.
        gradients: ``(backward, ctx, *grads)``, the gradients of all inputs.
    """
    compiled, plain = forward
    of_compiled, of_plain = backward
    compiled.register_autograd(
        lambda ctx, *grads: gradients(of_compiled, ctx, *grads), setup_context=setup_context
    )

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = plain(*inputs)
            setup_context(ctx, inputs, output)
            return output

        @staticmethod
        @first_order
        def backward(ctx: Any, *grads: Any) -> Any:
            return gradients(of_plain, ctx, *grads)

    def call(*inputs: Any) -> Any:
        if torch.compiler.is_compiling():
            return compiled(*inputs)
        return Function.apply(*inputs)

    return call
