"""What a checkpoint says of itself, and whether it belongs to what it is used for.

Beside Lightning's own state a checkpoint holds ``pyg_nsa_config``, the whole configuration, and ``pyg_nsa``: the model's
name, the seed, fingerprints of the graph, of the training instances and of all labels, node features, the version that wrote it,
and whether training has finished. All of it are plain values and tensors, so that ``torch.load`` reads it with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

import pyg_nsa
from pyg_nsa.cell.config import BaselineName, CellConfig
from pyg_nsa.cell.data.splits import Split
from pyg_nsa.cell.labels.table import LabelTable
from pyg_nsa.errors import path_text
from pyg_nsa.plain_values import plain_values

__all__ = [
    "CheckpointError",
    "check_fits",
    "check_same",
    "differences",
    "feature_changes",
    "graph_fingerprint",
    "identity",
    "labels_fingerprint",
    "read_checkpoint",
    "relevant",
    "training_fingerprint",
    "written_by",
]

_ZIP_BEGINS = b"PK\x03\x04"

# They change what is said about a run, where it runs, or what it is compared with, and no parameter of a model.
_IRRELEVANT = (
    ("title",),
    ("baselines",),
    ("data", "label_workers"),
    ("training", "checkpoint_every"),
    ("training", "devices"),
    ("training", "num_nodes"),
    ("training", "strategy"),
)

# They may name files. What such a file says is in the fingerprints; where it lies is another folder on another machine.
_MODEL, _LABELS, _TABLES = ("data", "model"), ("data", "labels"), ("data", "gene_tables")


# What predicting reads of a checkpoint, and what going on with a training reads besides.
_HELD = (("state_dict",), ("pyg_nsa", "name"), ("pyg_nsa", "graph"), ("pyg_nsa", "features"))
_HELD_TO_RESUME = (
    *(("pyg_nsa", name) for name in ("seed", "instances", "finished")),
    *((name,) for name in ("epoch", "global_step", "callbacks", "pyg_nsa_progress")),
)


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or belongs to another configuration, graph or split."""


