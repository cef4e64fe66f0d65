"""Error handling of UPDATE messages, a test a sentence of RFC 7606 sections 3 to 5 and 7, by the decoder.

The same through a real ExaBGP and a peer that sends malformed bytes: tests/netns/test_rfc7606_session.py.
"""

from __future__ import annotations

import pytest

from bgpd.adapters.exabgp.codec import DecodeContext, SessionReset, decode
from bgpd.model.event import EndOfRib, RoutesLearned, Treatment
from bgpd.model.prefix import Family
from tests.rfc.wire import (
    AS_PATH,
    EXTERNAL,
    INTERNAL,
    LINK_LOCAL,
    MANDATORY,
    NEXT_HOP,
    NLRI,
    NLRI6,
    ORIGIN,
    P6,
    P24,
    PEER,
    TWO_BYTES,
    V6,
    as_path,
    attribute,
    learned,
    outcome,
    reach,
    unreach,
    update,
)

pytestmark = pytest.mark.core

MED = attribute(0x80, 4, b"\0\0\0\7")


def withdrawn(attributes: bytes, name: str, context: DecodeContext = EXTERNAL) -> None:
    """Assert that the routes of an UPDATE with *attributes* are withdrawn because of *name*, and nothing else."""
    expected = [(Treatment.WITHDRAW, name)], [RoutesLearned(peer=PEER, withdrawn=(P24,))]
    assert expected == outcome(update(attributes, NLRI), context)


def discarded(attributes: bytes, name: str, context: DecodeContext = EXTERNAL, sound: bytes = MANDATORY) -> None:
    """Assert that *name* is discarded and the routes stand as they would without it."""
    expected = [(Treatment.DISCARD, name)], [learned(update(sound, NLRI), context)]
    assert expected == outcome(update(attributes, NLRI), context)


def reset(body: bytes, context: DecodeContext = EXTERNAL) -> SessionReset:
    """Return the demand to end the session."""
    with pytest.raises(SessionReset) as caught:
        decode(body, PEER, context)
    return caught.value


# ------------------------------------------------------------------ section 3


@pytest.mark.parametrize("body", [b"", b"\0\0\0", b"\0\1\0\0", b"\0\0\0\5\0", b"\xff\xff\0\0"])
def test_3a_lengths_that_exceed_the_message_reset(body: bytes) -> None:
    """Withdrawn Routes Length or Total Attribute Length too large: session reset with Malformed Attribute List."""
    assert (3, 1) == (reset(body).code, reset(body).subcode)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("ORIGIN", attribute(0xC0, 1, b"\0") + AS_PATH + NEXT_HOP),
        ("AS_PATH", ORIGIN + attribute(0x80, 2, b"") + NEXT_HOP),
        ("NEXT_HOP", ORIGIN + AS_PATH + attribute(0x00, 3, PEER.packed)),
        ("MULTI_EXIT_DISC", MANDATORY + attribute(0xC0, 4, b"\0\0\0\7")),
        ("ATOMIC_AGGREGATE", MANDATORY + attribute(0xC0, 6, b"")),
        ("AGGREGATOR", MANDATORY + attribute(0x80, 7, b"\0\0\0\1\1\2\3\4")),
        ("COMMUNITIES", MANDATORY + attribute(0x80, 8, b"\0\0\0\1")),
    ],
)
def test_3c_flags_in_conflict_withdraw(name: str, attributes: bytes) -> None:
    """The Optional or Transitive bit in conflict with the attribute's specification: treat-as-withdraw."""
    withdrawn(attributes, name)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [("ORIGIN", AS_PATH + NEXT_HOP), ("AS_PATH", ORIGIN + NEXT_HOP), ("NEXT_HOP", ORIGIN + AS_PATH)],
)
def test_3d_a_missing_mandatory_attribute_withdraws(name: str, attributes: bytes) -> None:
    """A well-known mandatory attribute is not present: treat-as-withdraw."""
    withdrawn(attributes, name)


def test_3d_next_hop_is_not_mandatory_beside_mp_reach() -> None:
    """NEXT_HOP is wanted only for routes in the NLRI field (RFC 4760)."""
    assert (P6,) == learned(update(ORIGIN + AS_PATH + reach())).announced


