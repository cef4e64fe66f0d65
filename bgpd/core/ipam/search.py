"""In which order a node looks for a free block of a pool (the reasoning is in this package's DESIGN.md).

The blocks of a pool are a power of two in number, so stepping by any odd stride meets each of them once. Start and
stride come of a hash of the node's name: nodes rarely meet, a node finds its own place again, and a part of the pool
that others filled without gaps is left at the next step, which a walk in order of addresses would not do. Memory does
not grow with the pool.

Where almost everything is taken, probing ends (PROBES_MAX) and the keys of stored blocks are listed instead, a *unit* at
a time: a unit is a part of the pool whose keys are one range in the store and one page of an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from bgpd.model.pool import Pool
from bgpd.model.prefix import Address, Family, Prefix

PROBES_MAX: Final = 1024
"""Candidates looked at one by one before keys are listed: in a pool of which 99 % is taken, one in 30,000 searches gets here."""
UNIT_BLOCKS: Final = 4096
"""Blocks of a unit of an IPv4 pool, at most: a page of some 200 kB of keys."""
LISTED_BLOCKS_MAX: Final = 1 << 20
"""Blocks of the largest unit that is listed (an IPv6 pool is one unit): 1 MB of marks. A larger one that is so full would be
more than a store holds."""


class Unit(msgspec.Struct, frozen=True):
    """A part of a pool whose stored blocks are listed together."""

    cidr: Prefix
    text: str
    """What the written form of each block in it begins with; blocks outside of it may begin so as well."""


def search_order(pool: Pool, node: str) -> Iterator[Prefix]:
    """Iterate over the blocks of *pool* in *node*'s order, each once."""
    if pool.block_size < pool.cidr.length:
        return
    for index in _permuted(1 << pool.block_size - pool.cidr.length, node):
        yield block_at(pool.cidr, pool.block_size, index)


def block_count(pool: Pool) -> int:
    return 1 << pool.block_size - pool.cidr.length if pool.block_size >= pool.cidr.length else 0


def block_at(cidr: Prefix, block_size: int, index: int) -> Prefix:
    """Return block number *index* of *cidr*."""
    return Prefix.of(Address(cidr.network + (index << cidr.family.bits - block_size)), block_size)


def units(pool: Pool, node: str) -> Iterator[Unit]:
    """Iterate over the units of *pool* in *node*'s order; those too large to list are left out."""
    length = pool.cidr.length
    if pool.cidr.family is Family.IPV4:
        octets = next(bits for bits in (8, 16, 24) if 1 << max(0, pool.block_size - bits) <= UNIT_BLOCKS)
        length = max(length, octets)
    if 1 << pool.block_size - length > LISTED_BLOCKS_MAX:
        return
    for index in _permuted(1 << length - pool.cidr.length, node):
        cidr = block_at(pool.cidr, length, index)
        yield Unit(cidr, common_text(cidr))


def first_free(unit: Unit, block_size: int, taken: Iterable[Prefix], node: str) -> Prefix | None:
    """Return the first block of *unit*, from the node's place on, that is not among *taken*; None where all are."""
    count = 1 << block_size - unit.cidr.length
    marks = bytearray(count)
    shift = unit.cidr.family.bits - block_size
    for cidr in taken:
        if cidr.length == block_size and unit.cidr.covers(cidr):
            marks[cidr.network - unit.cidr.network >> shift] = 1
    start = _hash(node)[0] % count
    index = marks.find(0, start)
    if index < 0:
        index = marks.find(0)
    return None if index < 0 else block_at(unit.cidr, block_size, index)


def common_text(cidr: Prefix) -> str:
    """Return what the written forms of all addresses of *cidr* begin with.

    IPv6 addresses are written with their longest run of zeros left out (RFC 5952), so only the fields before the first
    that is zero, or is not wholly fixed, are common to all.
    """
    if cidr.family is Family.IPV4:
        fixed = cidr.length // 8
        parts = str(cidr.network).split(".")[:fixed]
        return ".".join(parts) + ("." if fixed < 4 and parts else "")
    fields = [int.from_bytes(cidr.network.packed[at : at + 2], "big") for at in range(0, cidr.length // 16 * 2, 2)]
    if len(fields) == 8:
        return str(cidr.network)
    text = ""
    for field in fields:
        if not field:
            break
        text += f"{field:x}:"
    return text


def _permuted(count: int, node: str) -> Iterator[int]:
    start, stride = _hash(node)
    for step in range(count):
        yield (start + step * stride) % count


def _hash(node: str) -> tuple[int, int]:
    """Return start and stride (odd) of a node, wide enough for the largest pool."""
    digest = hashlib.blake2b(node.encode(), digest_size=32).digest()
    return int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:], "big") | 1
