"""PyG's convolutions by the names of their classes: which may be named, with which arguments, and how they are made."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch_geometric.nn.conv as pyg_convs
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import InitErrorDetails, PydanticCustomError
from torch import nn
from torch_geometric.nn import MessagePassing

__all__ = [
    "check_args",
    "check_conv",
    "check_fields",
    "conv_names",
    "make_conv",
    "named_as",
    "needed_fields",
    "why_not_between",
]

#: What a conv may need of its edges; anything else of the data is not the relation's own.
_EDGE_FIELDS = ("edge_attr", "edge_weight", "edge_type")
_SIZES = ("in_channels", "out_channels")
_NOT_FIELDS = ("x", "edge_index", "size", "return_attention_weights")


@functools.cache
def conv_names() -> tuple[str, ...]:
    """The names that may be used, sorted."""
    return tuple(sorted(n for n in pyg_convs.__all__ if _why_not(n) is None))


def check_conv(name: str, edge_type: tuple[str, str, str] | None = None) -> str:
    """Checks the name of a class.

    Raises:
        PydanticCustomError: There is no such class, or it can't be the conv of one relation, or not of this one.
    """
    if name in conv_names():
        why = None if edge_type is None else why_not_between(name, edge_type)
        if why is not None:
            raise PydanticCustomError("needs_one_node_type", "{why}", {"why": why})
        return name
    if name in pyg_convs.__all__:
        why = f"{name} cannot be named here: {_why_not(name)}; pass the module itself in Python, or take another conv"
    elif "." in name or ":" in name:
        why = f"{name!r} looks like a Python path; name a class of torch_geometric.nn.conv, such as 'SAGEConv'"
    else:
        why = f"torch_geometric.nn.conv has no {name!r}"
        near = _nearest(name, conv_names())
        why += f", did you mean {near!r}?" if near else f"; it has {', '.join(conv_names())}"
    raise PydanticCustomError("unknown_conv", "{why}", {"why": why})


def check_args(name: str, args: Mapping[str, Any]) -> None:
    """Checks the arguments of a constructor, last of all by making the conv once.

    Raises:
        pydantic.ValidationError: All arguments that are unknown, reserved, missing or of a wrong type, or what the
            constructor says.
    """
    parameters = _constructor(name)
    found = []
    for key, value in args.items():
        why = None
        if key in _SIZES:
            why = f"'{key}' follows from the model (hidden_channels, out_channels); remove it"
        elif key not in parameters:
            near = _nearest(key, parameters)
            why = f"{name} has no argument '{key}'"
            why += f", did you mean '{near}'?" if near else ""
            why += f"; it has {', '.join(k for k in parameters if k not in _SIZES)}"
        else:
            why = _wrong_type(name, parameters[key], value)
        if why is not None:
            found.append(_error(why, (key,), value))
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in (*args, *_SIZES):
            found.append(_error(f"{name} needs argument '{key}'", (key,), None))
    if not found:
        found = _refusal(name, args)
    if found:
        raise ValidationError.from_exception_data(name, found)


def check_fields(name: str, args: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    """Checks the fields that a conv is to get.

    Raises:
        pydantic.ValidationError: A field that its forward has no argument for, or no use for.
    """
    known = [p for p in _forward(name) if p not in _NOT_FIELDS]
    found = []
    for place, field in enumerate(fields):
        if field not in known:
            near = _nearest(field, known)
            why = f"{name} takes no '{field}'"
            why += (
                f", did you mean '{near}'?" if near else f"; it takes {', '.join(known) or 'none'}"
            )
            found.append(_error(why, (place,), field))
        elif field == "edge_attr" and "edge_dim" in _constructor(name) and not args.get("edge_dim"):
            why = f"{name} takes 'edge_attr' only with edge_dim, its number of columns; add it to args"
            found.append(_error(why, (place,), field))
    if found:
        raise ValidationError.from_exception_data(name, found)


def needed_fields(name: str, args: Mapping[str, Any], fields: tuple[str, ...]) -> tuple[str, ...]:
    """The fields that the conv gets beside the edges: those that were named, and those that it can't do without."""
    forward, constructor = _forward(name), _required(_constructor(name))
    needed = [p for p in _required(forward) if p in _EDGE_FIELDS]
    # Optional in the signature, but not in fact: relations by number, and kernels over dim coordinates.
    for argument, field in (("num_relations", "edge_type"), ("dim", "edge_attr")):
        if argument in constructor and field in forward:
            needed.append(field)
    if args.get("edge_dim") and "edge_attr" in forward:
        needed.append("edge_attr")
    return tuple(dict.fromkeys((*fields, *needed)))


