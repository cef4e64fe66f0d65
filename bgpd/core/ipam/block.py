"""A block and its addresses (Calico: libcalico-go/lib/backend/model/block.go, lib/ipam/ipam_block.go).

Invariants of a block record, kept by every function here and checked by :func:`defects`:

* one slot per address; a slot is null or the index of an attribute;
* ``unallocated`` holds each free ordinal exactly once, and no other: allocated and unallocated together are the block;
* the oldest freed address is handed out first (allocation pops the head, release pushes to the tail), so an address
  rests before its reuse; with a cool-down it rests by time as well, as an allocation whose attribute has ``releasedAt``;
* a change adds one to the block's sequence number, and an allocated ordinal keeps the number that the block had: a
  release that names another number is about an earlier tenant;
* an attribute that no slot refers to any more is dropped.

What we do not know of a record is kept in ``extra`` and written back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from bgpd.model.prefix import Address, Prefix

HOST = "host:"
"""Kind of an affinity that is a node's."""
COOLDOWN_MAX_S = 1200
"""Longest cool-down (calico.md 1.3). A release that is further in the future than this is a clock's error, not a rest."""
RELEASED_AT = "releasedAt"


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
        return self.handle_id is None and RELEASED_AT in self.extra

    def __str__(self) -> str:
        """Name the holder for people."""
        if self.is_cooling:
            return f"nobody: it rests since {self.extra[RELEASED_AT]}"
        name = f"handle {self.handle_id}" if self.handle_id is not None else "a holder without handle"
        pod, node = self.secondary.get("pod"), self.secondary.get("node")
        who = f"pod {self.secondary.get('namespace', '')}/{pod}" if pod else self.secondary.get("type", "")
        parts = [part for part in (who, f"node {node}" if node else "") if part]
        return f"{name} ({', '.join(parts)})" if parts else name


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

    @property
    def is_empty(self) -> bool:
        """Whether no address is held or rests, so that the record may go without losing anything."""
        return len(self.unallocated) == len(self.allocations)

    def holder(self, address: Address) -> Attribute | None:
        """Return who holds *address* of this block; None where it is free."""
        slot = self.allocations[address - self.cidr.network]
        return None if slot is None else self.attributes[slot]

    def sequence(self, address: Address) -> int | None:
        """Return the sequence number of the allocation of *address*; None where none was stored."""
        return self.sequence_number_for_allocation.get(str(address - self.cidr.network))

    def held_by(self, handle_id: str) -> tuple[Address, ...]:
        """Return the addresses that *handle_id* holds, in order."""
        mine = {index for index, one in enumerate(self.attributes) if one.handle_id == handle_id}
        if not mine:
            return ()
        return tuple(self.cidr.address(ordinal) for ordinal, slot in enumerate(self.allocations) if slot in mine)


class HandleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The blocks in which a holder has addresses, and how many."""

    handle_id: str
    block: Mapping[str, int] = {}
    deleted: bool = False
    extra: Mapping[str, object] = {}

    def counting(self, before: BlockRecord, after: BlockRecord) -> HandleRecord:
        """Return the handle with what it gained or lost in a block added up; at least what it has there now.

        The stored count is changed and not replaced: Calico counts before it assigns, and takes that back where it fails,
        so a count that is too high may be about to be lowered.
        """
        cidr, count = str(after.cidr), len(after.held_by(self.handle_id))
        count = max(count, self.block.get(cidr, 0) + count - len(before.held_by(self.handle_id)))
        others = {name: number for name, number in self.block.items() if name != cidr}
        return msgspec.structs.replace(self, block={**others, cidr: count} if count else others)


def new_block(cidr: Prefix, node: str | None, sequence_number: int, claim_time: str | None) -> BlockRecord:
    """Return an empty block affine to *node* (None: to nobody); *sequence_number* is the nanosecond of its making (calico.md 1.2)."""
    return BlockRecord(
        cidr=cidr,
        affinity=None if node is None else HOST + node,
        affinity_claim_time=claim_time,
        allocations=(None,) * cidr.size,
        unallocated=tuple(range(cidr.size)),
        sequence_number=sequence_number,
    )


def touched(block: BlockRecord) -> BlockRecord:
    """Return the block with its next sequence number: a write that voids what others decided by the old one."""
    return msgspec.structs.replace(block, sequence_number=block.sequence_number + 1)


def without_affinity(block: BlockRecord) -> BlockRecord:
    """Return the block as nobody's; its addresses stay with their holders."""
    return msgspec.structs.replace(touched(block), affinity=None, affinity_claim_time=None)


