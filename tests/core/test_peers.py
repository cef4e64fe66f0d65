"""Resources drive sessions, policy and announcements through the pipeline, each change by itself (issue 5, items 1 to 3)."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec
import pytest

from bgpd.core.overlay.choose import How
from bgpd.core.peers import MISSING_FILTER_S
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.bgp import AddCommunity, Advertisement, BgpConfiguration, BgpFilter, BgpPeer, FilterRule, SetPriority
from bgpd.model.drain import Stage
from bgpd.model.forwarding import KernelRoute, Leg, RouteKey, RouteKind
from bgpd.model.health import StaticPrefix
from bgpd.model.node import Node
from bgpd.model.peer import MaxPrefix, Notification, PeerKind, PeerPolicy
from bgpd.model.pool import Block
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement
from tests.core import world as w

pytestmark = pytest.mark.core

FAR = w.A("198.51.100.7")
ROUTES = int(os.environ.get("BGPD_TEST_ROUTES", "2000"))
"""Routes of the filter test; issue 5 names 100,000."""
NETWORK = w.P("192.0.2.0/24")
RESOURCE = BgpPeer(name="far", address=FAR, asn=65777)
NOTIFIED = Notification(6, 3, sent=True)
REJECT = FilterRule(accept=False, cidr=NETWORK)


def with_filter(*rules: FilterRule, exported: tuple[FilterRule, ...] = ()) -> ev.BgpFilterChanged:
    return ev.BgpFilterChanged(BgpFilter(name="f", import_v4=rules, export_v4=exported))


def filtered_tor() -> ev.Configured:
    """The world's configuration with the first router's peer replaced by a BGPPeer that names filter f."""
    return msgspec.structs.replace(w.CONFIGURED, peers=(w.peer(2),))


TOR1 = BgpPeer(name="tor1", address=w.TOR1, asn=65101, filters=("f",), use_node_ip=False)


def resourced() -> Pipeline:
    """A pipeline whose first router comes from a BGPPeer with filter f, which takes everything so far."""
    links = [
        ev.AddressAdded("eth1", w.A("10.1.11.1"), w.P("10.1.11.0/31")),
        ev.AddressAdded("eth2", w.A("10.1.21.1"), w.P("10.1.21.0/31")),
    ]
    events = [filtered_tor(), *w.kernel(), *links, *w.store(), with_filter(), ev.BgpPeerChanged(TOR1), ev.StoreSynced()]
    return w.feed(Pipeline(), [*events, *w.bgp()])


def changed(pipeline: Pipeline, events: Iterable[ev.Event], now: float = 0.0) -> list[Address]:
    """Feed events; return whose sessions they touch."""
    pipeline.tables.neighbors.take()
    w.feed(pipeline, events, now)
    return pipeline.tables.neighbors.take()


def test_bgppeer_becomes_a_session_and_gets_the_own_block() -> None:
    """A BGPPeer adds one neighbor without policy in it, and its announcements; its removal takes both away."""
    pipeline = w.running()

    assert [FAR] == changed(pipeline, [ev.BgpPeerChanged(RESOURCE)])
    neighbor = pipeline.tables.neighbors.get(FAR)
    assert neighbor is not None
    assert (neighbor.asn, neighbor.local_address, neighbor.policy) == (65777, w.A("10.0.0.1"), PeerPolicy())
    assert Announcement() == pipeline.tables.adj_rib_out.get((FAR, w.OWN_BLOCK))

    assert [FAR] == changed(pipeline, [ev.BgpPeerRemoved("far")])
    assert pipeline.tables.adj_rib_out.get((FAR, w.OWN_BLOCK)) is None
    assert FAR not in pipeline.state.facts.peers


def test_resources_make_no_session_before_the_store_was_read() -> None:
    """A partial reading names no peers; those of the node's file stand at once."""
    pipeline = w.feed(Pipeline(), [w.CONFIGURED, ev.BgpPeerChanged(RESOURCE)])
    assert {w.TOR1, w.TOR2} == {address for address, _ in pipeline.tables.neighbors.items()}

    w.feed(pipeline, [ev.StoreSynced()])

    assert FAR in pipeline.tables.neighbors


