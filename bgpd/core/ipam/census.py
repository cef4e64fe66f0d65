"""A census of IPAM: everything that is stored about addresses as of one revision, and what it adds up to.

Laws: total = in use + resting + reserved + free, for each block and each pool; an address that is held counts as in use
even where it is reserved (a reservation evicts nobody). Numbers are exact, also for pools of 2^80 addresses, and cost
does not grow with a pool's size: only blocks are walked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from bgpd.core.ipam.block import HOST, BlockRecord, HandleRecord
from bgpd.core.ipam.ranges import Ranges
from bgpd.core.ipam.tunnel import TunnelKind
from bgpd.model.pool import AffinityState, Pool
from bgpd.model.prefix import Address, Prefix


class StoredBlock(msgspec.Struct, frozen=True):
    cidr: Prefix
    record: BlockRecord | None
    """None: it is malformed."""
    defect: str = ""


class StoredAffinity(msgspec.Struct, frozen=True):
    cidr: Prefix
    owner: str
    """``host:<node>`` or ``virtual:<name>``."""
    state: AffinityState


class StoredHandle(msgspec.Struct, frozen=True):
    record: HandleRecord
    revision: int


class StoredNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node, as far as addresses depend on it."""

    resource: bool = False
    """Its Node resource exists."""
    alive: bool = False
    """Its daemon lives."""
    tunnels: Mapping[TunnelKind, Address] = {}
    """Tunnel addresses by its Node resource."""
    traces: tuple[Prefix, ...] | None = None
    """Local routes and addresses by which its daemon reaches workloads; None: it does not say."""


class Census(msgspec.Struct, frozen=True, kw_only=True):
    revision: int = 0
    pools: tuple[Pool, ...] = ()
    reservations: tuple[Prefix, ...] = ()
    blocks: tuple[StoredBlock, ...] = ()
    affinities: tuple[StoredAffinity, ...] = ()
    handles: Mapping[str, StoredHandle] = {}
    nodes: Mapping[str, StoredNode] = {}
    endpoints: Mapping[Address, str] = {}
    """Addresses of Calico's WorkloadEndpoints, and their namespaces and names."""
    endpoint_nodes: frozenset[str] = frozenset()
    """Nodes that have WorkloadEndpoints."""
    unreadable: tuple[tuple[str, str], ...] = ()
    """Keys whose values cannot be used, blocks apart, and why."""
    cluster_guid: str = ""
    locked: bool = False
    """The cluster's datastoreReady is false: nobody may allocate."""


# ------------------------------------------------------------------ who holds what


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """An address that is held."""

    address: Address
    block: Prefix
    handle: str | None
    attributes: Mapping[str, str]
    sequence: int | None
    """Sequence number of its allocation: a release that carries it frees no later holder."""

    @property
    def node(self) -> str | None:
        """The node that uses it; None where the allocation does not say."""
        return self.attributes.get("node")

    @property
    def tunnel(self) -> TunnelKind | None:
        return TunnelKind.of(self.attributes.get("type"))

    @property
    def type(self) -> str:
        return self.attributes.get("type") or ("pod" if "pod" in self.attributes else "")

    @property
    def allocated_to(self) -> str:
        """Name the holder: its namespace and pod where known, else its handle."""
        if "pod" in self.attributes:
            return f"{self.attributes.get('namespace', 'default')}/{self.attributes['pod']}"
        return self.handle or ""


def holdings(block: BlockRecord) -> Iterator[Holding]:
    """Iterate over the addresses of a block that are held, in order; resting ones are not."""
    for ordinal, slot in enumerate(block.allocations):
        if slot is None:
            continue
        attribute = block.attributes[slot]
        if attribute.is_cooling:
            continue
        yield Holding(
            address=block.cidr.address(ordinal),
            block=block.cidr,
            handle=attribute.handle_id,
            attributes=attribute.secondary,
            sequence=block.sequence_number_for_allocation.get(str(ordinal)),
        )


def borrowed(block: BlockRecord) -> Iterator[Holding]:
    """Iterate over the addresses that another node than the block's uses, or any node where the block has none."""
    return (held for held in holdings(block) if held.node is not None and held.node != block.node)


# ------------------------------------------------------------------ what it adds up to


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of addresses."""

    total: int
    in_use: int
    cooling: int
    """Released, and resting before they are free."""
    reserved: int
    """Neither held nor resting, and barred from being handed out."""
    free: int

    @classmethod
    def of(cls, total: int, in_use: int, cooling: int, reserved: int) -> Usage:
        """Return the numbers with what is left as free; what is reserved beyond that does not count."""
        reserved = min(reserved, total - in_use - cooling)
        free = total - in_use - cooling - reserved
        return cls(total=total, in_use=in_use, cooling=cooling, reserved=reserved, free=free)


class BlockUsage(msgspec.Struct, frozen=True, kw_only=True):
    cidr: Prefix
    owner: str
    """As the block says; empty for none."""
    affinity: str
    """State of the owner's affinity: confirmed, pending, pendingDeletion; none where there is none."""
    usage: Usage
    borrowed: int = 0
    defect: str = ""

    @property
    def node(self) -> str:
        """The node that owns it; empty for none."""
        return self.owner.removeprefix(HOST) if self.owner.startswith(HOST) else ""


class PoolUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A pool with its blocks; the blocks of no pool are under one without a name."""

    name: str
    cidr: Prefix | None
    block_size: int
    disabled: bool
    usage: Usage
    blocks: tuple[BlockUsage, ...]


class PoolIndex:
    """Finds the pool of a block or address, whatever the number of pools."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._by_cidr = {pool.cidr: pool for pool in pools}
        self._lengths = sorted({cidr.length for cidr in self._by_cidr}, reverse=True)

    def of(self, address: Address, length: int) -> Pool | None:
        """Return the most specific pool that covers *address*/*length*."""
        for pool_length in self._lengths:
            if pool_length <= length and pool_length <= address.family.bits:
                pool = self._by_cidr.get(Prefix.of(address, pool_length))
                if pool is not None:
                    return pool
        return None


def usage(census: Census) -> tuple[PoolUsage, ...]:
    """Add up each pool, in order of their ranges; blocks of no pool come last."""
    index = PoolIndex(census.pools)
    reserved = Ranges(census.reservations)
    states = {(one.cidr, one.owner): one.state for one in census.affinities}
    members: dict[str, list[BlockUsage]] = {pool.name: [] for pool in census.pools}
    strays: list[BlockUsage] = []
    held_reserved = dict.fromkeys(members, 0)
    for stored in sorted(census.blocks, key=lambda one: one.cidr):
        row, overlap = _block_usage(stored, reserved, states)
        pool = index.of(stored.cidr.network, stored.cidr.length)
        if pool is None:
            strays.append(row)
        else:
            members[pool.name].append(row)
            held_reserved[pool.name] += overlap
    found = [
        _pool_usage(pool, members[pool.name], reserved.count(pool.cidr) - held_reserved[pool.name])
        for pool in sorted(census.pools, key=lambda pool: pool.cidr)
    ]
    if strays:
        found.append(_stray_usage(strays))
    return tuple(found)


def _block_usage(
    stored: StoredBlock, reserved: Ranges, states: Mapping[tuple[Prefix, str], AffinityState]
) -> tuple[BlockUsage, int]:
    """Add up a block; also return how many of its reserved addresses are held or rest. A malformed block has none free."""
    record, size = stored.record, stored.cidr.size
    if record is None:
        every = Usage.of(size, 0, 0, size)
        return BlockUsage(cidr=stored.cidr, owner="", affinity="none", usage=every, defect=stored.defect), 0
    in_use = record.in_use
    taken = size - len(record.unallocated)
    overlap = 0
    if reserved and reserved.count(stored.cidr):
        overlap = sum(
            slot is not None and reserved.holds(stored.cidr.address(ordinal))
            for ordinal, slot in enumerate(record.allocations)
        )
    owner = record.affinity or ""
    state = states.get((stored.cidr, owner))
    row = BlockUsage(
        cidr=stored.cidr,
        owner=owner,
        affinity=state.value if state is not None else "none",
        usage=Usage.of(size, in_use, taken - in_use, reserved.count(stored.cidr) - overlap),
        borrowed=sum(1 for _ in borrowed(record)),
    )
    return row, overlap


def _pool_usage(pool: Pool, blocks: Sequence[BlockUsage], reserved: int) -> PoolUsage:
    # Addresses of malformed blocks are nobody's to hand out, so they count as reserved.
    broken = sum(block.usage.total for block in blocks if block.defect)
    return PoolUsage(
        name=pool.name,
        cidr=pool.cidr,
        block_size=pool.block_size,
        disabled=pool.disabled,
        usage=Usage.of(pool.cidr.size, *_taken(blocks), reserved + broken),
        blocks=tuple(blocks),
    )


def _stray_usage(blocks: Sequence[BlockUsage]) -> PoolUsage:
    total = sum(block.usage.total for block in blocks)
    counted = Usage.of(total, *_taken(blocks), sum(block.usage.reserved for block in blocks))
    return PoolUsage(name="", cidr=None, block_size=0, disabled=True, usage=counted, blocks=tuple(blocks))


def _taken(blocks: Sequence[BlockUsage]) -> tuple[int, int]:
    """Add up the addresses in use, and those that rest."""
    return sum(block.usage.in_use for block in blocks), sum(block.usage.cooling for block in blocks)
