"""The start-up gate (law 3) with real routers: one that refuses connections does not hold up the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpd.sim.namespace import Namespace
from tests.netns.test_daemon import Host, wait

pytestmark = pytest.mark.netns

PEERS = """
[startup]
peers_learned_ceiling_s = 3600

[[peer]]
name = "tor"
address = "192.0.2.2"
asn = 65100
local_address = "192.0.2.1"

[[peer]]
name = "refuser"
address = "192.0.2.3"
asn = 65100
local_address = "192.0.2.1"
"""
BIRD = """
router id 192.0.2.2;
protocol device { }
protocol static { ipv4; route 10.200.0.0/26 blackhole; }
protocol bgp b {
  local 192.0.2.2 as 65100; neighbor 192.0.2.1 as 65001; strict bind yes; connect retry time 1; error wait time 1, 2; connect delay time 1;
  ipv4 { import all; export where source = RTS_STATIC; };
}
"""
STRAY = "198.51.100.0/24"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with two peers: BIRD on one address of the far end, nobody on the other, which answers with RST."""
    made = Host("g", tmp_path, "node1", "10.0.0.1")
    file = tmp_path / "bird.conf"
    file.write_text(BIRD)
    try:
        made.config.write_text(made.config.read_text() + PEERS)
        made.netns.ip("route", "add", "blackhole", STRAY, "proto", "179")  # what a run before has left
        with Namespace(f"bgpd-t{os.getpid()}-gr") as far:
            made.netns.ip("link", "set", "up1", "netns", far.name)
            far.batch("link set up1 up", "address add 192.0.2.2/24 dev up1", "address add 192.0.2.3/24 dev up1")
            bird = far.start("bird", "-f", "-c", str(file), "-s", str(tmp_path / "bird.ctl"))
            try:
                yield made
            finally:
                bird.terminate()
                bird.communicate(timeout=10)
    finally:
        made.close()


def phase(host: Host) -> dict[str, Any]:
    status = host.ask("status")
    return status["phase"] if isinstance(status, dict) else {}


def test_a_router_that_refuses_connections_does_not_hold_up_the_start(host: Host) -> None:
    """Until its refusals have lasted nothing is removed, and the status names it; then the start goes on, long before the ceiling."""
    host.start()
    wait(lambda: phase(host).get("waiting_for") == ["refuser"], host)
    assert any(route.startswith(STRAY) for route in host.routes())

    wait(host.ready, host)

    peers = host.ask("peers")
    assert isinstance(peers, list)
    refuser = next(peer for peer in peers if peer["name"] == "refuser")
    assert "connection refused" in str(refuser)
    wait(lambda: not any(route.startswith(STRAY) for route in host.routes()), host)
    assert any(route.startswith("10.200.0.0/26") for route in host.routes())