def test_peer_of_the_file_stands_before_one_of_the_store() -> None:
    """A BGPPeer with the address of a configured peer changes nothing, and takes over when that one is gone."""
    pipeline = w.running()
    same = BgpPeer(name="same", address=w.TOR1, asn=65999)

    assert [] == changed(pipeline, [ev.BgpPeerChanged(same)])
    assert [w.TOR1] == changed(pipeline, [filtered_tor()])
    assert 65999 == pipeline.state.facts.peers[w.TOR1].asn


def test_mesh_follows_nodes_and_configuration() -> None:
    """A BGPConfiguration brings the mesh; a node that goes takes its session; its end ends the mesh."""
    pipeline = w.running()
    mesh = ev.BgpConfigurationChanged(BgpConfiguration(name="default"))

    assert {w.A("10.0.0.2"), w.A("10.0.0.3")} == set(changed(pipeline, [mesh]))
    assert {PeerKind.MESH, PeerKind.CONFIGURED} == {p.policy.kind for p in pipeline.state.facts.peers.values()}
    assert [w.A("10.0.0.3")] == changed(pipeline, [ev.NodeRemoved("node3")])
    assert [w.A("10.0.0.2")] == changed(pipeline, [ev.BgpConfigurationRemoved("default")])


def test_missing_filter_holds_a_peer_and_says_so() -> None:
    """A peer that names a filter which is not there gets no session (law 7), and one as soon as it is there."""
    pipeline = w.running()
    named = msgspec.structs.replace(RESOURCE, filters=("f",))

    assert [] == changed(pipeline, [ev.BgpPeerChanged(named)])
    assert "BGPFilter f does not exist" == pipeline.state.facts.peers[FAR].policy.hold_reason
    assert "peer.held" in [notice.name for notice in pipeline.take_notices()]
    assert pipeline.tables.adj_rib_out.get((FAR, w.OWN_BLOCK)) is None
    assert FAR not in [address for address, _ in pipeline.tables.neighbors.items()]

    assert [FAR] == changed(pipeline, [with_filter()])
    assert pipeline.tables.adj_rib_out.get((FAR, w.OWN_BLOCK)) == Announcement()


def test_standing_session_waits_for_a_filter_that_is_on_its_way() -> None:
    """A filter and the peer that names it come by two watches: the session ends only if the filter does not come."""
    named = ev.BgpPeerChanged(msgspec.structs.replace(RESOURCE, filters=("f",)))
    pipeline = w.feed(w.running(), [ev.BgpPeerChanged(RESOURCE)])

    assert [] == changed(pipeline, [named, with_filter()])
    assert ("f",) == pipeline.state.facts.peers[FAR].policy.filters

    gone: list[ev.Event] = [ev.BgpFilterRemoved("f")]
    assert [] == changed(pipeline, gone, now=10.0)
    assert 10.0 + MISSING_FILTER_S == pipeline.deadline()
    assert [FAR] == changed(pipeline, [ev.Tick()], now=10.0 + MISSING_FILTER_S)
    assert FAR not in pipeline.tables.neighbors


def test_what_needs_no_reset_touches_no_session() -> None:
    """Filters, communities, limits, next hop modes: announcements and decisions change, neighbors do not."""
    pipeline = resourced()
    communities = (Advertisement(w.POOL.cidr, (7,)),)
    edits: list[ev.Event] = [
        with_filter(REJECT),
        ev.BgpConfigurationChanged(BgpConfiguration(name="default", mesh=False, advertisements=communities)),
        ev.BgpPeerChanged(msgspec.structs.replace(TOR1, filters=(), allowed_own_asns=1)),
        ev.DrainChanged(Stage.DRAINING),
    ]

    assert [] == changed(pipeline, edits)
    assert (7, 0xFFFF0000) == pipeline.tables.adj_rib_out.get((w.TOR1, w.OWN_BLOCK)).communities  # type: ignore[union-attr]

    timers = ev.BgpPeerChanged(msgspec.structs.replace(TOR1, hold_time_s=9))
    assert [w.TOR1] == changed(pipeline, [timers])


