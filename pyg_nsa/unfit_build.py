"""The error of a plugin whose `build` returned something else than a module that fits its declaration."""

from __future__ import annotations

__all__ = ["UnfitBuildError"]


class UnfitBuildError(TypeError):
    """A plugin's `build(context, options)` returned no fitting module.

    Args:
        what: Whose `build` it is, with what it was built for where that matters.
        built: What it returned.
        wanted: The class that it must be of.
        where: What it was built for, with a space in front; may be empty.
    """

    def __init__(self, what: str, built: object, wanted: str, where: str = "") -> None:
        hint = "; is its return missing?" if built is None else ""
        super().__init__(
            f"{what} built a {type(built).__name__}{where}; build(context, options) must return a {wanted}{hint}"
        )
