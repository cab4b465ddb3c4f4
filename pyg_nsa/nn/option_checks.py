"""Options of layers that are made in Python, which would fail later, or not at all, without their name."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, get_args

from pyg_nsa.errors import nearest
from pyg_nsa.nn.numbering import Numbering
from pyg_nsa.scalars import is_whole

__all__ = [
    "check_at_least_one",
    "check_fraction",
    "check_num_nodes",
    "check_numbering",
    "check_real",
]


def check_at_least_one(name: str, value: Any) -> None:
    """Whether an option is a whole number from 1 on.

    Raises:
        TypeError: No whole number.
        ValueError: Below 1.
    """
    if not is_whole(value):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def check_real(name: str, value: Any) -> None:
    """Whether an option is a number.

    Raises:
        TypeError: It is not; text and truth values are none.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_fraction(name: str, value: Any) -> None:
    """Whether an option is a probability.

    Raises:
        TypeError: No number.
        ValueError: Not from 0 to 1.
    """
    check_real(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a probability, from 0 to 1, got {value}")


def check_num_nodes(num_nodes: Any) -> None:
    """Whether ``num_nodes`` says a number of nodes by node type.

    Raises:
        TypeError: No mapping, or a value that is no whole number.
        ValueError: A number below 1.
    """
    if not isinstance(num_nodes, Mapping):
        raise TypeError(
            "num_nodes is the number of nodes of the base graph by node type, such as num_nodes={'gene': 20}; got "
            f"{num_nodes!r}"
        )
    for node_type, number in num_nodes.items():
        check_at_least_one(f"num_nodes[{node_type!r}]", number)


def check_numbering(numbering: Any) -> None:
    """Whether it is one of the numberings that there are.

    Raises:
        ValueError: It is not.
    """
    names = get_args(Numbering)
    if numbering in names:
        return
    near = nearest(numbering, names) if isinstance(numbering, str) else None
    hint = f"; did you mean {near!r}?" if near else ""
    raise ValueError(f"numbering must be one of {', '.join(names)}; got {numbering!r}{hint}")