@pytest.mark.parametrize("code", [14, 15])
def test_3g_a_second_multiprotocol_attribute_resets(code: int) -> None:
    """MP_REACH_NLRI or MP_UNREACH_NLRI more than once: NOTIFICATION with Malformed Attribute List."""
    twice = (reach() if code == 14 else unreach()) * 2
    error = reset(update(ORIGIN + AS_PATH + twice))
    assert (3, 1, None) == (error.code, error.subcode, error.family)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("ORIGIN", MANDATORY + attribute(0x40, 1, b"\2")),
        ("attribute 99", MANDATORY + attribute(0xC0, 99, b"a") + attribute(0xC0, 99, b"b")),
    ],
)
def test_3g_other_attributes_count_the_first_time(name: str, attributes: bytes) -> None:
    """Any other attribute, recognized or not, more than once: all but the first are discarded, and the UPDATE is processed."""
    defects, (event,) = outcome(update(attributes, NLRI))

    assert [(Treatment.DISCARD, name)] == defects
    sound = MANDATORY if name == "ORIGIN" else MANDATORY + attribute(0xC0, 99, b"a")
    assert learned(update(sound, NLRI)) == event


def test_3h_equal_approaches_are_taken_once() -> None:
    """Several errors of one approach: that approach."""
    withdrawn(attribute(0x40, 1, b"\3") + AS_PATH + NEXT_HOP + attribute(0x80, 4, b"\0"), "ORIGIN")


def test_3h_the_strongest_approach_wins() -> None:
    """Errors of different approaches: discard and withdraw give withdraw, withdraw and reset give reset."""
    both = MANDATORY + attribute(0x40, 6, b"x") + attribute(0x80, 4, b"\0")
    defects, left = outcome(update(both, NLRI))
    assert (Treatment.WITHDRAW, "MULTI_EXIT_DISC") in defects
    assert [RoutesLearned(peer=PEER, withdrawn=(P24,))] == left

    assert (3, 1) == (reset(update(both + unreach() * 2, NLRI)).code, 1)


def test_3i_withdrawn_routes_are_checked_as_nlri_is() -> None:
    """The Withdrawn Routes field is checked for syntactic correctness in the same manner as the NLRI field."""
    for broken in (b"\x21\0\0\0\0\0", b"\x18\0"):
        assert (3, 10) == (reset(update(withdrawn=broken)).code, reset(update(withdrawn=broken)).subcode)


def test_3j_what_cannot_be_parsed_cannot_be_withdrawn() -> None:
    """Treat-as-withdraw needs all routes parsed: an unreadable NLRI field resets though the attribute error alone would not."""
    assert 10 == reset(update(attribute(0x40, 1, b"\3") + AS_PATH + NEXT_HOP, b"\x18\0")).subcode


# ------------------------------------------------------------------ section 4


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"\x80", id="one byte left"),
        pytest.param(b"\x80\x04", id="two bytes left"),
        pytest.param(b"\x90\x04\x00", id="three bytes left of an extended length"),
        pytest.param(b"\x80\x04\x09\0", id="attribute overruns the attributes"),
    ],
)
def test_4_an_attribute_that_overruns_withdraws(tail: bytes) -> None:
    """Attribute lengths in conflict with the Total Attribute Length: treat-as-withdraw, found by the NLRI field."""
    withdrawn(MANDATORY + tail, "attributes")


@pytest.mark.parametrize(
    ("code", "flags"), [(1, 0x40), (3, 0x40), (4, 0x80), (8, 0xC0), (16, 0xC0), (25, 0xC0), (32, 0xC0), (128, 0xC0)]
)
def test_4_zero_length_is_an_error_where_not_allowed(code: int, flags: int) -> None:
    """A zero length is a syntax error for every attribute but those that may be empty."""
    others = b"".join(item for item in (ORIGIN, AS_PATH, NEXT_HOP) if item[1] != code)
    defects, left = outcome(update(others + attribute(flags, code, b""), NLRI))

    assert [Treatment.WITHDRAW] == [treatment for treatment, _ in defects]
    assert [RoutesLearned(peer=PEER, withdrawn=(P24,))] == left


