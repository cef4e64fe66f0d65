"""``bgpd ipam show``: what is stored about addresses, in calicoctl's tables (calico.md 1.7).

It reads the store and needs no daemon. JSON is the census's own figures (core/ipam/census.py), numbers of addresses exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
import msgspec

from bgpd.adapters.store import census as reading
from bgpd.adapters.store.base import Store
from bgpd.adapters.store.resources import get_resource
from bgpd.cli.options import BadInput, output
from bgpd.cli.render import BAD, Cell, Column, Styled, Table, show, show_json
from bgpd.cli.store import on_store, stores
from bgpd.core.ipam.block import HOST, BlockRecord
from bgpd.core.ipam.census import (
    Census,
    PoolIndex,
    PoolUsage,
    StoredBlock,
    Usage,
    borrowed,
    holdings,
    usage,
)
from bgpd.core.ipam.ranges import Ranges
from bgpd.core.resource.merge import effective
from bgpd.core.resource.pools import IPAMCONFIGURATION
from bgpd.model.prefix import Address, Prefix
from bgpd.model.wire import encode

COUNT_LIMIT = 10**10
"""Numbers of addresses from here on are rounded: all of IPv4 stays exact."""


class Borrowed(msgspec.Struct, frozen=True, kw_only=True):
    """An address that is used by another node than its block's."""

    ip: Address
    borrowing_node: str
    block: Prefix
    block_owner: str
    type: str
    allocated_to: str


class Setting(msgspec.Struct, frozen=True):
    property: str
    value: str


