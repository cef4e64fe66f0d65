"""``bgpd history``, ``bgpd confirm`` and ``bgpd rollback``: the journal of changes of resources."""

from __future__ import annotations

import os
import pwd
import socket
import time

import click

from bgpd.adapters.store import journal, keys
from bgpd.adapters.store.base import TXN_OPS_MAX, Store
from bgpd.adapters.store.journal import Author, Entry
from bgpd.adapters.store.resources import Prepared
from bgpd.cli.options import BadInput, Stop, output
from bgpd.cli.render import BAD, GOOD, WARN, Cell, Column, Styled, Table, age, printable, show, show_json
from bgpd.cli.store import on_store, stores
from bgpd.core.resource.plan import difference

TITLE_CHARS = 200
"""Of a command that is kept: more is a list of many files."""


def author(title: str) -> Author:
    """Describe who runs this command, by what the machine knows of him."""
    name = os.environ.get("SUDO_USER") or _login()
    return Author(printable(f"{name}@{socket.gethostname()}"), printable(title[:TITLE_CHARS]))


async def recorded(store: Store, prepared: Prepared, title: str, confirm_s: float | None = None) -> Entry | None:
    """Commit a change with its entry; None where it changes nothing. Raises as journal.record, and BadInput for one that is too large."""
    if not journal.fits(prepared):
        raise BadInput(
            f"{len(prepared.outcomes)} resources are more than one transaction of the store holds "
            f"({TXN_OPS_MAX - journal.OWN_WRITES} keys beside the journal's): nothing was written; split them, or use "
            "`bgpd import`, which writes them in several"
        )
    if confirm_s is not None and not await _watched(store):
        raise Stop(
            "no daemon has its lease in this store, so nobody would take the change back: nothing was written; "
            "start one, or apply without --confirm"
        )
    try:
        return await journal.record(store, prepared, author(title), confirm_s)
    except ValueError as error:
        raise BadInput(f"{error}; nothing was written") from error


async def _watched(store: Store) -> bool:
    page = await store.range(keys.OUR_NODES, limit=1)
    return bool(page.items)


def _login() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


# ------------------------------------------------------------------ commands

_number = click.argument("number", required=False, type=click.IntRange(min=1))


@click.command()
@_number
@output()
@stores
def history(number: int | None, output: str, store: str | None) -> None:
    """Show the last changes of resources: who, when, what; with NUMBER what one of them changed, field by field.

    Changes by other tools than bgpd are not among them.
    """
    entries = on_store(store, journal.history)
    if number is not None:
        entries = [one for one in entries if one.number == number]
        if not entries:
            raise Stop(f"the journal has no change {number} (it keeps the last {journal.ENTRIES_MAX})")
    if output == "json":
        show_json(entries if number is None else entries[0])
    elif number is not None:
        _detail(entries[0])
    elif entries:
        show(_table(entries, time.time()))
    else:
        click.echo("no change was recorded", err=True)


@click.command()
@_number
@output()
@stores
def confirm(number: int | None, output: str, store: str | None) -> None:
    """Let the change stand that waits for confirmation; with NUMBER only if it is that one."""
    entry = on_store(store, lambda opened: journal.confirm(opened, number))
    if output == "json":
        show_json(entry)
    else:
        click.echo(f"change {entry.number} is confirmed")


@click.command()
@_number
@click.option("--force", is_flag=True, help="Also where somebody has changed a resource since: that change is lost.")
@output()
@stores
def rollback(number: int | None, *, force: bool, output: str, store: str | None) -> None:
    """Take change NUMBER of `bgpd history` back, or the last one that stands.

    Every resource of it becomes what it was before. If somebody has changed one of them since, nothing is written and that is said.
    Taking back is a change, too: `bgpd rollback` with its number makes it undone.
    """
    title = " ".join(["rollback", *([str(number)] if number is not None else []), *(["--force"] if force else [])])
    entry = on_store(store, lambda opened: journal.undo(opened, number, author(title), force=force))
    if output == "json":
        show_json(entry)
        return
    for one in entry.touched:
        click.echo(f"{one.kind} {printable(one.name)}: {one.action}")
    click.echo(f"change {entry.undoes} is rolled back, by change {entry.number}")


def _table(entries: list[Entry], now: float) -> Table:
    columns = (
        Column("NUMBER", right=True),
        Column("AGE", right=True),
        Column("WHO"),
        Column("COMMAND"),
        Column("CHANGED"),
        Column("STATE"),
    )
    return Table(columns, [_row(entry, now) for entry in entries])


def _row(entry: Entry, now: float) -> tuple[Cell, ...]:
    changed = tuple(f"{one.kind} {one.name} {one.action}" for one in entry.touched)
    return (entry.number, age(entry.at, now), entry.who, entry.title, changed, _state(entry, now))


def _state(entry: Entry, now: float) -> Styled:
    if entry.kept:
        return Styled(f"not all of {entry.undoes}: {'; '.join(entry.kept)}", BAD)
    if entry.undoes is not None:
        return Styled(f"takes back {entry.undoes}", "")
    if entry.state == "pending" and entry.until is not None:
        return Styled(f"to be confirmed within {max(0, round(entry.until - now))} s", WARN)
    return Styled(entry.state, GOOD if entry.state == "confirmed" else WARN)


def _detail(entry: Entry) -> None:
    at = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(entry.at))
    click.echo(f"change {entry.number} of {printable(entry.who)}, {at}: {printable(entry.title)}")
    state = _state(entry, time.time()).text
    if state:
        click.echo(printable(state))
    for one in entry.touched:
        click.echo(f"{one.kind} {printable(one.name)}: {one.action}")
        for line in difference(one.before, one.after):
            click.echo(f"  {printable(line)}")