def test_4_as_path_and_atomic_aggregate_may_be_empty() -> None:
    """Of the attributes considered, AS_PATH and ATOMIC_AGGREGATE may have length zero."""
    event = learned(update(ORIGIN + attribute(0x40, 2, b"") + NEXT_HOP + attribute(0x40, 6, b""), NLRI), INTERNAL)

    assert event.attributes is not None
    assert ((), True) == (event.attributes.as_path, event.attributes.atomic_aggregate)


# ------------------------------------------------------------------ section 5


def test_5_1_multiprotocol_attributes_are_taken_in_any_place_and_combination() -> None:
    """MP_REACH_NLRI and MP_UNREACH_NLRI are accepted anywhere, together, and beside the classic fields."""
    other = b"\0\2\1" + b"\x10\x20\x02"
    body = update(ORIGIN + reach() + AS_PATH + unreach(other) + NEXT_HOP, NLRI, b"\x08\x0b")

    defects, left = outcome(body)

    assert [] == defects
    announced = {prefix for event in left if isinstance(event, RoutesLearned) for prefix in event.announced}
    gone = {prefix for event in left if isinstance(event, RoutesLearned) for prefix in event.withdrawn}
    assert {P24, P6} == announced
    assert {"11.0.0.0/8", "2002::/16"} == set(map(str, gone))


@pytest.mark.parametrize(
    "attributes", [attribute(0x80, 4, b"\0"), unreach() + attribute(0x40, 1, b"\3"), reach(b"\0\2\1\x10" + V6 + b"\0")]
)
def test_5_2_an_error_without_routes_resets(attributes: bytes) -> None:
    """Attributes other than MP_UNREACH_NLRI, no reachable NLRI, and an error beyond attribute discard: session reset."""
    broken = attributes if attributes[1] != 14 else attributes + attribute(0x40, 1, b"\3")
    error = reset(update(broken, withdrawn=NLRI))
    assert 3 == error.code
    assert error.subcode in (5, 6)
    assert "no route to withdraw" in str(error)


def test_5_2_a_discard_without_routes_does_not_reset() -> None:
    """Attribute discard stays what it is in an UPDATE without routes."""
    defects, left = outcome(update(attribute(0x40, 6, b"x"), withdrawn=NLRI))

    assert [(Treatment.DISCARD, "ATOMIC_AGGREGATE")] == defects
    assert [RoutesLearned(peer=PEER, withdrawn=(P24,))] == left


def test_5_2_end_of_rib_is_no_error() -> None:
    """An MP_UNREACH_NLRI alone that encodes no NLRI is End-of-RIB."""
    assert ([], [EndOfRib(PEER, Family.IPV6)]) == outcome(update(unreach(b"\0\2\1")))


@pytest.mark.parametrize("nlri", [b"\x21\0\0\0\0\0", b"\xff", b"\x18\0", b"\x08"])
def test_5_3_nlri_that_is_syntactically_incorrect_resets(nlri: bytes) -> None:
    """A length above 32, or a last prefix that exceeds the field: session reset with Invalid Network Field."""
    assert (3, 10, None) == (reset(update(MANDATORY, nlri)).code, 10, reset(update(MANDATORY, nlri)).family)


@pytest.mark.parametrize(
    ("attributes", "family"),
    [
        pytest.param(reach(b"\0\2\1\x10" + V6 + b"\0\x81" + b"\0" * 17), Family.IPV6, id="IPv6 length 129"),
        pytest.param(reach(b"\0\1\1\x10" + V6 + b"\0\x21" + b"\0" * 5), Family.IPV4, id="IPv4 length 33"),
        pytest.param(unreach(b"\0\2\1\xff"), Family.IPV6, id="withdrawn length 255"),
        pytest.param(reach(b"\0\2\1\x10" + V6 + b"\0\x40\x20"), Family.IPV6, id="last prefix exceeds MP_REACH_NLRI"),
        pytest.param(unreach(b"\0\2\1\x40\x20"), Family.IPV6, id="last prefix exceeds MP_UNREACH_NLRI"),
        pytest.param(reach(flags=0xC0), None, id="MP_REACH_NLRI flags"),
        pytest.param(unreach(flags=0x40), None, id="MP_UNREACH_NLRI flags"),
        pytest.param(unreach(b"\0\2"), None, id="MP_UNREACH_NLRI shorter than 3"),
        pytest.param(reach(b"\0\2\1\0"), Family.IPV6, id="MP_REACH_NLRI shorter than 5"),
    ],
)
def test_5_3_an_incorrect_multiprotocol_attribute_ends_its_family(attributes: bytes, family: Family | None) -> None:
    """Lengths, bounds, flags or the least size of a multiprotocol attribute: AFI/SAFI disable where the family is known, else reset."""
    error = reset(update(ORIGIN + AS_PATH + attributes))
    assert (3, family) == (error.code, error.family)


