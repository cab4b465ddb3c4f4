"""The command group and what all commands share: how an error reaches the user."""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import Any

try:
    import click
except ModuleNotFoundError:  # the command is installed with the library, its packages with an extra
    sys.exit("pyg-nsa: the command line needs more packages: pip install 'pyg-nsa[cli]'")

import pyg_nsa
from pyg_nsa.errors import RegistryError

__all__ = ["main"]

_COMMANDS = {
    "cell": "pyg_nsa.cli.cell",
    "check": "pyg_nsa.cli.check",
    "compare": "pyg_nsa.cli.compare",
    "demo": "pyg_nsa.cli.train",
    "explain": "pyg_nsa.cli.explain",
    "fill": "pyg_nsa.cli.fill",
    "init": "pyg_nsa.cli.init",
    "plugins": "pyg_nsa.cli.plugins",
    "predict": "pyg_nsa.cli.predict",
    "report": "pyg_nsa.cli.report",
    "schema": "pyg_nsa.cli.schema",
    "swap": "pyg_nsa.cli.swap",
    "train": "pyg_nsa.cli.train",
}


class _Group(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        return getattr(importlib.import_module(_COMMANDS[name]), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):  # RuntimeErrors, too
            raise
        except KeyboardInterrupt as error:
            # The status that shells give it; by itself click says 1, as of a mistake.
            click.echo("\ninterrupted", err=True)
            raise click.exceptions.Exit(130) from error
        except ModuleNotFoundError as error:
            if error.name in ("torch", "torch_geometric") or (error.name or "").startswith(
                "pyg_nsa"
            ):
                raise
            raise click.ClickException(
                f"this command needs the package '{error.name}': pip install 'pyg-nsa[cell]'"
            ) from error
        except (ValueError, OSError, RuntimeError, RegistryError) as error:
            # These say what is wrong and how to mend it; a traceback would bury that. --debug shows it.
            if ctx.params.get("debug"):
                raise
            notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
            raise click.ClickException(f"{error}{notes}") from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pyg_nsa.__version__, prog_name="pyg-nsa")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Declared masks and edge biases for PyG's heterogeneous convolutions.

    Exit status of every command: 0 fine, 1 problems, 2 wrong usage, 130 interrupted.

    To complete commands, options and files with the Tab key, put the line of your shell into its start-up file:

    \b
        bash:  eval "$(_PYG_NSA_COMPLETE=bash_source pyg-nsa)"
        zsh:   eval "$(_PYG_NSA_COMPLETE=zsh_source pyg-nsa)"
        fish:  _PYG_NSA_COMPLETE=fish_source pyg-nsa | source
    """
