"""Announcements as ExaBGP's words."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from bgpd.adapters.exabgp.announcement import FOREIGN, held, unfit, words
from bgpd.model.peer import Peer
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement, AsSegment, Origin, SegmentKind, UnknownAttribute

pytestmark = pytest.mark.core

OURS, THEIRS = Address.parse("10.0.0.1"), Address.parse("10.0.0.2")
EXTERNAL = Peer(name="a", address=THEIRS, asn=65001, local_address=OURS, local_asn=65000)
INTERNAL = replace(EXTERNAL, asn=65000)
PATH = (AsSegment(SegmentKind.SEQUENCE, (65010, 65011)), AsSegment(SegmentKind.SET, (1, 2)))
FULL = Announcement(
    origin=Origin.EGP,
    med=7,
    communities=(65000 << 16 | 1, 0xFFFFFF01),
    large_communities=((65000, 2, 3),),
    next_hop=Address.parse("10.0.0.9"),
    as_path=PATH,
    local_pref=250,
    extended_communities=(bytes.fromhex("4302fde900000064"),),
    originator_id=Address.parse("10.0.0.7"),
    cluster_list=(Address.parse("1.1.1.1"), Address.parse("2.2.2.2")),
    atomic_aggregate=True,
    aggregator=(65010, Address.parse("10.0.0.8")),
    unknown=(UnknownAttribute(0xC0, 99, b"\x01\x02"),),
)


def _line(hop: str, **attributes: object) -> bytes:
    told = {name.replace("_", "-"): value for name, value in attributes.items()}
    route = {"nlri": {"prefix": "10.9.0.0/24", "nexthop": hop}, "attributes": told}
    return json.dumps({"peer": {"address": str(THEIRS)}, "route": route}).encode()


def _segment(*asns: int, kind: str = "as-sequence") -> dict[str, object]:
    return {"element": kind, "value": list(asns)}


def test_an_ebgp_session_puts_its_own_as_in_front_of_a_path() -> None:
    """RFC 4271 5.1.2: the local AS leads; where there is no path ExaBGP adds it itself."""
    assert "as-path [ 65000 65010 65011 ] ( 1 2 )" in words(FULL, EXTERNAL, Family.IPV4)
    assert "as-path [ 65010 65011 ] ( 1 2 )" in words(FULL, INTERNAL, Family.IPV4)
    assert "as-path [ 65000 ] ( 1 2 )" in words(Announcement(as_path=PATH[1:]), EXTERNAL, Family.IPV4)
    assert "next-hop self origin igp" == words(Announcement(), EXTERNAL, Family.IPV4)


def test_the_own_as_is_taken_off_again() -> None:
    """What ExaBGP shows of an eBGP session is read back without the local AS; another's lead is foreign."""
    path = {"0": _segment(65000, 65010, 65011), "1": _segment(1, 2, kind="as-set")}
    assert (Prefix.parse("10.9.0.0/24"), Announcement(as_path=PATH)) == held(
        _line("10.0.0.1", origin="igp", as_path=path), EXTERNAL
    )
    assert (Prefix.parse("10.9.0.0/24"), FOREIGN) == held(
        _line("10.0.0.1", origin="igp", as_path=path), replace(EXTERNAL, local_asn=64999)
    )


def test_what_is_not_understood_is_foreign() -> None:
    """An attribute without a meaning here, or a named extended community, equals nothing that is wanted."""
    for attributes in ({"aigp": 5}, {"extended_community": ["target:65000:1"]}):
        assert (Prefix.parse("10.9.0.0/24"), FOREIGN) == held(_line("10.0.0.1", origin="igp", **attributes), EXTERNAL)
    assert held(b"{}", EXTERNAL) is None
    assert held(_line("10.0.0.1", origin="igp"), replace(EXTERNAL, address=OURS)) is None


def test_confederation_segments_are_refused() -> None:
    """ExaBGP has no words for them."""
    assert unfit(Announcement(as_path=(AsSegment(SegmentKind.CONFED_SEQUENCE, (1,)),))) != ""
    assert unfit(FULL) == ""
