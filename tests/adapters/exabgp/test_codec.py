"""UPDATE, OPEN and NOTIFICATION bodies: RFC 4271, 4760, 6793, 7606, 7911."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bgpd.adapters.exabgp.codec import (
    CodecError,
    DecodeContext,
    SessionReset,
    decode,
    decode_open,
    encode_update,
)
from bgpd.model.event import EndOfRib, RoutesLearned
from bgpd.model.peer import GracefulRestart
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind, UnknownAttribute

pytestmark = pytest.mark.core

PEER = Address.parse("192.0.2.1")
EXTERNAL = DecodeContext()
INTERNAL = DecodeContext(external=False)
PATH = (AsSegment(SegmentKind.SEQUENCE, (65001, 4200000001)),)
V6 = Address.parse("2001:db8::1").packed
LINK_LOCAL = Address.parse("fe80::2").packed
P24 = Prefix.parse("10.9.0.0/24")


def attribute(flags: int, code: int, value: bytes) -> bytes:
    return bytes((flags, code, len(value))) + value


ORIGIN = attribute(0x40, 1, b"\0")
AS_PATH = attribute(0x40, 2, b"\2\2" + struct.pack("!II", 65001, 4200000001))
NEXT_HOP = attribute(0x40, 3, PEER.packed)
MANDATORY = ORIGIN + AS_PATH + NEXT_HOP
NLRI = b"\x18\x0a\x09\x00"


def update(attributes: bytes = b"", nlri: bytes = b"", withdrawn: bytes = b"") -> bytes:
    return struct.pack("!H", len(withdrawn)) + withdrawn + struct.pack("!H", len(attributes)) + attributes + nlri


def learned(body: bytes, context: DecodeContext = EXTERNAL) -> RoutesLearned:
    (event,) = (event for event in decode(body, PEER, context) if isinstance(event, RoutesLearned))
    return event


def test_an_update_with_every_attribute_is_read() -> None:
    """Each attribute lands in its field; LOCAL_PREF and the reflection attributes are taken from internal peers."""
    body = update(
        MANDATORY
        + attribute(0x80, 4, struct.pack("!I", 7))
        + attribute(0x40, 5, struct.pack("!I", 200))
        + attribute(0x40, 6, b"")
        + attribute(0xC0, 7, struct.pack("!I", 65001) + bytes((1, 2, 3, 4)))
        + attribute(0xC0, 8, struct.pack("!II", 65001 << 16 | 7, 0xFFFFFF01))
        + attribute(0x80, 9, bytes((9, 9, 9, 9)))
        + attribute(0x80, 10, bytes((8, 8, 8, 8, 7, 7, 7, 7)))
        + attribute(0xC0, 16, bytes.fromhex("0002fde900000064"))
        + attribute(0xC0, 32, struct.pack("!III", 1, 2, 3))
        + attribute(0xE0, 99, b"abc")
        + attribute(0x80, 98, b"ignored"),
        NLRI,
    )

    expected = Attributes(
        next_hop=PEER,
        origin=Origin.IGP,
        as_path=PATH,
        med=7,
        local_pref=200,
        atomic_aggregate=True,
        aggregator=(65001, Address.parse("1.2.3.4")),
        communities=(65001 << 16 | 7, 0xFFFFFF01),
        extended_communities=(bytes.fromhex("0002fde900000064"),),
        large_communities=((1, 2, 3),),
        originator_id=Address.parse("9.9.9.9"),
        cluster_list=(Address.parse("8.8.8.8"), Address.parse("7.7.7.7")),
        unknown=(UnknownAttribute(0xE0, 99, b"abc"),),
    )
    assert RoutesLearned(peer=PEER, announced=(P24,), attributes=expected) == learned(body, INTERNAL)
    external = learned(body).attributes
    assert external is not None
    assert (None, None, ()) == (external.local_pref, external.originator_id, external.cluster_list)


def test_ipv6_carries_two_next_hops() -> None:
    """MP_REACH_NLRI gives the global and the link-local next hop (RFC 2545), MP_UNREACH_NLRI withdraws."""
    reach = attribute(0x80, 14, struct.pack("!HBB", 2, 1, 32) + V6 + LINK_LOCAL + b"\0" + b"\x20\x20\x01\x0d\xb8")
    unreach = attribute(0x80, 15, struct.pack("!HB", 2, 1) + b"\x10\x20\x02")
    event = learned(update(ORIGIN + AS_PATH + unreach + reach))

    assert event.attributes is not None
    assert (Prefix.parse("2001:db8::/32"),) == event.announced
    assert (Prefix.parse("2002::/16"),) == event.withdrawn
    assert Address.from_packed(V6) == event.attributes.next_hop
    assert Address.from_packed(LINK_LOCAL) == event.attributes.link_local_next_hop


def test_ipv4_may_have_an_ipv6_next_hop() -> None:
    """IPv4 prefixes in MP_REACH_NLRI with a 16-byte next hop are read (RFC 8950)."""
    reach = attribute(0x80, 14, struct.pack("!HBB", 1, 1, 16) + V6 + b"\0" + NLRI)
    event = learned(update(ORIGIN + AS_PATH + reach))

    assert event.attributes is not None
    assert ((P24,), Address.from_packed(V6)) == (event.announced, event.attributes.next_hop)


def test_end_of_rib_is_an_empty_update() -> None:
    """An UPDATE without anything, or with an empty MP_UNREACH_NLRI alone, is End-of-RIB (RFC 4724 section 2)."""
    assert [EndOfRib(PEER, Family.IPV4)] == decode(update(), PEER, EXTERNAL)
    empty = attribute(0x80, 15, struct.pack("!HB", 2, 1))
    assert [EndOfRib(PEER, Family.IPV6)] == decode(update(empty), PEER, EXTERNAL)


def test_a_prefix_withdrawn_and_announced_is_announced() -> None:
    """The same prefix in both fields counts as announced (RFC 4271 section 4.3)."""
    event = learned(update(MANDATORY, NLRI, NLRI + b"\x08\x0b"))

    assert ((Prefix.parse("11.0.0.0/8"),), (P24,)) == (event.withdrawn, event.announced)


def test_host_bits_are_cleared() -> None:
    """Bits right of a prefix's length are ignored."""
    assert (Prefix.parse("10.128.0.0/9"),) == learned(update(withdrawn=b"\x09\x0a\xff")).withdrawn


