"""Loading the configuration again: what is taken over, what is told, and that a bad one changes nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from bgpd.adapters.systemd import Systemd
from bgpd.api.protocol import Refused
from bgpd.config.load import load
from bgpd.config.schema import Config
from bgpd.daemon.part import Part
from bgpd.daemon.reload import NAMES_TOLD, Reloader, Source
from bgpd.model.notice import KINDS, Notice

pytestmark = pytest.mark.adapter

TEXT = """
[node]
name = "node-a"
address = "10.0.0.1/24"
asn = 64512
"""
PEER = '[[peer]]\nname = "p{0}"\naddress = "192.0.2.{0}"\nasn = 65001\nlocal_address = "192.0.2.200"\n'


class World:
    """A file, the manager's socket, and a reloader whose take-overs are kept."""

    def __init__(self, folder: Path, *, ready: bool = True) -> None:
        self.file = folder / "bgpd.toml"
        self.file.write_text(TEXT)
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(folder / "notify"))
        self._manager.setblocking(False)
        self.systemd = Systemd({"NOTIFY_SOCKET": str(folder / "notify")}, os.getpid())
        if ready:
            self.systemd.ready()
            self.said()
        self.taken: list[Config] = []
        self.refuse = ""
        self.notices: list[Notice] = []
        source = Source(self.file, load(self.file), lambda: load(self.file))
        self.reloader = Reloader(source, self._take, self.systemd, self.notices.append)

    async def _take(self, config: Config) -> None:
        if self.refuse:
            raise Refused(self.refuse)
        self.taken.append(config)

    def said(self) -> list[str]:
        found = []
        try:
            while True:
                found.append(self._manager.recv(4096).decode())
        except BlockingIOError:
            return found

    def close(self) -> None:
        self.systemd.close()
        self._manager.close()


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path)
    yield made
    made.close()


def test_changes_are_taken_over_and_told(world: World) -> None:
    """What can be is taken over, what waits keeps its value, and both are told by name; systemd hears of begin and end."""
    world.file.write_text(TEXT.replace("64512", "64513") + '[log]\nlevel = "debug"\n')

    view = asyncio.run(world.reloader.reload(dry_run=False))

    assert (True, ["log.level"], ["node.asn"]) == (
        view.done,
        [one.key for one in view.changed],
        [one.key for one in view.waiting],
    )
    (taken,) = world.taken
    assert ("debug", 64512) == (taken.log.level, taken.node.asn)
    assert [Notice("configuration.reloaded", {"changed": "log.level", "waiting": "node.asn"})] == world.notices
    begun, ended = world.said()
    assert begun.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert begun.rpartition("=")[2].isdecimal()
    assert "READY=1" == ended


def test_what_waits_is_told_each_time(world: World) -> None:
    """A second reload finds nothing to take over, and still names what waits for a start."""
    world.file.write_text(TEXT.replace("64512", "64513") + "[ecmp]\nlimit = 2\n")

    async def twice() -> None:
        await world.reloader.reload(dry_run=False)
        view = await world.reloader.reload(dry_run=False)
        assert ((), ["node.asn"]) == (view.changed, [one.key for one in view.waiting])

    asyncio.run(twice())


@pytest.mark.parametrize("text", [TEXT + "[ecmp]\nlimt = 2\n", "[node", ""])
def test_a_bad_file_changes_nothing(world: World, text: str) -> None:
    """A file with a defect, no TOML or nothing at all is refused with the reason, told, and nothing is taken over."""
    world.file.write_text(text)

    with pytest.raises(Refused) as refused:
        asyncio.run(world.reloader.reload(dry_run=False))

    assert str(world.file) in refused.value.reason
    assert [] == world.taken
    assert [Notice("configuration.refused", {"reason": refused.value.reason})] == world.notices
    assert "READY=1" == world.said()[-1]


def test_what_cannot_be_taken_over_changes_nothing(world: World) -> None:
    """Where a part refuses (a port in use), the configuration that holds is the one before, so that the next reload finds the change."""
    world.file.write_text(TEXT + "[metrics]\nport = 9100\n")
    world.refuse = "metrics: cannot listen"

    async def twice() -> None:
        with pytest.raises(Refused, match="cannot listen"):
            await world.reloader.reload(dry_run=False)
        world.refuse = ""
        view = await world.reloader.reload(dry_run=False)
        assert ["metrics.port"] == [one.key for one in view.changed]

    asyncio.run(twice())


def test_dry_run_takes_nothing_and_tells_nobody(world: World) -> None:
    """A dry run shows the same changes, and neither takes, logs nor notifies anything."""
    world.file.write_text(TEXT + "[ecmp]\nlimit = 2\n")

    view = asyncio.run(world.reloader.reload(dry_run=True))

    assert (False, str(world.file), ["ecmp.limit"]) == (view.done, view.path, [one.key for one in view.changed])
    assert ([], [], []) == (world.taken, world.notices, world.said())


def test_starting_daemon_says_nothing_of_a_reload(tmp_path: Path) -> None:
    """Before it is ready, a reload must not make systemd think that the start is over."""
    world = World(tmp_path, ready=False)

    asyncio.run(world.reloader.reload(dry_run=False))

    assert [] == world.said()
    world.close()


def test_hangup_reloads_and_survives_a_bad_file(world: World) -> None:
    """SIGHUP after SIGHUP is answered, whatever the file is like."""

    async def hang_up() -> None:
        running = asyncio.create_task(world.reloader.run())
        for text, name in (("[node", "configuration.refused"), (TEXT, "configuration.reloaded")):
            world.file.write_text(text)
            told = len(world.notices)
            world.reloader.hang_up()
            async with asyncio.timeout(30):
                while len(world.notices) == told:
                    await asyncio.sleep(0.01)
            assert name == world.notices[-1].name
        running.cancel()

    asyncio.run(hang_up())
    assert {notice.name for notice in world.notices} <= KINDS.keys()


def test_a_thousand_changes_make_a_short_entry(world: World) -> None:
    """The log names a bounded number of changes; the answer has all."""
    world.file.write_text(TEXT + "".join(PEER.format(n) for n in range(1, 101)))

    view = asyncio.run(world.reloader.reload(dry_run=False))

    assert len(view.changed) > 1000
    told = world.notices[-1].fields["changed"]
    assert isinstance(told, str)
    assert f"and {len(view.changed) - NAMES_TOLD} more" in told
    assert len(told) < 1000


def test_a_part_exchanges_its_work() -> None:
    """The work before is cancelled before the new one is used, work that has ended stays ended, and a failure is the part's."""
    log: list[str] = []

    def work(name: str, *, forever: bool = True):
        async def do() -> None:
            log.append(f"{name} begins")
            try:
                if forever:
                    await asyncio.Event().wait()
            finally:
                log.append(f"{name} ends")

        return do

    async def fail() -> None:
        raise OSError("no")

    async def exchange() -> None:
        part = Part(work("a"))
        running = asyncio.create_task(part.run())
        for before, name in (("a", "b"), ("b", "c")):
            while f"{before} begins" not in log:
                await asyncio.sleep(0)
            part.exchange(work(name, forever=name == "b"))
        while log[-1] != "c ends":
            await asyncio.sleep(0)
        part.exchange(fail)
        with pytest.raises(OSError, match="no"):
            await running

    asyncio.run(exchange())
    assert ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"] == log


def test_a_part_ends_with_its_work() -> None:
    """Cancelling a part cancels its work, and waits for its end."""
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def cancel() -> None:
        running = asyncio.create_task(Part(work).run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel())
    assert [True] == ended
