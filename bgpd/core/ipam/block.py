"""A block and its addresses (Calico: libcalico-go/lib/backend/model/block.go, lib/ipam/ipam_block.go).

Invariants of a block record, kept by every function here and checked by :func:`defects`:

* one slot per address; a slot is null or the index of an attribute;
* ``unallocated`` holds each free ordinal exactly once, and no other: allocated and unallocated together are the block;
* the oldest freed address is handed out first (allocation pops the head, release pushes to the tail), so an address
  rests before its reuse;
* a change adds one to the block's sequence number, and an allocated ordinal keeps the number that the block had: a
  release that names another number is about an earlier tenant.

What we do not know of a record is kept in ``extra`` and written back.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bgpd.model.prefix import Address, Prefix

HOST = "host:"
"""Kind of an affinity that is a node's."""


class Refused(msgspec.Struct, frozen=True):
    """An expected answer: it cannot be done, and why."""

    reason: str


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds addresses; slots of the same holder share it."""

    handle_id: str | None
    secondary: Mapping[str, str] = {}
    """Calico's ActiveOwnerAttrs: pod, namespace, node, type, …"""
    extra: Mapping[str, object] = {}

    @property
    def is_cooling(self) -> bool:
        """Whether the address is released and rests (``releasedAt``): neither in use nor free."""
        return self.handle_id is None and "releasedAt" in self.extra


class BlockRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A block as it is stored."""

    cidr: Prefix
    affinity: str | None
    """``host:<node>``, ``virtual:<name>``, or None."""
    affinity_claim_time: str | None = None
    """RFC 3339."""
    allocations: tuple[int | None, ...]
    unallocated: tuple[int, ...]
    attributes: tuple[Attribute, ...] = ()
    sequence_number: int = 0
    sequence_number_for_allocation: Mapping[str, int] = {}
    deleted: bool = False
    extra: Mapping[str, object] = {}

    @property
    def node(self) -> str | None:
        """The node it is affine to; None without affinity, or with one of another kind."""
        if self.affinity is None or not self.affinity.startswith(HOST):
            return None
        return self.affinity.removeprefix(HOST)

    @property
    def in_use(self) -> int:
        """Addresses that are held; resting ones are not."""
        return sum(slot is not None and not self.attributes[slot].is_cooling for slot in self.allocations)


class HandleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The blocks in which a holder has addresses, and how many."""

    handle_id: str
    block: Mapping[str, int] = {}
    deleted: bool = False
    extra: Mapping[str, object] = {}


class Assigned(msgspec.Struct, frozen=True):
    """An address, and the records to be stored for it; records equal to those given need no write."""

    block: BlockRecord
    handle: HandleRecord
    address: Address


def new_block(cidr: Prefix, node: str, sequence_number: int, claim_time: str) -> BlockRecord:
    """Return an empty block affine to *node*; *sequence_number* is the nanosecond of its making (calico.md 1.2)."""
    return BlockRecord(
        cidr=cidr,
        affinity=HOST + node,
        affinity_claim_time=claim_time,
        allocations=(None,) * cidr.size,
        unallocated=tuple(range(cidr.size)),
        sequence_number=sequence_number,
    )


def touched(block: BlockRecord) -> BlockRecord:
    """Return the block with its next sequence number: a write that voids what others decided by the old one."""
    return msgspec.structs.replace(block, sequence_number=block.sequence_number + 1)


def address_of(block: BlockRecord, handle_id: str) -> Address | None:
    """Return the first address of the block that *handle_id* holds."""
    for ordinal, slot in enumerate(block.allocations):
        if slot is not None and block.attributes[slot].handle_id == handle_id:
            return block.cidr.address(ordinal)
    return None


def assign(block: BlockRecord, handle: HandleRecord, attrs: Mapping[str, str], node: str) -> Assigned | Refused:
    """Give *handle* the longest-free address of *node*'s block; the one it has already, if it has one.

    The handle counts what it got, so that both records agree whether the address is new or found. O(addresses of the
    block).
    """
    if block.node != node:
        return Refused(f"block {block.cidr} is affine to {block.affinity or 'nobody'}, not to node {node}")
    cidr = str(block.cidr)
    held = address_of(block, handle.handle_id)
    if held is not None:
        return Assigned(block, _counting(handle, cidr, _count(block, handle.handle_id)), held)
    if not block.unallocated:
        return Refused(f"block {block.cidr} is full")
    ordinal, *rest = block.unallocated
    wanted = Attribute(handle_id=handle.handle_id, secondary={**attrs, "node": node})
    attributes = block.attributes if wanted in block.attributes else (*block.attributes, wanted)
    allocations = list(block.allocations)
    allocations[ordinal] = attributes.index(wanted)
    changed = msgspec.structs.replace(
        block,
        allocations=tuple(allocations),
        unallocated=tuple(rest),
        attributes=attributes,
        sequence_number=block.sequence_number + 1,
        sequence_number_for_allocation={
            **block.sequence_number_for_allocation,
            str(ordinal): block.sequence_number,
        },
    )
    return Assigned(changed, _counting(handle, cidr, 1), block.cidr.address(ordinal))


def defects(block: BlockRecord) -> tuple[str, ...]:
    """Name every broken invariant of the record; a record with a defect must not be allocated from."""
    size = block.cidr.size
    found = []
    if len(block.allocations) != size:
        found.append(f"{len(block.allocations)} allocations for {size} addresses")
    free = set(block.unallocated)
    if len(free) != len(block.unallocated):
        found.append("an ordinal is in unallocated more than once")
    if any(not 0 <= ordinal < size for ordinal in free):
        found.append("an unallocated ordinal is outside the block")
    used = {ordinal for ordinal, slot in enumerate(block.allocations) if slot is not None}
    if used & free:
        found.append(f"ordinal {min(used & free)} is both allocated and unallocated")
    if lost := set(range(size)) - used - free:
        found.append(f"ordinal {min(lost)} is neither allocated nor unallocated")
    if any(slot is not None and not 0 <= slot < len(block.attributes) for slot in block.allocations):
        found.append("an allocation points to no attribute")
    return tuple(found)


def _count(block: BlockRecord, handle_id: str) -> int:
    return sum(slot is not None and block.attributes[slot].handle_id == handle_id for slot in block.allocations)


def _counting(handle: HandleRecord, cidr: str, count: int) -> HandleRecord:
    if handle.block.get(cidr) == count:
        return handle
    return msgspec.structs.replace(handle, block={**handle.block, cidr: count})
