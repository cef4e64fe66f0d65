"""Claiming blocks: read, decide (:mod:`bgpd.core.ipam.allocate`), commit block and affinity together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import islice

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Comparison, Delete, Put, Scan, Store, Write
from bgpd.adapters.store.ipam.reading import LOCKED, Attempt, Context
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import affinity_bytes, block_bytes
from bgpd.adapters.store.transact import Plan, transact
from bgpd.core.ipam.allocate import Claimed, Owned, Probe, Searched, Snapshot, claim, reclaim
from bgpd.core.ipam.block import Refused
from bgpd.core.ipam.search import PROBES_MAX, UNIT_BLOCKS, Unit, block_count, first_free, search_order, units
from bgpd.model.pool import AffinityState, Pool
from bgpd.model.prefix import Prefix

FIRST_PROBES = 2
"""Candidates read along with the settings: the first is nearly always free, so a claim is one reading and one transaction."""
PAGE_PROBES = 64
"""Candidates of a later page: some 50 kB of blocks."""
UNITS_READ = 64
"""Units listed in one reading, where they are small."""


async def claim_block(
    store: Store, pool: Pool, node: str, *, room: bool = False, reclaims: bool = False, limit: int = 0
) -> Prefix | Refused:
    """Return a block of *pool* that is *node*'s: an own one, else a new one.

    With *room* one that has a free address; with *reclaims* also an empty block of another node, where no other is left.
    *limit* lowers the cluster's limit of blocks for a node. Raises Transient, and Malformed for a stored value that
    cannot be used.
    """
    return await transact(store, lambda: _plan(Attempt(store), pool, node, room=room, reclaims=reclaims, limit=limit))


async def _plan(
    attempt: Attempt, pool: Pool, node: str, *, room: bool, reclaims: bool, limit: int
) -> Plan[Prefix | Refused]:
    order = search_order(pool, node)
    first = list(islice(order, FIRST_PROBES))
    context = await attempt.context(node, pool.cidr.family, *(keys.block_key(cidr) for cidr in first))
    if context.locked:
        return Plan(LOCKED)
    stored = context.pool(pool.name) or pool
    if (stored.cidr, stored.block_size) != (pool.cidr, pool.block_size):
        return Plan(Refused(f"pool {pool.name} is {stored.cidr} with blocks of /{stored.block_size} now"))
    pool = stored  # as it is now: it may be disabled since the caller looked
    snapshot = await _snapshot(attempt, context, pool, room=room, limit=limit)
    seen: list[Probe] = []
    answer = claim(snapshot, pool, node)
    if isinstance(answer, Searched):
        async for probes in _pages(attempt, first, order):
            seen += probes
            answer = claim(msgspec.structs.replace(snapshot, probes=probes), pool, node)
            if not isinstance(answer, Searched):
                break
    if isinstance(answer, Searched) and len(seen) < block_count(pool):
        free = await _listed(attempt, pool, node)
        if free is not None:
            answer = claim(msgspec.structs.replace(snapshot, probes=(free,)), pool, node)
    if isinstance(answer, Searched) and reclaims:
        answer = reclaim(snapshot, seen, pool, node) or answer
    if isinstance(answer, Searched):
        return Plan(Refused(_exhausted(pool, len(seen))))
    if isinstance(answer, Refused):
        return Plan(answer)
    return Plan(answer.cidr, *await _writes(attempt, context, answer, node))


def _exhausted(pool: Pool, probed: int) -> str:
    if probed == block_count(pool):
        return f"pool {pool.name} is full: each block of {pool.cidr} is taken or reserved"
    return f"pool {pool.name} is full: no block of {pool.cidr} is free, and none of {probed} looked at is given up"


async def _snapshot(attempt: Attempt, context: Context, pool: Pool, *, room: bool, limit: int) -> Snapshot:
    mine = [held.affinity for held in context.held if pool.cidr.covers(held.affinity.cidr)]
    await attempt.load(keys.block_key(affinity.cidr) for affinity in mine)
    owned = []
    for affinity in mine:
        probe = _probe(attempt, affinity.cidr)
        owned.append(Owned(affinity.cidr, affinity.state, probe.block, probe.unreadable))
    owned += [Owned(cidr, AffinityState.PENDING, None, unreadable=True) for cidr in context.unreadable]
    return Snapshot(
        owned=tuple(owned),
        held=context.held_count,
        limit=min(context.config.limit, limit or context.config.limit),
        auto_allocate=context.config.auto_allocate_blocks,
        room=room,
        reserved=context.reserved,
        now_ns=attempt.now_ns,
    )


def _probe(attempt: Attempt, cidr: Prefix) -> Probe:
    try:
        return Probe(cidr, attempt.block(cidr))
    except Malformed:
        return Probe(cidr, None, unreadable=True)


async def _pages(attempt: Attempt, first: list[Prefix], order: Iterator[Prefix]) -> AsyncIterator[tuple[Probe, ...]]:
    """Look at candidates in the node's order, page by page, PROBES_MAX at most."""
    page, left = first, PROBES_MAX
    while page:
        await attempt.load(keys.block_key(cidr) for cidr in page)
        yield tuple(_probe(attempt, cidr) for cidr in page)
        left -= len(page)
        page = list(islice(order, min(PAGE_PROBES, left)))


