"""Lines of the shim, and that both modes say the same: bodies decoded by ExaBGP's own code, beside ours."""

from __future__ import annotations

import json

import pytest

from bgpd.adapters.exabgp.codec import CodecError
from bgpd.adapters.exabgp.lines import (
    Answer,
    BodyReceived,
    Hello,
    NotificationSeen,
    OpenReceived,
    RefreshReceived,
    SnapshotEnd,
    State,
    Text,
    UpdateReceived,
    parse,
)
from bgpd.model.event import EndOfRib, RoutesLearned, UpdateMalformed
from bgpd.model.peer import GracefulRestart, Notification
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind, UnknownAttribute

pytestmark = pytest.mark.core

PEER = Address.parse("192.0.2.1")


def stock(kind: str, **fields: object) -> bytes:
    neighbor = {"address": {"local": "192.0.2.2", "peer": str(PEER)}, "asn": {"local": 65000, "peer": 65001}} | fields
    return b'{ "exabgp": "5.0.0", ' + json.dumps({"type": kind, "neighbor": neighbor})[1:].encode()


def update(message: object) -> tuple[object, ...]:
    line = parse(stock("update", direction="receive", message=message))
    assert isinstance(line, UpdateReceived)
    return line.events


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"done", Answer(True)),
        (b"error", Answer(False)),
        (b'{"peer": {}}', Text(b'{"peer": {}}')),
        (b'{"shim":"hello","exabgp":7,"complete":true,"respawned":false,"dropped":0}', Hello(7, True, False, 0)),
        (b'{"shim":"snapshot-end"}', SnapshotEnd()),
        (b'{"raw":2,"direction":"receive","peer":"192.0.2.1","body":"00000000"}', BodyReceived(PEER, b"\0\0\0\0")),
        (b'{"raw":4,"direction":"receive","peer":"192.0.2.1","body":""}', None),
        (
            b'{"raw":3,"direction":"send","peer":"192.0.2.1","body":"0603"}',
            NotificationSeen(PEER, Notification(6, 3, True)),
        ),
        (
            b'{"raw":5,"direction":"receive","peer":"192.0.2.1","body":"00020201"}',
            RefreshReceived(PEER, Family.IPV6, 2),
        ),
        (stock("state", state="down", reason="closing connection"), State(PEER, "down", "closing connection")),
        (
            stock(
                "refresh",
                direction="receive",
                **{"route-refresh": {"afi": "ipv4", "safi": "unicast", "subtype": "end"}},
            ),
            RefreshReceived(PEER, Family.IPV4, 2),
        ),
        (
            stock(
                "notification",
                direction="receive",
                notification={
                    "code": 6,
                    "subcode": 2,
                    "data": "0x00",
                    "message": 'Shutdown Communication: "rack"',
                },
            ),
            NotificationSeen(PEER, Notification(6, 2, False, "rack")),
        ),
        (b'{ "exabgp": "5.0.0", "type": "notification", "notification": "shutdown" }', None),
    ],
)
def test_a_line_says_what_it_is(line: bytes, expected: object) -> None:
    """Lines of either mode, answers and marks are told apart by themselves."""
    assert expected == parse(line)


@pytest.mark.parametrize(
    "line", [b'{"raw":2}', b'{"raw":2,"direction":"receive","peer":"x","body":""}', b'{ "exabgp" x', stock("state")]
)
def test_a_line_that_is_not_as_expected_is_refused(line: bytes) -> None:
    """What cannot be read raises CodecError, nothing else."""
    with pytest.raises(CodecError):
        parse(line)


