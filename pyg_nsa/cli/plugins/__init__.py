"""``pyg-nsa plugins``: what is installed, whether it works, and a new one to start from."""

from __future__ import annotations

import click

from pyg_nsa.cli.plugins.doctor import doctor
from pyg_nsa.cli.plugins.listing import list_plugins
from pyg_nsa.cli.plugins.new import new
from pyg_nsa.cli.plugins.show import show

__all__ = ["plugins"]


@click.group()
def plugins() -> None:
    """Edge kinds and operators: what is installed, whether it works, and a new one to start from."""


for command in (list_plugins, show, doctor, new):
    plugins.add_command(command)
