"""AS numbers in attributes: RFC 6793 (4 bytes among speakers of 2), RFC 7607 (AS 0), RFC 5065 (confederations)."""

from __future__ import annotations

import struct

import pytest

from bgpd.adapters.exabgp.codec import AS_TRANS, DecodeContext
from bgpd.model.event import RoutesLearned, Treatment
from bgpd.model.prefix import Address
from bgpd.model.route import AsSegment, SegmentKind
from tests.rfc.wire import (
    EXTERNAL,
    INTERNAL,
    MANDATORY,
    NEXT_HOP,
    NLRI,
    ORIGIN,
    P24,
    PEER,
    TWO_BYTES,
    as_path,
    attribute,
    learned,
    outcome,
    update,
)

pytestmark = pytest.mark.core

BIG1, BIG2 = 4200000001, 4200000002
AGGREGATED = Address.parse("1.2.3.4")


def as4_path(*asns: int, kind: int = 2) -> bytes:
    return attribute(0xC0, 17, bytes((kind, len(asns))) + b"".join(asn.to_bytes(4, "big") for asn in asns))


def path_of(attributes: bytes, context: DecodeContext = TWO_BYTES) -> list[int]:
    event = learned(update(ORIGIN + NEXT_HOP + attributes, NLRI), context)
    assert event.attributes is not None
    return [asn for segment in event.attributes.as_path for asn in segment.asns]


def old(*asns: int) -> bytes:
    return as_path(*asns, size=2)


# ------------------------------------------------------------------ RFC 6793


def test_as_trans_is_replaced_by_as4_path() -> None:
    """The AS4_PATH takes the place of as many trailing AS numbers of AS_PATH (section 4.2.3)."""
    assert [65009, BIG1, BIG2] == path_of(old(65009, AS_TRANS, AS_TRANS) + as4_path(BIG1, BIG2))


def test_as_trans_stands_where_there_is_no_as4_path() -> None:
    """Without AS4_PATH the AS_PATH stands as it is, AS_TRANS included."""
    assert [65009, AS_TRANS] == path_of(old(65009, AS_TRANS))


def test_an_as4_path_longer_than_as_path_is_ignored() -> None:
    """AS_PATH with fewer AS numbers than AS4_PATH: the AS4_PATH is ignored (section 4.2.3)."""
    assert [65009] == path_of(old(65009) + as4_path(BIG1, BIG2))


def test_an_old_aggregator_makes_both_as4_attributes_ignored() -> None:
    """AGGREGATOR that is not AS_TRANS beside AS4_AGGREGATOR: AS4_AGGREGATOR and AS4_PATH are ignored (section 4.2.3)."""
    aggregator = attribute(0xC0, 7, struct.pack("!H", 65010) + AGGREGATED.packed)
    newer = attribute(0xC0, 18, struct.pack("!I", BIG1) + AGGREGATED.packed)
    event = learned(update(MANDATORY_OLD + aggregator + newer + as4_path(BIG1), NLRI), TWO_BYTES)

    assert event.attributes is not None
    assert ((65010, AGGREGATED), (AsSegment(SegmentKind.SEQUENCE, (65009, AS_TRANS)),)) == (
        event.attributes.aggregator,
        event.attributes.as_path,
    )


def test_as4_aggregator_replaces_as_trans() -> None:
    """AGGREGATOR with AS_TRANS: the AS4_AGGREGATOR is the aggregating node."""
    aggregator = attribute(0xC0, 7, struct.pack("!H", AS_TRANS) + AGGREGATED.packed)
    newer = attribute(0xC0, 18, struct.pack("!I", BIG1) + AGGREGATED.packed)
    event = learned(update(MANDATORY_OLD + aggregator + newer, NLRI), TWO_BYTES)

    assert event.attributes is not None
    assert (BIG1, AGGREGATED) == event.attributes.aggregator


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("AS4_PATH", as4_path(BIG1)),
        ("AS4_PATH", attribute(0xC0, 17, b"\2\5")),
        ("AS4_AGGREGATOR", attribute(0xC0, 18, struct.pack("!I", BIG1) + AGGREGATED.packed)),
    ],
)
def test_as4_attributes_of_a_new_speaker_are_discarded(name: str, extra: bytes) -> None:
    """A speaker of 4-byte AS numbers that gets AS4_PATH or AS4_AGGREGATOR from another discards it (section 4.1)."""
    expected = [(Treatment.DISCARD, name)], [learned(update(MANDATORY, NLRI))]
    assert expected == outcome(update(MANDATORY + extra, NLRI))