def test_stock_json_gives_the_same_attributes() -> None:
    """Every attribute that ExaBGP prints lands in its field."""
    (event,) = update(
        {
            "update": {
                "attribute": {
                    "origin": "igp",
                    "as-path": {
                        "0": {"element": "as-sequence", "value": [65001, 4200000001]},
                        "1": {"element": "as-set", "value": [1, 2]},
                    },
                    "med": 7,
                    "local-preference": 100,
                    "atomic-aggregate": True,
                    "aggregator": "65001:1.2.3.4",
                    "community": [[65001, 7]],
                    "originator-id": "9.9.9.9",
                    "cluster-list": ["8.8.8.8"],
                    "extended-community": [{"value": 842127122628708, "string": "target:65001:100"}],
                    "large-community": [[1, 2, 3]],
                    "attribute-0x63-0xF0": "0x616263",
                },
                "announce": {"ipv4 unicast": {"192.0.2.1": [{"nlri": "10.9.0.0/24"}]}},
                "withdraw": {"ipv4 unicast": [{"nlri": "10.8.0.0/24"}, {"nlri": "10.9.0.0/24"}]},
            }
        }
    )

    expected = Attributes(
        next_hop=PEER,
        origin=Origin.IGP,
        as_path=(
            AsSegment(SegmentKind.SEQUENCE, (65001, 4200000001)),
            AsSegment(SegmentKind.SET, (1, 2)),
        ),
        med=7,
        local_pref=100,
        atomic_aggregate=True,
        aggregator=(65001, Address.parse("1.2.3.4")),
        communities=(65001 << 16 | 7,),
        extended_communities=(bytes.fromhex("0002fde900000064"),),
        large_communities=((1, 2, 3),),
        originator_id=Address.parse("9.9.9.9"),
        cluster_list=(Address.parse("8.8.8.8"),),
        unknown=(UnknownAttribute(0xE0, 99, b"abc"),),
    )
    routes = RoutesLearned(
        peer=PEER,
        announced=(Prefix.parse("10.9.0.0/24"),),
        withdrawn=(Prefix.parse("10.8.0.0/24"),),
        attributes=expected,
    )
    assert routes == event


def test_stock_json_joins_both_next_hops() -> None:
    """A route printed under its global and its link-local next hop is one route."""
    (event,) = update(
        {
            "update": {
                "attribute": {"origin": "egp"},
                "announce": {
                    "ipv6 unicast": {
                        "2001:db8::1": [{"nlri": "2001:db8::/32"}],
                        "fe80::2": [{"nlri": "2001:db8::/32"}],
                    }
                },
            }
        }
    )

    assert isinstance(event, RoutesLearned)
    assert event.attributes is not None
    assert (Prefix.parse("2001:db8::/32"),) == event.announced
    assert Address.parse("2001:db8::1") == event.attributes.next_hop
    assert Address.parse("fe80::2") == event.attributes.link_local_next_hop


def test_stock_json_marks_end_of_rib_and_defects() -> None:
    """End-of-RIB is an event; a route with a defect is withdrawn and told."""
    assert (EndOfRib(PEER, Family.IPV6),) == update({"eor": {"afi": "ipv6", "safi": "unicast"}})
    defect, event = update(
        {
            "update": {
                "attribute": {"origin": "igp", "error": "treat-as-withdraw"},
                "announce": {"ipv4 unicast": {"192.0.2.1": [{"nlri": "10.9.0.0/24"}]}},
            }
        }
    )
    assert isinstance(defect, UpdateMalformed)
    assert RoutesLearned(peer=PEER, withdrawn=(Prefix.parse("10.9.0.0/24"),)) == event


def test_the_swapped_graceful_restart_labels_are_put_right() -> None:
    """ExaBGP prints the F bit as "restart" and the R bit as "forwarding"."""
    line = parse(
        stock(
            "open",
            direction="receive",
            open={
                "version": 4,
                "asn": 23456,
                "hold_time": 9,
                "router_id": "10.0.0.1",
                "capabilities": {
                    "1": {"name": "multiprotocol", "families": ["ipv4/unicast"]},
                    "2": {"name": "route-refresh", "variant": "RFC"},
                    "64": {
                        "name": "graceful restart",
                        "time": 30,
                        "address-family-flags": {"ipv4/unicast": ["restart"]},
                        "restart-flags": [],
                    },
                    "65": {"name": "asn4", "asn4": 4200000001},
                    "70": {"name": "enhanced-route-refresh"},
                    "73": {"host-name": "x", "domain-name": "y"},
                },
            },
        )
    )

    assert isinstance(line, OpenReceived)
    opened = line.opened.open
    assert (4200000001, (Family.IPV4,), True, True) == (
        opened.asn,
        opened.families,
        opened.route_refresh,
        opened.enhanced_refresh,
    )
    assert GracefulRestart(30, False, (Family.IPV4,), (Family.IPV4,)) == opened.graceful_restart