def test_500_peers_and_a_change_of_one_is_one_session_event() -> None:
    """Adding or changing one of 500 peers touches one neighbor and nothing else (issue 5, "must show")."""
    peers = [
        BgpPeer(name=f"p{n}", address=Address(w.A("198.51.0.0") + n), asn=65000 + n, filters=("f",)) for n in range(500)
    ]
    pipeline = w.feed(w.running(), [with_filter(), *(ev.BgpPeerChanged(peer) for peer in peers)])
    assert 502 == len(pipeline.tables.neighbors)
    pipeline.tables.adj_rib_out.take()

    changes = changed(pipeline, [ev.BgpPeerChanged(msgspec.structs.replace(peers[250], ttl_security=1))])
    assert [peers[250].address] == changes
    assert [] == pipeline.tables.adj_rib_out.take()

    added = BgpPeer(name="new", address=FAR, asn=65777)
    assert [FAR] == changed(pipeline, [ev.BgpPeerChanged(added)])
    assert [(FAR, w.OWN_BLOCK)] == pipeline.tables.adj_rib_out.take()


def test_filter_edit_changes_what_it_rejects_and_no_session() -> None:
    """Of N routes a filter rejects a tenth: so many kernel routes change, no session does (issue 5, "must show")."""
    pipeline = resourced()
    prefixes = [Prefix.of(Address(w.A("100.0.0.0") + (n << 8)), 24) for n in range(ROUTES)]
    for at in range(0, ROUTES, 200):
        w.feed(pipeline, [w.learned(w.TOR1, *prefixes[at : at + 200])])
    tenth = ROUTES // 10
    pipeline.tables.kernel.take()
    rules = tuple(FilterRule(accept=False, cidr=prefix) for prefix in _covering(prefixes[:tenth]))

    assert [] == changed(pipeline, [with_filter(*rules)])

    changes = pipeline.tables.kernel.take()
    assert {RouteKey(prefix) for prefix in prefixes[:tenth]} == set(changes)
    assert all(pipeline.tables.kernel.get(key) is None for key in changes)
    ((_, rule),) = pipeline.state.ineligible[prefixes[0]]
    assert "BGPFilter f importV4[0]" == rule

    w.feed(pipeline, [with_filter()])
    assert tenth == len(pipeline.tables.kernel.take())


def _covering(prefixes: list[Prefix]) -> list[Prefix]:
    """Write a run of /24 as few aggregates, so that the filter has a few rules."""
    found, at = [], 0
    while at < len(prefixes):
        size = 1
        while size * 2 <= len(prefixes) - at and (prefixes[at].network >> 8) % (size * 2) == 0:
            size *= 2
        found.append(Prefix.of(prefixes[at].network, 24 - size.bit_length() + 1))
        at += size
    return found


def test_priority_of_a_filter_decides_between_routers() -> None:
    """setPriority on what an external peer sends makes LOCAL_PREF that counts: the other router's path loses."""
    pipeline = resourced()
    assert How.NATIVE is pipeline.forwarder.reached[w.BLOCK2].how

    preferred = FilterRule(accept=True, operations=(SetPriority(512), AddCommunity(9)))
    w.feed(pipeline, [with_filter(preferred)])

    selection = pipeline.state.selection(w.BLOCK2)
    assert [w.TOR1] == [one.path.peer for one in selection.chosen]
    assert (9,) == selection.chosen[0].path.attributes.communities
    assert ["lower local preference"] == [step.value for _, step in selection.lost]


def test_session_may_come_before_the_resource_that_explains_it() -> None:
    """What a running speaker tells of a peer counts once the store names that peer: a restart loses nothing."""
    first = [filtered_tor(), *w.kernel(), ev.SpeakerUp(), *w.session(1, w.learned(w.TOR1, w.BLOCK2)), *w.session(2)]
    pipeline = w.feed(Pipeline(), [*first, *w.store()])
    assert How.WAITING is pipeline.forwarder.reached[w.BLOCK2].how

    named = ev.BgpPeerChanged(msgspec.structs.replace(TOR1, filters=()))
    w.feed(pipeline, [named, ev.StoreSynced()])

    assert How.NATIVE is pipeline.forwarder.reached[w.BLOCK2].how
    assert pipeline.state.facts.sessions[w.TOR1].up


