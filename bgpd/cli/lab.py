"""``bgpd lab``: topologies of containerlab's format, without Docker. Exit 2: bad input or an unfit machine; 1: the lab failed."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
import msgspec

from bgpd.lab import run
from bgpd.lab.topology import TopologyError


@click.group()
def lab() -> None:
    """Run a containerlab topology in network namespaces, without Docker."""


@lab.command()
@click.argument("file", type=click.Path(path_type=Path))
def up(file: Path) -> None:
    """Bring up the lab of FILE (*.clab.yml)."""
    with spoken():
        made = run.up(file, os.environ, click.echo)
        click.echo(f"lab {made.name} is up. Look around: bgpd lab status, bgpd lab exec NODE -- COMMAND")
        click.echo(f"Take it down: bgpd lab down {made.name}")


@lab.command()
@click.argument("target", metavar="NAME|FILE")
def down(target: str) -> None:
    """Take down the lab NAME, or the one of FILE; leaves nothing."""
    with spoken():
        run.down(target, click.echo)


@lab.command()
@click.argument("target", metavar="[NAME|FILE]", required=False)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
def status(target: str | None, output: str) -> None:
    """Show one lab, or all: nodes, their state, where their logs are."""
    with spoken():
        views = run.status(target)
        if output == "json":
            click.echo(msgspec.json.format(msgspec.json.encode(views), indent=2).decode())
            return
        for view in views:
            click.echo("\n".join(lines(view)))
        if not views:
            click.echo("no lab is up")


@lab.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.option("--lab", "name", metavar="NAME|FILE", help="Which lab, where more than one is up.")
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(node: str, command: tuple[str, ...], name: str | None) -> None:
    """Run COMMAND in NODE, with this terminal; the exit status is the command's."""
    with spoken():
        run.need_root()
        found = run.find(node, name)
        words = run.enter(found)
        done = subprocess.run([*words, *command], env={**os.environ, **found.env}, check=False)
        sys.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)


def lines(view: run.LabView) -> Iterator[str]:
    """A lab as text, columns aligned."""
    since = dt.datetime.fromtimestamp(view.created, dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    yield f"lab {view.name}: {view.state} since {since}, from {view.file}"
    rows = [("NODE", "STATE", "PID", "NAMESPACE", "IMAGE", "ADDRESS")]
    for node in view.nodes:
        state, pid = "running" if node.running else "ended", str(node.pid or "-")
        rows.append((node.name, state, pid, node.netns, node.image, node.address or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield "logs:"
    for log in (log for node in view.nodes for log in node.logs):
        yield f"  {log}"


@contextmanager
def spoken() -> Iterator[None]:
    """Say expected failures in one sentence; let SIGTERM and SIGHUP take down what is half made, as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        yield
    except (TopologyError, run.Refused) as error:
        click.echo(f"bgpd lab: {error}", err=True)
        sys.exit(2)
    except (run.Failed, OSError) as error:
        click.echo(f"bgpd lab: {error}", err=True)
        sys.exit(1)


def interrupted(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)
