"""``bgpd overlay`` on two real nodes behind two routers: what is shown, probed and forced is what packets do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.losses_world import DEADLINE_S, Node, World

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

PORT = 40001


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, 0) as made:
        yield made


def refused(node: Node, *command: str) -> tuple[int, str]:
    line = [sys.executable, "-m", "bgpd.cli.main", *command, "--socket", str(node.folder / "bgpd.sock")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def suspicious(node: Node) -> None:
    """Let the node forward only what connection tracking knows, or what begins a connection as it should."""
    node.netns.execute("nft", "add table inet strict")
    node.netns.execute("nft", "add chain inet strict pass { type filter hook forward priority 0; policy drop; }")
    for rule in ("ct state invalid drop", "ct state established,related accept", "ct state new accept"):
        node.netns.execute("nft", f"add rule inet strict pass {rule}")


class Talk:
    """A TCP connection between the nodes' workloads."""

    def __init__(self, here: Node, there: Node) -> None:
        async def listen() -> socket.socket:
            return socket.create_server((there.address, PORT))

        async def call() -> socket.socket:
            return socket.create_connection((there.address, PORT), timeout=DEADLINE_S)

        self._listener = there.workload.netns.run(listen)
        self._ends = [here.workload.netns.run(call)]
        self._listener.settimeout(DEADLINE_S)
        self._ends.append(self._listener.accept()[0])
        for end in self._ends:
            end.settimeout(DEADLINE_S)
        self.say("hello")

    def say(self, what: str) -> None:
        """Have both ends hear *what*, many packets long."""
        text = what.encode() * 10_000
        for speaker, hearer in (self._ends, self._ends[::-1]):
            speaking = threading.Thread(target=speaker.sendall, args=(text,))
            speaking.start()
            heard = b""
            while len(heard) < len(text):
                heard += hearer.recv(1 << 16)
            speaking.join()
            assert text == heard

    def close(self) -> None:
        for end in (*self._ends, self._listener):
            end.close()


def crosses(world: World) -> bool:
    """Whether a workload reaches the other one."""
    first, second = world.nodes
    return "1 received" in first.workload.netns.execute("ping", "-c", "1", "-W", "5", second.address)


def test_ways_are_shown_probed_and_forced(world: World) -> None:
    """Native and tunnel answer probes; a forced tunnel carries what workloads send, past conntrack, over kill -9, for its time."""
    first, second = world.nodes
    (view,) = first.ask("overlay", "node2")
    assert ("native", True, ["10.1.11.0 dev up1"]) == (view["path"], view["alive"], view["via"])
    assert {"native": True, "vxlan": True} == {
        one["path"]: one["usable"] for one in view["candidates"] if one["path"] in ("native", "vxlan")
    }
    probes = {one["path"]: one for one in first.ask("overlay", "test", "node2", "--count", "3")}
    for path in ("native", "vxlan"):
        assert (3, 3) == (probes[path]["sent"], probes[path]["received"]), probes
    assert "this node has no IPIP device" == probes["ipip"]["reason"]
    status, why = refused(first, "overlay", "force", "node2", "ipip")
    assert (1, True) == (status, "this node has no IPIP device" in why)

    for node in world.nodes:
        suspicious(node)
    talk = Talk(first, second)
    assert first.ask("overlay", "force", "node2", "vxlan")["path"] == "vxlan"
    world.until(lambda: first.way(second) == ("tunnel", "vxlan.bgpd"), "forced")
    assert crosses(world), "one direction in the tunnel, the other native"
    talk.say("tunnelled one way")
    assert "native" == second.way(first)[0]
    assert ["node2"] == [one["node"] for one in first.ask("status")["forced"]]
    assert "forced to vxlan by an operator" in first.ask("explain", second.address)["answer"]

    assert first.process is not None
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    first.start()
    world.until(lambda: first.ask("status") is not None and first.ask("status")["phase"]["name"] == "ready", "ready")
    assert ("tunnel", "vxlan.bgpd") == first.way(second)
    assert first.ask("overlay", "force", "node2", "vxlan", "--for", "2s")["until"] > time.time()
    world.until(lambda: first.way(second) == ("native", "up1"), "its time is over")
    assert crosses(world)
    talk.say("native again")
    talk.close()
    assert world.leaked() == 0
