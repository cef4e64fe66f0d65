"""What a release changes: (block, handles, releases) -> changed records and what became of each address, pure.

A release may name the handle and the sequence number that it is about: where the address has another tenant by now, it
is refused and the tenant keeps the address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bgpd.core.ipam.block import BlockRecord, HandleRecord, freed
from bgpd.model.prefix import Address, Prefix


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to give an address back."""

    address: Address
    handle_id: str | None = None
    """None: whoever has it."""
    sequence: int | None = None
    """Of the allocation that is meant; None: the present one."""


class Released(msgspec.Struct, frozen=True):
    """What became of the addresses."""

    released: tuple[Address, ...] = ()
    unallocated: tuple[Address, ...] = ()
    """Nobody had them, so nothing was to be done; resting ones too."""
    refused: tuple[tuple[Address, str], ...] = ()

    def joined(self, other: Released) -> Released:
        return Released(
            (*self.released, *other.released),
            (*self.unallocated, *other.unallocated),
            (*self.refused, *other.refused),
        )


class Change(msgspec.Struct, frozen=True):
    """A block after releases; the handles concerned count anew."""

    cidr: Prefix
    block: BlockRecord | None
    """None: it is empty and nobody's, so it goes."""
    handles: tuple[HandleRecord, ...]
    """Those without any address left go."""
    outcome: Released


def judge(block: BlockRecord, wishes: Sequence[Release]) -> Released:
    """Say of each wish whether it can be met."""
    meant: list[Address] = []
    unallocated: list[Address] = []
    refused: list[tuple[Address, str]] = []
    for wish in wishes:
        holder = block.holder(wish.address)
        sequence = block.sequence(wish.address)
        if holder is None or holder.is_cooling:
            unallocated.append(wish.address)
        elif wish.handle_id is not None and wish.handle_id != holder.handle_id:
            refused.append((wish.address, f"is held by {holder}, not by handle {wish.handle_id}"))
        elif wish.sequence is not None and wish.sequence != (sequence or 0):
            refused.append((wish.address, f"was assigned anew meanwhile (sequence {sequence}, not {wish.sequence})"))
        elif wish.address not in meant:
            meant.append(wish.address)
    return Released(tuple(meant), tuple(unallocated), tuple(refused))


def handles_of(block: BlockRecord, addresses: Sequence[Address]) -> tuple[str, ...]:
    """Return the handles that hold *addresses*, in order."""
    holders = (block.holder(address) for address in addresses)
    return tuple(dict.fromkeys(one.handle_id for one in holders if one is not None and one.handle_id is not None))


def release(
    block: BlockRecord, outcome: Released, handles: Mapping[str, HandleRecord], rest_from: str | None
) -> Change:
    """Give back what *outcome* says is released; *handles* holds those stored of the handles concerned."""
    after = freed(block, outcome.released, rest_from)
    changed = tuple(handle.counting(block, after) for handle in handles.values())
    gone = after.affinity is None and after.is_empty
    return Change(block.cidr, None if gone else after, changed, outcome)