class AddressState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one address."""

    ip: Address
    state: str
    """``in use``, ``resting`` (released, and not free yet), ``free``, ``reserved``, ``unclaimed`` (its block is nobody's), ``outside`` (of
    every pool) or ``unreadable`` (its block is malformed)."""
    pool: str
    block: Prefix | None
    block_owner: str
    handle: str
    sequence: int | None
    attributes: dict[str, str]


@click.command("show")
@click.option("--show-blocks", is_flag=True, help="Show each pool's blocks as well.")
@click.option("--show-borrowed", is_flag=True, help="Show addresses that are used by another node than their block's.")
@click.option("--show-configuration", is_flag=True, help="Show the settings of IPAM.")
@click.option("--ip", metavar="ADDRESS", help="Show one address: its block, its holder, its attributes.")
@output()
@stores
def show_(
    *,
    show_blocks: bool,
    show_borrowed: bool,
    show_configuration: bool,
    ip: str | None,
    output: str,
    store: str | None,
) -> None:
    """Show each pool: how many addresses it has, and how many are in use, reserved and free."""
    if show_blocks + show_borrowed + show_configuration + (ip is not None) > 1:
        raise BadInput("--show-blocks, --show-borrowed, --show-configuration and --ip are one at a time")
    if show_configuration:
        settings = on_store(store, _settings)
        _tell(settings, _settings_table(settings), output)
        return
    address = _address(ip) if ip is not None else None
    census = on_store(store, reading.take)
    if address is not None:
        state = address_state(census, address)
        _tell(state, _address_table(state), output)
    elif show_borrowed:
        rows = list(_borrowed(census))
        _tell(rows, _borrowed_table(rows), output, "no address is borrowed")
    else:
        pools = usage(census)
        _tell(pools, pools_table(pools, blocks=show_blocks), output, "there is no pool")
    for key, defect in census.unreadable:
        click.echo(f"bgpd: a stored value cannot be used: {key}: {defect}", err=True)


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise BadInput(f"--ip: {error}") from error


def _tell(value: object, table: Table, output: str, nothing: str = "") -> None:
    if output == "json":
        show_json(msgspec.Raw(encode(value)))
    elif table.rows:
        show(table)
    else:
        click.echo(nothing, err=True)


# ------------------------------------------------------------------ pools and blocks


def pools_table(pools: Sequence[PoolUsage], *, blocks: bool) -> Table:
    """Lay out a row for each pool, followed by one for each of its blocks where they are asked for."""
    columns = [Column("GROUPING"), Column("CIDR")]
    columns += [Column(title, right=True) for title in ("IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE")]
    rows: list[tuple[Cell, ...]] = []
    for pool in pools:
        grouping = "No pool" if pool.cidr is None else "IP Pool" + (" (disabled)" if pool.disabled else "")
        rows.append((grouping, str(pool.cidr) if pool.cidr is not None else "", *_numbers(pool.usage)))
        if blocks:
            rows += [
                (Styled("Block (malformed)", BAD) if block.defect else "Block", str(block.cidr), *_numbers(block.usage))
                for block in pool.blocks
            ]
    return Table(columns, rows)


def _numbers(numbers: Usage) -> tuple[Cell, ...]:
    free = _share(numbers.free, numbers.total)
    return (
        _count(numbers.total),
        _share(numbers.in_use, numbers.total),
        _share(numbers.reserved, numbers.total),
        free if numbers.free else Styled(free, BAD),
    )


def _share(number: int, total: int) -> str:
    return f"{_count(number)} ({100 * number // total}%)"


def _count(number: int) -> str:
    """Write a number of addresses; the huge ones of IPv6 pools as 1.8e+19."""
    return str(number) if number < COUNT_LIMIT else f"{number:.1e}"


# ------------------------------------------------------------------ borrowed


def _borrowed(census: Census) -> Iterator[Borrowed]:
    for stored in sorted(census.blocks, key=lambda one: one.cidr):
        if stored.record is not None:
            for held in borrowed(stored.record):
                yield Borrowed(
                    ip=held.address,
                    borrowing_node=held.node or "",
                    block=stored.cidr,
                    block_owner=_owner(stored.record),
                    type=held.type,
                    allocated_to=held.allocated_to,
                )


def _borrowed_table(rows: Sequence[Borrowed]) -> Table:
    titles = ("IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO")
    return Table(
        [Column(title) for title in titles],
        [
            (str(row.ip), row.borrowing_node, str(row.block), row.block_owner, row.type, row.allocated_to)
            for row in rows
        ],
    )


def _owner(record: BlockRecord) -> str:
    return (record.affinity or "").removeprefix(HOST)


# ------------------------------------------------------------------ settings


async def _settings(store: Store) -> list[Setting]:
    stored = await get_resource(store, IPAMCONFIGURATION, "default")
    given = stored.resource["spec"] if stored is not None else {}
    spec = {"kubeVirtVMAddressPersistence": None, "ipCooldownSeconds": 0, **effective(IPAMCONFIGURATION, given)}
    return [Setting(name[0].upper() + name[1:], _plain(value)) for name, value in sorted(spec.items())]


def _plain(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings_table(settings: Sequence[Setting]) -> Table:
    return Table([Column("PROPERTY"), Column("VALUE")], [(one.property, one.value) for one in settings])


# ------------------------------------------------------------------ one address


def address_state(census: Census, address: Address) -> AddressState:
    """Say what is known of *address*."""
    pool = PoolIndex(census.pools).of(address, address.family.bits)
    stored = next((one for one in census.blocks if one.cidr.holds(address)), None)
    record = stored.record if stored is not None else None
    held = next((one for one in holdings(record) if one.address == address), None) if record is not None else None
    return AddressState(
        ip=address,
        state="in use" if held is not None else _unheld(census, address, stored, pooled=pool is not None),
        pool=pool.name if pool is not None else "",
        block=stored.cidr if stored is not None else None,
        block_owner=_owner(record) if record is not None else "",
        handle=held.handle or "" if held is not None else "",
        sequence=held.sequence if held is not None else None,
        attributes=dict(held.attributes) if held is not None else {},
    )


def _unheld(census: Census, address: Address, stored: StoredBlock | None, *, pooled: bool) -> str:
    if stored is not None and stored.record is None:
        return "unreadable"
    if stored is not None and stored.record is not None:
        ordinal = address - stored.cidr.network
        if stored.record.allocations[ordinal] is not None:
            return "resting"
    if Ranges(census.reservations).holds(address):
        return "reserved"
    if stored is not None:
        return "free"
    return "unclaimed" if pooled else "outside"


_SENTENCES = {
    "in use": "is in use",
    "resting": "was released and rests before it is free",
    "reserved": "is reserved",
    "free": "is not assigned",
    "unclaimed": "is not assigned: no node has claimed its block",
    "outside": "is in no pool",
    "unreadable": "is in a block whose record is malformed",
}


def _address_table(state: AddressState) -> Table:
    rows: list[tuple[Cell, Cell]] = [("IP", f"{state.ip} {_SENTENCES[state.state]}")]
    rows += [
        (title, text)
        for title, text in (
            ("Pool", state.pool),
            ("Block", str(state.block) if state.block is not None else ""),
            ("Block owner", state.block_owner),
            ("Handle", state.handle),
            ("Sequence", "" if state.sequence is None else str(state.sequence)),
        )
        if text
    ]
    rows += [(f"  {name}", value) for name, value in sorted(state.attributes.items())]
    return Table([Column(""), Column("")], rows)
