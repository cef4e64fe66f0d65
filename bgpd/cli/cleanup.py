"""``bgpd cleanup``: remove from the kernel all that is marked ours."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import msgspec

from bgpd.adapters.netlink import cleanup as kernel
from bgpd.adapters.netlink.cleanup import Outcome
from bgpd.api.client import Client, Unreachable
from bgpd.cli.config import configured, read
from bgpd.cli.options import Stop, asks, output
from bgpd.cli.render import show_json
from bgpd.model.forwarding import PROTOCOL

LINES = 20
"""Objects of one kind that are named for people; JSON names them all."""


class CleanupView(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or with *dry_run* what would be; an object with an *error* is still there."""

    dry_run: bool
    objects: tuple[Outcome, ...]


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--force", is_flag=True, help="Even while a daemon runs, which will put it all back.")
@configured("The configuration, for kernel.protocol; without the file it is the default.")
@output()
@asks
@click.pass_context
def cleanup(  # noqa: PLR0917 - click's signature
    ctx: click.Context, dry_run: bool, force: bool, path: Path, socket: Path, output: str
) -> None:
    """Remove all that is marked ours from the kernel: rules, routes, nexthops and groups, links with what is on them.

    What is not marked ours (by protocol number, range of nexthop ids, name of the link) is not touched. Exit status 1: a daemon runs, or
    something could not be removed.
    """
    protocol = read(path).kernel.protocol if path.exists() else PROTOCOL
    if not dry_run and not force and _runs(socket):
        raise Stop(f"a daemon runs behind {socket} and would put it all back: stop it first, or say --force")
    try:
        outcomes = asyncio.run(_clean(protocol, dry_run=dry_run))
    except PermissionError as error:
        raise Stop("the kernel lets only those with CAP_NET_ADMIN do this: become root") from error
    if output == "json":
        show_json(CleanupView(dry_run=dry_run, objects=tuple(outcomes)))
    else:
        _tell(outcomes, dry_run=dry_run)
    ctx.exit(1 if any(outcome.error for outcome in outcomes) else 0)


async def _clean(protocol: int, *, dry_run: bool) -> list[Outcome]:
    marks = await kernel.find(protocol)
    if dry_run:
        return [Outcome(mark.object, mark.text) for mark in marks]
    return await kernel.remove(marks)


def _runs(socket: Path) -> bool:
    try:
        Client(socket).status()
    except Unreachable:
        return False
    return True


def _tell(outcomes: list[Outcome], *, dry_run: bool) -> None:
    done = "would remove" if dry_run else "removed"
    if not outcomes:
        click.echo("there is nothing of ours in the kernel")
    for kind, count in kernel.counts(outcomes).items():
        of_kind = [outcome for outcome in outcomes if outcome.object == kind]
        failed = [outcome for outcome in of_kind if outcome.error]
        for outcome in [outcome for outcome in of_kind if not outcome.error][:LINES]:
            click.echo(f"{done} {kind} {outcome.text}")
        if count - len(failed) > LINES:
            click.echo(f"{done} {count - len(failed) - LINES} more of kind {kind} (-o json names them all)")
        for outcome in failed[:LINES]:
            click.echo(f"bgpd: could not remove {kind} {outcome.text}: {outcome.error}", err=True)
    total = kernel.counts([outcome for outcome in outcomes if not outcome.error])
    if total:
        click.echo(f"{done}: " + ", ".join(f"{count} {kind}" for kind, count in total.items()))
