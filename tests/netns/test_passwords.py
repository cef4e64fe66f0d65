"""Passwords of sessions (TCP-MD5, RFC 2385) against a real BIRD and FRR: read, refused, changed, and shown nowhere."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bgpd.adapters.exabgp import neighbors
from bgpd.adapters.exabgp.process import Speaker
from bgpd.model.event import PeerDown, PeerUp
from bgpd.model.notice import Notice
from bgpd.model.peer import Peer, SecretRef
from bgpd.model.prefix import Address
from tests.netns.exabgp_world import (
    OURS,
    PEER,
    PEER6,
    THEIRS,
    THEIRS6,
    Node,
    World,
    bird_config,
    frr_config,
    running,
    until,
)

pytestmark = pytest.mark.netns

SECRET = "8-byte 'hush'; }"
"""With what an unquoted word of ExaBGP's file could not hold."""
ENCODED = base64.b64encode(SECRET.encode()).decode()
WITH = replace(PEER, password=SecretRef("fabric", "tor"))
DEADLINE_S = 60.0


class Fabric(World):
    """A world with a directory of secrets, and a BIRD that wants one of them from its IPv4 neighbor and none over IPv6."""

    @property
    def password(self) -> Path:
        return self.folder / "secrets" / "fabric" / "tor"

    def put(self, secret: str, mode: int = 0o600) -> None:
        """Write the password that WITH names, as an operator would: a new file, renamed into place."""
        self.password.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.password.with_name(".new")
        fresh.write_text(secret + "\n")
        fresh.chmod(mode)
        fresh.rename(self.password)

    def bird_with(self, secret: str, connection: str = "passive on") -> None:
        self.bird(_bird(secret, connection))

    def reconfigure_with(self, secret: str) -> None:
        self.reconfigure(_bird(secret, "passive on"))

    def readable(self) -> list[str]:
        """Text that somebody else could read: log, and what runs with which words."""
        words = [path.read_bytes() for path in _command_lines()]
        files = [path.read_bytes() for path in self.runtime.iterdir() if path.is_file() and path.stat().st_mode & 0o77]
        return [part.decode(errors="replace") for part in (*words, *files, (self.runtime / "exabgp.log").read_bytes())]


def _bird(secret: str, connection: str) -> str:
    return bird_config().replace("passive on;", f'{connection}; password "{secret}";', 1)


def _command_lines() -> Iterator[Path]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.exists():
            yield path


@pytest.fixture
def world() -> Iterator[Fabric]:
    with Fabric() as made:
        yield made


