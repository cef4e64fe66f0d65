"""Which paths take part in the decision: loops (RFC 4271 section 9.1.2, RFC 4456 section 8), next hops (RFC 4271 sections 6.3, 9.1.2.1)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bgpd.core.pipeline import Pipeline
from bgpd.core.rib.community import BLACKHOLE, LLGR_STALE, NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED, withheld
from bgpd.core.rib.nexthop import DEPTH, Resolver
from bgpd.model import event as ev
from bgpd.model.forwarding import Group, GroupKey, KernelRoute, Leg, RouteKey
from bgpd.model.peer import Peer, PeerPolicy
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind
from tests.core import world as w

pytestmark = pytest.mark.core

OTHER = w.P("192.0.2.0/24")
US = 65001
ROUTER_ID, CLUSTER = w.A("9.9.9.1"), w.A("9.9.9.9")
OPTIONS = replace(w.OPTIONS, router_id=ROUTER_ID)
IBGP = replace(w.peer(1), asn=US)


def path(*asns: int, kind: SegmentKind = SegmentKind.SEQUENCE, **changes: object) -> Attributes:
    given = Attributes(next_hop=w.TOR1, origin=Origin.IGP, as_path=(AsSegment(kind, asns),) if asns else ())
    return replace(given, **changes)


EBGP = w.peer(1)


def judged(attributes: Attributes, peer: Peer = EBGP, options: ev.Options = OPTIONS, **more: ev.Event) -> str:
    """Learn a path from *peer*; return why it is refused, empty if it is not."""
    configured = ev.Configured(node=w.node(1), peers=(peer,), options=options)
    events = [configured, *w.kernel(), *w.store(), ev.StoreSynced(), ev.SpeakerUp(), *more.values()]
    learned = ev.RoutesLearned(peer=w.TOR1, announced=(OTHER,), attributes=attributes)
    pipeline = w.feed(Pipeline(), [*events, *w.session(1, learned)])
    refused = pipeline.state.ineligible.get(OTHER, ())
    assert bool(refused) != bool(pipeline.state.selection(OTHER).chosen)
    return refused[0][1] if refused else ""


@pytest.mark.parametrize("kind", list(SegmentKind))
def test_our_as_anywhere_in_the_path_is_a_loop(kind: SegmentKind) -> None:
    """The full AS path is scanned, sets and confederation segments too."""
    attributes = replace(path(65101), as_path=(*path(65101).as_path, AsSegment(kind, (64999, US))))
    assert "our AS 65001 is in the AS path" == judged(attributes)


def test_our_as_is_allowed_so_many_times() -> None:
    """numAllowedLocalASNumbers of the peer is how often our AS may be there."""
    peer = replace(w.peer(1), policy=PeerPolicy(allowed_own_asns=1))
    assert "" == judged(path(65101, US), peer)
    assert "our AS" in judged(path(65101, US, US), peer)


def test_our_own_router_id_as_originator_is_a_loop() -> None:
    """A reflected route whose ORIGINATOR_ID is our BGP identifier is ignored."""
    assert "we are its originator (RFC 4456 section 8)" == judged(path(originator_id=ROUTER_ID), IBGP)
    assert "" == judged(path(originator_id=w.A("10.0.0.1")), IBGP)
    node_is_router_id = replace(OPTIONS, router_id=None)
    assert "originator" in judged(path(originator_id=w.A("10.0.0.1")), IBGP, node_is_router_id)


def test_our_own_cluster_id_is_a_loop() -> None:
    """A reflected route whose CLUSTER_LIST has a cluster id of ours is ignored."""
    client = replace(IBGP, policy=PeerPolicy(reflector_cluster=CLUSTER))
    assert "it has been in a cluster of ours (RFC 4456 section 8)" == judged(path(cluster_list=(CLUSTER,)), client)
    assert "" == judged(path(cluster_list=(CLUSTER,)), IBGP)


def test_the_first_as_is_checked_where_asked() -> None:
    """enforce_first_as refuses a path that does not begin with the external peer's AS; off, as for route servers, it stands."""
    strict = replace(OPTIONS, enforce_first_as=True)
    assert "" == judged(path(64999, 65101))
    assert "its AS path does not begin with the peer's AS 65101" == judged(path(64999, 65101), options=strict)
    assert "" == judged(path(65101, 64999), options=strict)
    assert "" == judged(path(64999), IBGP, strict)


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "255.255.255.255", "::", "::1", "ff02::1"]
)
def test_what_is_no_hosts_address_is_no_next_hop(text: str) -> None:
    """Unspecified, loopback, multicast and reserved addresses are no next hops (RFC 4271 section 6.3)."""
    assert f"next hop {text} is unusable: it is no host's address" == judged(path(65101, next_hop=w.A(text)))


