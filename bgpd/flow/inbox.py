"""Inbox: the one ordered, bounded queue of events into the core, and the only place where a producer waits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from bgpd.model.event import Event

CAPACITY_EVENTS = 4096
"""Bound of waiting events. A full inbox holds its producers back: sockets fill and TCP, netlink or ExaBGP's shim do the waiting."""
BATCH_EVENTS = 256
"""At most so many events are handled before the core settles once, so that timers and the API get their turn."""


class Inbox:
    """Owns the waiting events. Producers await :meth:`put`, the core's one task awaits :meth:`take`."""

    def __init__(self, capacity: int = CAPACITY_EVENTS, clock: Callable[[], float] = time.monotonic) -> None:
        self._events: deque[Event] = deque()
        self._came: deque[float] = deque()
        """When each of them came."""
        self._clock = clock
        self.taken_came = clock()
        """When the first event of the batch last taken came (monotonic seconds)."""
        self._capacity = capacity
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, event: Event) -> None:
        """Append *event*, after waiting for room."""
        while len(self._events) >= self._capacity:
            self._room.clear()
            await self._room.wait()
        self._events.append(event)
        self._came.append(self._clock())
        self._filled.set()

    async def take(self, timeout_s: float | None) -> list[Event]:
        """Return up to BATCH_EVENTS events in order; an empty list when *timeout_s* passed without one."""
        if not self._events:
            self._filled.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._filled.wait()
            except TimeoutError:
                return []
        self.taken_came = self._came[0]
        batch = [self._events.popleft() for _ in range(min(len(self._events), BATCH_EVENTS))]
        for _ in batch:
            self._came.popleft()
        self._room.set()
        return batch

    def __len__(self) -> int:
        return len(self._events)
