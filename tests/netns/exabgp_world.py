"""A pair of namespaces, a real router in one of them, and a speaker whose ExaBGP runs in the other."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from bgpd.adapters.exabgp.announce import Key
from bgpd.adapters.exabgp.process import Speaker, SpeakerOptions
from bgpd.model.event import EndOfRib, Event, PeerDown, PeerUp, RoutesLearned
from bgpd.model.peer import Peer
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement, Attributes

OURS, THEIRS = Address.parse("10.255.77.1"), Address.parse("10.255.77.2")
OURS6, THEIRS6 = Address.parse("fd77::1"), Address.parse("fd77::2")
WAIT_S = 20.0


def sh(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


async def until(holds: Callable[[], object], what: str, wait_s: float = WAIT_S) -> None:
    """Poll until *holds* is true; what is not true by the deadline fails the test."""
    deadline = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {wait_s} s: {what}"
        await asyncio.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class World:
    """Owns the namespaces ``bgpdx-PID-a`` (ours) and ``-b`` (the router's), the router's daemons and a folder."""

    def __init__(self) -> None:
        tag = f"bgpdx-{os.getpid()}"
        self.ours, self.theirs = f"{tag}-a", f"{tag}-b"
        self.folder = Path(tempfile.mkdtemp(prefix="bgpdx-"))
        self.folder.chmod(0o755)
        self.runtime = self.folder / "run"
        self.routers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for name in (self.ours, self.theirs):
            sh(f"ip netns add {name}")
            sh(f"ip -n {name} link set lo up")
        sh(f"ip link add xa netns {self.ours} type veth peer name xb netns {self.theirs}")
        for name, device, address, address6 in ((self.ours, "xa", OURS, OURS6), (self.theirs, "xb", THEIRS, THEIRS6)):
            sh(f"ip -n {name} address add {address}/24 dev {device}")
            sh(f"ip -n {name} address add {address6}/64 dev {device} nodad")
            sh(f"ip -n {name} link set {device} up")
        return self

    def __exit__(self, *_: object) -> None:
        pid_file = self.runtime / "exabgp.pid"
        if pid_file.exists():
            pid = int(pid_file.read_text())
            cmdline = Path(f"/proc/{pid}/cmdline")
            if cmdline.exists() and os.fsencode(self.runtime) in cmdline.read_bytes():
                os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        for router in self.routers:
            router.terminate()
            router.wait(10)
        for name in (self.ours, self.theirs):
            sh(f"ip netns del {name}")
        shutil.rmtree(self.folder)

    def router(self, *command: str) -> subprocess.Popen[bytes]:
        log = (self.folder / "router.log").open("ab")
        with log:
            process = subprocess.Popen(["ip", "netns", "exec", self.theirs, *command], stdout=log, stderr=log)
        self.routers.append(process)
        return process

    # -------------------------------------------------------------- BIRD

    def bird(self, config: str, *options: str) -> None:
        file = self.folder / "bird.conf"
        file.write_text(config)
        self.router("bird", "-f", "-c", str(file), "-s", str(self.folder / "bird.ctl"), *options)
        deadline = time.monotonic() + WAIT_S
        while not (self.folder / "bird.ctl").exists():
            assert time.monotonic() < deadline, "BIRD does not start"
            time.sleep(0.02)

    def birdc(self, command: str) -> str:
        return sh(f"birdc -s {self.folder}/bird.ctl {command}")

    def reconfigure(self, config: str) -> None:
        (self.folder / "bird.conf").write_text(config)
        self.birdc("configure")

    # -------------------------------------------------------------- FRR

    def frr(self, config: str) -> None:
        """Start FRR's zebra and bgpd, with their sockets in our folder."""
        folder = self.folder / "frr"
        folder.mkdir()
        file = folder / "frr.conf"
        file.write_text(config)
        shutil.chown(folder, "frr", "frrvty")  # the user that Debian's FRR becomes
        daemons = ("zebra", "staticd", "bgpd") if "ip route" in config else ("zebra", "bgpd")
        for daemon in daemons:
            self.frr_daemon(daemon)

    def frr_daemon(self, daemon: str) -> None:
        folder = self.folder / "frr"
        common = ("-f", str(folder / "frr.conf"), "-i", str(folder / f"{daemon}.pid"), "-z", str(folder / "zserv.api"))
        self.router(f"/usr/lib/frr/{daemon}", *common, "-P", "0", "--vty_socket", str(folder))
        deadline = time.monotonic() + WAIT_S
        while not (folder / f"{daemon}.vty").exists():
            assert time.monotonic() < deadline, f"FRR's {daemon} does not start"
            time.sleep(0.02)

    def vtysh(self, *commands: str) -> str:
        words = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(
            ["vtysh", "--vty_socket", str(self.folder / "frr"), "-d", "bgpd", *words],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


def frr_config(*networks: str) -> str:
    """The same router as BIRD's, which originates *networks*."""
    originated = "\n".join(f"  network {network}" for network in networks)
    return f"""
hostname tor
router bgp 65001
 bgp router-id {THEIRS}
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart restart-time 30
 neighbor {OURS} remote-as 65000
 neighbor {OURS} timers 3 9
 neighbor {OURS} timers connect 1
 neighbor {OURS} passive
 address-family ipv4 unicast
{originated}
 exit-address-family
"""


def bird_config(
    *, routes: str = "", routes6: str = "", graceful: bool = True, refresh: bool = True, v6: bool = True
) -> str:
    """An eBGP router (AS 65001) with a neighbor AS 65000, restarting for at most 30 s."""
    return f"""
router id {THEIRS};
protocol device {{ }}
protocol static s4 {{ ipv4; {routes} }}
protocol static s6 {{ ipv6; {routes6} }}
template bgp t {{
  local as 65001; hold time 9; connect retry time 1; error wait time 1, 2;
  graceful restart {"on" if graceful else "off"}; graceful restart time 30;
  {"" if refresh else "enable route refresh off;"}
}}
protocol bgp b4 from t {{
  local {THEIRS} as 65001; neighbor {OURS} as 65000; passive on;
  ipv4 {{ import all; export filter {{ if source != RTS_STATIC then reject; bgp_med = 5; accept; }}; }};
}}
{
        f'''protocol bgp b6 from t {{
  local {THEIRS6} as 65001; neighbor {OURS6} as 65000; passive on;
  ipv6 {{ import all; export where source = RTS_STATIC; }};
}}'''
        if v6
        else ""
    }
"""


PEER = Peer(
    name="tor",
    address=THEIRS,
    asn=65001,
    local_address=OURS,
    local_asn=65000,
    hold_time_s=9,
    graceful_restart_s=30,
)
PEER6 = Peer(
    name="tor6",
    address=THEIRS6,
    asn=65001,
    local_address=OURS6,
    local_asn=65000,
    hold_time_s=9,
    graceful_restart_s=30,
    families=(Family.IPV6,),
)


class Node:
    """A speaker, the events it delivered, and a stand-in for the reconciler of its announcements."""

    def __init__(self, world: World, mode: str = "raw") -> None:
        self.world = world
        self.events: list[Event] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.want: dict[Key, Announcement] = {}
        self._wake = asyncio.Event()
        self._waiting: dict[Key, None] = {}
        options = SpeakerOptions(
            runtime_dir=world.runtime,
            router_id=OURS,
            mode="json" if mode == "json" else "raw",
            netns=world.ours,
            secrets_dir=world.folder / "secrets",
        )
        self.speaker = Speaker(options, self._deliver)
        self.speaker.adj_rib_out.drifted = self._drifted

    async def _deliver(self, event: Event) -> None:
        await self.gate.wait()
        self.events.append(event)

    def _drifted(self, keys: object) -> None:
        assert isinstance(keys, list)
        self._waiting.update(dict.fromkeys(keys))
        self._wake.set()

    async def reconcile(self) -> None:
        """Bring what is announced to what is wanted, then say so: what adapters/reconciler.py does."""
        target = self.speaker.adj_rib_out
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                keys, self._waiting = list(self._waiting), {}
                changes = [(key, self.want.get(key)) for key in keys if self.want.get(key) != target.actual.get(key)]
                refused = await target.apply(changes)
                assert refused == {}, refused
            await target.converged()

    def announce(self, wanted: dict[Key, Announcement]) -> None:
        keys = list(dict.fromkeys([*self.want, *wanted]))
        self.want = dict(wanted)
        self._drifted(keys)

    # -------------------------------------------------------------- what the events say

    def count(self, kind: type, peer: Address = THEIRS) -> int:
        return sum(isinstance(event, kind) and getattr(event, "peer", peer) == peer for event in self.events)

    def up(self, peer: Address = THEIRS) -> bool:
        last = [e for e in self.events if isinstance(e, PeerUp | PeerDown) and e.peer == peer][-1:]
        return bool(last) and isinstance(last[0], PeerUp)

    def ended(self, peer: Address = THEIRS) -> bool:
        """An End-of-RIB came after the last PeerUp."""
        last = max((at for at, e in enumerate(self.events) if isinstance(e, PeerUp) and e.peer == peer), default=-1)
        return last >= 0 and any(isinstance(e, EndOfRib) and e.peer == peer for e in self.events[last:])

    def routes(self, peer: Address = THEIRS, since_up: bool = True) -> dict[Prefix, Attributes]:
        """The adj-rib-in that the events since the last PeerUp make."""
        held: dict[Prefix, Attributes] = {}
        for event in self.events:
            if since_up and isinstance(event, PeerUp) and event.peer == peer:
                held.clear()
            elif isinstance(event, RoutesLearned) and event.peer == peer:
                for prefix in event.withdrawn:
                    held.pop(prefix, None)
                if event.attributes is not None:
                    held.update(dict.fromkeys(event.announced, event.attributes))
        return held


@asynccontextmanager
async def running(node: Node, *, keep: bool = False) -> AsyncIterator[Node]:
    """Run a node's speaker; at the end the daemon's side goes away, and ExaBGP with it unless *keep*."""
    tasks = [asyncio.create_task(node.speaker.run()), asyncio.create_task(node.reconcile())]
    try:
        yield node
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        await node.speaker.stop(keep=keep)
