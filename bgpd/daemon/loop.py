"""The one task that folds events into the core."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from bgpd.adapters import clock
from bgpd.adapters.systemd import Systemd
from bgpd.core.pipeline import Pipeline
from bgpd.daemon.record import Recorder
from bgpd.flow.inbox import Inbox
from bgpd.model.event import Tick
from bgpd.model.notice import Notice

SETTLE_BUDGET = 512
"""Stale keys recomputed before other tasks get a turn: some 5 ms."""
HASTE_TURNS = 32
"""Turns of the event loop for the reconciler where traffic moves before all is decided: more than its way to the kernel awaits."""
LONGEST_SLEEP_S = 60.0
"""Without a deadline the loop still turns once a minute."""


async def run(
    pipeline: Pipeline,
    inbox: Inbox,
    recorder: Recorder,
    notice: Callable[[Notice], None],
    advanced: Callable[[], None],
    *,
    settled: Callable[[float, float], None],
    watchdog: Systemd,
) -> None:
    """Handle events until cancelled.

    *advanced* is called when the phase has changed or all announcements are known, so that gates are looked at; *settled* is told
    of each batch how many seconds it took, and how many since its first event came.
    Nothing else feeds the *watchdog*: it bites where this loop does not turn, whatever else does.
    """
    gates = pipeline.phase, pipeline.announcements_known
    while True:
        now = clock.monotonic()
        watchdog.alive(now)
        deadline = pipeline.deadline()
        timeout_s = LONGEST_SLEEP_S if deadline is None else max(0.0, deadline - now)
        batch = await inbox.take(min(timeout_s, watchdog.feed_s or LONGEST_SLEEP_S))
        now = clock.monotonic()
        came = inbox.taken_came if batch else now
        if not batch or (deadline is not None and deadline <= now):
            batch.append(Tick())
        for event in batch:
            recorder.write(event, now)
            pipeline.handle(event, now)
        async for _ in settle(pipeline):
            watchdog.alive(clock.monotonic())
        after = clock.monotonic()
        settled(after - now, after - came)
        recorder.flush()
        for item in pipeline.take_notices():
            notice(item)
        if gates != (pipeline.phase, pipeline.announcements_known):
            gates = pipeline.phase, pipeline.announcements_known
            advanced()


async def settle(pipeline: Pipeline) -> AsyncIterator[None]:
    """Have the core decide, and let other tasks run in between: long enough to move traffic, where that does not wait for all decisions."""
    while pipeline.settle(SETTLE_BUDGET):
        for _ in range(HASTE_TURNS if pipeline.hastened else 1):
            await asyncio.sleep(0)
        yield