async def _listed(attempt: Attempt, pool: Pool, node: str) -> Probe | None:
    """Find a block that has no key, by listing the keys of one unit of the pool after the other; None where all have one."""
    rest = units(pool, node)
    while some := list(islice(rest, 1)):
        small = 1 << pool.block_size - some[0].cidr.length
        some += islice(rest, min(UNITS_READ, UNIT_BLOCKS // small) - 1 if small < UNIT_BLOCKS else 0)
        for unit, taken in await _taken(attempt, some):
            cidr = first_free(unit, pool.block_size, taken, node)
            if cidr is not None:
                await attempt.load([keys.block_key(cidr)])
                return _probe(attempt, cidr)
    return None


async def _taken(attempt: Attempt, some: list[Unit]) -> list[tuple[Unit, list[Prefix]]]:
    """List the stored blocks of several units, keys only."""
    prefixes = [keys.pool_blocks_prefix(unit.cidr) for unit in some]
    reading = await attempt.store.read([Scan(prefix, UNIT_BLOCKS, keys_only=True) for prefix in prefixes])
    found: list[tuple[Unit, list[Prefix]]] = []
    for unit, prefix, first in zip(some, prefixes, reading.pages, strict=True):
        page, taken = first, [_cidr(item.key) for item in first.items]
        while page.more:
            part = Scan(prefix, UNIT_BLOCKS, start=page.items[-1].key + "\0", keys_only=True)
            page = (await attempt.store.read([part])).pages[0]
            taken += (_cidr(item.key) for item in page.items)
        found.append((unit, [cidr for cidr in taken if cidr is not None]))
    return found


def _cidr(key: str) -> Prefix | None:
    try:
        match keys.parse(key):
            case keys.BlockKey(cidr=cidr):
                return cidr
            case _:
                return None
    except Malformed:
        return None


async def _writes(
    attempt: Attempt, context: Context, answer: Claimed, node: str
) -> tuple[tuple[Comparison, ...], tuple[Write, ...]]:
    """Return what makes the claim true, and what it rests on; nothing where it is true already."""
    compares: list[Comparison] = []
    writes: list[Write] = []
    if answer.block is not None:
        key = keys.block_key(answer.cidr)
        compares.append(attempt.unchanged(key))
        writes.append(Put(key, block_bytes(answer.block)))
    if answer.taken_from is not None:
        key = keys.affinity_key(answer.taken_from, answer.cidr)
        await attempt.load([key])
        compares.append(attempt.unchanged(key))
        writes.append(Delete(key))
    if answer.confirm:
        key = keys.affinity_key(node, answer.cidr)
        item = attempt.affinity(key)
        compares.append(attempt.unchanged(key))
        writes.append(Put(key, affinity_bytes(key, AffinityState.CONFIRMED, item.value if item else None)))
    for cidr in answer.stale:
        key = keys.affinity_key(node, cidr)
        compares.append(attempt.unchanged(key))
        writes.append(Delete(key))
    if not writes:
        return (), ()
    return (*context.compares, context.affinities, *compares), tuple(writes)