def test_removed_peer_loses_its_routes_at_once() -> None:
    """What a peer sent counts no more when it is no peer any more, though its session has yet to end."""
    pipeline = resourced()

    w.feed(pipeline, [ev.BgpPeerRemoved("tor1")])
    assert [w.TOR2] == [one.path.peer for one in pipeline.state.selection(w.BLOCK2).chosen]

    w.feed(pipeline, [ev.PeerDown(w.TOR1, "peer removed")])
    w.feed(pipeline, [ev.Tick()], now=1000.0)
    assert 0 == pipeline.state.adj_in.count(w.TOR1)


def test_reachable_by_is_a_route_to_the_peer() -> None:
    """reachableBy routes the peer's address by the gateway, next hops at the peer resolve so, and it ends with the peer."""
    peer = msgspec.structs.replace(RESOURCE, reachable_by=w.TOR2)
    key = RouteKey(Prefix.of(FAR, 32))

    pipeline = w.feed(w.running(), [ev.BgpPeerChanged(peer)])

    route = pipeline.tables.kernel.get(key)
    assert isinstance(route, KernelRoute)
    assert route.group is not None
    assert [w.TOR2] == [leg.gateway for leg in pipeline.forwarder.fib.legs(route.group)]
    assert [w.TOR2] == [leg.gateway for leg in pipeline.state.resolver.resolve(FAR).legs]
    w.feed(pipeline, [ev.BgpPeerRemoved("far")])
    assert key not in pipeline.tables.kernel


def test_unnumbered_peer_is_there_once_it_was_found() -> None:
    """A BGPPeer with a link and no address has the router found there; its routes go by that link, and go with it."""
    link, router = "eth2", w.A("fe80::8")
    peer = BgpPeer(name="link", interface=link, asn=65780, extended_next_hop=True)
    pipeline = w.feed(w.running(), [ev.BgpPeerChanged(peer), ev.AddressAdded(link, w.A("fe80::1"), w.P("fe80::/64"))])
    assert {link} == pipeline.unnumbered()
    assert 2 == len(pipeline.tables.neighbors)

    w.feed(pipeline, [ev.RouterFound(link, router)])
    peer_address = router.on(link)
    neighbor = pipeline.tables.neighbors.get(peer_address)
    assert neighbor is not None
    assert (w.A("fe80::1"), link, (Family.IPV4, Family.IPV6)) == (
        neighbor.local_address,
        neighbor.interface,
        neighbor.families,
    )
    up = msgspec.structs.replace(w.opened(1), asn=65780, families=(Family.IPV4, Family.IPV6))
    route = w.learned(w.TOR2, NETWORK, last=65781)
    attributes = msgspec.structs.replace(route.attributes, next_hop=w.A("::"), link_local_next_hop=router)
    w.feed(
        pipeline,
        [ev.PeerUp(peer_address, up), msgspec.structs.replace(route, peer=peer_address, attributes=attributes)],
    )
    assert (Leg(link, router),) == pipeline.forwarder.reached[NETWORK].legs

    w.feed(pipeline, [ev.LinkChanged(name=link, index=2, up=False, mtu_bytes=1500)])
    assert NETWORK not in pipeline.forwarder.reached


# ------------------------------------------------------------------ what is announced


def test_service_ranges_are_announced_and_dropped_here() -> None:
    """Ranges of services go to every peer; LoadBalancer and external ones are a blackhole, which ClusterIPs must not be."""
    balanced, external, cluster = w.P("203.0.113.0/24"), w.P("203.0.114.1/32"), w.P("10.96.0.0/12")
    settings = BgpConfiguration(
        name="default", mesh=False, load_balancer=(balanced,), external=(external,), cluster=(cluster,)
    )
    pipeline = w.feed(w.running(), [ev.BgpConfigurationChanged(settings), w.learned(w.TOR1, balanced)])

    assert all((w.TOR1, one) in pipeline.tables.adj_rib_out for one in (balanced, external, cluster))
    assert KernelRoute(RouteKind.BLACKHOLE) == pipeline.tables.kernel.get(RouteKey(balanced))
    assert RouteKey(external) not in pipeline.tables.kernel
    assert RouteKey(cluster) not in pipeline.tables.kernel

    label = msgspec.structs.replace(
        w.node(1), labels=(("node.kubernetes.io/exclude-from-external-load-balancers", ""),)
    )
    w.feed(pipeline, [ev.NodeChanged(label)])
    assert not any((w.TOR1, one) in pipeline.tables.adj_rib_out for one in (balanced, external, cluster))
    assert How.BGP is pipeline.forwarder.reached[balanced].how


