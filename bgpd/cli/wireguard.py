"""``bgpd wireguard``: this node's WireGuard key."""

from __future__ import annotations

from pathlib import Path

import click

from bgpd.cli.options import asking, asks, output
from bgpd.cli.render import show_json


@click.group()
def wireguard() -> None:
    """Change the WireGuard key of this node. Peers and traffic are shown by `wg show wireguard.bgpd`."""


@wireguard.command("rotate-key")
@output()
@asks
def rotate_key(socket: Path, output: str) -> None:
    """Make a new key pair, and have all other nodes use it; returns once they were told.

    Traffic goes on: this node reads what is encrypted for the old key until the others have switched, and holds back what it
    sends until they have. The old private key is overwritten.
    """
    with asking(socket) as client:
        view = client.rotate_wireguard_key()
    if output == "json":
        show_json(view)
    else:
        click.echo(f"the new public key is {view.public_key}")
