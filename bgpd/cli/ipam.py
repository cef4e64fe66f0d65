"""``bgpd ipam``: pools, blocks and addresses, with calicoctl's habits."""

from __future__ import annotations

from typing import Final

import click

from bgpd.cli.lazy import Lazy, Place

COMMANDS: Final = {
    "show": Place("bgpd.cli.ipam_show", "show_", "Show pools, blocks, borrowed addresses, or one address."),
    "check": Place("bgpd.cli.ipam_check", "check_", "Look for whatever is inconsistent, and report it."),
    "release": Place("bgpd.cli.ipam_release", "release_", "Release addresses, or what reports of a check agree on."),
    "assign": Place("bgpd.cli.ipam_assign", "assign", "Assign an address of this node's blocks."),
    "configure": Place("bgpd.cli.ipam_configure", "configure", "Change the settings of IPAM."),
    "split": Place("bgpd.cli.ipam_split", "split_", "Split a pool into smaller ones; addresses are kept."),
}


@click.group(cls=Lazy, places=COMMANDS)
def ipam() -> None:
    """Show, check and change what is known about addresses."""
