"""Which block a node takes of a pool (calico.md 1.5; Calico: libcalico-go/lib/ipam/ipam.go).

Laws: a node uses what it owns before it takes more; block and confirmed affinity are written together, so that no
pending state of ours is ever seen; claims of Calico that were interrupted are finished or taken back; another node's
block is never touched.

The search begins at a place that the node's name decides and goes on with wrap, so that nodes rarely meet and a node
finds its own place again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from bgpd.core.ipam.block import BlockRecord, Refused, new_block, touched
from bgpd.model.pool import AffinityState, Pool
from bgpd.model.prefix import Address, Prefix

BLOCKS_PER_NODE = 20
"""Blocks that one node may hold where the IPAM configuration says nothing (Calico's default)."""

_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193


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
    """Blocks that the node holds in all pools."""
    limit: int = BLOCKS_PER_NODE
    auto_allocate: bool = True
    """IPAM configuration ``auto_allocate_blocks``."""
    room: bool = False
    """Whether an own block must have a free address to do."""
    now_ns: int
    """Nanoseconds since the epoch."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """The node's block, and what is to be written in one transaction for it to be so; nothing if it is already."""

    cidr: Prefix
    block: BlockRecord | None = None
    """Block record to write; None: it stays as it is."""
    confirm: bool = False
    """Write the affinity as confirmed."""
    stale: tuple[Prefix, ...] = ()
    """Affinities of ours to delete, whose blocks belong to others."""


class Searched(msgspec.Struct, frozen=True):
    """No block among what was read; the search may go on."""


def claim(snapshot: Snapshot, pool: Pool, node: str) -> Claimed | Searched | Refused:
    """Decide which block of *pool* becomes (or is) *node*'s, by what *snapshot* holds."""
    if pool.disabled:
        return Refused(f"pool {pool.name} is disabled")
    stale = tuple(own.cidr for own in snapshot.owned if own.block is not None and own.block.node != node)
    for own in sorted(snapshot.owned, key=lambda own: own.cidr):
        if own.block is None or own.block.node != node or (snapshot.room and not own.block.unallocated):
            continue
        if own.state is AffinityState.CONFIRMED:
            return Claimed(cidr=own.cidr, stale=stale)
        return Claimed(cidr=own.cidr, block=touched(own.block), confirm=True, stale=stale)
    for own in sorted(snapshot.owned, key=lambda own: own.cidr):
        if own.block is None and not own.unreadable:
            return _fresh(own.cidr, snapshot, node, stale)
    return _search(snapshot, node, stale)


def _search(snapshot: Snapshot, node: str, stale: tuple[Prefix, ...]) -> Claimed | Searched | Refused:
    if not snapshot.auto_allocate:
        return Refused("blocks are not taken automatically: the IPAM configuration has auto_allocate_blocks false")
    if snapshot.held >= snapshot.limit:
        return Refused(f"limit of {snapshot.limit} blocks reached for node {node}")
    known = {own.cidr for own in snapshot.owned}
    for probe in snapshot.probes:
        if probe.cidr in known or probe.unreadable:
            continue
        if probe.block is None:
            return _fresh(probe.cidr, snapshot, node, stale)
        if probe.block.node == node and (probe.block.unallocated or not snapshot.room):
            return Claimed(cidr=probe.cidr, block=touched(probe.block), confirm=True, stale=stale)
    return Searched()


def _fresh(cidr: Prefix, snapshot: Snapshot, node: str, stale: tuple[Prefix, ...]) -> Claimed:
    moment = datetime.fromtimestamp(snapshot.now_ns // 1_000_000_000, tz=UTC)
    block = new_block(cidr, node, snapshot.now_ns, moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return Claimed(cidr=cidr, block=block, confirm=True, stale=stale)


def search_order(pool: Pool, node: str) -> Iterator[Prefix]:
    """Iterate over the blocks of *pool* in *node*'s order, each once; memory does not grow with the pool."""
    if pool.block_size < pool.cidr.length:
        return
    blocks = 1 << pool.block_size - pool.cidr.length
    start = fnv32(node.encode()) % blocks
    block_addresses = 1 << pool.cidr.family.bits - pool.block_size
    for step in range(blocks):
        offset = (start + step) % blocks * block_addresses
        yield Prefix.of(Address(pool.cidr.network + offset), pool.block_size)


def fnv32(data: bytes) -> int:
    """Return the FNV-1 hash of 32 bits (Go's hash/fnv New32), by which Calico seeds a host's search."""
    value = _FNV_OFFSET
    for byte in data:
        value = value * _FNV_PRIME & 0xFFFFFFFF ^ byte
    return value