def identity(
    config: CellConfig, graph: HeteroData, *, name: str, seed: int, instances: str, labels: str
) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Args:
        config: The configuration.
        graph: The base graph.
        name: Name of the model, such as ``hetero_nsa``.
        seed: Seed of initialisation and sampling.
        instances: :func:`training_fingerprint`.
        labels: :func:`labels_fingerprint`.
    """
    return {
        "pyg_nsa_config": plain_values(config),
        "pyg_nsa": {
            "name": name,
            "seed": seed,
            "graph": graph_fingerprint(graph),
            "features": {t: graph[t].x for t in graph.node_types if "x" in graph[t]},
            "instances": instances,
            "labels": labels,
            "version": pyg_nsa.__version__,
        },
    }


def read_checkpoint(path: str | Path, *, to_resume: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; no code in it is run.

    Args:
        path: Its file.
        to_resume: Whether a training is to go on from it, which takes more than predicting.

    Raises:
        CheckpointError: There is no such file, it cannot be read or is damaged, pyg_nsa did not write it, or something is missing.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder{_checkpoints_of(path)}")
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; 'pyg-nsa train' writes checkpoints to RUN/MODEL/best.ckpt"
        )
    try:
        content = path.read_bytes()  # once: what is loaded is what was checked
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if damage := _damage(content):
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {damage}")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint: it holds something else than plain values and tensors, or was written by "
            "another program"
        ) from error
    if not isinstance(state, dict) or not {"pyg_nsa", "pyg_nsa_config"} <= set(state):
        raise CheckpointError(
            f"{path}: not a checkpoint of 'pyg-nsa train' (it has no 'pyg_nsa'); this version is {pyg_nsa.__version__}"
        )
    held = (*_HELD, *_HELD_TO_RESUME) if to_resume else _HELD
    if lacking := [".".join(names) for names in held if not _holds(state, names)]:
        raise CheckpointError(
            f"{path}: lacks what {written_by(state)} puts into a checkpoint: {', '.join(lacking)}. Take the file as "
            "'pyg-nsa train' wrote it, or train anew."
        )
    return state


def _holds(state: Any, names: tuple[str, ...]) -> bool:
    for name in names:
        if not isinstance(state, Mapping) or name not in state:
            return False
        state = state[name]
    return True


def written_by(state: Mapping[str, Any]) -> str:
    """The version that wrote a checkpoint beside this one, for an error."""
    said = state["pyg_nsa"]
    version = said.get("version", "unknown") if isinstance(said, Mapping) else "unknown"
    return f"pyg_nsa (written by {version}; this is {pyg_nsa.__version__})"


def _checkpoints_of(folder: Path) -> str:
    """Which checkpoints a folder holds, for an error."""
    found = [*folder.glob("best.ckpt"), *folder.glob("*/best.ckpt")]
    if not found:
        return " without best.ckpt, which 'pyg-nsa train' writes to RUN/MODEL/best.ckpt"
    baselines = get_args(BaselineName)
    first = min(found, key=lambda file: (file.parent.name in baselines, file))
    return f"; name a checkpoint in it, such as {first}"


def _damage(content: bytes) -> str:
    """What is wrong with the bytes of a file as the zip archive that `torch.save` writes; empty if nothing is.

    `torch.load` compares no checksums: one flipped bit would be another parameter.
    """
    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):
        if content.startswith(_ZIP_BEGINS):
            return (
                "its end is missing, as where a copy was broken off; copy it again, or train anew"
            )
        return "it is no file of torch.save"
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError):
        broken = "its directory"
    if broken is None:
        return ""
    return f"it is damaged ({broken} does not fit its checksum); copy it again, or train anew"


def check_fits(
    state: Mapping[str, Any], parameters: Mapping[str, Tensor], path: str | Path
) -> None:
    """Makes sure that a checkpoint's tensors are those of a model that was built from its configuration.

    Args:
        state: What :func:`read_checkpoint` gave.
        parameters: The model's ``state_dict()``.
        path: The checkpoint's file, for the error.

    Raises:
        CheckpointError: They are not, since another version wrote it.
    """
    saved = {
        name: tuple(value.shape) if isinstance(value, Tensor) else None
        for name, value in state["state_dict"].items()
    }
    built = {name: tuple(value.shape) for name, value in parameters.items()}
    apart = sorted(n for n in saved.keys() | built.keys() if saved.get(n) != built.get(n))
    if apart:
        some = ", ".join(apart[:3]) + (", …" if len(apart) > 3 else "")
        raise CheckpointError(
            f"{path}: was written by another version of pyg_nsa ({state['pyg_nsa'].get('version', 'unknown')}; this is "
            f"{pyg_nsa.__version__}), whose model has other parameters: {some}. Train anew, or use the version that wrote it."
        )


def check_same(state: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    """Makes sure that a checkpoint belongs to this configuration, graph and split.

    Args:
        state: What :func:`read_checkpoint` gave.
        wanted: The :func:`identity` that it should have.
        path: Its file, for the error.

    Raises:
        CheckpointError: It does not; the message lists what differs.
    """
    configs = state["pyg_nsa_config"], wanted["pyg_nsa_config"]
    changes = differences(*configs)
    before, now = state["pyg_nsa"], wanted["pyg_nsa"]
    if before["seed"] != now["seed"]:
        changes.append(f"seed: {before['seed']} before, {now['seed']} now")
    if before["graph"] != now["graph"]:
        changes.append(
            "the graph: the metabolic model or the gene tables have other content than before"
            + _other_files(*configs, _MODEL, _TABLES)
        )
    elif features := feature_changes(before["features"], now["features"]):
        changes.append(features + _other_files(*configs, _MODEL))
    elif before["instances"] != now["instances"]:
        changes.append(
            "the training instances: other labels or another split than before"
            + _other_files(*configs, _MODEL, _LABELS)
        )
    elif before.get("labels", now["labels"]) != now["labels"]:
        changes.append(
            "the labels: those of validation or testing are others than before"
            + _other_files(*configs, _MODEL, _LABELS)
        )
    if changes:
        lines = "".join(f"\n    {change}" for change in changes)
        raise CheckpointError(
            f"{path}: cannot be resumed, since what matters for the result has changed:{lines}\n"
            "Undo the changes, or train anew into another folder (-o); 'pyg-nsa train' can also do so over this one, by --force instead of --resume."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations and matters for the result, as ``training.epochs: 3 before, 5 now``.

    Where files of data lie does not matter: :func:`check_same` compares what they say.

    Args:
        before: A dumped configuration.
        now: Another.
    """
    old, new = _leaves(before, ()), _leaves(now, ())
    lines = []
    for path in dict.fromkeys([*old, *new]):
        if _is_irrelevant(path):
            continue
        if old.get(path) is None and new.get(path) is None:
            continue  # null, or a version that does not know it: such a field changed nothing there
        if _is_data(path) and _is_file(old.get(path)) and _is_file(new.get(path)):
            continue
        values = [
            json.dumps(leaves[path], ensure_ascii=False) if path in leaves else "absent"
            for leaves in (old, new)
        ]
        if values[0] != values[1]:
            lines.append(f"{path_text(path)}: {values[0]} before, {values[1]} now")
    return lines


