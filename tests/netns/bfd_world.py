"""Two namespaces on one wire: our BFD process in one, a router's BFD in the other."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from bgpd.adapters.bfd.process import BfdProcess
from bgpd.adapters.secrets import Passwords
from bgpd.model.bfd import BfdSession, BfdState, BfdStatus
from bgpd.model.event import BfdChanged, Event
from bgpd.model.notice import Notice
from bgpd.model.peer import Bfd
from bgpd.model.prefix import Address
from bgpd.sim.namespace import Namespace

OURS, THEIRS = Address.parse("10.255.78.1"), Address.parse("10.255.78.2")
OURS6, THEIRS6 = Address.parse("fd78::1"), Address.parse("fd78::2")
LOOP, THEIR_LOOP = Address.parse("10.255.79.1"), Address.parse("10.255.79.2")
WAIT_S = 30.0
INTERVAL_MS = int(os.environ.get("BFD_MS", "300"))
"""Between packets of both ends; a machine that tests run on beside other work does not keep a router's 100 ms."""
TIMERS = Bfd(min_tx_ms=INTERVAL_MS, min_rx_ms=INTERVAL_MS, multiplier=3)


class World:
    """Owns the namespaces ``bfd-PID-a`` (ours) and ``-b`` (the router's), the router's daemons and a folder."""

    def __init__(self) -> None:
        tag = f"bfd-{os.getpid()}"
        self.folder = Path(tempfile.mkdtemp(prefix="bfd-"))
        self.folder.chmod(0o755)
        self.ours, self.theirs = Namespace(f"{tag}-a"), Namespace(f"{tag}-b")
        self.routers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        self.ours.ip("link", "add", "xa", "type", "veth", "peer", "name", "xb", "netns", self.theirs.name)
        for space, device, address, address6, loop, far, via in (
            (self.ours, "xa", OURS, OURS6, LOOP, THEIR_LOOP, THEIRS),
            (self.theirs, "xb", THEIRS, THEIRS6, THEIR_LOOP, LOOP, OURS),
        ):
            space.ip("address", "add", f"{address}/24", "dev", device)
            space.ip("address", "add", f"{address6}/64", "dev", device, "nodad")
            space.ip("address", "add", f"{loop}/32", "dev", "lo")
            space.ip("link", "set", device, "up")
            space.ip("route", "add", f"{far}/32", "via", str(via))
        return self

    def __exit__(self, *_: object) -> None:
        for router in self.routers:
            router.terminate()
            router.wait(10)
            assert router.stdout is not None
            router.stdout.close()
        self.ours.close()
        self.theirs.close()
        shutil.rmtree(self.folder)

    def cut(self, direction: str = "input") -> None:
        """Drop all BFD packets at the router, without a sign on the link."""
        self.theirs.execute("nft", "add table inet cut")
        self.theirs.execute("nft", f"add chain inet cut one {{ type filter hook {direction} priority 0; }}")
        self.theirs.execute("nft", "add rule inet cut one udp dport { 3784, 4784 } drop")

    def mend(self) -> None:
        self.theirs.execute("nft", "delete table inet cut")

    def lose(self, percent: int) -> None:
        """Lose *percent* of the packets in each direction."""
        self.theirs.execute("nft", "add table inet cut")
        for hook in ("input", "output"):
            self.theirs.execute("nft", f"add chain inet cut {hook} {{ type filter hook {hook} priority 0; }}")
            self.theirs.execute(
                "nft", f"add rule inet cut {hook} meta l4proto udp numgen random mod 100 < {percent} drop"
            )

    # -------------------------------------------------------------- routers

    def bird(self, sessions: str) -> None:
        file = self.folder / "bird.conf"
        file.write_text(f"router id {THEIRS};\nprotocol device {{ }}\nprotocol bfd bfd1 {{\n{sessions}\n}}\n")
        if self.routers:
            self.birdc("configure")
            return
        self._start("bird", "-f", "-c", str(file), "-s", str(self.folder / "bird.ctl"))
        self._wait_for(self.folder / "bird.ctl")

    def birdc(self, *words: str) -> str:
        return self.theirs.execute("birdc", "-s", str(self.folder / "bird.ctl"), *words)

    def bird_says(self, peer: Address = OURS) -> str:
        """Return BIRD's state of the session with us."""
        rows = [line.split() for line in self.birdc("show", "bfd", "sessions").splitlines()]
        return next((row[2] for row in rows if row and row[0] == str(peer)), "none")

    def frr(self, sessions: str) -> None:
        folder = self.folder / "frr"
        folder.mkdir()
        file = folder / "frr.conf"
        file.write_text(f"hostname tor\nbfd\n{sessions}\n")
        shutil.chown(folder, "frr", "frrvty")
        for daemon, more in (("zebra", ()), ("bfdd", ("--bfdctl", str(folder / "bfdd.ctl")))):
            common = ("-f", str(file), "-i", str(folder / f"{daemon}.pid"), "-z", str(folder / "zserv.api"))
            self._start(f"/usr/lib/frr/{daemon}", *common, "-P", "0", "--vty_socket", str(folder), *more)
            self._wait_for(folder / f"{daemon}.vty")

    def vtysh(self, *commands: str) -> str:
        words = [word for command in commands for word in ("-c", command)]
        return self.theirs.execute("vtysh", "--vty_socket", str(self.folder / "frr"), "-d", "bfdd", *words)

    def frr_says(self, peer: Address = OURS) -> dict[str, Any]:
        sessions: list[dict[str, Any]] = json.loads(self.vtysh("show bfd peers json"))
        return next((one for one in sessions if one["peer"] == str(peer)), {})

    def _start(self, *command: str) -> None:
        self.routers.append(self.theirs.start(*command))

    @staticmethod
    def _wait_for(file: Path) -> None:
        deadline = time.monotonic() + WAIT_S
        while not file.exists():
            assert time.monotonic() < deadline, f"{file.name} does not appear"
            time.sleep(0.02)


