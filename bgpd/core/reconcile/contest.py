"""Keys that others keep changing back: noticed, and repaired ever more slowly, so that two owners do not fight at full speed.

Theory of operation: a change by another is repaired at once, up to CHANGES of them within WINDOW_S. From then on the key is contested:
each repair waits, twice as long each time, until nobody has touched the key for CALM_S. What the kernel does by itself (a link that goes
down) is no change by another, and is never damped.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)

CHANGES = 4
"""So many changes by others …"""
WINDOW_S = 10.0
"""… within so long are a fight: a person with ``ip`` makes one or two."""
FIRST_WAIT_S = 1.0
LAST_WAIT_S = 30.0
"""Ceiling of the wait: once the other is gone, ours is right again within half a minute."""
CALM_S = 60.0
"""Twice the longest wait without a change by another: the fight is over."""
KEYS = 4096
"""Keys remembered, some 1 MB: the oldest is forgotten, and repaired at once again."""


class Standing(msgspec.Struct, frozen=True):
    """How often others changed a key lately."""

    by: str
    """Who did it last."""
    changes: int
    last: float
    """Monotonic seconds."""
    recent: tuple[float, ...]
    """Instants of the last changes, at most CHANGES."""
    wait_s: float = 0.0
    """How long the present repair waits; 0: not contested."""


class Contest(Generic[K]):
    """Owns the keys that others changed lately, the one changed last at the end."""

    def __init__(self) -> None:
        self._standings: dict[K, Standing] = {}

    def changed(self, key: K, by: str, now: float) -> Standing:
        """Note a change of *key* by another; the answer says how long its repair is to wait."""
        old = self._standings.pop(key, None)
        if old is None or now - old.last > CALM_S:
            old = Standing(by, 0, now, ())
        recent = (*old.recent, now)[-CHANGES:]
        wait_s = 0.0
        if old.wait_s:
            wait_s = min(old.wait_s * 2, LAST_WAIT_S)
        elif len(recent) == CHANGES and now - recent[0] <= WINDOW_S:
            wait_s = FIRST_WAIT_S
        standing = self._standings[key] = Standing(by, old.changes + 1, now, recent, wait_s)
        self._forget(now)
        return standing

    def get(self, key: K, now: float) -> Standing | None:
        """Return the standing of a contested key."""
        standing = self._standings.get(key)
        return standing if standing is not None and standing.wait_s and now - standing.last <= CALM_S else None

    def _forget(self, now: float) -> None:
        """Drop what is over, from the oldest on. O(what is dropped)."""
        while self._standings:
            oldest = next(iter(self._standings))
            if len(self._standings) <= KEYS and now - self._standings[oldest].last <= CALM_S:
                return
            del self._standings[oldest]

    def __len__(self) -> int:
        return len(self._standings)
