"""Addresses and prefixes as packed integers."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.model.prefix import Address, Family, Prefix, parse_interface
from bgpd.model.prefix_map import PrefixMap
from bgpd.model.wire import encode, from_builtin

pytestmark = pytest.mark.core

ADDRESSES = st.ip_addresses().map(str)


@given(ADDRESSES)
def test_address_text_and_bytes_agree_with_the_standard_library(text: str) -> None:
    """An address reads and writes what ipaddress does, in text and in bytes."""
    theirs = ipaddress.ip_address(text)

    ours = Address.parse(text)

    assert (str(theirs), theirs.packed, theirs.version) == (str(ours), ours.packed, ours.family)
    assert ours == Address.from_packed(theirs.packed)


@given(ADDRESSES, st.integers(0, 128), ADDRESSES)
def test_prefix_holds_what_the_standard_library_says(text: str, length: int, other: str) -> None:
    """A prefix holds an address if and only if ipaddress says so; families never mix."""
    address = ipaddress.ip_address(text)
    length = min(length, address.max_prefixlen)
    theirs = ipaddress.ip_network((address, length), strict=False)

    ours = Prefix.of(Address.parse(text), length)

    assert str(theirs) == str(ours)
    assert (ipaddress.ip_address(other) in theirs) == ours.holds(Address.parse(other))


@pytest.mark.parametrize(
    "text", ["10.0.0.1/24", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::1/64", "10.0.0.0/-1", "10.0.0.0/ 8", ""]
)
def test_prefix_refuses_what_is_no_prefix(text: str) -> None:
    """Host bits, a missing or impossible length, and nonsense are refused."""
    with pytest.raises(ValueError):
        Prefix.parse(text)


def test_prefixes_sort_by_family_network_and_length() -> None:
    """IPv4 sorts before IPv6, a network before its subnets."""
    texts = ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "::/0", "2001:db8::/32"]

    assert texts == [str(prefix) for prefix in sorted(map(Prefix.parse, reversed(texts)))]


def test_default_routes_of_both_families_differ() -> None:
    """0.0.0.0/0 and ::/0 are different keys."""
    assert Prefix.parse("0.0.0.0/0") != Prefix.parse("::/0")


def test_interface_address_keeps_its_host_bits() -> None:
    """An interface address yields the address and the prefix of its link."""
    assert (Address.parse("192.0.2.17"), Prefix.parse("192.0.2.0/24")) == parse_interface("192.0.2.17/24")
    assert Prefix.parse("192.0.2.17/32") == parse_interface("192.0.2.17")[1]


def test_values_are_text_in_json() -> None:
    """A recording shows prefixes as people write them, and reads them back."""
    value = [Prefix.parse("10.0.0.0/8"), Prefix.parse("2001:db8::/32")]

    line = encode(value)

    assert b'["10.0.0.0/8","2001:db8::/32"]' == line
    assert value == msgspec.json.decode(line, type=list[Prefix], dec_hook=from_builtin)


@given(st.lists(st.tuples(ADDRESSES, st.integers(0, 128)), max_size=20), ADDRESSES)
def test_longest_match_yields_all_covering_prefixes_longest_first(entries: list[tuple[str, int]], text: str) -> None:
    """matches() equals a filter over all prefixes, sorted by length."""
    table: PrefixMap[int] = PrefixMap()
    prefixes = set()
    for host, length in entries:
        address = Address.parse(host)
        prefix = Prefix.of(address, min(length, address.family.bits))
        table.set(prefix, 1)
        prefixes.add(prefix)
    address = Address.parse(text)
    expected = sorted((p for p in prefixes if p.holds(address)), key=lambda p: -p.length)

    assert expected == [prefix for prefix, _ in table.matches(address)]
    for prefix in prefixes:
        table.pop(prefix)
    assert [] == list(table.matches(address))


def test_family_knows_its_width() -> None:
    """Family gives the bits of an address and its name."""
    assert [(32, "ipv4"), (128, "ipv6")] == [(family.bits, str(family)) for family in Family]


def test_a_link_local_address_may_name_its_link() -> None:
    """fe80::1 on two links is two neighbors; on the wire, and as an address, both are one; what has no links has no link."""
    plain, first, second = (
        Address.parse("fe80::1"),
        Address.parse("fe80::1%eth0"),
        Address.parse("fe80::1%abcdefghijklmno"),
    )

    assert 3 == len({plain, first, second})
    assert [plain] * 3 == [one.plain for one in (plain, first, second)]
    assert ["", "eth0", "abcdefghijklmno"] == [one.link for one in (plain, first, second)]
    assert ["fe80::1", "fe80::1%eth0", "fe80::1%abcdefghijklmno"] == [str(one) for one in (plain, first, second)]
    assert first == plain.on("eth0") == Address.parse(str(first))
    assert (plain.packed, Family.IPV6, True) == (first.packed, first.family, first.is_link_local)
    assert Address.parse("192.0.2.1") == Address.parse("192.0.2.1").on("eth0")
    assert Address.parse("2001:db8::1") == Address.parse("2001:db8::1").on("eth0")


@pytest.mark.parametrize("text", ["fe80::1%", "fe80::1%abcdefghijklmnop", "2001:db8::1%eth0", "192.0.2.1%eth0"])
def test_a_link_elsewhere_is_refused(text: str) -> None:
    """Only a link-local IPv6 address has a link, of a name that the kernel could have; a prefix has none."""
    with pytest.raises(ValueError, match="link-local"):
        Address.parse(text)
    with pytest.raises(ValueError, match="a prefix has none"):
        Prefix.parse("fe80::1%eth0/64")