class Ours:
    """A daemon's side of the BFD process: what it was told last of each peer, and all that it was told."""

    def __init__(self, world: World) -> None:
        self.status: dict[Address, BfdStatus | None] = {}
        self.history: list[tuple[float, Address, BfdStatus | None]] = []
        self.notices: list[Notice] = []
        self.process = BfdProcess(world.folder, self._deliver, self.notices.append, Passwords(world.folder / "secrets"))

    async def _deliver(self, event: Event) -> None:
        assert isinstance(event, BfdChanged)
        self.status[event.peer] = event.status
        self.history.append((time.monotonic(), event.peer, event.status))

    async def want(self, peer: Address, session: BfdSession) -> None:
        """Ask for a session until the process has it."""
        deadline = time.monotonic() + WAIT_S
        while reason := (await self.process.apply([(peer, session)])).get(peer):
            assert time.monotonic() < deadline, reason
            await asyncio.sleep(0.05)

    def state(self, peer: Address = THEIRS) -> BfdState | None:
        status = self.status.get(peer)
        return status.state if status is not None else None

    def failed(self, peer: Address = THEIRS) -> bool:
        status = self.status.get(peer)
        return status is not None and status.failed

    def problem(self, peer: Address = THEIRS) -> str:
        status = self.status.get(peer)
        return status.problem if status is not None else ""

    def downs(self) -> int:
        """Count the times that a session was told not to be up after it had been."""
        return sum(status is not None and status.diagnostic != "" for _, _, status in self.history)


@asynccontextmanager
async def attached(world: World, keep: bool = False) -> AsyncIterator[Ours]:
    ours = Ours(world)
    running = asyncio.create_task(ours.process.run())
    try:
        yield ours
    finally:
        await ours.process.stop(keep)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(holds: Callable[[], object], what: str, wait_s: float = WAIT_S) -> float:
    """Poll until *holds* is true; returns how long it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + wait_s, f"not within {wait_s} s: {what}"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


def session(local: Address = OURS, **fields: Any) -> BfdSession:
    return BfdSession(local=local, timers=TIMERS, **fields)
