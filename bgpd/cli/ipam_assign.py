"""``bgpd ipam assign``: addresses for a workload of this node, from its daemon."""

from __future__ import annotations

from pathlib import Path

import click

from bgpd.api.protocol import AssignView
from bgpd.cli.options import asking, asks, output
from bgpd.cli.render import show_json


@click.command()
@click.option("--handle", required=True, help="Who holds the address.")
@click.option("--pool", help="Take it from this pool; without it, from any that assigns automatically.")
@output(default="json")
@asks
def assign(handle: str, pool: str | None, socket: Path, output: str) -> None:
    """Assign an address of this node's blocks."""
    if not 0 < len(handle) <= 253:
        raise click.BadParameter("a handle has 1 to 253 characters", param_hint="--handle")
    with asking(socket) as client:
        address = client.assign(handle, pool)
    if output == "json":
        show_json(AssignView(address), indent=0)
    else:
        click.echo(address)
