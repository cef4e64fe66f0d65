"""A part of the daemon whose work can be exchanged while it runs: what a reload changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Work = Callable[[], Awaitable[None]]


class Part:
    """Owns the task of the present work."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._exchanged = asyncio.Event()

    def exchange(self, work: Work) -> None:
        """Cancel the present work, if it has not ended by itself, and begin *work*."""
        self._work = work
        self._exchanged.set()

    async def run(self) -> None:
        """Do the work until cancelled. Raises what the work raises."""
        while True:
            self._exchanged.clear()
            task = asyncio.ensure_future(self._work())
            change = asyncio.ensure_future(self._exchanged.wait())
            try:
                await asyncio.wait({task, change}, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    task.result()
                    await change
            finally:
                change.cancel()
                task.cancel()
                await asyncio.wait({task})