def make_conv(
    name: str,
    args: Mapping[str, Any],
    edge_type: tuple[str, str, str],
    in_channels: tuple[int, int],
    out_channels: int,
    heads: int,
) -> nn.Module:
    """Makes a conv for one relation.

    Args:
        name: One of :func:`conv_names`.
        args: Arguments of its constructor beside the sizes.
        edge_type: The relation.
        in_channels: Sizes of source and target rows; ``-1`` is taken from the first call.
        out_channels: Size of the message, all concatenated heads together.
        heads: Heads of a conv that concatenates them, if ``args`` says nothing.

    Raises:
        ValueError: A conv of one node type between two, heads that don't divide, or what the constructor says.
    """
    parameters = _constructor(name)
    source, _, target = edge_type
    made: dict[str, Any] = dict(args)
    if "in_channels" in parameters:
        if _takes_two(name):
            made["in_channels"] = in_channels
        elif source == target:
            made["in_channels"] = in_channels[1]
    why = why_not_between(name, edge_type)
    if why is not None:
        raise ValueError(f"edge type {edge_type}: {why}")
    made["out_channels"] = out_channels
    if {"heads", "concat"} <= set(parameters):
        made.setdefault("heads", heads)
        if made["heads"] < 1:
            raise ValueError(f"edge type {edge_type}: heads={made['heads']}, expected at least 1")
        if made.get("concat", parameters["concat"].default):
            if out_channels % made["heads"]:
                raise ValueError(
                    f"edge type {edge_type}: the {made['heads']} concatenated heads of {name} do not divide "
                    f"out_channels={out_channels}; change 'heads' or set concat: false"
                )
            made["out_channels"] = out_channels // made["heads"]
    if "add_self_loops" in parameters and source != target:
        made.setdefault("add_self_loops", False)
    try:
        conv: nn.Module = getattr(pyg_convs, name)(**made)
    except Exception as error:
        raise ValueError(f"edge type {edge_type}: {name} cannot be made: {error}") from error
    return conv


def why_not_between(name: str, edge_type: tuple[str, str, str]) -> str | None:
    """Why a conv can't be that of this relation, if it works within one node type alone."""
    source, _, target = edge_type
    if source == target or _takes_two(name):
        return None
    return (
        f"{name} works within one node type, but this relation goes from '{source}' to '{target}'; take a conv for two, such as "
        "SAGEConv, GATv2Conv or TransformerConv"
    )


def named_as(module: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """The name and the arguments that make a conv like this one; None if it cannot be named.

    Arguments are read off the attributes of the same names, as PyG's convs keep them; one that a class does not keep, such as
    SAGEConv's bias, is taken for its default. Defaults are left out, except the number of heads, which would be the model's.
    """
    name = type(module).__name__
    if name not in conv_names() or getattr(pyg_convs, name) is not type(module):
        return None
    args: dict[str, Any] = {}
    for key, parameter in _constructor(name).items():
        value = getattr(module, key, parameter.default)
        if key == "bias" and hasattr(module, key):
            value = value is not None
        elif key == "aggr":
            value = {"add": "sum"}.get(value, value)
        if key in _SIZES or not isinstance(value, bool | int | float | str):
            continue
        if value != parameter.default or key == "heads":
            args[key] = value
    try:
        check_args(name, args)
    except ValidationError:  # an attribute that is not what the argument of its name was
        return None
    return name, args


# --- what the classes say of themselves -------------------------------------------------------------------------------------------


@functools.cache
def _constructor(name: str) -> dict[str, inspect.Parameter]:
    """The arguments of the constructor, those that it hands on to MessagePassing included."""
    own = dict(inspect.signature(getattr(pyg_convs, name)).parameters)
    hands_on = any(p.kind is p.VAR_KEYWORD for p in own.values())
    named = {n: p for n, p in own.items() if p.kind is not p.VAR_KEYWORD}
    if hands_on:
        base = inspect.signature(MessagePassing).parameters
        # flow and node_dim would turn the meaning of the edges or of x around.
        named = {**{n: base[n] for n in ("aggr", "aggr_kwargs")}, **named}
    return named


@functools.cache
def _forward(name: str) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(getattr(pyg_convs, name).forward).parameters)
    parameters.pop("self", None)
    return parameters