@pytest.mark.parametrize("value", [b"", b"\2", b"\2\0", b"\2\2\0\0\0\1", b"\7\1\0\0\0\1", b"\2\1\0\0\0\1\0"])
def test_a_malformed_as4_path_is_discarded(value: bytes) -> None:
    """AS4_PATH of a wrong length, an empty segment or an undefined segment type: attribute discard (section 6)."""
    defects, (event,) = outcome(update(MANDATORY_OLD + attribute(0xC0, 17, value), NLRI), TWO_BYTES)

    assert [(Treatment.DISCARD, "AS4_PATH")] == defects
    assert learned(update(MANDATORY_OLD, NLRI), TWO_BYTES) == event


def test_confederation_segments_of_an_as4_path_are_dropped() -> None:
    """AS_CONFED_SEQUENCE and AS_CONFED_SET in AS4_PATH are discarded, and the rest is taken (section 6)."""
    value = b"\3\1" + struct.pack("!I", 65100) + b"\2\1" + struct.pack("!I", BIG1)
    assert [65009, BIG1] == path_of(old(65009, AS_TRANS) + attribute(0xC0, 17, value))


def test_a_malformed_as4_aggregator_is_discarded() -> None:
    """AS4_AGGREGATOR whose length is not 8: attribute discard (section 6)."""
    defects, _ = outcome(update(MANDATORY_OLD + attribute(0xC0, 18, b"\0" * 7), NLRI), TWO_BYTES)
    assert [(Treatment.DISCARD, "AS4_AGGREGATOR")] == defects


MANDATORY_OLD = ORIGIN + NEXT_HOP + old(65009, AS_TRANS)

# ------------------------------------------------------------------ RFC 7607


@pytest.mark.parametrize(
    ("attributes", "context"),
    [
        pytest.param(as_path(65001, 0), EXTERNAL, id="sequence"),
        pytest.param(as_path(65001, 0, kind=1), EXTERNAL, id="set"),
        pytest.param(as_path(0, size=2), TWO_BYTES, id="two bytes"),
    ],
)
def test_as_0_in_as_path_withdraws(attributes: bytes, context: DecodeContext) -> None:
    """AS 0 in AS_PATH makes it malformed: treat-as-withdraw (RFC 7607 section 2)."""
    expected = [(Treatment.WITHDRAW, "AS_PATH")], [RoutesLearned(peer=PEER, withdrawn=(P24,))]
    assert expected == outcome(update(ORIGIN + attributes + NEXT_HOP, NLRI), context)


@pytest.mark.parametrize(
    ("name", "mandatory", "extra", "context"),
    [
        ("AGGREGATOR", MANDATORY, attribute(0xC0, 7, b"\0" * 4 + AGGREGATED.packed), EXTERNAL),
        ("AS4_AGGREGATOR", MANDATORY_OLD, attribute(0xC0, 18, b"\0" * 4 + AGGREGATED.packed), TWO_BYTES),
        ("AS4_PATH", MANDATORY_OLD, as4_path(BIG1, 0), TWO_BYTES),
    ],
)
def test_as_0_elsewhere_is_discarded(name: str, mandatory: bytes, extra: bytes, context: DecodeContext) -> None:
    """AS 0 in AGGREGATOR, AS4_AGGREGATOR or AS4_PATH makes it malformed: attribute discard (RFC 7607 section 2)."""
    defects, (event,) = outcome(update(mandatory + extra, NLRI), context)

    assert [(Treatment.DISCARD, name)] == defects
    assert learned(update(mandatory, NLRI), context) == event


# ------------------------------------------------------------------ RFC 5065


@pytest.mark.parametrize("kind", [3, 4])
def test_a_confederation_segment_from_outside_withdraws(kind: int) -> None:
    """AS_CONFED_SEQUENCE or AS_CONFED_SET from a neighbor that is not in our confederation: malformed AS_PATH (section 5)."""
    expected = [(Treatment.WITHDRAW, "AS_PATH")], [RoutesLearned(peer=PEER, withdrawn=(P24,))]
    assert expected == outcome(update(ORIGIN + as_path(65001, kind=kind) + NEXT_HOP, NLRI))


def test_a_confederation_segment_from_inside_counts_nothing() -> None:
    """From an internal neighbor it is taken, and the decision does not count it (section 5.3)."""
    event = learned(update(ORIGIN + as_path(65001, kind=3) + NEXT_HOP, NLRI), INTERNAL)

    assert event.announced == (P24,)
    assert event.attributes is not None
    assert 0 == event.attributes.path_length
