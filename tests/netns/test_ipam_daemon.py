"""What a daemon does for IPAM by itself: collection by what its kernel has a trace of, and tunnel addresses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpd.api.client import Client
from tests.netns.test_daemon import DEADLINE_S, Host, wait

pytestmark = pytest.mark.netns


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host("c", tmp_path, "node1", "10.0.0.1")
    made.config.write_text(made.config.read_text() + "\n[collect]\nworkloads = true\ngrace_s = 6\n")
    yield made
    made.close()


def bgpd(host: Host, *arguments: str) -> Any:
    """Run a command on the daemon's store; its JSON, where it is some."""
    environment = {
        **os.environ,
        "BGPD_STORE": f"sqlite:///{host.folder.parent}/store.db",
        "BGPD_SOCKET": str(host.socket),
    }
    command = [sys.executable, "-m", "bgpd.cli.main", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode in {0, 1}, done.stderr
    return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout


def states(host: Host, addresses: dict[str, str]) -> dict[str, str]:
    return {name: bgpd(host, "ipam", "show", "--ip", ip, "-o", "json")["state"] for name, ip in addresses.items()}


def test_what_has_a_trace_stays_and_what_has_none_goes(host: Host) -> None:
    """Addresses with a route, on a link or on the host stay, and the check finds them in use; one without any goes."""
    host.start()
    wait(host.ready, host)
    names = ("routed", "linked", "own", "lost")
    found = {name: Client(host.socket).assign(name) for name in names}
    host.netns.ip("route", "add", f"{found['routed']}/32", "dev", "up0")
    host.netns.ip("route", "add", f"{found['linked']}/32", "via", "192.0.2.77")
    host.netns.ip("address", "add", f"{found['own']}/32", "dev", "lo")
    wait(lambda: states(host, {"lost": found["lost"]}) == {"lost": "free"}, host)

    assert {"routed": "in use", "linked": "in use", "own": "in use", "lost": "free"} == states(host, found)
    report = bgpd(host, "ipam", "check", "-o", "json")
    assert ([], 3, 3) == (report["problems"], report["counts"]["allocations"], report["counts"]["in-use"])
    assert host.process is not None
    assert host.process.poll() is None
    assert 0 == host.end(signal.SIGTERM)


POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: tunnelled}
spec: {cidr: 10.66.0.0/24, vxlanMode: MODE}
"""


def tunnel_address(host: Host) -> str | None:
    node = bgpd(host, "get", "node", "node1", "-o", "json")
    return node["spec"].get("ipv4VXLANTunnelAddr") if isinstance(node, dict) else None


def test_tunnel_addresses_follow_the_pools(host: Host) -> None:
    """A daemon has a tunnel address as soon as a pool needs one, and none when none does; its check finds nothing wrong."""
    host.start()
    wait(host.ready, host)
    assert tunnel_address(host) is None

    pool = host.folder / "pool.yaml"
    pool.write_text(POOL.replace("MODE", "Always"))
    bgpd(host, "apply", "-f", str(pool))
    wait(lambda: (tunnel_address(host) or "").startswith("10.66.0."), host)
    assert [] == bgpd(host, "ipam", "check", "-o", "json")["problems"]
    pool.write_text(POOL.replace("MODE", "Never"))
    bgpd(host, "apply", "-f", str(pool))
    wait(lambda: tunnel_address(host) is None, host)

    assert [] == bgpd(host, "ipam", "check", "-o", "json")["problems"]
    assert 0 == host.end(signal.SIGTERM)


def test_a_deleted_node_gives_back_its_block(host: Host, tmp_path: Path) -> None:
    """When a node's daemon is gone for good and its Node is deleted, the daemon that is left gives its block and addresses back."""
    host.start()
    wait(lambda: "collector.started" in host.log.read_text(), host)  # so that it sees the other's end
    other = Host("d", tmp_path, "node2", "10.0.0.2")
    try:
        other.start()
        wait(other.ready, other)
        lost = Client(other.socket).assign("lost")
        other.end(signal.SIGKILL)
        assert "deleted" in bgpd(host, "delete", "node", "node2")
        wait(lambda: states(host, {"lost": lost}) == {"lost": "unclaimed"}, host)
    finally:
        other.close()
    report = bgpd(host, "ipam", "check", "-o", "json")

    assert ([], 1, 1) == (report["problems"], report["counts"]["blocks"], report["counts"]["affinities"])
