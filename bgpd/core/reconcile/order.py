"""Order of kernel changes: what is pointed to comes before what points to it, and goes after it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

from bgpd.model.forwarding import DeviceKey, FdbKey, GroupKey, Leg, NeighbourKey, RouteKey, RuleKey

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

RANKS: tuple[type, ...] = (DeviceKey, NeighbourKey, FdbKey, Leg, GroupKey, RouteKey, RuleKey)
"""A device carries neighbours, FDB entries and legs; a group has legs; a route points to a group; a rule leads to a table of routes."""
_RANK = {kind: rank for rank, kind in enumerate(RANKS)}


def arrange(changes: Iterable[tuple[K, V | None]]) -> list[tuple[K, V | None]]:
    """Sort *changes* (value None removes): additions by rank, then removals by descending rank. Keys of other targets keep their order.

    Additions come first, so that a route moves to its new group before its old one goes: make before break.
    """
    added: list[tuple[K, V | None]] = []
    removed: list[tuple[K, V | None]] = []
    for change in changes:
        (removed if change[1] is None else added).append(change)
    added.sort(key=lambda change: _RANK.get(type(change[0]), 0))
    removed.sort(key=lambda change: -_RANK.get(type(change[0]), 0))
    return added + removed
