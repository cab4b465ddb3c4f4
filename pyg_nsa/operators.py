"""Convolution operators by name: from one configuration to the module that it chooses.

One line of a configuration, `operator: hetero_nsa`, says which operator computes the messages. All of them are called as PyG's
`HeteroConv` is and give rows of the same node types and sizes, so that a model can be compared with its baselines without a change
of its code. What each does with the rest of the configuration, its plugin says; see `pyg_nsa.api.Operator` for the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_nsa.api import OperatorContext
from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.config.fit import misfits
from pyg_nsa.errors import ConfigError, nearest
from pyg_nsa.load import load_config
from pyg_nsa.plain_values import plain_values
from pyg_nsa.registry import Registry
from pyg_nsa.unfit_return import unfit_build

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build_operator"]


def build_operator(
    config: HeteroNSAConfig | Mapping[str, Any] | str | Path,
    metadata: Any,
    channels: int | Mapping[str, int] | None = None,
    registry: Registry | None = None,
) -> nn.Module:
    """Builds the operator that a configuration names.

    ```python
    conv = build_operator("model.yaml", data, channels=-1)
    out_dict = conv(**conv.collect(data))
    ```

    Args:
        config: A configuration, a mapping, or the path of a YAML, JSON or TOML file.
        metadata: The graph that the operator is for: a `HeteroData`, or `(node_types, edge_types)`. The configuration has to fit it
            (`HeteroNSAConfig.bind`).
        channels: Columns of `x`: one number, or one for each node type; -1 takes them from the first call. In place of the
            configuration's `in_channels`; None leaves those.
        registry: Where the operator and edge kinds are looked up; the default registry if not given.

    Returns:
        A module with the call of `HeteroConv`, `conv(x_dict, edge_index_dict, **{name}_dict)`, and rows of `out_channels` columns
        (or else `hidden_channels`) for each node type that an edge type leads to; with a `pattern`, for all node types.

    Raises:
        ConfigError: The configuration is not valid or does not fit the graph; with all problems.
        UnknownOperatorError: No plugin provides the operator.
        ValueError: `channels` names a node type that the graph lacks, or the operator cannot do what the configuration asks for.
        UnfitReturnError: The operator's plugin did not return a module.
    """
    if not isinstance(config, HeteroNSAConfig):
        config = load_config(config, registry=registry)
    registry = config.registry(registry)
    operator = registry.operator(config.operator)
    # It imports torch, as the module that is built does.
    from pyg_nsa.nn.declared import current_config

    config = current_config(config, registry)
    if isinstance(metadata, list | tuple):
        if len(metadata) != 2:
            raise TypeError(
                f"metadata must be a HeteroData or (node_types, edge_types), got {len(metadata)} entries"
            )
        metadata = (list(metadata[0]), [tuple(edge_type) for edge_type in metadata[1]])
    problems = misfits(config, metadata, registry, columns=channels is None, features=False)
    if problems:
        raise ConfigError(problems)
    node_types = metadata[0] if isinstance(metadata, tuple) else metadata.metadata()[0]
    edge_types = tuple(spec.edge_type for spec in config.edges)
    ends = dict.fromkeys(name for source, _, target in edge_types for name in (source, target))
    if channels is not None:
        _check_channels(channels, node_types)
        given = channels
        if not isinstance(channels, int):  # those of the whole graph may have been passed
            given = {name: columns for name, columns in channels.items() if name in ends}
        config = config.model_copy(update={"in_channels": given})
    options = config.operator_options
    if not isinstance(options, operator.options):
        # Validated by a registry without the operator (see HeteroNSAConfig.operator), or before it was registered anew.
        options = operator.options.model_validate(plain_values(options, exclude_unset=True))
    dims = {}
    if not isinstance(metadata, tuple):
        from pyg_nsa.edge_attr_dims import edge_attr_dims  # torch is there once there is a graph

        dims = edge_attr_dims(config, metadata, registry)
    module = operator.build(
        OperatorContext(
            config=config,
            node_types=tuple(node_types),
            edge_types=edge_types,
            in_channels={name: _columns(config.in_channels, name) for name in ends},
            edge_attr_dims=dims,
            registry=registry,
        ),
        options,
    )
    if not callable(getattr(module, "forward", None)):
        raise unfit_build(
            f"operator {config.operator!r} of {registry.provider(config.operator)}",
            module,
            "torch.nn.Module",
        )
    from pyg_nsa.nn.made_from import describe_config

    describe_config(module, config, registry)
    return module


def _check_channels(channels: int | Mapping[str, int], node_types: list[str]) -> None:
    by_type = channels if isinstance(channels, Mapping) else {None: channels}
    for name, columns in by_type.items():
        if name is not None and name not in node_types:
            near = nearest(name, node_types)
            hint = f"did you mean {near!r}? " if near else ""
            raise ValueError(
                f"channels names node type {name!r}, which the graph does not have; {hint}It has {', '.join(node_types)}"
            )
        if not isinstance(columns, int) or isinstance(columns, bool) or columns < -1:
            place = "" if name is None else f" for node type {name!r}"
            raise ValueError(
                f"channels must be a whole number from -1 on, or one for each node type, got {columns!r}{place}"
            )


def _columns(in_channels: int | Mapping[str, int], node_type: str) -> int:
    return in_channels if isinstance(in_channels, int) else in_channels.get(node_type, -1)
