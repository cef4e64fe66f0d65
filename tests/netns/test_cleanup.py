"""``bgpd cleanup`` on a real kernel: all that is ours goes, nothing else, and it says what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.model.forwarding import (
    DeviceKey,
    Fdb,
    FdbKey,
    KernelKey,
    KernelRoute,
    KernelValue,
    Neighbour,
    NeighbourKey,
    Present,
    RouteKey,
    RouteKind,
    RuleKey,
    VxlanDevice,
)
from bgpd.model.prefix import Family
from bgpd.sim.namespace import Namespace
from tests.netns.kernel_world import DEADLINE_S, LEGS, A, P, blocks, keeping, make_space, through

pytestmark = pytest.mark.netns

DEVICE = DeviceKey("vxlan.bgpd")
OURS: dict[KernelKey, KernelValue] = {
    **through(LEGS, blocks(100)),
    RouteKey(P("fd65::/64"), 1000, 7): KernelRoute(RouteKind.UNREACHABLE),
    RuleKey(Family.IPV6, 900, 1000): Present(),
    DEVICE: VxlanDevice(vni=4096, port=4789, local=A("10.1.0.1"), mac="66:00:00:00:00:01", mtu_bytes=1450),
    NeighbourKey(DEVICE.name, A("10.9.0.2")): Neighbour("66:00:00:00:00:02"),
    FdbKey(DEVICE.name, "66:00:00:00:00:02"): Fdb(A("10.9.0.2")),
}
COUNTS = {"rule": 2, "route": 103, "group": 1, "nexthop": 2, "neighbour": 1, "fdb": 1, "link": 1}


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = make_space(f"bgpdcl{os.getpid()}")
    yield made
    made.close()


def fill(space: Namespace) -> list[str]:
    """Put ours and others' into the kernel, with odd ones of each; return how others' look."""

    async def scenario() -> None:
        async with keeping(OURS):
            pass

    for command in (
        "route add default via 10.1.0.9 proto dhcp metric 100",
        "route add 192.0.2.0/24 via 10.1.0.9 proto static",
        "nexthop add id 7 via 10.1.0.9 dev up0 proto zebra",
        "nexthop add id 1650917999 via 10.1.0.8 dev up0 proto zebra",  # in our range of ids, but not ours
        "nexthop add id 8 via 10.1.0.7 dev up0 proto 179",  # our protocol number, out of our range
        "rule add from 10.9.9.0/24 table 100 priority 500",
    ):
        space.ip(*command.split())
    before = look(space)
    space.run(scenario)
    for command in (
        "route add 10.99.0.0/16 tos 0x10 via 10.1.0.9 proto 179",
        "route add throw 10.98.0.0/16 table 200 proto 179 metric 9",
        "rule add from 10.8.8.0/24 table 179 priority 501 protocol 179",
    ):
        space.ip(*command.split())
    return before


def look(space: Namespace) -> list[str]:
    tables = (
        ("route", "show", "table", "all"),
        ("-6", "route", "show", "table", "all"),
        ("nexthop",),
        ("rule",),
        ("-6", "rule"),
        ("link", "show", "type", "veth"),
        ("link", "show", "type", "vxlan"),  # of others the kernel makes some itself, when it loads a module (tunl0)
    )
    return [space.ip(*table) for table in tables]


def cleanup(space: Namespace, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["ip", "netns", "exec", space.name, sys.executable, "-m", "bgpd.cli.main", "cleanup", *options]
    environment = {**os.environ, "BGPD_CONFIG": "/nonexistent/bgpd.toml"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S, env=environment)


@pytest.mark.vm
def test_all_that_is_ours_goes_and_nothing_else(space: Namespace) -> None:
    """Rules, routes of every form, groups, nexthops, and our link with what is on it are removed and named; others' stay."""
    before = fill(space)

    dry = cleanup(space, "--dry-run", "-o", "json")
    assert look(space) != before
    done = cleanup(space, "-o", "json")

    assert (0, "") == (done.returncode, done.stderr)
    wanted, removed = json.loads(dry.stdout), json.loads(done.stdout)
    assert (True, False) == (wanted["dry_run"], removed["dry_run"])
    assert wanted["objects"] == removed["objects"]
    kinds = [outcome["object"] for outcome in removed["objects"]]
    assert {kind: kinds.count(kind) for kind in COUNTS} == COUNTS
    assert before == look(space)
    assert "there is nothing of ours in the kernel\n" == cleanup(space).stdout


def test_it_says_what_it_did(space: Namespace) -> None:
    """For people a few of each kind are named, the rest counted, and a sum ends it."""
    fill(space)

    told = cleanup(space, "--dry-run").stdout.splitlines()

    assert "would remove route 10.128.0.0/26 metric 0 unicast" in told
    assert "would remove 83 more of kind route (-o json names them all)" in told
    assert "would remove: " + ", ".join(f"{count} {kind}" for kind, count in COUNTS.items()) == told[-1]


def test_another_protocol_number_comes_from_the_configuration(space: Namespace, tmp_path: Path) -> None:
    """What is ours is told by kernel.protocol of the configuration."""
    fill(space)
    config = tmp_path / "bgpd.toml"
    config.write_text('[node]\nname = "a"\naddress = "10.1.0.1/24"\nasn = 65000\n[kernel]\nprotocol = 200\n')

    told = cleanup(space, "--dry-run", "--config", str(config)).stdout

    assert "would remove: 1 neighbour, 1 fdb, 1 link" == told.splitlines()[-1]
