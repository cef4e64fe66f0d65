"""Reserved addresses (Calico: IPReservation): barred from new allocation, never taken from who has them.

Reservations count as their union: a block that several of them cover together is as reserved as one that a single one
covers (Calico: libcalico-go/lib/ipam/addr_filter.go).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bgpd.core.ipam.ranges import Ranges
from bgpd.model.prefix import Address, Prefix


class Reservation(msgspec.Struct, frozen=True):
    """An IPReservation."""

    name: str
    cidrs: tuple[Prefix, ...]


class Reserved(Ranges):
    """The union of all reservations, which knows their names. A look-up is O(log ranges)."""

    def __init__(self, reservations: Iterable[Reservation] = ()) -> None:
        self._reservations = tuple(reservations)
        super().__init__(cidr for one in self._reservations for cidr in one.cidrs)

    def by(self, address: Address) -> str | None:
        """Return the name of a reservation that holds *address*. O(reservations)."""
        return next((one.name for one in self._reservations if any(cidr.holds(address) for cidr in one.cidrs)), None)