def _nearest(word: str, choices: Iterable[str]) -> str | None:
    plain = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), plain, n=1)
    return plain[found[0]] if found else None


def _required(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    return [n for n, p in parameters.items() if p.default is p.empty]


def _takes_two(name: str) -> bool:
    parameter = _constructor(name).get("in_channels")
    return parameter is not None and "tuple" in str(parameter.annotation).lower()


def _why_not(name: str) -> str | None:
    """Why a class of ``torch_geometric.nn.conv`` can't be made from names and numbers for one relation."""
    kind = getattr(pyg_convs, name)
    if not issubclass(kind, MessagePassing) or kind is MessagePassing:
        return "it is no convolution of its own"
    forward, constructor = _forward(name), _constructor(name)
    more = [n for n in _required(forward) if n not in ("x", "edge_index", *_EDGE_FIELDS)]
    if not {"x", "edge_index"} <= set(forward) or more:
        return f"its forward is called with {', '.join(_required(forward))}"
    modules = [n for n in _required(constructor) if _is_callable(constructor[n].annotation)]
    if modules:
        return f"its argument '{modules[0]}' is a module or a tensor, which a configuration cannot hold"
    if "out_channels" not in constructor:
        return "the size of its rows is that of its input and cannot be chosen"
    if (
        str(inspect.signature(kind.forward).return_annotation)
        .lower()
        .startswith(("typing.tuple", "tuple"))
    ):
        return "it returns more than rows"
    return None


def _is_callable(annotation: Any) -> bool:
    if isinstance(annotation, type):
        return issubclass(annotation, nn.Module | torch.Tensor)
    return "Callable" in str(annotation)


def _wrong_type(name: str, parameter: inspect.Parameter, value: Any) -> str | None:
    if parameter.annotation is parameter.empty:
        return None
    try:
        TypeAdapter(
            parameter.annotation, config=ConfigDict(arbitrary_types_allowed=True)
        ).validate_python(value, strict=True)
    except ValidationError:
        shown = str(parameter.annotation).replace("typing.", "")
        if isinstance(parameter.annotation, type):
            shown = parameter.annotation.__name__
        return f"'{parameter.name}' of {name} must be of type {shown}, got {value!r}"
    except (PydanticUserError, NameError, TypeError):  # an annotation that says nothing to pydantic
        return None
    return None


def _refusal(name: str, args: Mapping[str, Any]) -> list[InitErrorDetails]:
    """What the constructor itself says, with sizes that any number of heads divides."""
    heads = args.get("heads", 1)
    size = 64 * heads if isinstance(heads, int) and heads > 0 else 64
    try:
        with torch.random.fork_rng(devices=[]):
            conv = make_conv(name, args, ("a", "to", "a"), (size, size), size, 1)
            columns = None if needed_fields(name, args, ()) else _columns(conv, size)
    except Exception as error:
        cause = error.__cause__ or error
        text = str(cause).strip().splitlines()
        why = f"{name} refuses these arguments: {text[0] if text else type(cause).__name__}"
        return [_error(why, (), dict(args))]
    if columns not in (None, size):
        why = f"{name} with these arguments gives rows of {columns} columns where out_channels is {size}"
        return [_error(why, (), dict(args))]
    return []


def _columns(conv: nn.Module, size: int) -> int | None:
    """The columns of a conv's rows, or ``None`` where a ring of four nodes is no input for it."""
    nodes = torch.arange(4)
    edge_index = torch.stack([nodes, nodes.roll(1)])
    try:
        with torch.no_grad():
            return conv(torch.randn(4, size), edge_index).size(-1)
    except Exception:
        return None


def _error(why: str, loc: tuple[int | str, ...], value: Any) -> InitErrorDetails:
    return InitErrorDetails(
        type=PydanticCustomError("conv_argument", "{why}", {"why": why}), loc=loc, input=value
    )
