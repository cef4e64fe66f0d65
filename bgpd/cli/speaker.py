"""``bgpd speaker``: ExaBGP in the foreground, as bgpd-speaker.service keeps it."""

from __future__ import annotations

from pathlib import Path

import click

from bgpd.cli.config import configured, read
from bgpd.daemon import supervise


@click.command()
@configured("The configuration file, the same as the daemon's.")
@click.pass_context
def speaker(ctx: click.Context, path: Path) -> None:
    """Run the BGP speaker (ExaBGP) in the foreground, for a daemon that runs with --attach.

    The daemon gives it its neighbors and routes, and can be restarted while the sessions stay up. SIGTERM ends it; peers keep the
    routes for the graceful restart time. It begins with the neighbors that it was given last.
    """
    ctx.exit(supervise.speaker(read(path)))