@pytest.mark.parametrize("attributes", [reach(b"\0\2\1\x08" + b"\0" * 9), unreach(b"\0\2\1\xff")])
def test_5_3_a_disabled_family_is_not_looked_at_again(attributes: bytes) -> None:
    """After AFI/SAFI disable the family's attributes are skipped and the rest of the UPDATE is processed."""
    context = DecodeContext(disabled=(Family.IPV6,))
    assert learned(update(MANDATORY, NLRI)) == learned(update(MANDATORY + attributes, NLRI), context)


def test_routes_of_a_family_that_was_not_agreed_are_ignored() -> None:
    """Routes of a family that the session does not carry are none, wherever they stand (RFC 4760 section 8)."""
    body = update(MANDATORY + reach(), NLRI, b"\x08\x0b")
    ipv6 = DecodeContext(disabled=(Family.IPV4,))
    assert (P6,) == learned(body, ipv6).announced
    assert ([], []) == outcome(update(MANDATORY, NLRI, b"\x08\x0b"), ipv6)
    assert (P24,) == learned(body, DecodeContext(disabled=(Family.IPV6,))).announced


# ------------------------------------------------------------------ section 7


@pytest.mark.parametrize("value", [b"", b"\0\0", b"\3", b"\xff"])
def test_7_1_origin(value: bytes) -> None:
    """ORIGIN is malformed if its length is not 1 or its value is undefined: treat-as-withdraw."""
    withdrawn(attribute(0x40, 1, value) + AS_PATH + NEXT_HOP, "ORIGIN")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\0\1\0\0\0\1", id="segment type 0"),
        pytest.param(b"\7\1\0\0\0\1", id="unrecognized segment type"),
        pytest.param(b"\2\2\0\0\0\1", id="overrun"),
        pytest.param(b"\2\1\0\0\0\1\2", id="underrun: a single byte remains"),
        pytest.param(b"\2\0", id="segment length zero"),
        pytest.param(b"\2\1\0\0\0\1\1\0", id="second segment empty"),
    ],
)
def test_7_2_as_path(value: bytes) -> None:
    """AS_PATH is malformed by an unrecognized segment type, an overrun, an underrun or an empty segment: treat-as-withdraw."""
    withdrawn(ORIGIN + attribute(0x40, 2, value) + NEXT_HOP, "AS_PATH")


@pytest.mark.parametrize("value", [b"", b"\1\2\3", b"\1\2\3\4\5", V6])
def test_7_3_next_hop(value: bytes) -> None:
    """NEXT_HOP is malformed if its length is not 4: treat-as-withdraw."""
    withdrawn(ORIGIN + AS_PATH + attribute(0x40, 3, value), "NEXT_HOP")


@pytest.mark.parametrize("value", [b"", b"\0\0\0", b"\0\0\0\0\0"])
def test_7_4_multi_exit_disc(value: bytes) -> None:
    """MULTI_EXIT_DISC is malformed if its length is not 4: treat-as-withdraw."""
    withdrawn(MANDATORY + attribute(0x80, 4, value), "MULTI_EXIT_DISC")


@pytest.mark.parametrize("value", [b"\0\0\0\1", b"\0"])
def test_7_5_local_pref_from_an_external_neighbor(value: bytes) -> None:
    """LOCAL_PREF from an external neighbor is discarded, sound or not."""
    discarded(MANDATORY + attribute(0x40, 5, value), "LOCAL_PREF")


@pytest.mark.parametrize("value", [b"", b"\0\0\0", b"\0\0\0\0\0"])
def test_7_5_local_pref_from_an_internal_neighbor(value: bytes) -> None:
    """LOCAL_PREF from an internal neighbor is malformed if its length is not 4: treat-as-withdraw."""
    withdrawn(MANDATORY + attribute(0x40, 5, value), "LOCAL_PREF", INTERNAL)


