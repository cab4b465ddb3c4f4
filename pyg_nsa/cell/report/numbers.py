"""Numbers and dates as a report writes them."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np

__all__ = ["count", "duration", "maybe", "metric_value", "moment", "plain"]


def count(n: Any) -> str:
    """A whole number with thousands apart."""
    return f"{float(n):,.0f}" if isinstance(n, int | float | np.number) else str(n)


def moment(when: Any) -> str:
    """A date for readers; what is not ISO 8601 stays as it is."""
    try:
        moment = datetime.datetime.fromisoformat(str(when))
    except ValueError:
        return str(when)
    return f"{moment.day} {moment:%B %Y, %H:%M}"


def duration(seconds: Any) -> str:
    """A time in a unit that suits it."""
    if not isinstance(seconds, int | float):
        return str(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def metric_value(metric: str, value: float) -> str:
    """A metric: three decimals, or three digits of a squared error."""
    if metric == "mse":
        return plain(value)
    return f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")


_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def plain(value: float) -> str:
    """Three digits; small and large numbers with a power of ten."""
    if not math.isfinite(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e4:
        digits, power = f"{value:.2e}".split("e")
        return f"{digits}×10{str(int(power)).translate(_SUPERSCRIPT)}".replace("-", "−")
    return f"{value:#.3g}".rstrip(".").replace("-", "−") if value else "0"


def maybe(value: Any) -> str:
    """Two decimals, or a dash."""
    return (
        f"{value:.2f}".replace("-", "−")
        if isinstance(value, int | float) and math.isfinite(value)
        else "–"
    )
