"""``bgpd reload``: have the daemon load its configuration again, and say what came of it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from bgpd.api.protocol import Refused
from bgpd.cli.options import BadInput, asking, asks, output
from bgpd.cli.render import Cell, Column, Table, show, show_json
from bgpd.model.view import ChangeView, ReloadView


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what a reload would change.")
@output()
@asks
def reload(*, dry_run: bool, socket: Path, output: str) -> None:
    """Have the daemon load its configuration again, and show what has changed.

    Peers, announced prefixes, checks, fallback, ECMP, decision, collection, metrics, web page, MQTT and the log's level are taken over
    at once; sessions and routes that the change does not concern stay as they are. What has to wait for the next start is named, and
    `bgpd config show` says it of each key. A configuration that cannot be used changes nothing, and is told with exit status 2.
    """
    view = asked(socket, dry_run=dry_run)
    if output == "json":
        show_json(view)
    else:
        show_reload(view)


def asked(socket: Path, *, dry_run: bool) -> ReloadView:
    """Ask the daemon; a bad configuration ends the command with all its defects."""
    with asking(socket) as client:
        try:
            return client.reload(dry_run=dry_run)
        except Refused as refused:
            raise BadInput(refused.reason) from refused


def show_reload(view: ReloadView) -> None:
    """Tell what has changed, or would."""
    if not view.changed and not view.waiting:
        click.echo(f"{view.path}: nothing {'has' if view.done else 'would be'} changed")
        return
    columns = (Column("KEY"), Column("BEFORE"), Column("AFTER"), Column("EFFECT"))
    now = "at once" if view.done else "by `bgpd reload`"
    rows = [_row(one, now) for one in view.changed]
    rows += [_row(one, "at the next start") for one in view.waiting]
    show(Table(columns, rows))


def _row(change: ChangeView, effect: str) -> tuple[Cell, ...]:
    return change.key, written(change.before), written(change.after), effect


def written(value: object) -> Cell:
    """Return a value as JSON; nothing for one that is not set."""
    return None if value is None else msgspec.json.encode(value).decode()
