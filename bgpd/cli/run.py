"""``bgpd run``: the daemon in the foreground, as systemd and the lab start it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from bgpd.cli.config import configured, read
from bgpd.config.load import load
from bgpd.daemon import supervise
from bgpd.daemon.reload import Source


@click.command()
@configured("The configuration file.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Record every event that enters the core, one JSON line each, for a replay.",
)
@click.option(
    "--attach",
    is_flag=True,
    help="Attach to the speaker that `bgpd speaker` keeps, and never start or end one: then sessions outlive this daemon.",
)
@click.pass_context
def run(ctx: click.Context, path: Path, record: Path | None, attach: bool) -> None:
    """Run the daemon in the foreground.

    It ends on SIGTERM or SIGINT and leaves the kernel's routes as they are; SIGHUP loads the configuration again, as `bgpd reload`
    does. Exit status 2: the configuration is bad, and nothing was started.
    """
    if record is not None and not record.absolute().parent.is_dir():
        raise click.BadParameter(f"the directory of {record} does not exist", param_hint="--record")
    source = Source(path, read(path), lambda: load(path, os.environ))
    ctx.exit(supervise.main(source, record, attach=attach))
