"""Whether the distributions that a configuration requires are installed."""

from __future__ import annotations

import importlib.metadata

from packaging.requirements import InvalidRequirement, Requirement
from pydantic_core import PydanticCustomError

from pyg_nsa.errors import nearest

__all__ = ["unmet"]


def unmet(text: str) -> PydanticCustomError | None:
    """Says why a required distribution is not there, or returns None if it is."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:  # its words are of a grammar, and others in each version
        return PydanticCustomError(
            "requirement",
            "'{text}' is no requirement that pip would take; write a distribution and perhaps versions, such as pyg-nsa-stoich>=0.3",
            {"text": text},
        )
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    mend = f'pip install "{text}"'
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        installed = {dist.metadata["Name"] or "" for dist in importlib.metadata.distributions()}
        near = nearest(requirement.name, installed, cutoff=0.8)
        if near is not None:
            mend = f"did you mean {near!r}, which is installed? Otherwise: {mend}"
        return PydanticCustomError(
            "missing_distribution",
            "'{text}' is required, but {name} is not installed; {mend}",
            {"text": text, "name": requirement.name, "mend": mend},
        )
    if not requirement.specifier.contains(version, prereleases=True):
        return PydanticCustomError(
            "wrong_version",
            "'{text}' is required, but {name} {version} is installed; {mend}",
            {"text": text, "name": requirement.name, "version": version, "mend": mend},
        )
    return None
