"""Live changes of a pool's mode, without a gap between nodes that hear of it one after the other.

A node that sends by a new kind of tunnel before the other has its device loses what it sends, and one that takes its device away
while the other still sends by it loses that. So a kind that comes into use while we run gives way to what carries the traffic for
YIELD_S, and devices that no pool wants any more stay for LINGER_S. At start there is nothing to give way to.
"""

from __future__ import annotations

from bgpd.model.pool import Fallback

YIELD_S = 3.0
"""By then every node has heard of the change and made its devices, each of which takes a fraction of a second."""
LINGER_S = 10.0
"""YIELD_S on the other side, and as long again for a node that hears of the change late."""


class Turns:
    """Owns which kinds are wanted, until when new ones give way, and until when the devices of others stay."""

    def __init__(self) -> None:
        self._wanted: set[Fallback] = set()
        self._yielding: dict[Fallback, float] = {}
        self._leaving: dict[Fallback, float] = {}

    def observe(self, kind: Fallback, wanted: bool, now: float, *, live: bool) -> bool:
        """Take note of whether some pool could use *kind*; *live*: all was decided before. Returns whether its devices are to stand."""
        if wanted:
            stood = self._leaving.pop(kind, None) is not None
            if kind not in self._wanted and live and not stood:
                self._yielding[kind] = now + YIELD_S
            self._wanted.add(kind)
            return True
        if kind in self._wanted:
            self._wanted.discard(kind)
            self._yielding.pop(kind, None)
            if live:
                self._leaving[kind] = now + LINGER_S
        return kind in self._leaving

    def yields(self, kind: Fallback) -> bool:
        """Whether *kind* is to give way to what carries the traffic now."""
        return kind in self._yielding

    def deadline(self) -> float | None:
        """When the next of these times is over."""
        return min((*self._yielding.values(), *self._leaving.values()), default=None)

    def expire(self, now: float) -> bool:
        """End the times that are over; returns whether one was."""
        due = [(times, kind) for times in (self._yielding, self._leaving) for kind, at in times.items() if at <= now]
        for times, kind in due:
            del times[kind]
        return bool(due)
