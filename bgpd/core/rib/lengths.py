"""Which lengths the prefixes of a set have: what covers a prefix is found with a look-up for each of those, not for every length."""

from __future__ import annotations

from bgpd.model.prefix import Family, Prefix


class Lengths:
    """Owns how many prefixes there are of each length; its owner tells of each prefix that comes or goes, once."""

    def __init__(self) -> None:
        self._counts: dict[Family, dict[int, int]] = {family: {} for family in Family}
        self._longest_first: dict[Family, tuple[int, ...]] = dict.fromkeys(Family, ())

    def add(self, prefix: Prefix) -> None:
        counts, length = self._counts[prefix.family], prefix.length
        counts[length] = counts.get(length, 0) + 1
        if counts[length] == 1:
            self._longest_first[prefix.family] = tuple(sorted(counts, reverse=True))

    def remove(self, prefix: Prefix) -> None:
        counts, length = self._counts[prefix.family], prefix.length
        counts[length] -= 1
        if not counts[length]:
            del counts[length]
            self._longest_first[prefix.family] = tuple(sorted(counts, reverse=True))

    def covering(self, prefix: Prefix) -> list[Prefix]:
        """Return *prefix* and what covers it, longest first, of the lengths that there are; not the default route. O(those lengths)."""
        family = prefix.family
        bits, own = family.bits, prefix.length
        network = prefix >> 8
        return [
            Prefix(network >> bits - length << bits - length + 8 | length)
            for length in self._longest_first[family]
            if 0 < length <= own
        ]
