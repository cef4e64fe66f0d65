"""The drain's stages over counters, time and restarts, beside a counters file as the kernel writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bgpd.daemon.drain import Drain, Unfit
from bgpd.daemon.kept import Unkept
from bgpd.model.drain import DrainRequest, Stage
from bgpd.model.event import DrainChanged, Event
from bgpd.model.notice import Notice

pytestmark = pytest.mark.core

LIMIT_S = 60.0
HEAD = "Inter-|   Receive\n face |bytes    packets errs\n"


class Site:
    """What a drain stands among: a counters file, what the core was told, what people were told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counters = folder / "dev"
        self.told: list[Event] = []
        self.notices: list[Notice] = []
        self.count(0)

    def count(self, packets: int, others: int = 0) -> None:
        """Let the uplink have received so many packets, and another link *others*."""
        beside = self.folder / "dev.new"
        beside.write_text(f"{HEAD}  eth1: 9 {packets} 0\n    lo: 9 {others} 0\n")
        beside.replace(self.counters)

    def drain(self) -> Drain:
        async def put(event: Event) -> None:
            self.told.append(event)

        return Drain(
            self.folder / "state",
            put,
            self.notices.append,
            lambda: {"eth1"},
            self.counters,
            sample_s=0.05,
            quiet_s=0.2,
        )

    def stages(self) -> list[Stage]:
        return [event.stage for event in self.told if isinstance(event, DrainChanged)]


def during(drain: Drain, work: Callable[[], Awaitable[None]]) -> None:
    """Do *work* while the drain runs."""

    async def run() -> None:
        running = asyncio.create_task(drain.run())
        try:
            async with asyncio.timeout(LIMIT_S):
                await work()
        finally:
            running.cancel()

    asyncio.run(run())


async def until(drain: Drain, stage: Stage) -> None:
    while drain.state is None or drain.state.stage is not stage:
        await asyncio.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_quiet_uplinks_end_the_wait(site: Site) -> None:
    """Traffic of links that lead to no router is no reason to wait; the reason says what was measured."""
    drain = site.drain()

    async def work() -> None:
        await drain.start(DrainRequest(timeout_s=LIMIT_S))
        site.count(0, others=10**9)
        await until(drain, Stage.DRAINED)

    during(drain, work)

    assert [Stage.DRAINING, Stage.DRAINED] == site.stages()
    assert drain.state is not None
    assert drain.state.reason == "0 packets/s arrived, fewer than 100"
    assert ["drain.started", "drain.finished"] == [one.name for one in site.notices]


def test_traffic_that_stays_is_waited_for_until_the_time_is_over(site: Site) -> None:
    """While packets come the wait goes on, and at its end all is withdrawn with that reason."""
    drain = site.drain()

    async def traffic() -> None:
        packets = 0
        while drain.state is None or drain.state.stage is not Stage.DRAINED:
            packets += 10**7
            site.count(packets)
            await asyncio.sleep(0)

    async def work() -> None:
        await drain.start(DrainRequest(timeout_s=1.5))
        await traffic()

    during(drain, work)

    assert drain.state is not None
    assert drain.state.reason.startswith("1.5 s were over: ")
    assert drain.state.reason.endswith(" packets/s still arrived")


def test_a_restart_finds_the_stage_and_tells_it_first(site: Site) -> None:
    """What was drained is so after a restart; a wait goes on where it was; undrain leaves nothing to find."""
    drain = site.drain()
    asyncio.run(drain.start(DrainRequest(timeout_s=0.0, keep_blocks=True)))
    again = site.drain()
    asyncio.run(again.restore())
    assert DrainChanged(Stage.DRAINING, keep_blocks=True) == site.told[-1]

    during(again, lambda: until(again, Stage.DRAINED))
    third = site.drain()
    asyncio.run(third.restore())
    assert DrainChanged(Stage.DRAINED, keep_blocks=True) == site.told[-1]

    asyncio.run(third.end())
    assert DrainChanged(Stage.OFF) == site.told[-1]
    assert site.drain().state is None


def test_asking_twice_changes_the_order_and_withdraws_nothing_back(site: Site) -> None:
    """A second drain while drained changes what is kept, and never goes back to draining."""
    drain = site.drain()

    async def work() -> None:
        await drain.start(DrainRequest(timeout_s=0.0))
        await until(drain, Stage.DRAINED)
        await drain.start(DrainRequest(timeout_s=60.0, keep_blocks=True))

    during(drain, work)

    assert DrainChanged(Stage.DRAINED, keep_blocks=True) == site.told[-1]


def test_a_stage_that_cannot_be_kept_is_not_entered(site: Site) -> None:
    """Without a place for the file nothing is announced differently: a restart would not know of it."""
    drain = site.drain()
    (site.folder / "state").write_text("a file, no directory")

    with pytest.raises(Unkept):
        asyncio.run(drain.start(DrainRequest()))

    assert [] == site.told
    assert drain.state is None


def test_a_file_that_cannot_be_read_is_not_taken_for_none(site: Site) -> None:
    """A damaged file ends the start with what to do, since announcing could be just what was forbidden."""
    (site.folder / "state").mkdir()
    (site.folder / "state" / "drain.json").write_text("{")

    with pytest.raises(Unfit, match="Remove it to announce everything"):
        site.drain()
