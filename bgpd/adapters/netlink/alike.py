"""Changes of routes that are alike but for their prefixes: one message is encoded, and repeated for all.

Theory of operation: routes of one value, table and metric differ in two fields of their messages, the length and the network of the
prefix. So the first one is encoded as any other, its bytes are repeated, and those fields are written over for all at once,
by slices with the message's size as step: C does what would be a call for each route, at a fifth of the cost.

Law: ``pieces`` changes no order but that of routes among themselves: those wanted before those unwanted, as they came.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from bgpd.adapters.netlink.encode import LENGTH_OFFSET, NETWORK_OFFSET
from bgpd.model.forwarding import KernelKey, KernelValue, RouteKey
from bgpd.model.prefix import Family

LEAST: Final = 8
"""Fewer routes are encoded one by one: to prepare a template costs as much."""

Change = tuple[KernelKey, KernelValue | None]
Alike = tuple[list[RouteKey], KernelValue | None]


def pieces(changes: Sequence[Change], most: int) -> Iterator[Alike | list[Change]]:
    """Split *changes*, in pieces of at most *most*: routes of one value, or changes to be made one by one."""
    for start in range(0, len(changes), most):
        chunk = changes[start : start + most]
        whole = _alike(chunk)
        if whole is not None:
            yield whole
            continue
        for (routes, _), run in groupby(chunk, _kind):
            if routes:
                yield from _sorted(list(run))
            else:
                yield list(run)


def spread(message: bytes, keys: Sequence[RouteKey]) -> bytearray | None:
    """Repeat the *message* of the first of *keys* for all of them; None if they are of both families, or one is a default route."""
    packed = _packed_ipv4(keys) if keys[0].prefix.family is Family.IPV4 else _packed_ipv6(keys)
    if packed is None:
        return None
    width, whole = keys[0].prefix.family.bits // 8, len(packed) // len(keys)
    lengths = packed[whole - 1 :: whole]
    if 0 in lengths:
        return None
    batch = bytearray(message * len(keys))
    size = len(message)
    batch[LENGTH_OFFSET::size] = lengths
    for byte in range(width):
        batch[NETWORK_OFFSET + byte :: size] = packed[whole - 1 - width + byte :: whole]
    return batch


def _packed_ipv4(keys: Sequence[RouteKey]) -> bytes | None:
    """Write the prefixes, each in eight bytes that end with network and length; None if one is not IPv4."""
    try:
        numbers = array("Q", [key.prefix for key in keys])
    except OverflowError:
        return None
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()


def _packed_ipv6(keys: Sequence[RouteKey]) -> bytes | None:
    """Write the prefixes, each in a mark of IPv6, network and length; None if one has no such mark."""
    packed = b"".join([key.prefix.to_bytes(18, "big") for key in keys])
    return None if 0 in packed[::18] else packed


def _alike(chunk: Sequence[Change]) -> Alike | None:
    """Return the whole *chunk* if it is of one piece, as most are: told without a step for each."""
    keys, values = zip(*chunk, strict=True)
    if len(keys) < LEAST or set(map(type, keys)) != {RouteKey} or values.count(values[0]) != len(values):
        return None
    return list(keys), values[0]


def _kind(change: Change) -> tuple[bool, bool]:
    return type(change[0]) is RouteKey, change[1] is None


def _sorted(run: list[Change]) -> Iterator[Alike | list[Change]]:
    """Put routes together that share their value, which is one object for all of them; the rest follows."""
    by_value: dict[int, tuple[KernelValue | None, list[RouteKey]]] = {}
    for key, value in run:
        assert type(key) is RouteKey
        by_value.setdefault(id(value), (value, []))[1].append(key)
    rest: list[Change] = []
    for value, keys in by_value.values():
        if len(keys) >= LEAST:
            yield keys, value
        else:
            rest += [(key, value) for key in keys]
    if rest:
        yield rest
