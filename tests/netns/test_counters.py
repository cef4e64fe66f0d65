"""The kernel's counters: of devices, and of the members of a nexthop group where the kernel counts them (Linux 6.9)."""

from __future__ import annotations

import os
import platform

import pytest

from bgpd.adapters.netlink import counters
from bgpd.sim.namespace import Namespace

pytestmark = pytest.mark.netns

PACKETS = 40
COUNTED_FROM = (6, 9)


def test_packets_are_counted_by_member_and_device() -> None:
    """What is sent through a group of two is found at its members together, and at the devices; an older kernel counts no members."""
    with Namespace(f"bgpdcnt{os.getpid()}") as space:
        space.execute("sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=1")
        for number in (1, 2):
            space.ip("link", "add", f"up{number}", "type", "veth", "peer", "name", f"far{number}")
            space.ip("link", "set", f"far{number}", "up")
            space.ip("link", "set", f"up{number}", "up")
            space.ip("address", "add", f"10.{number}.0.1/24", "dev", f"up{number}")
            space.ip("neigh", "add", f"10.{number}.0.2", "lladdr", "02:00:00:00:00:02", "dev", f"up{number}")
            space.ip("nexthop", "add", "id", str(number), "via", f"10.{number}.0.2", "dev", f"up{number}")
        space.ip("nexthop", "add", "id", "3", "group", "1/2")
        space.ip("route", "add", "192.0.2.0/24", "nhid", "3")
        code = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        code += f"for n in range({PACKETS}): s.sendto(b'x', (f'192.0.2.{{n + 1}}', 9))"
        space.execute("python3", "-c", code)

        async def read() -> tuple[dict[int, dict[int, int]], dict[str, counters.DeviceCount]]:
            return await counters.of_groups(), counters.of_devices()

        groups, devices = space.run(read)
        sent = [devices[f"up{number}"].sent_packets for number in (1, 2)]

    assert PACKETS <= sum(sent)
    major, minor = (int(part) for part in platform.release().split(".")[:2])
    if (major, minor) >= COUNTED_FROM:
        assert {1, 2} == set(groups[3])
        assert PACKETS <= sum(groups[3].values())
    else:
        assert {} == groups
