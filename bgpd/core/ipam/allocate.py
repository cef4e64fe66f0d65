"""Which block a node takes of a pool (calico.md 1.5; Calico: libcalico-go/lib/ipam/ipam.go).

Laws: a node uses what it owns before it takes more; block and confirmed affinity are written together, so that no
pending state of ours is ever seen; claims of Calico that were interrupted are finished or taken back; a block of another
node is taken only where it is empty and was so for a while, and together with that node's affinity; a block whose
addresses are all reserved is no block.

The search steps through a permutation of the pool that the node's name decides (:mod:`bgpd.core.ipam.search`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from bgpd.core.ipam.block import (
    HOST,
    BlockRecord,
    Refused,
    new_block,
    parse_time,
    touched,
    write_time,
)
from bgpd.core.ipam.reserve import Reserved
from bgpd.model.pool import AffinityState, Pool
from bgpd.model.prefix import Prefix

BLOCKS_PER_NODE = 20
"""Blocks that one node may hold where the IPAM configuration says nothing (Calico's default)."""
RECLAIM_AGE_S = 60.0
"""An empty block of another node is taken only so long after its claim (Calico's EmptyBlockMinReclaimAge): before, its
owner may be about to use it."""


class Owned(msgspec.Struct, frozen=True):
    """An affinity of the node, and the block that it speaks of."""

    cidr: Prefix
    state: AffinityState
    block: BlockRecord | None
    """None: the block does not exist."""
    unreadable: bool = False
    """There is one, but its record is malformed: it is neither used nor replaced."""


class Probe(msgspec.Struct, frozen=True):
    """A candidate of the search, and the block that is there."""

    cidr: Prefix
    block: BlockRecord | None
    unreadable: bool = False


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What was read for a claim. *probes* is a page of the search, which is read only as far as needed."""

    owned: tuple[Owned, ...] = ()
    """Affinities of the node within the pool."""
    probes: tuple[Probe, ...] = ()
    held: int = 0
    """Blocks that the node holds in all pools of the family."""
    limit: int = BLOCKS_PER_NODE
    auto_allocate: bool = True
    """IPAM configuration ``auto_allocate_blocks``."""
    room: bool = False
    """Whether an own block must have a free address to do."""
    reserved: Reserved = msgspec.field(default_factory=Reserved)
    now_ns: int
    """Nanoseconds since the epoch."""

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_ns / 1_000_000_000, tz=UTC)


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """The node's block, and what is to be written in one transaction for it to be so; nothing if it is already."""

    cidr: Prefix
    block: BlockRecord | None = None
    """Block record to write; None: it stays as it is."""
    confirm: bool = False
    """Write the affinity as confirmed."""
    stale: tuple[Prefix, ...] = ()
    """Affinities of ours to delete, whose blocks belong to others."""
    taken_from: str | None = None
    """The node whose empty block it was: its affinity is to be deleted."""


class Searched(msgspec.Struct, frozen=True):
    """No block among what was read; the search may go on."""


def claim(snapshot: Snapshot, pool: Pool, node: str) -> Claimed | Searched | Refused:
    """Decide which block of *pool* becomes (or is) *node*'s, by what *snapshot* holds."""
    if pool.disabled:
        return Refused(f"pool {pool.name} is disabled")
    stale = stale_affinities(snapshot, pool, node)
    owned = sorted(snapshot.owned, key=lambda own: own.cidr)
    for own in owned:
        if own.block is None or own.block.node != node or not usable(own.block, snapshot):
            continue
        if own.state is AffinityState.CONFIRMED:
            return Claimed(cidr=own.cidr, stale=stale)
        return Claimed(cidr=own.cidr, block=touched(own.block), confirm=True, stale=stale)
    for own in owned:
        is_missing = own.block is None and not own.unreadable and own.cidr not in stale
        if is_missing and not snapshot.reserved.covers(own.cidr):
            return _fresh(own.cidr, snapshot, node, stale)
    return _search(snapshot, node, stale)


def reclaim(snapshot: Snapshot, probes: Iterable[Probe], pool: Pool, node: str) -> Claimed | None:
    """Take the first block of another node that is empty and whose claim is old enough; None where there is none."""
    stale = stale_affinities(snapshot, pool, node)
    for probe in probes:
        block = probe.block
        if block is None or block.node in (None, node) or snapshot.reserved.covers(block.cidr):
            continue
        if is_reclaimable(block, snapshot.now):
            changed = _owned_by(block, node, snapshot)
            return Claimed(cidr=block.cidr, block=changed, confirm=True, stale=stale, taken_from=block.node)
    return None


def is_reclaimable(block: BlockRecord, now: datetime) -> bool:
    """Whether a block is empty and its claim old enough for another node to take it. A claim without a time is old."""
    if not block.is_empty:
        return False
    if block.affinity_claim_time is None:
        return True
    claimed = parse_time(block.affinity_claim_time)
    return claimed is not None and (now - claimed).total_seconds() >= RECLAIM_AGE_S


def stale_affinities(snapshot: Snapshot, pool: Pool, node: str) -> tuple[Prefix, ...]:
    """Return the node's affinities to delete: to others' blocks, and to absent ones of another size than the pool's."""
    return tuple(
        own.cidr
        for own in snapshot.owned
        if (own.block is not None and own.block.node != node)
        or (own.block is None and not own.unreadable and own.cidr.length != pool.block_size)
    )


def usable(block: BlockRecord, snapshot: Snapshot) -> bool:
    """Whether a block will do: not wholly reserved, and with a free address that is not reserved where one is needed."""
    if not snapshot.room:
        return not snapshot.reserved.covers(block.cidr)
    if not snapshot.reserved:
        return bool(block.unallocated)
    return any(not snapshot.reserved.holds(block.cidr.address(ordinal)) for ordinal in block.unallocated)


def limit_reached(limit: int, node: str) -> Refused:
    return Refused(f"limit of {limit} blocks reached for node {node}")


def _search(snapshot: Snapshot, node: str, stale: tuple[Prefix, ...]) -> Claimed | Searched | Refused:
    if not snapshot.auto_allocate:
        return Refused("blocks are not taken automatically: the IPAM configuration has auto_allocate_blocks false")
    if snapshot.held - len(stale) >= snapshot.limit:
        return limit_reached(snapshot.limit, node)
    known = {own.cidr for own in snapshot.owned}
    for probe in snapshot.probes:
        if probe.cidr in known or probe.unreadable or snapshot.reserved.covers(probe.cidr):
            continue
        if probe.block is None:
            return _fresh(probe.cidr, snapshot, node, stale)
        if probe.block.node == node and usable(probe.block, snapshot):
            return Claimed(cidr=probe.cidr, block=touched(probe.block), confirm=True, stale=stale)
        if probe.block.affinity is None and probe.block.is_empty:
            block = _owned_by(probe.block, node, snapshot)
            return Claimed(cidr=probe.cidr, block=block, confirm=True, stale=stale)
    return Searched()


def _fresh(cidr: Prefix, snapshot: Snapshot, node: str, stale: tuple[Prefix, ...]) -> Claimed:
    block = new_block(cidr, node, snapshot.now_ns, write_time(snapshot.now))
    return Claimed(cidr=cidr, block=block, confirm=True, stale=stale)


def _owned_by(block: BlockRecord, node: str, snapshot: Snapshot) -> BlockRecord:
    return msgspec.structs.replace(touched(block), affinity=HOST + node, affinity_claim_time=write_time(snapshot.now))
