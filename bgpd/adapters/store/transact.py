"""Read, decide, commit: the only retry loop around the store's transactions, and what IPAM does through it.

A plan names every key that its decision rests on with the revision that was read; one transaction compares them all and
makes all writes, so a crash or a race leaves either all or nothing. On conflict everything is read anew. A transaction
that ended in Transient has an unknown outcome: the caller calls again, and since every operation here begins with
reading and is idempotent, it finds what it did.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Generic, TypeVar

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import (
    Compacted,
    Compare,
    Comparison,
    Delete,
    KeyValue,
    Put,
    Store,
    Transient,
    Write,
    read_all,
)
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import (
    IpamConfig,
    affinity_bytes,
    affinity_from,
    block_bytes,
    block_from,
    handle_bytes,
    handle_from,
    ipam_config_from,
    pool_bytes,
    pool_from,
)
from bgpd.core.ipam.allocate import Claimed, Owned, Probe, Searched, Snapshot, claim, search_order
from bgpd.core.ipam.block import BlockRecord, HandleRecord, Refused, address_of, assign
from bgpd.model.pool import Affinity, AffinityState, BlockClaim, Pool
from bgpd.model.prefix import Address, Family, Prefix

CONFLICTS_MAX = 100
"""Attempts of one operation (Calico's datastoreRetries): each conflict means that another writer got on, so this is a
crowd, not a hang."""
CONFLICT_PAUSE_S = 0.002
"""Pause after a conflict, growing with their number up to ten times this."""
PROBES_MAX = 64
"""Candidates read at once; pages grow up to it, since the first candidate is nearly always free."""

T = TypeVar("T")


class Plan(msgspec.Struct, Generic[T], frozen=True):
    """An answer, and the transaction that makes it true; without writes it is true already."""

    answer: T
    compares: tuple[Comparison, ...] = ()
    writes: tuple[Write, ...] = ()


async def transact(store: Store, decide: Callable[[], Awaitable[Plan[T]]]) -> T:
    """Call *decide* and commit its plan, until no key that it read has changed meanwhile; raises Transient in the end."""
    for conflicts in range(CONFLICTS_MAX):
        try:
            plan = await decide()
            if not plan.writes or (await store.txn(plan.compares, plan.writes)).succeeded:
                return plan.answer
        except Compacted:
            pass  # writers outran a reading of several pages: that is a conflict as well
        await asyncio.sleep(CONFLICT_PAUSE_S * min(conflicts, 10))
    raise Transient(f"{CONFLICTS_MAX} conflicts with other writers")


async def claim_block(store: Store, pool: Pool, node: str, *, room: bool = False) -> Prefix | Refused:
    """Return a block of *pool* that is *node*'s, one with a free address if *room*: an own one, else a new one.

    Raises Transient, and Malformed for a stored value that cannot be used.
    """
    return await transact(store, lambda: _plan_claim(store, pool, node, room=room))


async def assign_address(
    store: Store, node: str, handle_id: str, attrs: Mapping[str, str], pool_name: str | None = None
) -> Address | Refused:
    """Give *handle_id* an IPv4 address of *node*'s blocks, of a new block if they are full; the one that it has, if any.

    Without *pool_name*, pools of assignmentMode Automatic are taken, in order of their names. Block and handle are
    written together. Raises Transient, and Malformed for a stored value that cannot be used.
    """
    pools = [pool for pool in await _pools(store) if pool.name == pool_name or (pool_name is None and pool.automatic)]
    known = bool(pools)
    pools = [pool for pool in pools if pool.cidr.family is Family.IPV4 and not pool.disabled]
    found = await transact(store, lambda: _plan_assign(store, pools, node, handle_id, attrs))
    if not isinstance(found, Refused):
        return found
    if pool_name is not None and not known:
        return Refused(f"there is no pool {pool_name}")
    if not pools:
        return Refused("there is no enabled IPv4 pool" + (f" {pool_name}" if pool_name else ""))
    refused = found
    for pool in pools:
        for _ in range(CONFLICTS_MAX):
            block = await claim_block(store, pool, node, room=True)
            if isinstance(block, Refused):
                refused = block
                break
            found = await transact(store, lambda: _plan_assign(store, pools, node, handle_id, attrs))
            if not isinstance(found, Refused):
                return found
    return refused


async def ensure_pool(store: Store, pool: Pool) -> bool:
    """Create *pool* if the store holds no IPPool at all; return whether it was created. Raises Transient."""

    async def decide() -> Plan[bool]:
        guard = await store.get(keys.DEFAULT_POOL)
        if (await store.range(keys.POOLS, limit=1)).items:
            return Plan(False)
        key = keys.pool_key(pool.name)
        mark = msgspec.json.encode({"name": pool.name})
        return Plan(
            True,
            (_unchanged(keys.DEFAULT_POOL, guard), Compare(key, 0)),
            (Put(keys.DEFAULT_POOL, mark), Put(key, pool_bytes(pool, datetime.now(UTC)))),
        )

    return await transact(store, decide)


class ClaimTarget:
    """The store as the target of the node's claims: at least one block of each pool that the core wants one of.

    *actual* holds the claims that are true, and *blocks* the block of each, by pool. A claim that is no longer wanted
    is forgotten here and stays in the store: giving a block back is a deliberate step, since workloads may use it.
    """

    name = "claims"

    def __init__(self, store: Store) -> None:
        self.actual: dict[str, BlockClaim] = {}
        self.blocks: dict[str, Prefix] = {}
        self._store = store

    async def apply(self, changes: Sequence[tuple[str, BlockClaim | None]]) -> dict[str, str]:
        """Make the claims true; return the reason by pool where one failed, to be retried."""
        failed: dict[str, str] = {}
        for pool_name, wanted in changes:
            if wanted is None:
                self.actual.pop(pool_name, None)
                self.blocks.pop(pool_name, None)
                continue
            try:
                block = await claim_block(self._store, wanted.pool, wanted.node)
            except (Transient, Malformed) as error:
                failed[pool_name] = str(error)
                continue
            if isinstance(block, Refused):
                failed[pool_name] = block.reason
            else:
                self.actual[pool_name] = wanted
                self.blocks[pool_name] = block
        return failed


# ------------------------------------------------------------------ claiming


async def _plan_claim(store: Store, pool: Pool, node: str, *, room: bool) -> Plan[Prefix | Refused]:
    revisions: dict[str, int] = {}
    affinities = await _affinities(store, node, pool.cidr.family)
    config = await _ipam_config(store)
    owned = []
    for affinity, _ in affinities:
        if pool.cidr.covers(affinity.cidr):
            probe = await _probe(store, affinity.cidr, revisions)
            owned.append(Owned(affinity.cidr, affinity.state, probe.block, probe.unreadable))
    stored = {affinity.cidr: item for affinity, item in affinities}
    snapshot = Snapshot(
        owned=tuple(owned),
        held=len(affinities),
        limit=config.limit,
        auto_allocate=config.auto_allocate_blocks,
        room=room,
        now_ns=time.time_ns(),
    )
    answer = claim(snapshot, pool, node)
    order = search_order(pool, node)
    size = 1
    while isinstance(answer, Searched):
        probes = await _probes(store, order, size, revisions)
        if not probes:
            return Plan(Refused(f"pool {pool.name} is full: each block of {pool.cidr} is taken"))
        answer = claim(msgspec.structs.replace(snapshot, probes=probes), pool, node)
        size = min(2 * size, PROBES_MAX)
    if isinstance(answer, Refused):
        return Plan(answer)
    return _claim_writes(answer, node, stored, revisions)


async def _probes(store: Store, order: Iterator[Prefix], size: int, revisions: dict[str, int]) -> tuple[Probe, ...]:
    """Read the next *size* candidates."""
    page = list(islice(order, size))
    revisions.clear()
    return tuple(await asyncio.gather(*(_probe(store, cidr, revisions) for cidr in page)))


async def _probe(store: Store, cidr: Prefix, revisions: dict[str, int]) -> Probe:
    """Read what is at a candidate; a malformed record makes it unreadable, and the watcher tells people of it."""
    try:
        return Probe(cidr, await _block(store, cidr, revisions))
    except Malformed:
        return Probe(cidr, None, unreadable=True)


def _claim_writes(
    answer: Claimed, node: str, stored: Mapping[Prefix, KeyValue], revisions: Mapping[str, int]
) -> Plan[Prefix | Refused]:
    compares: list[Compare] = []
    writes: list[Write] = []
    if answer.block is not None:
        key = keys.block_key(answer.cidr)
        compares.append(Compare(key, revisions[key]))
        writes.append(Put(key, block_bytes(answer.block)))
    if answer.confirm:
        key = keys.affinity_key(node, answer.cidr)
        held = stored.get(answer.cidr)
        compares.append(_unchanged(key, held))
        writes.append(Put(key, affinity_bytes(key, AffinityState.CONFIRMED, held.value if held else None)))
    for cidr in answer.stale:
        key = keys.affinity_key(node, cidr)
        compares.append(_unchanged(key, stored[cidr]))
        writes.append(Delete(key))
    return Plan(answer.cidr, tuple(compares), tuple(writes))


# ------------------------------------------------------------------ assigning


async def _plan_assign(
    store: Store, pools: Sequence[Pool], node: str, handle_id: str, attrs: Mapping[str, str]
) -> Plan[Address | Refused]:
    handle_key = keys.handle_key(handle_id)
    item = await store.get(handle_key)
    handle = handle_from(handle_key, handle_id, item.value) if item else HandleRecord(handle_id=handle_id)
    if (held := await _held_address(store, handle)) is not None:
        return Plan(held)
    refused = Refused(f"node {node} has no block in an enabled pool")
    for affinity, _ in sorted(await _affinities(store, node, Family.IPV4), key=lambda pair: pair[0].cidr):
        if affinity.state is not AffinityState.CONFIRMED or not any(pool.cidr.covers(affinity.cidr) for pool in pools):
            continue
        revisions: dict[str, int] = {}
        block = (await _probe(store, affinity.cidr, revisions)).block
        result = assign(block, handle, attrs, node) if block else Refused(f"block {affinity.cidr} cannot be read")
        if isinstance(result, Refused):
            refused = result
            continue
        block_key = keys.block_key(affinity.cidr)
        return Plan(
            result.address,
            (Compare(block_key, revisions[block_key]), _unchanged(handle_key, item)),
            (Put(block_key, block_bytes(result.block)), Put(handle_key, handle_bytes(result.handle))),
        )
    return Plan(refused)


async def _held_address(store: Store, handle: HandleRecord) -> Address | None:
    """Return the IPv4 address that the handle has; a handle that counts an address which no block has is not believed."""
    for text in handle.block:
        try:
            cidr = Prefix.parse(text)
        except ValueError as error:
            raise Malformed(keys.handle_key(handle.handle_id), str(error)) from error
        if cidr.family is Family.IPV4:
            block = await _block(store, cidr, {})
            if block is not None and (address := address_of(block, handle.handle_id)) is not None:
                return address
    return None


# ------------------------------------------------------------------ reading


async def _block(store: Store, cidr: Prefix, revisions: dict[str, int]) -> BlockRecord | None:
    """Read a block, and note the revision of its key."""
    key = keys.block_key(cidr)
    item = await store.get(key)
    revisions[key] = item.mod_revision if item else 0
    return block_from(key, cidr, item.value) if item else None


async def _affinities(store: Store, node: str, family: Family) -> list[tuple[Affinity, KeyValue]]:
    found = []
    async for item in read_all(store, keys.affinities_prefix(node, family)):
        match keys.parse(item.key):
            case keys.AffinityKey(cidr=cidr):
                found.append((affinity_from(item.key, node, cidr, item.value), item))
            case _:
                raise Malformed(item.key, "it is not the key of an affinity")
    return found


async def _pools(store: Store) -> list[Pool]:
    """Read all pools that can be read, in order of names; the watcher tells people of the others."""
    found = []
    async for item in read_all(store, keys.POOLS):
        with suppress(Malformed):
            found.append(pool_from(item.key, item.key.removeprefix(keys.POOLS), item.value))
    return found


async def _ipam_config(store: Store) -> IpamConfig:
    item = await store.get(keys.IPAM_CONFIG)
    return ipam_config_from(item.value if item else None)


def _unchanged(key: str, item: KeyValue | None) -> Compare:
    return Compare(key, item.mod_revision if item else 0)