def test_anycast_prefix_is_there_while_its_check_passes() -> None:
    """A prefix with a check is announced when it has passed, with its communities, and withdrawn when it fails."""
    anycast = w.P("203.0.113.53/32")
    always = StaticPrefix(prefix=w.P("203.0.113.0/28"), blackhole=True)
    prefixes = (StaticPrefix(prefix=anycast, check="dns", communities=(5,)), always)
    pipeline = w.feed(w.running(), [msgspec.structs.replace(w.CONFIGURED, announce=prefixes)])
    key = (w.TOR1, anycast)
    assert (w.TOR1, always.prefix) in pipeline.tables.adj_rib_out
    assert KernelRoute(RouteKind.BLACKHOLE) == pipeline.tables.kernel.get(RouteKey(always.prefix))
    assert key not in pipeline.tables.adj_rib_out
    assert not pipeline.announcements_known

    w.feed(pipeline, [ev.HealthChanged("dns", True)])
    assert Announcement(communities=(5,)) == pipeline.tables.adj_rib_out.get(key)
    assert pipeline.announcements_known

    w.feed(pipeline, [ev.HealthChanged("dns", False, "connection refused")])
    assert key not in pipeline.tables.adj_rib_out
    assert {"health.passed", "health.failed"} <= {notice.name for notice in pipeline.take_notices()}


def test_pool_that_stops_its_export_withdraws_its_blocks() -> None:
    """disableBGPExport withdraws by difference, and announces again."""
    pipeline = w.running()
    hidden = msgspec.structs.replace(w.POOL, disable_bgp_export=True)

    w.feed(pipeline, [ev.PoolChanged(hidden)])
    assert 0 == len(pipeline.tables.adj_rib_out)
    w.feed(pipeline, [ev.PoolChanged(w.POOL)])
    assert 2 == len(pipeline.tables.adj_rib_out)


def test_reflector_announces_what_clients_send() -> None:
    """A node with a cluster id passes routes on by difference, and withdraws them when they go."""
    me = msgspec.structs.replace(w.node(1), asn=64512)
    clients = (BgpPeer(name="c", peer_selector="has(client)"),)
    nodes = [
        Node(name=f"c{n}", asn=64512, ipv4_address=w.A(f"10.0.0.{n}"), labels=(("client", ""),)) for n in (21, 22, 23)
    ]
    cluster = msgspec.structs.replace(me, cluster_id=w.A("1.0.0.1"))
    events: list[ev.Event] = [msgspec.structs.replace(w.CONFIGURED, node=me, peers=()), *w.kernel()]
    events += [ev.PoolChanged(w.POOL), ev.NodeChanged(cluster), *(ev.NodeChanged(one) for one in nodes)]
    events += [ev.BgpPeerChanged(one) for one in clients]
    pipeline = w.feed(Pipeline(), [*events, ev.StoreSynced(), ev.SpeakerUp()])
    assert not pipeline.tables.adj_rib_out.snapshot()
    source = w.A("10.0.0.21")
    up = msgspec.structs.replace(w.opened(1), asn=64512, router_id=source)
    w.feed(pipeline, [ev.PeerUp(source, up)])

    route = w.learned(w.TOR1, NETWORK)
    w.feed(pipeline, [msgspec.structs.replace(route, peer=source), ev.EndOfRib(source, Family.IPV4)])

    assert {w.A("10.0.0.22"), w.A("10.0.0.23")} == {key[0] for key, _ in pipeline.tables.adj_rib_out.items()}
    ((_, first), *_) = pipeline.tables.adj_rib_out.items()
    assert (first.originator_id, first.cluster_list, first.next_hop) == (source, (w.A("1.0.0.1"),), w.TOR1)

    w.feed(pipeline, [ev.RoutesLearned(peer=source, withdrawn=(NETWORK,))])
    assert 0 == len(pipeline.tables.adj_rib_out)