def test_an_address_of_ours_is_no_next_hop() -> None:
    """A next hop that is our own address is refused (RFC 4271 section 6.3), and taken once the address is gone."""
    added = ev.AddressAdded("eth1", w.A("10.1.11.1"), w.P("10.1.11.0/31"))
    reason = judged(path(65101, next_hop=w.A("10.1.11.1")), added=added)
    assert "next hop 10.1.11.1 is unusable: it is an address of ours" == reason

    gone = ev.AddressRemoved("eth1", w.A("10.1.11.1"), w.P("10.1.11.0/31"))
    assert "" == judged(path(65101, next_hop=w.A("10.1.11.1")), added=added, gone=gone)


# ------------------------------------------------------------------ next hops through the kernel's table


def resolver(*routes: tuple[str, str, str | None]) -> Resolver:
    """A resolver with the links eth1, eth2 and routes (prefix, device, gateway)."""
    made = Resolver()
    for number, name in enumerate(("eth1", "eth2"), start=1):
        made.link_changed(ev.LinkChanged(name=name, index=number, up=True, mtu_bytes=1500))
    for prefix, device, gateway in routes:
        hop = (device, None if gateway is None else w.A(gateway))
        made.route_changed(w.P(prefix), 20, (hop,))
    return made


def test_a_gateway_behind_a_gateway_is_resolved() -> None:
    """A route via a gateway that is off-link leads where the gateway's own route leads."""
    found = resolver(
        ("10.1.0.0/24", "eth1", None), ("10.8.0.0/16", "eth1", "10.1.0.2"), ("10.9.0.0/16", "eth1", "10.8.0.1")
    ).resolve(w.A("10.9.0.7"))

    assert (Leg("eth1", w.A("10.1.0.2")),) == found.legs
    assert (20, False, w.P("10.9.0.0/16")) == (found.metric, found.on_link, found.through)


def test_a_gateway_on_the_link_is_used_as_it_is() -> None:
    """A gateway that a connected route of its device covers is the leg."""
    found = resolver(("10.1.0.0/24", "eth1", None), ("10.9.0.0/16", "eth1", "10.1.0.2")).resolve(w.A("10.9.0.7"))
    assert (Leg("eth1", w.A("10.1.0.2")),) == found.legs


def test_a_gateway_without_a_route_is_on_link_by_order() -> None:
    """A gateway that no route leads to was made on link by hand (``onlink``), and ours is, too."""
    found = resolver(("10.9.0.0/16", "eth1", "169.254.1.1"), ("10.7.0.0/16", "eth1", "10.250.0.1"))
    assert (Leg("eth1", w.A("169.254.1.1")),) == found.resolve(w.A("10.9.0.7")).legs
    assert (Leg("eth1", w.A("10.250.0.1"), onlink=True),) == found.resolve(w.A("10.7.0.7")).legs


def test_gateways_that_lead_to_each_other_resolve_nothing() -> None:
    """A loop of gateways ends after DEPTH steps, with the reason."""
    found = resolver(("10.8.0.0/16", "eth1", "10.9.0.1"), ("10.9.0.0/16", "eth1", "10.8.0.1")).resolve(w.A("10.9.0.7"))

    assert 8 == DEPTH
    assert () == found.legs
    assert "is behind itself" in found.reason


