"""One call of a copy of the swapped model: whether it gets along with the replacements, and calls them and no old layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from torch import nn

from pyg_nsa.errors import Problem
from pyg_nsa.swapping.added import lacking
from pyg_nsa.swapping.arguments import arguments
from pyg_nsa.swapping.plan import Plan
from pyg_nsa.swapping.problems import SwapError, trial_error
from pyg_nsa.swapping.trial import Call
from pyg_nsa.swapping.twin import twin_of

__all__ = ["rehearse"]


def rehearse(
    model: nn.Module,
    plans: Sequence[Plan],
    built: Sequence[nn.Module],
    calls: Mapping[str, Call],
    data: Any,
) -> set[str]:
    """Calls a copy of the model as it would be after the swap.

    Args:
        model: The model, before the swap; it is not touched, nor is the state of random numbers.
        plans: What is to be done.
        built: The replacements; copies of them are called.
        calls: How the model called its layers.
        data: What the model is called with.

    Returns:
        Paths of the replacements that were called.

    Raises:
        SwapError: An old layer is called, by whatever the model holds it, or a replacement isn't that took a layer's place
            that was called, or the model fails.
    """
    args, kwargs = arguments(model, data)
    called: set[str] = set()
    still_used: set[str] = set()
    failure: Exception | None = None
    with twin_of(model) as twin:
        gone = {plan.layer.path: twin.get_submodule(plan.layer.path) for plan in plans}
        for plan, module in zip(plans, built, strict=True):
            stand_in = _counting(plan, module, calls.get(plan.layer.path), called)
            plan.layer.replace(twin, stand_in)
        twin.eval()
        kept = set(twin.modules())
        for path, layer in gone.items():
            for part in set(layer.modules()) - kept:
                part.register_forward_pre_hook(_refusing(path, still_used), prepend=True)
        try:
            twin(*args, **kwargs)
        except Exception as error:
            failure = error
    problems = [Problem(path, _STILL_USED, "still_used") for path in gone if path in still_used]
    # What lacks a field fails by itself, and its plan says so.
    if failure is not None and not problems and not any(plan.lacks_fields for plan in plans):
        raise trial_error(
            f"the swapped model fails on this data: {type(failure).__name__}: {failure}"
            + "".join(
                f"; {p.layer.path}: {text}"
                for p, m in zip(plans, built, strict=True)
                if (text := lacking(p, m))
            )
        ) from failure
    if failure is None and not problems:
        idle = [path for path in gone if path in calls and path not in called]
        problems = [Problem(path, _NOT_CALLED, "not_called") for path in idle]
    if problems:
        raise SwapError(problems)
    return called


_STILL_USED = (
    "the swapped model goes on with this layer on the data, which something else than the layer's place in the model holds (a closure, a "
    "name of the file); let the model look it up in its place when it calls it"
)
_NOT_CALLED = (
    "the model called this layer on the data, and the swapped model does not call what takes its place; let its forward call the layer "
    "from its place in the model, whatever the rows are"
)


def _counting(plan: Plan, module: nn.Module, call: Call | None, called: set[str]) -> nn.Module:
    """A copy of a replacement that tells of its calls. One whose call lacks fields answers what the layer did."""
    copied = copy.deepcopy(module)
    forward = copied.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        called.add(plan.layer.path)
        return call.out if plan.lacks_fields and call is not None else forward(*args, **kwargs)

    copied.forward = counting
    return copied


def _refusing(path: str, still_used: set[str]) -> Callable[..., NoReturn]:
    def hook(*args: Any) -> NoReturn:
        still_used.add(path)
        raise RuntimeError(f"{path} has been replaced")

    return hook
