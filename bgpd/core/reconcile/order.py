"""Order of kernel changes: what is pointed to comes before what points to it, and goes after it.

Law: no removal before every addition that waits was tried, so that a route moves to its new group before its old one goes: make before
break. What arrives meanwhile takes its place by rank: a group that changes does not wait behind the routes that wait already.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable
from itertools import islice
from typing import Generic, TypeVar

from bgpd.model.forwarding import (
    DeviceKey,
    FdbKey,
    GroupKey,
    Leg,
    NeighbourKey,
    RouteKey,
    RuleKey,
    WireguardPeerKey,
)

K = TypeVar("K", bound=Hashable)

RANKS: tuple[type, ...] = (DeviceKey, NeighbourKey, FdbKey, WireguardPeerKey, Leg, GroupKey, RouteKey, RuleKey)
"""A device carries neighbours, FDB entries, peers and legs; a group legs; a route points to a group, a rule to a table of routes."""
_RANK = {kind: rank for rank, kind in enumerate(RANKS)}


class Work(Generic[K]):
    """Owns the keys that wait to be looked at, each once to be added and once to be removed. Keys of other targets keep their order."""

    def __init__(self) -> None:
        self._added: tuple[dict[K, None], ...] = tuple({} for _ in RANKS)
        self._removed: tuple[dict[K, None], ...] = tuple({} for _ in RANKS)

    def put(self, keys: Iterable[K], desired: Container[K]) -> None:
        """Let *keys* wait: those in *desired* to be added or changed, others to be removed."""
        added, removed, rank = self._added, self._removed, _RANK.get
        for key in keys:
            (added if key in desired else removed)[rank(type(key), 0)][key] = None

    def take_added(self, limit: int) -> list[K]:
        """Take at most *limit* keys to be added or changed, by rank."""
        return _take(self._added, limit)

    def take_removed(self, limit: int) -> list[K]:
        """Take at most *limit* keys to be removed, by descending rank; none while one waits to be added."""
        return [] if any(self._added) else _take(self._removed[::-1], limit)

    def __len__(self) -> int:
        return sum(map(len, self._added)) + sum(map(len, self._removed))


def _take(ranks: Iterable[dict[K, None]], limit: int) -> list[K]:
    taken: list[K] = []
    for keys in ranks:
        if len(keys) <= limit - len(taken):
            taken += keys
            keys.clear()
            continue
        some = list(islice(keys, limit - len(taken)))
        for key in some:
            del keys[key]
        taken += some
        break
    return taken
