"""Sets of addresses as disjoint ranges: memory and time follow the number of prefixes, not of addresses."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from bgpd.model.prefix import Address, Prefix


class Ranges:
    """A set of addresses, held as disjoint ranges: the union of prefixes that may overlap."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for prefix in sorted(prefixes, key=lambda one: (one.network, one.length)):
            start, end = int(prefix.network), int(prefix.network) + prefix.size
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def holds(self, address: Address) -> bool:
        """Whether *address* is in it. O(log ranges)."""
        index = bisect_right(self._starts, int(address)) - 1
        return index >= 0 and address < self._ends[index]

    def covers(self, prefix: Prefix) -> bool:
        """Whether each address of *prefix* is in it. O(log ranges)."""
        index = bisect_right(self._starts, int(prefix.network)) - 1
        return index >= 0 and int(prefix.network) + prefix.size <= self._ends[index]

    def count(self, prefix: Prefix) -> int:
        """Return how many addresses of *prefix* are in it. O(ranges within the prefix)."""
        start, end = int(prefix.network), int(prefix.network) + prefix.size
        index = max(0, bisect_right(self._starts, start) - 1)
        found = 0
        while index < len(self._starts) and self._starts[index] < end:
            found += max(0, min(end, self._ends[index]) - max(start, self._starts[index]))
            index += 1
        return found
