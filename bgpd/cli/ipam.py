"""``bgpd ipam``: pools, blocks and addresses."""

from __future__ import annotations

from pathlib import Path

import click

from bgpd.api.protocol import AssignView
from bgpd.cli.options import asking, asks, output
from bgpd.cli.render import BAD, Cell, Column, Styled, Table, show, show_json
from bgpd.model.view import BlockView, PoolView

COUNT_LIMIT = 10**10
"""Numbers of addresses from here on are rounded: all of IPv4 stays exact."""


@click.group()
def ipam() -> None:
    """Show pools and blocks; assign addresses."""


@ipam.command("show")
@output()
@asks
def show_pools(socket: Path, output: str) -> None:
    """Show each pool, and under it its blocks with their nodes."""
    with asking(socket) as client:
        views = client.pools()
    if output == "json":
        show_json(views)
    elif views:
        show(pools_table(views))
    else:
        click.echo("there is no pool", err=True)


@ipam.command()
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


def pools_table(views: list[PoolView]) -> Table:
    """Lay out a row for each pool, followed by one for each of its blocks."""
    columns = (
        Column("POOL"),
        Column("CIDR"),
        Column("BLOCK"),
        Column("NODE"),
        Column("AFFINITY"),
        Column("SIZE", right=True),
        Column("IN USE", right=True),
        Column("FREE", right=True),
    )
    rows: list[tuple[Cell, ...]] = []
    for pool in views:
        rows.append((pool.name, pool.cidr, "", "", "", _count(pool.size), pool.in_use, _free(pool.free)))
        rows += [_block(pool, block) for block in pool.blocks]
    return Table(columns, rows)


def _block(pool: PoolView, block: BlockView) -> tuple[Cell, ...]:
    free = block.size - block.in_use
    return (pool.name, pool.cidr, block.cidr, block.node, block.affinity, _count(block.size), block.in_use, _free(free))


def _count(number: int) -> str:
    """Write a number of addresses; the huge ones of IPv6 pools as 1.8e+19."""
    return str(number) if number < COUNT_LIMIT else f"{number:.1e}"


def _free(number: int) -> Styled:
    return Styled(_count(number), "" if number else BAD)