def test_path_ids_are_kept_apart() -> None:
    """With add-path each path id gets an event of its own (RFC 7911)."""
    context = DecodeContext(add_path=(Family.IPV4,))
    events = decode(update(MANDATORY, b"\0\0\0\1" + NLRI + b"\0\0\0\2" + NLRI), PEER, context)

    found = [(event.path_id, event.announced) for event in events if isinstance(event, RoutesLearned)]
    assert [(1, (P24,)), (2, (P24,))] == found


contexts = st.builds(
    DecodeContext,
    asn4=st.booleans(),
    add_path=st.sets(st.sampled_from(Family)).map(tuple),
    external=st.booleans(),
)


@given(st.binary(max_size=120), contexts)
def test_arbitrary_bytes_raise_nothing_else(body: bytes, context: DecodeContext) -> None:
    """Whatever the bytes, decoding gives events or SessionReset."""
    with contextlib.suppress(SessionReset):
        decode(body, PEER, context)


pieces = st.sampled_from(
    [
        ORIGIN,
        AS_PATH,
        NEXT_HOP,
        attribute(0x80, 4, b"\0\0\0\1"),
        attribute(0x40, 5, b"\0\0\0\1"),
        attribute(0xC0, 8, b"\1\2\3\4"),
        attribute(0xC0, 7, b"\0\0\1\2\1\2\3\4"),
        attribute(0x80, 14, struct.pack("!HBB", 2, 1, 32) + V6 + LINK_LOCAL + b"\0" + b"\x20\x20\x01\x0d\xb8"),
        attribute(0x80, 14, struct.pack("!HBB", 1, 1, 16) + V6 + b"\0" + NLRI),
        attribute(0x80, 15, struct.pack("!HB", 2, 1) + b"\x10\x20\x02"),
        attribute(0xE0, 99, b"abc"),
    ]
) | st.builds(attribute, st.sampled_from([0x40, 0x80, 0xC0]), st.integers(1, 40), st.binary(max_size=12))
bodies = st.builds(
    update,
    st.lists(pieces, max_size=8).map(b"".join),
    st.sampled_from([b"", NLRI]),
    st.sampled_from([b"", NLRI, b"\x08\x0b"]),
)


@given(bodies, st.booleans())
def test_what_is_accepted_is_encoded_to_the_same_meaning(body: bytes, external: bool) -> None:
    """Each RoutesLearned, encoded and decoded, is itself."""
    context = DecodeContext(external=external)
    try:
        events = decode(body, PEER, context)
    except SessionReset:
        return
    for event in events:
        if isinstance(event, RoutesLearned):
            ordered = replace(event, withdrawn=tuple(sorted(event.withdrawn)))  # IPv4 sorts first, as in an UPDATE
            assert [ordered] == decode(encode_update(ordered, context), PEER, context)


def test_an_open_is_read_with_its_capabilities() -> None:
    """AS number, hold time, families, refresh and graceful restart come from the OPEN (RFC 4724: R and F bits in their places)."""
    capabilities = b"".join(
        (
            b"\1\4\0\1\0\1",
            b"\1\4\0\2\0\1",
            b"\2\0",
            b"\x46\0",
            b"\x41\4" + struct.pack("!I", 4200000001),
            b"\x40\x0a\x80\x78\0\1\1\x80\0\2\1\0",
        )
    )
    body = b"\4\x5b\xa0\0\x5a\x0a\0\0\1" + bytes((len(capabilities) + 2, 2, len(capabilities))) + capabilities
    opened = decode_open(body)

    assert opened.asn4
    assert 4200000001 == opened.open.asn
    assert (90, Address.parse("10.0.0.1")) == (opened.open.hold_time_s, opened.open.router_id)
    assert (Family.IPV4, Family.IPV6) == opened.open.families
    assert opened.open.route_refresh
    assert opened.open.enhanced_refresh
    assert GracefulRestart(120, True, (Family.IPV4,), (Family.IPV4, Family.IPV6)) == opened.open.graceful_restart


def test_an_open_without_capabilities_means_ipv4() -> None:
    """A speaker that offers no families speaks IPv4 unicast with 2-byte AS numbers."""
    opened = decode_open(b"\4\xfd\xe9\0\x5a\x0a\0\0\1\0")

    assert ((Family.IPV4,), 65001, False) == (opened.open.families, opened.open.asn, opened.asn4)


@given(st.binary(max_size=60))
def test_arbitrary_opens_raise_nothing_else(body: bytes) -> None:
    """Whatever the bytes, an OPEN is read or refused with CodecError."""
    with contextlib.suppress(CodecError):
        decode_open(body)
