"""WireGuard between two daemons, by ``wireguard-go``: keys, traffic, a change of the key, a restart. The kernel's own is in tests/vm."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.adapters.wireguard_keys import WireguardKeys
from bgpd.model.forwarding import WIREGUARD_DEVICE
from tests.netns.wireguard_world import DEADLINE_S, TCP_BYTES, Node, Pair, ping, processes, transfer, wait, wireguard_go

pytestmark = pytest.mark.netns

STREAM_PPS = 100
"""Of the stream during a change: 128 packets that WireGuard holds back are more than a second of it."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path, kind="WireGuard", subnet=False)
    try:
        made.start()
        yield made
    finally:
        made.close()


def keys_of_peers(node: Node) -> set[str]:
    """Return the public keys that a node's device has as peers, asked where its control socket is."""
    (pid,) = wireguard_go(node.netns)
    command = ["nsenter", "-t", pid, "-m", "-r", "-n", "wg", "show", WIREGUARD_DEVICE, "peers"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout.split())


def stated_key(node: Node) -> str | None:
    """Return the key that the Node resource names."""
    found = json.loads(node.store("get", "node", node.name, "-o", "json"))
    resource = found[0] if isinstance(found, list) else found
    key = resource.get("status", {}).get("wireguardPublicKey")
    assert key is None or isinstance(key, str)
    return key


def test_traffic_of_workloads_goes_encrypted(pair: Pair) -> None:
    """Pings of all sizes and a TCP stream go through the devices; each Node names its public key, and nothing shows the private one."""
    one, two = pair.nodes
    here, there = pair.addresses
    assert ping(one, there)
    assert ping(two, here)
    mtu_bytes = 1440
    assert ping(one, there, "-M", "do", "-s", str(mtu_bytes - 28))
    assert not ping(one, there, "-M", "do", "-s", str(mtu_bytes - 27), "-c", "1", "-W", "1")
    assert ping(two, here, "-s", "4000")
    assert min(*one.counters(WIREGUARD_DEVICE), *two.counters(WIREGUARD_DEVICE)) >= 6

    assert TCP_BYTES == transfer(one, two, there)

    for node, other in ((one, two), (two, one)):
        path = node.folder / "state" / "wireguard" / "private.key"
        public = WireguardKeys(path.parent).public()
        assert public == stated_key(node)
        assert {public} == keys_of_peers(other)
        assert 0o600 == path.stat().st_mode & 0o777
        secret = path.read_text().strip()
        assert secret not in node.log.read_text()
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes(node.netns)]
        assert not any(secret.encode() in line for line in lines)


def test_change_of_the_key_loses_nothing(pair: Pair) -> None:
    """While the key is changed a stream goes on in both directions; afterwards the other node and the Node know the new key only."""
    one, two = pair.nodes
    before = WireguardKeys(one.folder / "state" / "wireguard").public()
    stream = one.workload.start("ping", "-q", "-i", str(1 / STREAM_PPS), "-c", "1000000", pair.addresses[1])
    try:
        sent = two.counters(WIREGUARD_DEVICE)[0]
        wait(lambda: two.counters(WIREGUARD_DEVICE)[0] > sent + 20, *pair.nodes)
        answer = one.ask("wireguard", "rotate-key")
        assert answer is not None
        now = answer["public_key"]
        assert before != now == stated_key(one) == WireguardKeys(one.folder / "state" / "wireguard").public()
        wait(lambda: {now} == keys_of_peers(two), *pair.nodes)
        sent = two.counters(WIREGUARD_DEVICE)[0]
        wait(lambda: two.counters(WIREGUARD_DEVICE)[0] > sent + 20, *pair.nodes)
    finally:
        stream.send_signal(2)
    told = stream.communicate(timeout=DEADLINE_S)[0]
    counted = re.search(r"(\d+) packets transmitted, (\d+) received", told)
    assert counted is not None
    assert int(counted[1]) - int(counted[2]) <= 1, told  # the last one may be on its way when ping is ended


def test_device_outlives_the_daemon(pair: Pair) -> None:
    """Killed and started anew, the daemon finds its device, key and peers; the same process carries the traffic throughout."""
    one, _ = pair.nodes
    process = wireguard_go(one.netns)
    key, peers = stated_key(one), keys_of_peers(one)
    one.kill()
    assert ping(one, pair.addresses[1])

    one.start()
    wait(lambda: (one.ask("status") or {"phase": {"name": ""}})["phase"]["name"] == "ready", *pair.nodes)
    assert ping(one, pair.addresses[1])
    assert (process, key, peers) == (wireguard_go(one.netns), stated_key(one), keys_of_peers(one))
