"""The error of a plugin whose function returned something else than it must, and its words for `build`."""

from __future__ import annotations

__all__ = ["UnfitReturnError", "unfit_build"]


class UnfitReturnError(TypeError):
    """A plugin's function, such as `build` or `inputs`, returned something else than it must."""


def unfit_build(what: str, built: object, wanted: str, where: str = "") -> UnfitReturnError:
    """The error of a `build(context, options)` that returned no fitting module.

    Args:
        what: Whose `build` it is.
        built: What it returned.
        wanted: The class that it must be of.
        where: What it was built for, with a space in front; may be empty.
    """
    hint = "; is its return missing?" if built is None else ""
    return UnfitReturnError(
        f"{what} built a {type(built).__name__}{where}; build(context, options) must return a {wanted}{hint}"
    )
