"""Reserved addresses (Calico: IPReservation): barred from new allocation, never taken from who has them.

Reservations count as their union: a block that several of them cover together is as reserved as one that a single one
covers (Calico: libcalico-go/lib/ipam/addr_filter.go).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from bgpd.model.prefix import Address, Prefix


class Reservation(msgspec.Struct, frozen=True):
    """An IPReservation."""

    name: str
    cidrs: tuple[Prefix, ...]


class Reserved:
    """Owns the merged ranges of all reservations. A look-up is O(log ranges)."""

    def __init__(self, reservations: Iterable[Reservation] = ()) -> None:
        named = sorted((_range(cidr), one.name) for one in reservations for cidr in one.cidrs)
        self._named = [(first, last, name) for (first, last), name in named]
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last, _ in self._named:
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def holds(self, address: Address) -> bool:
        """Whether *address* is reserved."""
        return self._covers(address, address)

    def covers(self, cidr: Prefix) -> bool:
        """Whether each address of *cidr* is reserved."""
        return self._covers(*_range(cidr))

    def by(self, address: Address) -> str | None:
        """Return the name of a reservation that holds *address*. O(reservations)."""
        return next((name for first, last, name in self._named if first <= address <= last), None)

    def count(self, cidr: Prefix) -> int:
        """Return how many addresses of *cidr* are reserved. O(ranges)."""
        first, last = _range(cidr)
        pairs = zip(self._firsts, self._lasts, strict=True)
        return sum(max(0, min(last, high) - max(first, low) + 1) for low, high in pairs)

    def _covers(self, first: int, last: int) -> bool:
        index = bisect_right(self._firsts, first) - 1
        return index >= 0 and last <= self._lasts[index]


def _range(cidr: Prefix) -> tuple[int, int]:
    return int(cidr.network), cidr.network + cidr.size - 1
