"""``bgpd fib``: our routes in the kernel, as they are desired and as they are."""

from __future__ import annotations

import time
from pathlib import Path

import click

from bgpd.api.protocol import FIB_LIMIT_ROWS
from bgpd.cli.options import BadInput, asking, asks, output
from bgpd.cli.render import BAD, DIM, GOOD, WARN, Cell, Column, Styled, Table, age, show, show_json
from bgpd.model.prefix import Prefix
from bgpd.model.view import FibPage, FibQuery, FibRow, FibStatus

STYLES = {
    FibStatus.PROGRAMMED: GOOD,
    FibStatus.PENDING: WARN,
    FibStatus.FAILED: BAD,
    FibStatus.CONTESTED: BAD,
    FibStatus.KEPT: WARN,
    FibStatus.STRAY: WARN,
    FibStatus.NONE: DIM,
}


@click.command()
@click.argument("prefix", required=False)
@click.option(
    "--diff", is_flag=True, help="Read the kernel now, and show only what differs; exit status 1 if anything does."
)
@click.option("--status", type=click.Choice([status.value for status in FibStatus]), help="Only routes of that status.")
@click.option(
    "--limit", type=click.IntRange(1, FIB_LIMIT_ROWS), default=1000, show_default=True, help="Rows of a page."
)
@click.option("--after", metavar="KEY", help="Go on after this route, as the page before says.")
@output()
@asks
@click.pass_context
def fib(  # noqa: PLR0917 - click's signature
    ctx: click.Context,
    prefix: str | None,
    diff: bool,
    status: str | None,
    limit: int,
    after: str | None,
    socket: Path,
    output: str,
) -> None:
    """Show our routes in the kernel: desired, actual and status; with PREFIX, those inside it.

    A page of them: what follows is shown with --after. With --diff the kernel is read anew, and objects of every kind that differ from
    what is desired are shown.
    """
    if diff and (prefix or status or after):
        raise BadInput("--diff compares everything: leave PREFIX, --status and --after away")
    query = FibQuery(
        prefix=None if prefix is None else str(_prefix(prefix)),
        after=after,
        status=None if status is None else FibStatus(status),
        limit=limit,
    )
    with asking(socket) as client:
        page = client.fib_diff(limit) if diff else client.fib(query)
    if output == "json":
        show_json(page)
    else:
        _show(page, diff=diff)
    ctx.exit(1 if diff and page.rows else 0)


def _prefix(text: str) -> Prefix:
    try:
        return Prefix.parse(text)
    except ValueError as defect:
        raise BadInput(str(defect)) from defect


def _show(page: FibPage, *, diff: bool) -> None:
    if not page.rows:
        click.echo("the kernel is as desired" if diff else "there are no such routes of ours", err=True)
        return
    show(fib_table(page.rows, time.time(), objects=diff))
    if page.next is not None:
        click.echo(f"{len(page.rows)} of {page.total} shown; the next: --after {page.next!r}", err=True)
    elif len(page.rows) < page.total:
        click.echo(f"{len(page.rows)} of {page.total} shown", err=True)


def fib_table(rows: tuple[FibRow, ...], now: float, *, objects: bool) -> Table:
    """Lay out routes, one a row; the actual one is shown where it differs. With *objects*, what kind of thing each is."""
    columns = [
        Column("PREFIX" if not objects else "KEY"),
        Column("DESIRED"),
        Column("ACTUAL"),
        Column("PATH"),
        Column("NHID", right=True),
        Column("STATUS"),
        Column("FOR", right=True),
        Column("REASON"),
    ]
    if objects:
        columns.insert(0, Column("OBJECT"))
    return Table(columns, [_row(row, now, objects=objects) for row in rows])


def _row(row: FibRow, now: float, *, objects: bool) -> tuple[Cell, ...]:
    same = row.actual == row.desired
    cells: tuple[Cell, ...] = (
        row.key,
        row.desired,
        Styled("same", DIM) if same else row.actual,
        row.path,
        row.nexthop_id,
        Styled(row.status.value, STYLES[row.status]),
        age(row.since, now),
        row.reason,
    )
    return (row.object, *cells) if objects else cells