def test_a_changed_route_to_the_gateway_changes_the_answer() -> None:
    """What was resolved through a gateway is resolved again when the gateway's own route changes."""
    made = resolver(
        ("10.1.0.0/24", "eth1", None), ("10.8.0.0/16", "eth1", "10.1.0.2"), ("10.9.0.0/16", "eth1", "10.8.0.1")
    )
    made.resolve(w.A("10.9.0.7"))
    made.route_changed(w.P("10.8.0.0/16"), 20, (("eth1", w.A("10.1.0.3")),))

    assert {w.A("10.9.0.7")} == made.refresh()
    assert (Leg("eth1", w.A("10.1.0.3")),) == made.resolve(w.A("10.9.0.7")).legs


# ------------------------------------------------------------------ shares


def bandwidth(megabytes: float, kind: bytes = b"\x40\x04") -> bytes:
    bits = {1.0: "49742400", 2.0: "49f42400", 3.0: "4a371b00"}[megabytes]
    return kind + b"\xfd\xe9" + bytes.fromhex(bits)


def group_of(first: bytes | None, second: bytes | None, weighted: bool = True) -> Group:
    """Learn a prefix through both routers with these communities; return its group."""
    options = replace(w.OPTIONS, weighted_ecmp=weighted)
    configured = ev.Configured(node=w.node(1), peers=(w.peer(1), w.peer(2)), options=options)
    sessions: list[ev.Event] = []
    for number, tor, community in ((1, w.TOR1, first), (2, w.TOR2, second)):
        attributes = w.learned(tor, OTHER).attributes
        assert attributes is not None
        attributes = replace(attributes, extended_communities=(community,) if community is not None else ())
        sessions += w.session(number, ev.RoutesLearned(peer=tor, announced=(OTHER,), attributes=attributes))
    pipeline = w.feed(Pipeline(), [configured, *w.kernel(), *w.store(), ev.StoreSynced(), ev.SpeakerUp(), *sessions])
    route = pipeline.tables.kernel.get(RouteKey(OTHER))
    assert isinstance(route, KernelRoute)
    assert isinstance(route.group, GroupKey)
    group = pipeline.tables.kernel.get(route.group)
    assert isinstance(group, Group)
    return group


def test_shares_follow_the_link_bandwidth() -> None:
    """With weighted ECMP the legs' weights are in proportion to the link bandwidth community, transitive or not."""
    assert (50, 100) == group_of(bandwidth(1.0), bandwidth(2.0, b"\x00\x04")).weights
    assert (100, 33) == group_of(bandwidth(3.0), bandwidth(1.0)).weights


@pytest.mark.parametrize(
    ("first", "second", "weighted"),
    [
        pytest.param(bandwidth(1.0), None, True, id="one path does not say"),
        pytest.param(bandwidth(1.0), b"\x40\x04\xfd\xe9\x7f\xc0\0\0", True, id="not a number"),
        pytest.param(bandwidth(1.0), b"\x40\x04\xfd\xe9\0\0\0\0", True, id="zero"),
        pytest.param(bandwidth(1.0), bandwidth(1.0), True, id="equal"),
        pytest.param(bandwidth(1.0), bandwidth(2.0), False, id="not asked for"),
    ],
)
def test_shares_are_equal_otherwise(first: bytes, second: bytes | None, weighted: bool) -> None:
    """Unless asked for, and said by every path, all legs share equally."""
    assert () == group_of(first, second, weighted).weights


# ------------------------------------------------------------------ well-known communities


@pytest.mark.parametrize(
    ("community", "internal", "external"),
    [
        (NO_ADVERTISE, False, False),
        (LLGR_STALE, False, False),
        (NO_EXPORT, True, False),
        (NO_EXPORT_SUBCONFED, True, False),
        (BLACKHOLE, True, False),
        (65001 << 16 | 7, True, True),
    ],
)
def test_well_known_communities_are_honoured(community: int, internal: bool, external: bool) -> None:
    """Whether a route with that community may be passed on to an internal, and to an external peer."""
    assert internal == (not withheld((1, community), external=False))
    assert external == (not withheld((1, community), external=True))
