"""Forced ways: kept over restarts, ended in time, refused where they cannot be kept."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path as FilePath

import msgspec
import pytest

from bgpd.daemon.force import FILE, Forces
from bgpd.daemon.kept import Unkept
from bgpd.model.event import Event, PathForced
from bgpd.model.notice import Notice
from bgpd.model.overlay import Force, ForceRequest, Path

pytestmark = pytest.mark.adapter

WAIT_S = 30.0


class Site:
    """A Forces and what it told."""

    def __init__(self, folder: FilePath) -> None:
        self.told: list[Event] = []
        self.notices: list[Notice] = []
        self.forces = Forces(folder, self._put, self.notices.append)

    async def _put(self, event: Event) -> None:
        self.told.append(event)

    def named(self) -> list[str]:
        return [notice.name for notice in self.notices]


def test_a_forced_way_is_told_and_found_by_a_restart(tmp_path: FilePath) -> None:
    """The core is told, and so is that of the next process; auto ends it for both."""

    async def scenario() -> None:
        first = Site(tmp_path)
        await first.forces.force(ForceRequest(node="node2", path=Path.VXLAN))
        assert [PathForced("node2", Path.VXLAN)] == first.told
        second = Site(tmp_path)
        await second.forces.restore()
        assert [PathForced("node2", Path.VXLAN)] == second.told
        assert {"node2": Force(Path.VXLAN, None)} == second.forces.now
        await second.forces.force(ForceRequest(node="node2", path=Path.AUTO))
        assert PathForced("node2", Path.AUTO) == second.told[-1]
        third = Site(tmp_path)
        await third.forces.restore()
        assert [] == third.told
        assert ["path.forced"] == first.named()
        assert ["path.released"] == second.named()

    asyncio.run(scenario())


def test_it_ends_when_its_time_is_over(tmp_path: FilePath) -> None:
    """The core is told once the time is over, also of one whose time was over while no daemon ran."""

    async def scenario() -> None:
        past = {"node3": Force(Path.IPIP, time.time() - 5)}
        (tmp_path / FILE).write_bytes(msgspec.json.encode(past))
        site = Site(tmp_path)
        await site.forces.restore()
        await site.forces.force(ForceRequest(node="node2", path=Path.NATIVE, for_s=0.2))
        running = asyncio.create_task(site.forces.run())
        deadline = time.monotonic() + WAIT_S
        while site.forces.now:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [PathForced("node3", Path.AUTO), PathForced("node2", Path.AUTO)] == site.told[2:]
        assert b"{}" == (tmp_path / FILE).read_bytes()

    asyncio.run(scenario())


def test_what_cannot_be_written_down_is_refused(tmp_path: FilePath) -> None:
    """Where the file cannot be written nothing changes and nothing is told."""

    async def scenario() -> None:
        (tmp_path / "file").write_text("no folder")
        site = Site(tmp_path / "file")
        with pytest.raises(Unkept, match="cannot be written"):
            await site.forces.force(ForceRequest(node="node2", path=Path.VXLAN))
        assert ({}, []) == (site.forces.now, site.told)

    asyncio.run(scenario())


def test_a_file_that_cannot_be_read_forces_nothing_and_is_told(tmp_path: FilePath) -> None:
    """A broken file is no reason not to start: nothing is forced, and a notice says so."""

    async def scenario() -> None:
        (tmp_path / FILE).write_text("{")
        site = Site(tmp_path)
        await site.forces.restore()
        assert ([], ["path.released"]) == (site.told, site.named())
        assert "cannot be read" in str(site.notices[0].fields["reason"])

    asyncio.run(scenario())
