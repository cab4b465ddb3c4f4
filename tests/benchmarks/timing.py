"""Medians of interleaved runs.

Every round runs each contender once, in a new random order, so that a slow minute of the machine falls on all of them
and none always follows the same other. Warm-up runs do not count, gradients are dropped and garbage is collected
between runs, outside of the measured time.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .contenders import Step

#: Seconds of a run from which on it is slow.
_SLOW = 1.0


@dataclass
class Samples:
    """Seconds of each counted run."""

    seconds: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Median and quartiles in milliseconds, and the number of runs."""
        values = sorted(self.seconds)
        low, mid, high = (
            statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        )
        return {"ms": 1e3 * mid, "q1": 1e3 * low, "q3": 1e3 * high, "runs": len(values)}


def timed(function: Callable[[], Any]) -> float:
    """Seconds of one call, without the garbage collector."""
    gc.disable()
    try:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    finally:
        gc.enable()


def interleave(
    functions: Mapping[Any, Callable[[], Any]],
    *,
    rounds: int,
    seconds: float,
    after: Callable[[Any], None] = lambda key: None,
    warm: bool = False,
) -> dict[Any, dict[str, float]]:
    """Medians of functions.

    Args:
        functions: What to time, by any key.
        rounds: Number of rounds at most.
        seconds: Who has been run five times (three times, if a run takes more than a second) is run no more after this time (``rounds``,
            if fewer). Slow ones do not count for the others: dense masks would leave too few rounds to what takes milliseconds.
        after: Called with the key after each run, outside of its time.
        warm: Whether all have been run before; otherwise each gets two runs that do not count.
    """
    samples = {key: Samples() for key in functions}
    order = list(functions)
    shuffle = random.Random(0).shuffle
    for key, function in [] if warm else list(functions.items()) * 2:
        function()
        after(key)
    for number in range(rounds):
        slow = {key for key, sample in samples.items() if number and min(sample.seconds) > _SLOW}
        of_all = sum(sum(sample.seconds) for sample in samples.values())
        of_quick = sum(sum(samples[key].seconds) for key in samples.keys() - slow)
        shuffle(order)
        taking_part = [
            key
            for key in order
            if number < (3 if key in slow else 5)
            or (of_all if key in slow else of_quick) <= seconds
        ]
        if not taking_part:
            break
        gc.collect()
        for key in taking_part:
            samples[key].seconds.append(timed(functions[key]))
            after(key)
    return {key: sample.summary() for key, sample in samples.items()}


def warm_up(step: Step) -> None:
    """Runs that do not count: two, or one if it is slow, where first-time costs matter least."""
    for _ in range(2):
        start = time.perf_counter()
        step.forward()
        if step.trains:
            step.train()
        step.clear()
        if time.perf_counter() - start > 1.5:
            break


def time_steps(
    steps: Mapping[str, Step], *, rounds: int, seconds: float
) -> dict[str, dict[str, dict[str, float]]]:
    """``{contender: {"forward": …, "step": …}}``; ``step`` is forward and backward. All have been warmed up."""
    functions: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, step in steps.items():
        functions[name, "forward"] = step.forward
        if step.trains:
            functions[name, "step"] = step.train
    found = interleave(
        functions,
        rounds=rounds,
        seconds=seconds,
        after=lambda key: steps[key[0]].clear(),
        warm=True,
    )
    out: dict[str, dict[str, dict[str, float]]] = {name: {} for name in steps}
    for (name, what), summary in found.items():
        out[name][what] = summary
    return out