def assigned(
    block: BlockRecord, holder: Attribute, count: int, reserved: Callable[[Address], object]
) -> tuple[BlockRecord, tuple[Address, ...]]:
    """Give *holder* up to *count* of the longest-free addresses that are not *reserved*; returns which. O(addresses of the block)."""
    taken: list[int] = []
    for ordinal in block.unallocated:
        if len(taken) == count:
            break
        if not reserved(block.cidr.address(ordinal)):
            taken.append(ordinal)
    return _taken(block, holder, taken), tuple(block.cidr.address(ordinal) for ordinal in taken)


def assigned_at(block: BlockRecord, holder: Attribute, address: Address) -> BlockRecord | Refused:
    """Give *holder* this very address."""
    present = block.holder(address)
    if present is None:
        return _taken(block, holder, [address - block.cidr.network])
    return Refused(f"address {address} is in use by {present}")


def freed(block: BlockRecord, addresses: Iterable[Address], rest_from: str | None) -> BlockRecord:
    """Return the block without the allocations of *addresses*; with *rest_from* (RFC 3339) they rest first, else they are free."""
    ordinals = [address - block.cidr.network for address in addresses]
    if not ordinals:
        return block
    allocations, attributes = list(block.allocations), block.attributes
    slot: int | None = None
    if rest_from is not None:
        resting = Attribute(handle_id=None, extra={RELEASED_AT: rest_from})
        attributes = attributes if resting in attributes else (*attributes, resting)
        slot = attributes.index(resting)
    for ordinal in ordinals:
        allocations[ordinal] = slot
    gone = {str(ordinal) for ordinal in ordinals}
    kept = {key: number for key, number in block.sequence_number_for_allocation.items() if key not in gone}
    return _compacted(
        msgspec.structs.replace(
            touched(block),
            allocations=tuple(allocations),
            attributes=attributes,
            unallocated=block.unallocated if rest_from is not None else (*block.unallocated, *ordinals),
            sequence_number_for_allocation=kept,
        )
    )


def rested(block: BlockRecord, cooldown_s: int, now: datetime) -> BlockRecord:
    """Return the block with those addresses free whose rest is over (Calico's garbage collection at each load of a block)."""
    over = {
        slot
        for slot, one in enumerate(block.attributes)
        if one.is_cooling and _is_over(one.extra[RELEASED_AT], cooldown_s, now)
    }
    if not over:
        return block
    return freed(
        block, [block.cidr.address(ordinal) for ordinal, slot in enumerate(block.allocations) if slot in over], None
    )


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


def parse_time(text: object) -> datetime | None:
    """Read an RFC 3339 time with a zone; None for anything else."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def write_time(moment: datetime) -> str:
    """Write a time as Calico does: RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_over(since: object, cooldown_s: int, now: datetime) -> bool:
    """Whether a rest is over. One that cannot be read, or began long after now, is over: else the address would be lost for ever."""
    began = parse_time(since)
    if began is None:
        return True
    elapsed_s = (now - began).total_seconds()
    return elapsed_s >= cooldown_s or elapsed_s < -COOLDOWN_MAX_S


def _taken(block: BlockRecord, holder: Attribute, ordinals: list[int]) -> BlockRecord:
    if not ordinals:
        return block
    attributes = block.attributes if holder in block.attributes else (*block.attributes, holder)
    slot = attributes.index(holder)
    allocations = list(block.allocations)
    for ordinal in ordinals:
        allocations[ordinal] = slot
    gone = set(ordinals)
    numbers = {str(ordinal): block.sequence_number for ordinal in ordinals}
    return msgspec.structs.replace(
        touched(block),
        allocations=tuple(allocations),
        unallocated=tuple(ordinal for ordinal in block.unallocated if ordinal not in gone),
        attributes=attributes,
        sequence_number_for_allocation={**block.sequence_number_for_allocation, **numbers},
    )


def _compacted(block: BlockRecord) -> BlockRecord:
    """Drop the attributes that no slot refers to."""
    kept = sorted({slot for slot in block.allocations if slot is not None})
    if len(kept) == len(block.attributes):
        return block
    place = {slot: index for index, slot in enumerate(kept)}
    return msgspec.structs.replace(
        block,
        allocations=tuple(None if slot is None else place[slot] for slot in block.allocations),
        attributes=tuple(block.attributes[slot] for slot in kept),
    )
