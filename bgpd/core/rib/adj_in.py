"""The adj-rib-ins of all peers, by prefix and by peer, with generations for graceful restart (RFC 4724) and refresh (RFC 7313).

A session that comes up begins a generation. What an older generation left is *stale*: still used, until it is sent again,
or swept at End-of-RIB or when its time is over. A withdrawal, and a sweep, cost the routes concerned only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Attributes

PathKey = tuple[Address, int]
"""(peer, path id): distinguishes the paths of one prefix."""


class Path(msgspec.Struct, frozen=True, cache_hash=True):
    """An entry: the attributes that *peer* sent for a prefix, when they came, and in which generation of its session."""

    peer: Address
    path_id: int
    attributes: Attributes
    since: float
    generation: int


class AdjIn:
    """Owns every learned path, indexed by prefix and by peer, and each peer's current generation."""

    def __init__(self) -> None:
        self._paths: dict[Prefix, dict[PathKey, Path]] = {}
        self._of_peer: dict[Address, dict[tuple[Prefix, int], None]] = {}
        self._generation: dict[Address, int] = {}

    def begin(self, peer: Address) -> None:
        """Begin a generation: all that *peer* sent so far is stale from now on."""
        self._generation[peer] = self._generation.get(peer, 0) + 1

    def learn(
        self, peer: Address, path_id: int, prefixes: Iterable[Prefix], attributes: Attributes, now: float
    ) -> list[Prefix]:
        """Store an announcement; returns the prefixes whose attributes differ from before."""
        generation = self._generation.get(peer, 0)
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
            changed.append(prefix)
        return changed

    def withdraw(self, peer: Address, path_id: int, prefixes: Iterable[Prefix]) -> list[Prefix]:
        """Forget paths; returns the prefixes that had one. Withdrawing what is not there is no error (RFC 4271 section 4.3)."""
        mine = self._of_peer.get(peer, {})
        gone = []
        for prefix in prefixes:
            if mine.pop((prefix, path_id), False) is None:
                self._remove(prefix, (peer, path_id))
                gone.append(prefix)
        return gone

    def sweep(self, peer: Address, family: Family | None = None) -> list[Prefix]:
        """Forget the stale paths of *peer* (of one *family*, or of all); returns their prefixes."""
        generation = self._generation.get(peer, 0)
        stale = [
            (prefix, path_id)
            for prefix, path_id in self._of_peer.get(peer, {})
            if (family is None or prefix.family is family)
            and self._paths[prefix][peer, path_id].generation != generation
        ]
        return self._drop(peer, stale)

    def clear(self, peer: Address, family: Family | None = None) -> list[Prefix]:
        """Forget all of *peer* (of one *family*, or of all); returns the prefixes it had."""
        mine = self._of_peer.get(peer, {})
        return self._drop(peer, [entry for entry in mine if family is None or entry[0].family is family])

    def paths(self, prefix: Prefix) -> Mapping[PathKey, Path]:
        return self._paths.get(prefix, {})

    def is_stale(self, path: Path) -> bool:
        return path.generation != self._generation.get(path.peer, 0)

    def prefixes(self) -> Iterable[Prefix]:
        return self._paths.keys()

    def of_peer(self, peer: Address) -> Iterable[tuple[Prefix, int]]:
        """(prefix, path id) of each entry of *peer*."""
        return self._of_peer.get(peer, {}).keys()

    def count(self, peer: Address) -> int:
        return len(self._of_peer.get(peer, {}))

    def __len__(self) -> int:
        return len(self._paths)

    def _drop(self, peer: Address, entries: list[tuple[Prefix, int]]) -> list[Prefix]:
        mine = self._of_peer.get(peer, {})
        for prefix, path_id in entries:
            del mine[prefix, path_id]
            self._remove(prefix, (peer, path_id))
        return [prefix for prefix, _ in entries]

    def _remove(self, prefix: Prefix, key: PathKey) -> None:
        paths = self._paths[prefix]
        del paths[key]
        if not paths:
            del self._paths[prefix]
