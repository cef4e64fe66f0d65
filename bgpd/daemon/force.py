"""Ways that an operator has forced (``bgpd overlay force``), kept over restarts, and ended when their time is over.

Laws: the file is written before the core hears of a change, and read before anything is decided. One that cannot be read forces nothing,
and says so: a daemon that would not start for it were the greater harm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Final

import msgspec

from bgpd.daemon.kept import Unkept, keep
from bgpd.model.event import Event, PathForced
from bgpd.model.notice import Notice
from bgpd.model.overlay import Force, ForceRequest, Path

FILE: Final = "overlay.json"
NODES_LIMIT: Final = 1000
"""Nodes whose way is forced at the same time; more are a pool's mode."""
LONGEST_SLEEP_S: Final = 60.0
"""The wall clock may be set while we sleep."""


class Forces:
    """Owns the forced ways and their file."""

    def __init__(
        self, directory: FilePath, put: Callable[[Event], Awaitable[None]], notice: Callable[[Notice], None]
    ) -> None:
        self._path = directory / FILE
        self._put = put
        self._notice = notice
        self._changed = asyncio.Event()
        self.now: dict[str, Force] = {}
        """By node."""

    async def restore(self) -> None:
        """Tell the core what was forced before a restart, and is still; called before anything is decided."""
        try:
            self.now = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Force])
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            self._notice(Notice("path.released", {"node": "all", "reason": f"{self._path} cannot be read: {error}"}))
            return
        for node, force in self.now.items():
            await self._put(PathForced(node, force.path))

    async def force(self, asked: ForceRequest) -> None:
        """Force a way, or end that (AUTO); raises Unkept, and nothing has changed then."""
        now = dict(self.now)
        if asked.path is Path.AUTO:
            now.pop(asked.node, None)
        else:
            now[asked.node] = Force(asked.path, None if asked.for_s is None else time.time() + asked.for_s)
        if len(now) > NODES_LIMIT:
            raise Unkept(f"the ways to {NODES_LIMIT} nodes are forced already: set a mode of their pool instead")
        was = self.now.get(asked.node)
        self._keep(now)
        if asked.path is not Path.AUTO:
            self._notice(Notice("path.forced", {"node": asked.node, "path": asked.path.value, "for_s": asked.for_s}))
        elif was is not None:
            self._notice(Notice("path.released", {"node": asked.node, "reason": "an operator ended it"}))
        await self._put(PathForced(asked.node, asked.path))

    async def run(self) -> None:
        """End what is over, until cancelled."""
        while True:
            self._changed.clear()
            await self._expire()
            due = min((force.until for force in self.now.values() if force.until is not None), default=None)
            left_s = LONGEST_SLEEP_S if due is None else min(LONGEST_SLEEP_S, max(0.0, due - time.time()))
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changed.wait()

    async def _expire(self) -> None:
        over = [node for node, force in self.now.items() if force.until is not None and force.until <= time.time()]
        if not over:
            return
        left = {node: force for node, force in self.now.items() if node not in over}
        try:
            self._keep(left)
        except Unkept:
            self.now = left  # a restart finds them again, and that they are over
        for node in over:
            self._notice(Notice("path.released", {"node": node, "reason": "its time is over"}))
            await self._put(PathForced(node, Path.AUTO))

    def _keep(self, now: dict[str, Force]) -> None:
        keep(self._path, msgspec.json.encode(now), "a restart would forget it")
        self.now = now
        self._changed.set()