@pytest.fixture(params=["raw", "json"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def configure(speaker: Speaker, *peers: Peer) -> dict[Address, str]:
    return await speaker.neighbors.apply([(peer.address, peer) for peer in peers])


@pytest.mark.parametrize("passive", [False, True])
def test_the_right_password_brings_the_session_up_and_is_shown_nowhere(world: Fabric, mode: str, passive: bool) -> None:
    """Whoever connects, BIRD and we agree on the password; it is in no log and on no command line, and its files are 0600."""

    async def body() -> None:
        world.put(SECRET)
        world.bird_with(SECRET, "connect delay time 1" if passive else "passive on")
        async with running(Node(world, mode)) as node:
            assert {} == await configure(node.speaker, replace(WITH, passive=passive), PEER6)
            await until(lambda: node.up() and node.up(THEIRS6), "both sessions", DEADLINE_S)

            conf = world.runtime / "exabgp.conf"
            assert 0o600 == conf.stat().st_mode & 0o777
            assert ENCODED in conf.read_text()
            assert not [text for text in world.readable() if "hush" in text or ENCODED in text]

            # What ExaBGP refuses stays beside the file, and its complaint is for the log.
            refused = await configure(node.speaker, replace(WITH, hold_time_s=1))
            assert [THEIRS] == list(refused)
            assert "hush" not in refused[THEIRS]
            assert ENCODED not in refused[THEIRS]
            assert {0o600} == {path.stat().st_mode & 0o777 for path in world.runtime.glob("exabgp.*[new]")}
            assert node.up()

    asyncio.run(body())


def test_a_missing_or_unfit_password_keeps_its_peer_down_and_no_other(world: Fabric) -> None:
    """Without a password, or with one that others may read, the peer is refused with the reason; when it is fit, it comes up."""

    async def body() -> None:
        world.bird_with(SECRET)
        async with running(Node(world)) as node:
            missing = await configure(node.speaker, WITH, PEER6)
            assert {THEIRS: f"password {world.password}: the file cannot be read: No such file or directory"} == missing
            await until(lambda: node.up(THEIRS6), "the peer without a password")
            assert {THEIRS6: PEER6} == node.speaker.neighbors.actual

            world.put(SECRET, 0o640)
            assert "can be used by its group or others" in (await configure(node.speaker, WITH))[THEIRS]
            assert str(THEIRS) not in (world.runtime / "exabgp.conf").read_text()

            world.put(SECRET)
            assert {} == await configure(node.speaker, WITH)
            await until(node.up, "the session with the password", DEADLINE_S)
            assert 1 == node.count(PeerUp, THEIRS6)

    asyncio.run(body())


def test_a_peer_that_gets_a_missing_password_goes_down(world: Fabric) -> None:
    """A session that runs without a password ends when one is demanded that is not there: no reference fails open (law 7)."""

    async def body() -> None:
        world.bird(bird_config())
        async with running(Node(world)) as node:
            assert {} == await configure(node.speaker, PEER, PEER6)
            await until(lambda: node.up() and node.up(THEIRS6), "both sessions")

            assert [THEIRS] == list(await configure(node.speaker, WITH))
            await until(lambda: not node.up(), "the end of the session")
            assert node.up(THEIRS6)
            assert 1 == node.count(PeerUp, THEIRS6)

    asyncio.run(body())


def test_a_wrong_password_is_named(world: Fabric) -> None:
    """A neighbor that does not answer us may have another password; what it sends itself our kernel drops and counts, which is told."""

    async def body() -> None:
        world.put("wrong")
        world.bird_with(SECRET, "connect delay time 1")  # BIRD calls, too
        async with running(Node(world)) as node:
            assert {} == await configure(node.speaker, WITH)

            def reason() -> str:
                found = [event.reason for event in node.events if isinstance(event, PeerDown)]
                return found[-1] if found else ""

            await until(lambda: "TCP-MD5: the kernel has dropped" in reason(), "the reason", DEADLINE_S)
            assert "no answer from port 179" in reason()
            assert "or its password is not ours" in reason()
            assert "signature" in reason()
            assert not node.count(PeerUp)

    asyncio.run(body())


def test_a_changed_password_is_taken_up_and_a_lost_one_ends_no_session(
    world: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password keeps the session down until its file is right; a file that vanishes is told, and the session stays up
    until it has to begin anew."""
    monkeypatch.setattr(neighbors, "PASSWORDS_POLL_S", 0.1)
    notices: list[Notice] = []
    lost: list[Address] = []
    appeared: list[bool] = []

    async def body() -> None:
        world.put("wrong")
        world.bird_with(SECRET)
        node = Node(world)
        node.speaker.neighbors.notice = notices.append
        node.speaker.neighbors.drifted = lost.extend
        node.speaker.neighbors.appeared = lambda: appeared.append(True)
        async with running(node):
            watching = asyncio.create_task(node.speaker.neighbors.watch_passwords())
            assert {} == await configure(node.speaker, WITH, PEER6)
            await until(lambda: node.up(THEIRS6), "the peer without a password")
            assert not node.up()

            world.put(SECRET)
            await until(node.up, "the session with the right password", DEADLINE_S)
            assert [Notice("password.changed", {"peer": str(THEIRS)})] == notices
            assert 1 == node.count(PeerUp, THEIRS6)

            world.password.unlink()
            await until(lambda: len(notices) > 1, "the loss is told")
            await asyncio.sleep(1)  # what must not happen has no sign to wait for
            assert ["password.changed", "password.unfit"] == [notice.name for notice in notices]
            assert str(world.password) in str(notices[1].fields["reason"])
            assert node.up()
            assert 1 == node.count(PeerUp)

            assert node.speaker.pid is not None
            lost.clear()
            os.kill(node.speaker.pid, signal.SIGKILL)
            await until(lambda: node.count(PeerUp, THEIRS6) == 2, "the speaker is back")
            assert ([THEIRS], 1, []) == (lost, node.count(PeerUp), appeared)
            world.put(SECRET)
            await until(lambda: appeared, "the password is there again")
            watching.cancel()

    asyncio.run(body())


def test_a_daemon_that_comes_back_knows_the_password_in_use(world: Fabric) -> None:
    """Attached to a speaker that runs, nothing changes; a password that changed meanwhile is seen to be another."""

    async def body() -> None:
        world.put(SECRET)
        world.bird_with(SECRET)
        async with running(Node(world), keep=True) as node:
            assert {} == await configure(node.speaker, WITH)
            await until(node.up, "the session", DEADLINE_S)
        async with running(Node(world), keep=True) as node:  # the world ends ExaBGP: it is a child of the first life
            assert {} == await configure(node.speaker, WITH)
            await until(node.up, "the session that was up")
            assert [] == node.speaker.neighbors._outdated()
            assert "Established" in world.birdc("show protocols b4")
            world.put("other")
            assert [(THEIRS, WITH)] == node.speaker.neighbors._outdated()

    asyncio.run(body())


def test_frr_agrees_on_the_password(world: Fabric) -> None:
    """FRR with another password has no session with us, and with the same one has."""

    async def body() -> None:
        world.put("right")
        config = frr_config("10.9.0.0/24")
        first = f" neighbor {OURS} remote-as 65000\n"
        world.frr(config.replace(first, f"{first} neighbor {OURS} password wrong\n"))
        async with running(Node(world)) as node:
            assert {} == await configure(node.speaker, WITH)
            await asyncio.sleep(2)  # what must not happen has no sign to wait for
            assert not node.up()
            world.vtysh("configure terminal", "router bgp 65001", f"neighbor {OURS} password right")
            await until(node.up, "the session", DEADLINE_S)

    asyncio.run(body())


# ------------------------------------------------------------------ the daemon

CONFIG = """
[node]
name = "node1"
address = "{ours}/24"
asn = 65000

[store]
url = "sqlite:///{folder}/store.db"

[secrets]
directory = "{folder}/secrets"

[[peer]]
name = "tor6"
address = "{theirs6}"
asn = 65001
local_address = "fd77::1"
families = ["ipv6"]

[speaker]
runtime_dir = "{folder}/run"

[api]
socket = "{folder}/bgpd.sock"

[log]
format = "json"
"""

IN_FILE = f"""
[[peer]]
name = "tor"
address = "{THEIRS}"
asn = 65001
local_address = "{OURS}"
hold_time_s = 9
password = {{ name = "fabric", key = "tor" }}
"""

RESOURCE = f"""
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: tor}}
spec:
  peerIP: {THEIRS}
  asNumber: 65001
  password: {{secretKeyRef: {{name: fabric, key: tor}}}}
"""


@pytest.mark.parametrize("source", ["file", "BGPPeer"])
def test_the_daemon_says_why_a_peer_is_down_and_takes_the_password_when_it_is_there(world: Fabric, source: str) -> None:
    """Of a peer of the node's file, and of a BGPPeer: `bgpd peers` and the log name the missing file, and its appearance is
    enough; no output, log or recording holds the secret."""
    config, log, recording = (world.folder / name for name in ("bgpd.toml", "bgpd.log", "events.jsonl"))
    text = CONFIG.format(ours=OURS, theirs6=THEIRS6, folder=world.folder)
    config.write_text(text + (IN_FILE if source == "file" else ""))
    world.bird_with(SECRET)
    bgpd = [sys.executable, "-m", "bgpd.cli.main"]
    if source == "BGPPeer":
        command = [*bgpd, "apply", "-f", "-", "--store", f"sqlite://{world.folder}/store.db"]
        subprocess.run(command, input=RESOURCE, text=True, check=True, capture_output=True)
    outputs: list[str] = []

    def peers() -> dict[str, Any]:
        command = [*bgpd, "peers", "--socket", str(world.folder / "bgpd.sock"), "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
        outputs.append(done.stdout + done.stderr)
        return {view["name"]: view for view in json.loads(done.stdout)} if done.returncode == 0 else {}

    def wait(holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_S
        while not ((views := peers()) and holds(views)):
            assert time.monotonic() < deadline, (views, log.read_text())
            time.sleep(0.1)
        return views

    with log.open("wb") as out:
        command = [*bgpd, "run", "--config", str(config), "--record", str(recording)]
        daemon = subprocess.Popen(["ip", "netns", "exec", world.ours, *command], stderr=out)
    try:
        views = wait(
            lambda views: views["tor6"]["state"] == "Established" and views.get("tor", {"reason": ""})["reason"] != ""
        )
        why = f"password {world.password}: the file cannot be read: No such file or directory"
        assert ("Idle", why) == (views["tor"]["state"], views["tor"]["reason"])
        told = [json.loads(line) for line in log.read_text().splitlines() if "neighbors.refused" in line]
        assert [(str(THEIRS), why)] == [(line["key"], line["reason"]) for line in told]

        world.put(SECRET)
        views = wait(lambda views: (views["tor"]["state"], views["tor"]["reason"]) == ("Established", ""))
        assert 1 == views["tor6"]["transitions"]
        assert not [text for text in world.readable() if "hush" in text or ENCODED in text]
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(DEADLINE_S)
    assert b'"password":{"name":"fabric","key":"tor"}' in recording.read_bytes()
    assert not [
        text for text in (*outputs, log.read_text(), recording.read_text()) if "hush" in text or ENCODED in text
    ]