def test_borrowed_address_is_announced_until_it_is_given_back() -> None:
    """An address that this node holds in another's block goes out by itself, and goes with its release."""
    lent = Block(cidr=w.BLOCK2, node="node2", borrowed=((w.A("10.65.2.7"), "node1"), (w.A("10.65.2.9"), "node3")))
    key = (w.TOR1, w.P("10.65.2.7/32"))

    pipeline = w.feed(w.running(), [ev.BlockChanged(lent)])
    assert Announcement() == pipeline.tables.adj_rib_out.get(key)
    assert (w.TOR1, w.P("10.65.2.9/32")) not in pipeline.tables.adj_rib_out

    w.feed(pipeline, [ev.BlockChanged(Block(cidr=w.BLOCK2, node="node2"))])
    assert key not in pipeline.tables.adj_rib_out


# ------------------------------------------------------------------ limits


def limited(limit: int, restart_s: int = 0) -> ev.BgpPeerChanged:
    return ev.BgpPeerChanged(msgspec.structs.replace(TOR1, max_prefix=MaxPrefix(limit, 75, restart_s)))


def several(count: int, first: int = 0) -> ev.RoutesLearned:
    return w.learned(
        w.TOR1, *(Prefix.of(Address(w.A("100.0.0.0") + (n << 8)), 24) for n in range(first, first + count))
    )


def ended(pipeline: Pipeline) -> Notification | None:
    """What the session with TOR1 is ended by."""
    peer = pipeline.tables.neighbors.get(w.TOR1)
    assert peer is not None
    return peer.ended


def test_peer_beyond_its_limit_is_warned_of_then_ended() -> None:
    """At the share a notice, beyond the limit no session and no routes, for the restart time; then it may try again."""
    pipeline = w.feed(resourced(), [limited(8, restart_s=60)])  # two blocks are there already
    pipeline.take_notices()

    assert [] == changed(pipeline, [several(4)])
    assert ["peer.near_limit"] == [one.name for one in pipeline.take_notices()]
    assert [] == changed(pipeline, [several(2, first=4)])
    assert [w.TOR1] == changed(pipeline, [several(1, first=6)], now=5.0)

    assert "it sent 9 routes, and its limit is 8" == pipeline.state.facts.peers[w.TOR1].policy.hold_reason
    told = ended(pipeline)
    assert Notification(6, 1, sent=True, data=b"\0\1\1\0\0\0\x08") == told
    assert [w.TOR2] == [one.path.peer for one in pipeline.state.selection(w.BLOCK2).chosen]
    assert 65.0 == pipeline.deadline()
    w.feed(pipeline, [ev.PeerDown(w.TOR1, "neighbor removed", NOTIFIED)], now=6.0)
    assert [w.TOR1] == changed(pipeline, [ev.Tick()], now=65.0)
    assert ended(pipeline) is None


def test_limit_without_restart_time_waits_for_somebody() -> None:
    """A peer that broke its limit comes back by a reset, or with another limit."""
    for remedy in (ev.LimitLifted(w.TOR1), limited(9)):
        pipeline = w.feed(resourced(), [limited(2), several(1)])
        assert ended(pipeline) is not None
        w.feed(pipeline, [ev.PeerDown(w.TOR1, "neighbor removed", NOTIFIED), ev.Tick()], now=1e6)
        assert ended(pipeline) is not None

        assert [w.TOR1] == changed(pipeline, [remedy])
        assert ended(pipeline) is None


def test_what_a_filter_refuses_does_not_count() -> None:
    """The limit is of accepted routes: a filter is a remedy; withdrawn routes count no more."""
    everything = FilterRule(accept=False, cidr=w.P("100.0.0.0/8"))
    pipeline = w.feed(resourced(), [limited(3), with_filter(everything), several(50)])
    assert w.TOR1 in pipeline.tables.neighbors

    gone = ev.RoutesLearned(peer=w.TOR1, withdrawn=several(50).announced)
    w.feed(pipeline, [gone, with_filter(), several(1), gone, several(1, first=9)])
    assert ended(pipeline) is None
    w.feed(pipeline, [several(1, first=10)])
    assert ended(pipeline) is not None