def test_7_6_atomic_aggregate() -> None:
    """ATOMIC_AGGREGATE is malformed if its length is not 0: attribute discard."""
    discarded(MANDATORY + attribute(0x40, 6, b"x"), "ATOMIC_AGGREGATE")


@pytest.mark.parametrize("length", [0, 5, 6, 7, 9])
def test_7_7_aggregator_with_four_byte_as_numbers(length: int) -> None:
    """AGGREGATOR is malformed if its length is not 8 where the 4-byte AS capability was exchanged: attribute discard."""
    discarded(MANDATORY + attribute(0xC0, 7, b"\1" * length), "AGGREGATOR")


@pytest.mark.parametrize("length", [0, 5, 7, 8])
def test_7_7_aggregator_with_two_byte_as_numbers(length: int) -> None:
    """AGGREGATOR is malformed if its length is not 6 where it was not: attribute discard."""
    sound = ORIGIN + as_path(65001, size=2) + NEXT_HOP
    discarded(sound + attribute(0xC0, 7, b"\1" * length), "AGGREGATOR", TWO_BYTES, sound)


@pytest.mark.parametrize("value", [b"", b"\0\0\0", b"\0" * 5])
def test_7_8_community(value: bytes) -> None:
    """Community is malformed if its length is not a non-zero multiple of 4: treat-as-withdraw."""
    withdrawn(MANDATORY + attribute(0xC0, 8, value), "COMMUNITIES")


@pytest.mark.parametrize("value", [b"\1\2\3\4", b"\1"])
def test_7_9_originator_id_from_an_external_neighbor(value: bytes) -> None:
    """ORIGINATOR_ID from an external neighbor is discarded, sound or not."""
    discarded(MANDATORY + attribute(0x80, 9, value), "ORIGINATOR_ID")


@pytest.mark.parametrize("value", [b"", b"\1\2\3", b"\1\2\3\4\5"])
def test_7_9_originator_id_from_an_internal_neighbor(value: bytes) -> None:
    """ORIGINATOR_ID from an internal neighbor is malformed if its length is not 4: treat-as-withdraw."""
    withdrawn(MANDATORY + attribute(0x80, 9, value), "ORIGINATOR_ID", INTERNAL)


@pytest.mark.parametrize("value", [b"\1\2\3\4", b"\1"])
def test_7_10_cluster_list_from_an_external_neighbor(value: bytes) -> None:
    """CLUSTER_LIST from an external neighbor is discarded, sound or not."""
    discarded(MANDATORY + attribute(0x80, 10, value), "CLUSTER_LIST")


@pytest.mark.parametrize("value", [b"", b"\1\2\3", b"\1" * 6])
def test_7_10_cluster_list_from_an_internal_neighbor(value: bytes) -> None:
    """CLUSTER_LIST from an internal neighbor is malformed if its length is not a non-zero multiple of 4: treat-as-withdraw."""
    withdrawn(MANDATORY + attribute(0x80, 10, value), "CLUSTER_LIST", INTERNAL)


@pytest.mark.parametrize("length", [0, 4, 8, 15, 17, 24, 33])
def test_7_11_mp_reach_nlri(length: int) -> None:
    """MP_REACH_NLRI whose next hop length is inconsistent: AFI/SAFI disable, or reset with Optional Attribute Error."""
    error = reset(update(ORIGIN + AS_PATH + reach(b"\0\2\1" + bytes((length,)) + b"\1" * length + b"\0" + NLRI6)))
    assert (3, 9, Family.IPV6) == (error.code, error.subcode, error.family)


@pytest.mark.parametrize("hop", [V6, V6 + LINK_LOCAL])
def test_7_11_mp_reach_nlri_with_one_or_two_next_hops(hop: bytes) -> None:
    """A next hop of 16 bytes, or of 32 with a link-local one (RFC 2545), is consistent."""
    event = learned(update(ORIGIN + AS_PATH + reach(b"\0\2\1" + bytes((len(hop),)) + hop + b"\0" + NLRI6)))
    assert (P6,) == event.announced


