"""The node's own address, found on a real host."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bgpd.adapters.netlink.detect import NotFound, detect
from bgpd.model.node import AddressMethod
from bgpd.sim.namespace import Namespace

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    """A host with a loopback identity, a container's link, two uplinks (one of them down) and a default route."""
    with Namespace(f"bgpd-t{os.getpid()}-detect") as space:
        for name in ("veth9", "eth0", "eth1", "eth2"):
            space.ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        for name in ("veth9", "eth1", "eth2"):
            space.ip("link", "set", name, "up")
            space.ip("link", "set", f"{name}p", "up")
        addresses = [
            ("10.255.0.1/32", "lo"),
            ("172.17.0.1/16", "veth9"),
            ("192.0.2.1/24", "eth0"),
            ("169.254.7.7/16", "eth1"),
            ("198.51.100.7/25", "eth1"),
            ("203.0.113.9/24", "eth2"),
            ("2001:db8::9/64", "eth2"),
        ]
        for address, device in addresses:
            space.ip("address", "add", address, "dev", device)
        space.ip("route", "add", "default", "via", "203.0.113.1")
        yield space


def found(host: Namespace, text: str) -> str:
    method = AddressMethod.parse(text)
    assert method is not None
    address, subnet = host.run(lambda: detect(method))
    return f"{address} in {subnet}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first-found", "198.51.100.7 in 198.51.100.0/25"),
        ("interface=eth2", "203.0.113.9 in 203.0.113.0/24"),
        ("interface=nothing, eth[23]", "203.0.113.9 in 203.0.113.0/24"),
        ("interface=lo", "10.255.0.1 in 10.255.0.1/32"),
        ("interface=veth9", "172.17.0.1 in 172.17.0.0/16"),
        ("can-reach=8.8.8.8", "203.0.113.9 in 203.0.113.0/24"),
        ("can-reach=198.51.100.99", "198.51.100.7 in 198.51.100.0/25"),
        ("cidr=10.255.0.0/16", "10.255.0.1 in 10.255.0.1/32"),
        ("cidr=192.0.2.0/24,203.0.112.0/20", "203.0.113.9 in 203.0.113.0/24"),
    ],
)
def test_each_method_finds_its_address(host: Namespace, text: str, expected: str) -> None:
    """A method finds the first fitting address that is up; containers' links, link-local and IPv6 addresses are passed over."""
    assert expected == found(host, text)


@pytest.mark.parametrize("text", ["interface=eth0", "cidr=192.0.2.0/24", "can-reach=127.0.0.1"])
def test_what_fits_nothing_says_what_there_is(host: Namespace, text: str) -> None:
    """A method that fits no usable address names itself and the addresses of the host."""
    with pytest.raises(NotFound, match=r"198\.51\.100\.7/25 on eth1") as caught:
        found(host, text)

    assert text in str(caught.value)


def test_host_without_address_is_told_so() -> None:
    """A host with nothing but loopback is told so."""
    with (
        Namespace(f"bgpd-t{os.getpid()}-bare") as bare,
        pytest.raises(NotFound, match="no IPv4 address beyond loopback"),
    ):
        found(bare, "first-found")
