"""Giving back: addresses, by address, handle or node, and blocks.

Block and handles are written together. Releasing again is no error: what nobody has is said to be so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Compare, Comparison, Delete, KeyValue, Put, Store, Write, read_all
from bgpd.adapters.store.ipam.reading import LOCKED, Attempt
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import (
    affinity_from,
    block_bytes,
    block_from,
    datastore_ready,
    handle_bytes,
    handle_from,
    ipam_config_from,
    pool_from,
)
from bgpd.adapters.store.transact import Plan, transact
from bgpd.core.ipam.block import BlockRecord, HandleRecord, Refused, parse_time, without_affinity, write_time
from bgpd.core.ipam.release import Change, Release, Released, handles_of, judge
from bgpd.core.ipam.release import release as after_release
from bgpd.model.pool import AffinityState, Pool
from bgpd.model.prefix import Address, Family, Prefix

HANDLES_PER_TXN = 60
"""Handles whose addresses one transaction gives back, at most: with the blocks it stays below what a transaction holds."""
BLOCKS_PER_TXN = 40
"""Blocks that one transaction gives addresses back of, at most."""
BLOCK_SIZES = {Family.IPV4: range(20, 33), Family.IPV6: range(116, 129)}
"""Lengths that a block may have (calico.md 1.1)."""


async def release(store: Store, wishes: Sequence[Release]) -> Released | Refused:
    """Give addresses back, block by block; what became of each is in the answer. Refused where IPAM is locked.

    Raises Transient (what was released before that is unallocated when asked again), and Malformed for a block that
    cannot be read.
    """
    outcome = Released()
    for cidr, part in (await _by_block(store, wishes)).items():
        for start in range(0, len(part), HANDLES_PER_TXN):
            some = part[start : start + HANDLES_PER_TXN]
            answer = await _commit(store, {cidr: some}, whole=False)
            if isinstance(answer, Refused):
                return answer
            outcome = outcome.joined(answer)
    known = {*outcome.released, *outcome.unallocated, *(address for address, _ in outcome.refused)}
    return outcome.joined(
        Released(unallocated=tuple({one.address: None for one in wishes if one.address not in known}))
    )


async def release_whole(store: Store, wishes: Sequence[Release]) -> Released | Refused:
    """Give addresses back in one transaction, all or none: Refused, with the reason, if a single one cannot be.

    What nobody has hinders nothing. Raises Transient, Malformed, and ValueError for addresses of too many blocks
    (BLOCKS_PER_TXN) or handles (HANDLES_PER_TXN).
    """
    parts = await _by_block(store, wishes)
    if len(parts) > BLOCKS_PER_TXN:
        raise ValueError(f"addresses of {len(parts)} blocks: one transaction holds {BLOCKS_PER_TXN}")
    return await _commit(store, parts, whole=True)


async def release_handle(store: Store, handle_id: str) -> Released | Refused:
    """Give back all that a handle has; nothing is released where it has nothing. Raises Transient and Malformed.

    The handle's record says where it has addresses; it goes with the last of them, also where it counted too much.
    """
    key = keys.handle_key(handle_id)
    outcome = Released()
    item = await store.get(key)
    if item is None:
        return outcome
    for cidr in counted(handle_from(key, handle_id, item.value)):
        answer = await _release_handle_in(store, handle_id, cidr)
        if isinstance(answer, Refused):
            return answer
        outcome = outcome.joined(answer)
    return outcome


async def release_node(store: Store, node: str) -> Released | Refused:
    """Give back all that a node has which is no more: its addresses in any block, then its blocks.

    Reads all blocks, page by page: a node's borrowed addresses are found nowhere else. Addresses that others hold in its
    blocks stay theirs. Raises Transient and Malformed.
    """
    outcome = Released()
    async for item in read_all(store, keys.BLOCKS):
        block = _readable(item)
        theirs = [] if block is None else _of_node(block, node)
        if theirs:
            answer = await release(store, theirs)
            if isinstance(answer, Refused):
                return answer
            outcome = outcome.joined(answer)
    for family in Family:
        async for item in read_all(store, keys.affinities_prefix(node, family)):
            about = keys.parse(item.key)
            if isinstance(about, keys.AffinityKey):
                refused = await release_block(store, about.cidr, node, dead=True)
                if refused == LOCKED:
                    return refused
    return outcome


async def release_block(
    store: Store,
    cidr: Prefix,
    node: str,
    *,
    require_empty: bool = False,
    sequence: int | None = None,
    min_age_s: float = 0.0,
    dead: bool = False,
) -> Refused | None:
    """End *node*'s affinity to a block: the block goes if it is empty, else it is nobody's and its addresses stay in use.

    An affinity to a block of another node, or to none, is deleted. None: it is done, or there was nothing to do. Refused
    with *require_empty* for a block with addresses, with *sequence* for a block that changed since, with *min_age_s* for
    one claimed later than that, and for an affinity that is pending without its block, since a claim is under way; not if
    the node is *dead*. Raises Transient, and Malformed for a block that cannot be read.
    """
    terms = _Terms(require_empty=require_empty, sequence=sequence, min_age_s=min_age_s, dead=dead)
    return await transact(store, lambda: _plan_block(Attempt(store), cidr, node, terms))


def counted(handle: HandleRecord) -> tuple[Prefix, ...]:
    """Return the blocks that a handle counts addresses in; raises Malformed."""
    try:
        return tuple(Prefix.parse(text) for text in handle.block)
    except ValueError as error:
        raise Malformed(keys.handle_key(handle.handle_id), str(error)) from error


async def locate(store: Store, addresses: Sequence[Address]) -> dict[Address, Prefix]:
    """Find the stored block of each address; without an entry where there is none. Raises Transient.

    Blocks have the size of their pool, but for those that are left of a pool that is gone: of these all sizes are tried.
    """
    attempt = Attempt(store)
    pools = [pool async for item in read_all(store, keys.POOLS) if (pool := _readable_pool(item)) is not None]
    found: dict[Address, Prefix] = {}
    likely = {
        address: Prefix.of(address, pool.block_size)
        for address in addresses
        if (pool := next((pool for pool in pools if pool.cidr.holds(address)), None)) is not None
    }
    await attempt.load(keys.block_key(cidr) for cidr in likely.values())
    for address in dict.fromkeys(addresses):
        guess = likely.get(address)
        if guess is not None and attempt.item(keys.block_key(guess)) is not None:
            found[address] = guess
            continue
        tried = [Prefix.of(address, size) for size in BLOCK_SIZES[address.family]]
        await attempt.load(keys.block_key(cidr) for cidr in tried)
        stored = [cidr for cidr in tried if attempt.item(keys.block_key(cidr)) is not None]
        if stored:
            found[address] = stored[-1]
    return found


# ------------------------------------------------------------------ addresses


async def _by_block(store: Store, wishes: Sequence[Release]) -> dict[Prefix, list[Release]]:
    """Group wishes by the stored block; those about addresses of no block are left out."""
    places = await locate(store, [wish.address for wish in wishes])
    parts: dict[Prefix, list[Release]] = {}
    for wish in wishes:
        if wish.address in places:
            parts.setdefault(places[wish.address], []).append(wish)
    return parts


async def _commit(store: Store, parts: Mapping[Prefix, Sequence[Release]], *, whole: bool) -> Released | Refused:
    return await transact(store, lambda: _plan(Attempt(store), parts, whole=whole))


async def _release_handle_in(store: Store, handle_id: str, cidr: Prefix) -> Released | Refused:
    return await transact(store, lambda: _plan_handle(Attempt(store), handle_id, cidr))


async def _plan(
    attempt: Attempt, parts: Mapping[Prefix, Sequence[Release]], *, whole: bool
) -> Plan[Released | Refused]:
    guard = await _guard(attempt, [keys.block_key(cidr) for cidr in parts])
    if guard is None:
        return Plan(LOCKED)
    outcome = Released()
    judged: list[tuple[BlockRecord, Released]] = []
    for cidr, wishes in parts.items():
        block = attempt.block(cidr)
        one = judge(block, wishes) if block else Released(unallocated=tuple(wish.address for wish in wishes))
        outcome = outcome.joined(one)
        if block is not None and one.released:
            judged.append((block, one))
    if whole and outcome.refused:
        address, why = outcome.refused[0]
        return Plan(Refused(f"address {address} {why}"))
    if not judged:
        return Plan(outcome)
    handles = await _handles(attempt, [name for block, one in judged for name in handles_of(block, one.released)])
    if len(handles) > HANDLES_PER_TXN:
        raise ValueError(f"addresses of {len(handles)} handles: one transaction holds {HANDLES_PER_TXN}")
    changes: list[Change] = []
    for block, one in judged:
        mine = {name: handles[name] for name in handles_of(block, one.released) if name in handles}
        changes.append(after_release(block, one, mine, _rest_from(attempt)))
        handles.update({handle.handle_id: handle for handle in changes[-1].handles})
    return Plan(outcome, *_writes(attempt, guard, changes, handles))


async def _plan_handle(attempt: Attempt, handle_id: str, cidr: Prefix) -> Plan[Released | Refused]:
    """Give back what a handle has in one block, and let it count that block no more."""
    handle_key, block_key = keys.handle_key(handle_id), keys.block_key(cidr)
    guard = await _guard(attempt, [handle_key, block_key])
    if guard is None:
        return Plan(LOCKED)
    if attempt.item(handle_key) is None:
        return Plan(Released())
    handle, block = attempt.handle(handle_id), attempt.block(cidr)
    mine = block.held_by(handle_id) if block is not None else ()
    if block is None or not mine:
        less = {text: number for text, number in handle.block.items() if text != str(cidr)}
        compares = (*guard, attempt.unchanged(handle_key), attempt.unchanged(block_key))
        return Plan(Released(), compares, (_handle_write(msgspec.structs.replace(handle, block=less)),))
    change = after_release(block, Released(released=mine), {handle_id: handle}, _rest_from(attempt))
    return Plan(change.outcome, *_writes(attempt, guard, [change], {one.handle_id: one for one in change.handles}))


async def _guard(attempt: Attempt, also: Sequence[str]) -> tuple[Compare, ...] | None:
    """Read the settings that a release rests on, and *also*; None where IPAM is locked."""
    settings = (keys.IPAM_CONFIG, keys.CLUSTER_INFORMATION)
    await attempt.load([*settings, *also])
    config, cluster = (attempt.item(key) for key in settings)
    attempt.cooldown_s = ipam_config_from(config.value if config else None).cooldown_s
    if not datastore_ready(cluster.value if cluster else None):
        return None
    return tuple(attempt.unchanged(key) for key in settings)


async def _handles(attempt: Attempt, names: Sequence[str]) -> dict[str, HandleRecord]:
    """Read handles; one that is not there or cannot be read is left as it is: it hinders no release."""
    await attempt.load(keys.handle_key(name) for name in names)
    found: dict[str, HandleRecord] = {}
    for name in dict.fromkeys(names):
        if attempt.item(keys.handle_key(name)) is not None:
            with suppress(Malformed):
                found[name] = attempt.handle(name)
    return found


def _rest_from(attempt: Attempt) -> str | None:
    return write_time(attempt.now) if attempt.cooldown_s else None


def _writes(
    attempt: Attempt, guard: Sequence[Compare], changes: Sequence[Change], handles: Mapping[str, HandleRecord]
) -> tuple[tuple[Comparison, ...], tuple[Write, ...]]:
    compares: list[Comparison] = list(guard)
    writes: list[Write] = []
    for change in changes:
        key = keys.block_key(change.cidr)
        compares.append(attempt.unchanged(key))
        writes.append(Delete(key) if change.block is None else Put(key, block_bytes(change.block)))
    for handle in handles.values():
        compares.append(attempt.unchanged(keys.handle_key(handle.handle_id)))
        writes.append(_handle_write(handle))
    return tuple(compares), tuple(writes)


def _handle_write(handle: HandleRecord) -> Write:
    key = keys.handle_key(handle.handle_id)
    return Put(key, handle_bytes(handle)) if handle.block else Delete(key)


def _of_node(block: BlockRecord, node: str) -> list[Release]:
    """Return wishes for what *node* holds in *block*, by the sequence numbers that were read: what is assigned anew since is left."""
    slots = {slot for slot, one in enumerate(block.attributes) if one.secondary.get("node") == node}
    addresses = (block.cidr.address(at) for at, slot in enumerate(block.allocations) if slot in slots)
    return [Release(address=address, sequence=block.sequence(address) or 0) for address in addresses]


def _readable(item: KeyValue) -> BlockRecord | None:
    try:
        about = keys.parse(item.key)
        return block_from(item.key, about.cidr, item.value) if isinstance(about, keys.BlockKey) else None
    except Malformed:
        return None


def _readable_pool(item: KeyValue) -> Pool | None:
    try:
        return pool_from(item.key, item.key.removeprefix(keys.POOLS), item.value)
    except Malformed:
        return None


# ------------------------------------------------------------------ blocks


class _Terms(msgspec.Struct, frozen=True, kw_only=True):
    require_empty: bool
    sequence: int | None
    min_age_s: float
    dead: bool


async def _plan_block(attempt: Attempt, cidr: Prefix, node: str, terms: _Terms) -> Plan[Refused | None]:
    block_key, affinity_key = keys.block_key(cidr), keys.affinity_key(node, cidr)
    guard = await _guard(attempt, [block_key, affinity_key])
    if guard is None:
        return Plan(LOCKED)
    block, writes = attempt.block(cidr), list[Write]()
    compares = (*guard, attempt.unchanged(block_key), attempt.unchanged(affinity_key))
    if (item := attempt.item(affinity_key)) is not None:
        # Calico writes a pending affinity, then the block, then confirms: without the affinity its block would be left alone.
        state = affinity_from(affinity_key, node, cidr, item.value).state
        if block is None and state is AffinityState.PENDING and not terms.dead:
            return Plan(Refused(f"a claim of block {cidr} by node {node} is under way: its affinity is pending"))
        writes.append(Delete(affinity_key))
    if block is not None and block.node == node:
        if why := _kept(attempt, block, terms):
            return Plan(Refused(why))
        writes.append(Delete(block_key) if block.is_empty else Put(block_key, block_bytes(without_affinity(block))))
    return Plan(None, compares, tuple(writes))


def _kept(attempt: Attempt, block: BlockRecord, terms: _Terms) -> str:
    """Say why a block is not released; empty where it is."""
    if terms.require_empty and not block.is_empty:
        held = len(block.allocations) - len(block.unallocated)
        return f"block {block.cidr} is not empty: {held} of its addresses are held or rest"
    if terms.sequence is not None and terms.sequence != block.sequence_number:
        return f"block {block.cidr} changed meanwhile (sequence {block.sequence_number}, not {terms.sequence})"
    claimed = parse_time(block.affinity_claim_time)
    if claimed is not None and (attempt.now - claimed).total_seconds() < terms.min_age_s:
        return f"block {block.cidr} was claimed less than {terms.min_age_s:g} s ago"
    return ""