def test_7_12_mp_unreach_nlri() -> None:
    """MP_UNREACH_NLRI with a malformed prefix: AFI/SAFI disable, or reset with Optional Attribute Error."""
    error = reset(update(unreach(b"\0\2\1\x81" + b"\0" * 17)))
    assert (3, 9, Family.IPV6) == (error.code, error.subcode, error.family)


def test_7_13_traffic_engineering() -> None:
    """A malformed Traffic Engineering attribute (RFC 5543) withdraws; a sound one is not transitive and is not kept."""
    withdrawn(MANDATORY + attribute(0x80, 24, b"\0" * 35), "TRAFFIC_ENGINEERING")
    sound = update(MANDATORY + attribute(0x80, 24, b"\0" * 36), NLRI)
    assert ([], [learned(update(MANDATORY, NLRI))]) == outcome(sound)


@pytest.mark.parametrize("value", [b"", b"\0" * 7, b"\0" * 9])
def test_7_14_extended_community(value: bytes) -> None:
    """Extended Community is malformed if its length is not a non-zero multiple of 8: treat-as-withdraw."""
    withdrawn(MANDATORY + attribute(0xC0, 16, value), "EXTENDED_COMMUNITIES")


def test_7_14_an_unrecognized_extended_community_is_no_error() -> None:
    """An unrecognized type or sub-type is kept as it came."""
    event = learned(update(MANDATORY + attribute(0xC0, 16, b"\x3f\x99abcdef"), NLRI))
    assert event.attributes is not None
    assert (b"\x3f\x99abcdef",) == event.attributes.extended_communities


@pytest.mark.parametrize("value", [b"", b"\0" * 19, b"\0" * 21])
def test_7_15_ipv6_extended_community(value: bytes) -> None:
    """IPv6 Address Specific Extended Community is malformed if its length is not a non-zero multiple of 20: treat-as-withdraw."""
    withdrawn(MANDATORY + attribute(0xC0, 25, value), "IPV6_EXTENDED_COMMUNITIES")


def test_7_15_an_unrecognized_ipv6_extended_community_is_no_error() -> None:
    """A sound one of any type is kept as it came."""
    event = learned(update(MANDATORY + attribute(0xC0, 25, b"\x99" * 20), NLRI))
    assert event.attributes is not None
    assert [(25, b"\x99" * 20)] == [(item.code, item.value) for item in event.attributes.unknown]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\0\0\1", id="shorter than an AS number"),
        pytest.param(b"\0\0\0\1" + attribute(0x40, 1, b"\3"), id="malformed attribute within"),
        pytest.param(b"\0\0\0\1" + b"\x40\1\5\0", id="truncated attribute within"),
        pytest.param(b"\0\0\0\1" + reach(), id="MP_REACH_NLRI within"),
        pytest.param(b"\0\0\0\1" + attribute(0xC0, 128, b"\0\0\0\1"), id="nested"),
        pytest.param(b"\0\0\0\1" + attribute(0x40, 200, b""), id="unknown well-known attribute within"),
    ],
)
def test_7_16_attr_set(value: bytes) -> None:
    """A malformed ATTR_SET (RFC 6368): treat-as-withdraw."""
    withdrawn(MANDATORY + attribute(0xC0, 128, value), "ATTR_SET")


def test_7_16_a_sound_attr_set_is_kept() -> None:
    """An ATTR_SET with an AS number and sound attributes is kept as it came."""
    value = b"\0\0\0\1" + ORIGIN + MED
    event = learned(update(MANDATORY + attribute(0xC0, 128, value), NLRI))
    assert event.attributes is not None
    assert [(128, value)] == [(item.code, item.value) for item in event.attributes.unknown]


def test_8_a_large_community_is_malformed_by_its_length() -> None:
    """Attributes defined later say their own handling: Large Communities (RFC 8092 section 6) are treat-as-withdraw."""
    withdrawn(MANDATORY + attribute(0xC0, 32, b"\0" * 13), "LARGE_COMMUNITY")


def test_an_unrecognized_well_known_attribute_resets() -> None:
    """RFC 4271 section 6.3 stands for attributes that claim to be well-known: Unrecognized Well-known Attribute."""
    error = reset(update(MANDATORY + attribute(0x40, 200, b""), NLRI))
    assert (3, 2) == (error.code, error.subcode)
