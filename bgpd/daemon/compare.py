"""The periodic full comparison of what is desired, what we believe is in the kernel, and what is there.

The monitor and the reconciler act on changes; this finds what both of them missed (Calico: RouteRefreshInterval). It costs no writes where
nothing differs, and no waiting for anybody: the reading is in chunks, by a socket of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from bgpd.adapters import clock
from bgpd.adapters.reconciler import Reconciler
from bgpd.model.forwarding import KernelKey, KernelValue
from bgpd.model.notice import Notice


class Comparable(Protocol):
    """A kernel that can be read beside what goes on."""

    async def compare(self) -> int: ...


async def run(
    kernel: Comparable,
    reconciler: Reconciler[KernelKey, KernelValue],
    every_s: float,
    notice: Callable[[Notice], None],
    compared: Callable[[int, float], None],
) -> None:
    """Compare every so many seconds until cancelled; a notice only where something differed. Raises OSError if a socket fails.

    *compared* is told each time how many keys differed, and how many seconds it took.
    """
    while True:
        await asyncio.sleep(every_s)
        started = clock.monotonic()
        drifted = await kernel.compare()
        differing = await reconciler.recheck()
        took_s = round(clock.monotonic() - started, 3)
        compared(max(drifted, differing), took_s)
        if drifted or differing:
            notice(Notice("fib.differed", {"drifted": drifted, "differing": differing, "took_s": took_s}))
