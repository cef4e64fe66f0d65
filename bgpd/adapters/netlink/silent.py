"""Neighbours that do not answer (NUD_FAILED): a way to a router may be dead with its link up, long before a hold time is over.

Theory of operation: the kernel asks for an address when there is traffic, and gives up after some seconds (``mcast_solicit``,
``ucast_solicit``, ``retrans_time``; arp(7)). That it asks again says nothing yet; an answer, and that it has forgotten the entry, make the
neighbour usable again: whoever is not asked cannot be known to be silent. A way that is silent each time it is tried is damped as any other
that flaps (core/overlay/restore.py).
"""

from __future__ import annotations

from bgpd.adapters.netlink.encode import NeighbourEntry
from bgpd.model.event import NeighbourSilent
from bgpd.model.prefix import Address


class Silent:
    """Owns which neighbours were told as silent: no more than the kernel holds entries."""

    def __init__(self) -> None:
        self._told: dict[tuple[int, Address], str] = {}
        """(link, address) -> the link's name as told."""

    def heard(self, entry: NeighbourEntry, device: str, *, gone: bool) -> list[NeighbourSilent]:
        """Take note of an entry, or of its end; returns what there is to tell."""
        if entry.address is None or entry.fdb or (entry.asking and not gone):
            return []
        key = (entry.index, entry.address)
        if entry.failed and not gone:
            if key in self._told:
                return []
            self._told[key] = device
            return [NeighbourSilent(device, entry.address, silent=True)]
        told = self._told.pop(key, None)
        return [] if told is None else [NeighbourSilent(told, entry.address, silent=False)]

    def read(self, entries: list[NeighbourEntry], names: dict[int, str]) -> list[NeighbourSilent]:
        """Take note of all entries that there are; returns what there is to tell."""
        there = {(entry.index, entry.address) for entry in entries}
        gone = [key for key in self._told if key not in there]
        events = [NeighbourSilent(self._told.pop(key), key[1], silent=False) for key in gone]
        for entry in entries:
            if entry.index in names:
                events += self.heard(entry, names[entry.index], gone=False)
        return events