def relevant(config: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], Any]]:
    """The values of a dumped configuration that matter for the result, with their paths, in the order of these.

    A value that is null is left out: a version that does not know the field has none.
    """
    leaves = _leaves(config, ()).items()
    kept = [(p, v) for p, v in leaves if v is not None and not _is_irrelevant(p)]
    return sorted(kept, key=lambda item: [str(step) for step in item[0]])


def _is_irrelevant(path: tuple[str | int, ...]) -> bool:
    return any(path[: len(known)] == known for known in _IRRELEVANT)


def _is_data(path: tuple[str | int, ...], *among: tuple[str, ...]) -> bool:
    return any(path[: len(known)] == known for known in among or (_MODEL, _LABELS, _TABLES))


def _is_file(value: Any) -> bool:
    """Whether a value of ``data`` is a path, as :meth:`CellConfig.relative_to` left it, on this system or another."""
    return isinstance(value, str) and any(
        kind(value).is_absolute() for kind in (PurePosixPath, PureWindowsPath)
    )


def _other_files(before: Mapping[str, Any], now: Mapping[str, Any], *among: tuple[str, ...]) -> str:
    """The files of data that lie elsewhere than before, for an error about their content; else empty."""
    old, new = _leaves(before, ()), _leaves(now, ())
    lines = [
        f"\n        {path_text(path)}: {json.dumps(old[path], ensure_ascii=False)} before, "
        f"{json.dumps(value, ensure_ascii=False)} now"
        for path, value in new.items()
        if _is_data(path, *among) and old.get(path, value) != value
    ]
    return "".join(lines)


def _leaves(value: Any, path: tuple[str | int, ...]) -> dict[tuple[str | int, ...], Any]:
    """Every value that holds no other, by its path."""
    if isinstance(value, Mapping) and value:
        items = ((str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple) and value:
        items = enumerate(value)  # type: ignore[assignment]
    else:
        return {path: value}
    return {k: v for key, item in items for k, v in _leaves(item, (*path, key)).items()}


# ---- fingerprints ----------------------------------------------------------------------------------------------------


def graph_fingerprint(graph: HeteroData) -> str:
    """Hash of a graph's structure: ids of the nodes, relations, stoichiometry, names of the features.

    Values of node features are left out: some come from a linear program, whose last digits differ between machines.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for node_type in sorted(graph.node_types):
        store = graph[node_type]
        names = [list(store.get("node_ids", ())), list(store.get("feature_names", ()))]
        digest.update(json.dumps([node_type, int(store.num_nodes or 0), *names]).encode())
    for edge_type in sorted(graph.edge_types):
        digest.update(json.dumps(edge_type).encode())
        for field, value in sorted(graph[edge_type].items()):
            if isinstance(value, Tensor):
                kind = "<f4" if value.is_floating_point() else "<i8"
                digest.update(field.encode() + value.cpu().numpy().astype(kind).tobytes())
    return digest.hexdigest()[:16]


def feature_changes(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> str:
    """What differs between the node features of two graphs of one structure; empty if nothing beyond rounding.

    Args:
        before: ``[N, F]`` by node type.
        now: Likewise.
    """
    for node_type, old in before.items():
        new = now.get(node_type)
        if new is None or new.shape != old.shape:
            return f"the features of {node_type} nodes: other columns than before"
        apart = ~torch.isclose(old, new.cpu(), rtol=1e-3, atol=1e-4, equal_nan=True)
        if apart.any():
            return (
                f"the features of {int(apart.any(dim=1).sum())} {node_type} nodes: bounds or the objective of the metabolic "
                "model are others than before"
            )
    return ""


def training_fingerprint(table: LabelTable, split: Split) -> str:
    """Hash of the training instances and their labels; 16 hexadecimal digits."""
    digest = hashlib.sha256(np.asarray(split.train).astype("<i8").tobytes())
    digest.update(np.ascontiguousarray(table.y[split.train]).astype("<f4").tobytes())
    digest.update(np.ascontiguousarray(table.genes[split.train]).astype("<i4").tobytes())
    return digest.hexdigest()[:16]


def labels_fingerprint(table: LabelTable) -> str:
    """Hash of all instances and their labels; 16 hexadecimal digits."""
    known = np.nan_to_num(table.y, nan=-np.inf)  # the bits of a NaN differ between machines
    digest = hashlib.sha256(known.astype("<f4").tobytes())
    digest.update(np.ascontiguousarray(table.genes).astype("<i4").tobytes())
    return digest.hexdigest()[:16]
