"""The adj-rib-ins of all peers, by prefix and by peer, and which entries are stale (RFC 4724 section 4.2, RFC 7313 section 4).

A peer's routes of a family belong to a generation. What an older generation left is *stale*: still used, until it is sent again, or swept
at End-of-RIB or when its time is over. A session's end begins a generation (:meth:`AdjIn.keep`), and so does a refresh. A withdrawal, and
a sweep, cost the routes concerned only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Attributes

PathKey = tuple[Address, int]
"""(peer, path id): distinguishes the paths of one prefix."""


class Path(msgspec.Struct, frozen=True, cache_hash=True):
    """An entry: the attributes that *peer* sent for a prefix, when they came, and in which generation of its routes."""

    peer: Address
    path_id: int
    attributes: Attributes
    since: float
    generation: int

    @property
    def next_hop(self) -> Address:
        """The next hop that counts: over a link-local session the link-local one, beside which the other may be unspecified."""
        attributes = self.attributes
        if attributes.link_local_next_hop is not None and self.peer.is_link_local:
            return attributes.link_local_next_hop
        return attributes.next_hop


class _Stale(msgspec.Struct):
    """That a peer may have stale routes: of which families, and until when (monotonic seconds) at the latest."""

    families: set[Family]
    until: float
    ours: bool
    """The session ended because our speaker did: the peer has restarted nothing."""


class AdjIn:
    """Owns every learned path, indexed by prefix and by peer, and all that makes one stale."""

    def __init__(self) -> None:
        self._paths: dict[Prefix, dict[PathKey, Path]] = {}
        self._of_peer: dict[Address, dict[tuple[Prefix, int], None]] = {}
        self._counts: Counter[tuple[Address, Family]] = Counter()
        self._generation: dict[tuple[Address, Family], int] = {}
        self._latest = 0
        self._stale: dict[Address, _Stale] = {}

    # -------------------------------------------------------------- what is stale

    def keep(self, peer: Address, families: Collection[Family], until: float, *, ours: bool = False) -> list[Prefix]:
        """Keep the routes of a session that has ended, as stale ones, *until* then; returns the prefixes of those that go.

        Routes of other *families* go, and so do those that were stale already, so that consecutive restarts keep none for ever (RFC 4724
        section 4.2); not so if the end was *ours*.
        """
        gone = [] if ours else self.sweep(peer)
        gone += self._drop(peer, [entry for entry in self._of_peer.get(peer, {}) if entry[0].family not in families])
        self._stale[peer] = _Stale(set(), until, ours)
        for family in families:
            self._begin(peer, family)
        self._settle(peer)
        return gone

    def resume(
        self, peer: Address, families: Collection[Family], preserved: Collection[Family], until: float
    ) -> list[Prefix]:
        """Begin a session that carries *families*; what was kept stays stale *until* then at the latest.

        Returns the prefixes of what goes at once: what the session does not carry, and after a restart of the peer what it did not
        preserve (the F bit of RFC 4724 section 4.2).
        """
        stale = self._stale.get(peer)
        kept = set(families) if stale is None or stale.ours else set(families) & set(preserved)
        gone = self._drop(peer, [entry for entry in self._of_peer.get(peer, {}) if entry[0].family not in kept])
        if stale is None:
            self._stale[peer] = _Stale(set(), until, ours=False)
            for family in families:
                self._begin(peer, family)
        else:
            stale.until = until
            stale.families &= kept
        self._settle(peer)
        return gone

    def refresh(self, peer: Address, family: Family, until: float) -> None:
        """Begin a refresh: all of *family* that *peer* does not send again is swept at its end, or *until* then (RFC 7313)."""
        stale = self._stale.setdefault(peer, _Stale(set(), until, ours=False))
        stale.until = max(stale.until, until)
        self._begin(peer, family)
        self._settle(peer)

    def sweep(self, peer: Address, family: Family | None = None) -> list[Prefix]:
        """Forget the stale paths of *peer* (of one *family*, or of all); returns their prefixes. O(1) where none is stale."""
        stale = self._stale.get(peer)
        families = stale.families & {family} if stale is not None and family is not None else set(Family)
        if stale is None or not families:
            return []
        stale.families -= families
        self._settle(peer)
        return self._drop(
            peer,
            [
                entry
                for entry in self._of_peer.get(peer, {})
                if entry[0].family in families and self.is_stale(entry[0], self._paths[entry[0]][peer, entry[1]])
            ],
        )

    def is_stale(self, prefix: Prefix, path: Path) -> bool:
        return path.generation != self._generation.get((path.peer, prefix.family), 0)

    def stale(self, peer: Address) -> Counter[Family]:
        """Count the stale entries of *peer* by family. O(1) where none is, else O(its entries)."""
        if peer not in self._stale:
            return Counter()
        entries = self._of_peer.get(peer, {})
        return Counter(
            prefix.family for prefix, path_id in entries if self.is_stale(prefix, self._paths[prefix][peer, path_id])
        )

    def due(self, now: float) -> list[Address]:
        """Return the peers whose stale routes' time is over."""
        return [peer for peer, stale in self._stale.items() if stale.until <= now]

    def deadline(self) -> float | None:
        """When the first such time is over (monotonic seconds)."""
        return min((stale.until for stale in self._stale.values()), default=None)

    def _begin(self, peer: Address, family: Family) -> None:
        self._latest += 1
        self._generation[peer, family] = self._latest
        self._stale[peer].families.add(family)

    def _settle(self, peer: Address) -> None:
        """Forget that *peer* may have stale routes, where it has none at all."""
        stale = self._stale.get(peer)
        if stale is not None and not (stale.families and self._of_peer.get(peer)):
            del self._stale[peer]

    # -------------------------------------------------------------- routes

    def learn(
        self, peer: Address, path_id: int, prefixes: Sequence[Prefix], attributes: Attributes, now: float
    ) -> list[Prefix]:
        """Store an announcement of *prefixes* of one family; returns those whose attributes differ from before."""
        generation = self._generation.get((peer, prefixes[0].family), 0)
        mine = self._of_peer.setdefault(peer, {})
        key = (peer, path_id)
        fresh = Path(peer, path_id, attributes, now, generation)
        changed = []
        for prefix in prefixes:
            paths = self._paths.setdefault(prefix, {})
            old = paths.get(key)
            if old is not None and old.attributes == attributes:
                if old.generation != generation:
                    paths[key] = Path(peer, path_id, attributes, old.since, generation)
                continue
            paths[key] = fresh
            mine[prefix, path_id] = None
            if old is None:
                self._counts[peer, prefix.family] += 1
            changed.append(prefix)
        return changed

    def withdraw(self, peer: Address, path_id: int, prefixes: Iterable[Prefix]) -> list[Prefix]:
        """Forget paths; returns the prefixes that had one. Withdrawing what is not there is no error (RFC 4271 section 4.3)."""
        mine = self._of_peer.get(peer, {})
        gone = []
        for prefix in prefixes:
            if mine.pop((prefix, path_id), False) is None:
                self._counts[peer, prefix.family] -= 1
                self._remove(prefix, (peer, path_id))
                gone.append(prefix)
        return gone

    def clear(self, peer: Address, family: Family | None = None) -> list[Prefix]:
        """Forget all of *peer* (of one *family*, or of all); returns the prefixes it had."""
        mine = self._of_peer.get(peer, {})
        gone = self._drop(peer, [entry for entry in mine if family is None or entry[0].family is family])
        self._settle(peer)
        return gone

    def paths(self, prefix: Prefix) -> Mapping[PathKey, Path]:
        return self._paths.get(prefix, {})

    def prefixes(self) -> Iterable[Prefix]:
        return self._paths.keys()

    def of_peer(self, peer: Address) -> Iterable[tuple[Prefix, int]]:
        """(prefix, path id) of each entry of *peer*."""
        return self._of_peer.get(peer, {}).keys()

    def count(self, peer: Address, family: Family | None = None) -> int:
        """Return the number of entries of *peer*, of one *family* or of all. O(1)."""
        return len(self._of_peer.get(peer, {})) if family is None else self._counts[peer, family]

    def __len__(self) -> int:
        return len(self._paths)

    def _drop(self, peer: Address, entries: list[tuple[Prefix, int]]) -> list[Prefix]:
        mine = self._of_peer.get(peer, {})
        for prefix, path_id in entries:
            del mine[prefix, path_id]
            self._counts[peer, prefix.family] -= 1
            self._remove(prefix, (peer, path_id))
        return [prefix for prefix, _ in entries]

    def _remove(self, prefix: Prefix, key: PathKey) -> None:
        paths = self._paths[prefix]
        del paths[key]
        if not paths:
            del self._paths[prefix]
