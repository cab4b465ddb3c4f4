"""What ``pyg-nsa check`` says of a checkpoint: what it was made from, and whether that is installed."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyg_nsa.checkpoint import MadeOf
    from pyg_nsa.errors import Problem

__all__ = ["check_checkpoint", "is_checkpoint", "lines_of"]


def is_checkpoint(file: Path) -> bool:
    """Whether a file is one of torch by its name, and no configuration."""
    from pyg_nsa.load.config_files import TORCH_SUFFIXES

    return file.suffix.lower() in TORCH_SUFFIXES


def check_checkpoint(file: Path) -> tuple[dict[str, MadeOf], list[Problem]]:
    """Reads what a checkpoint says of its modules, and what of it is missing here.

    The file is read with ``weights_only=True``, so it cannot run code.
    """
    from pyg_nsa.checkpoint import describe_checkpoint
    from pyg_nsa.checkpoint_problems import not_installed
    from pyg_nsa.errors import CheckpointMismatchError, Problem

    try:
        described = describe_checkpoint(file)
    except CheckpointMismatchError as error:
        return {}, [replace(problem, file=str(file)) for problem in error.problems]
    except pickle.UnpicklingError as error:
        return {}, [Problem("", _why_unsafe(file, error), "unsafe_checkpoint", file=str(file))]
    except FileNotFoundError:
        return {}, [Problem("", "there is no such file", "missing_file", file=str(file))]
    except Exception as error:  # broken files fail in as many ways as there are formats
        first = (str(error).splitlines() or [""])[0]
        message = (
            f"cannot be read as a file of torch.save ({type(error).__name__}: {first}); write it with "
            "torch.save(model.state_dict(), file)"
        )
        return {}, [Problem("", message, "unreadable_checkpoint", file=str(file))]
    if not described:
        message = (
            "does not say what it was made from: it holds no module with declared edge kinds, or was written before pyg_nsa "
            "put that into state dicts; a graph belongs behind --data"
        )
        return {}, [Problem("", message, "silent_checkpoint", file=str(file))]
    problems = []
    for path, made in described.items():
        for problem in not_installed(made):
            place = f"{path}: {problem.path}" if path else problem.path
            problems.append(replace(problem, path=place, file=str(file)))
    return described, problems


def _why_unsafe(file: Path, error: pickle.UnpicklingError) -> str:
    import torch

    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # an old file without the zip container, for example
        names = []
    if any("Uninitialized" in name for name in names):
        return (
            "holds parameters whose sizes were not known when it was saved, which weights_only=True does not load; call the "
            "model once before saving it, or give in_channels"
        )
    what = f"holds {', '.join(names)}" if names else f"was refused ({str(error).splitlines()[0]})"
    return (
        f"{what}, which weights_only=True does not load, since a pickle can run any code; save the state dict: "
        "torch.save(model.state_dict(), file)"
    )


def lines_of(described: dict[str, MadeOf]) -> list[str]:
    """The description as text, a line for each module and each edge type."""
    lines = []
    for path, made in described.items():
        what = f"operator {made.operator}" if made.operator is not None else "declared edge kinds"
        lines.append(f"{path or 'the module'}: {what}, heads={made.heads}, pyg-nsa {made.version}")
        for edge_type, part in made.edges.items():
            shown = part if part is not None else "a conv module"
            lines.append(f"    {' '.join(edge_type)}: {shown}")
    return lines
