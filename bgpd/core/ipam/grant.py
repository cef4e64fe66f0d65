"""What an assignment takes of which blocks: (blocks, handle, request) -> changed records and addresses, pure.

The handle counts what was granted, in the same transaction, so block and handle agree whatever happens.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bgpd.core.ipam.block import Attribute, BlockRecord, HandleRecord, assigned
from bgpd.core.ipam.reserve import Reserved
from bgpd.model.prefix import Address

BLOCKS_PER_GRANT = 50
"""Blocks changed by one assignment, at most: with its comparisons it stays below what a transaction holds."""


class Grant(msgspec.Struct, frozen=True):
    """Addresses given, and the records to be stored for that; without addresses nothing is to be written."""

    blocks: tuple[BlockRecord, ...]
    handle: HandleRecord
    addresses: tuple[Address, ...]


def grant(
    blocks: Iterable[BlockRecord], handle: HandleRecord, holder: Attribute, count: int, reserved: Reserved
) -> Grant:
    """Give *holder* up to *count* free addresses of *blocks*, taken in their order."""
    changed: list[BlockRecord] = []
    given: list[Address] = []
    for block in blocks:
        if len(given) == count or len(changed) == BLOCKS_PER_GRANT:
            break
        after, addresses = assigned(block, holder, count - len(given), reserved.holds if reserved else _never)
        if addresses:
            changed.append(after)
            given += addresses
            handle = handle.counting(block, after)
    return Grant(tuple(changed), handle, tuple(given))


def _never(_: Address) -> bool:
    return False
