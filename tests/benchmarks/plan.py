"""What many more instances would take: bytes and hours, counted from what was measured."""

from __future__ import annotations

from typing import Any

from .tables import table

#: The plan's number of instances.
INSTANCES = 10**8
#: Of a shard.
SHARD = 10**6
HOUR = 3600.0


def plan_table(results: dict[str, Any], instances: int = INSTANCES) -> str:
    """Markdown of the plan.

    Args:
        results: What ``processes`` measured, labels included.
        instances: How many there shall be.
    """
    return table(
        ("what", "counted from", "for " + f"{instances:,} instances"),
        [(row["what"], row["from"], row["value"]) for row in plan(results, instances)],
        left=3,
    )


def plan(results: dict[str, Any], instances: int = INSTANCES) -> list[dict[str, str]]:
    """Rows of the plan: what, what it is counted from, and the value."""
    labels, training = results["labels"], results["training"]
    size = labels["bytes_per_instance"]
    per_instance = labels["core_seconds"] / labels["instances"]
    per_lp = labels["core_seconds"] / labels["lps"]
    step = training["core_seconds"]
    alive = training["nodes"] * training["batch_size"]
    return [
        {
            "what": "genes and labels",
            "from": f"{size:.0f} bytes per instance",
            "value": f"{instances * size / 1e9:,.1f} GB in {-(-instances // SHARD):,} shards of {SHARD * size / 1e6:,.0f} MB",
        },
        {
            "what": "masks of a batch, made when it is asked for",
            "from": f"{training['nodes']:,} nodes, {training['batch_size']} instances",
            "value": f"{alive / 1e6:,.2f} MB, never stored",
        },
        {
            "what": "gradients that each process sends in a step",
            "from": f"{training['parameters']:,} parameters in float32, ring all-reduce",
            "value": f"{2 * 4 * training['parameters'] / 1e6:,.1f} MB",
        },
        {
            "what": "labels, if new instances share LPs as all pairs do",
            "from": f"{1e6 * per_instance:,.0f} µs of a core per instance ({labels['lps']:,} LPs for {labels['instances']:,})",
            "value": f"{instances * per_instance / HOUR:,.1f} core hours",
        },
        {
            "what": "labels, if every instance needs an LP of its own",
            "from": f"{1e3 * per_lp:,.0f} ms of a core per LP, all else that labels need included",
            "value": f"{instances * per_lp / HOUR:,.0f} core hours",
        },
        {
            "what": "one pass of training on CPUs",
            "from": f"{1e3 * step:,.1f} ms of a core per instance, in one process",
            "value": f"{instances * step / HOUR:,.0f} core hours",
        },
        {
            "what": "one pass of training on GPUs",
            "from": "`make bench-gpu`",
            "value": "not measured yet",
        },
    ]
