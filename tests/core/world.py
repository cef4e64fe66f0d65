"""A small cluster as events: what the tests of the pipeline feed it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.bgp import AddCommunity, BgpConfiguration, BgpFilter, BgpPeer, FilterRule, Workload
from bgpd.model.drain import Stage
from bgpd.model.felix import FelixConfiguration
from bgpd.model.health import StaticPrefix
from bgpd.model.node import Node
from bgpd.model.overlay import Path
from bgpd.model.peer import Bfd, GracefulRestart, Peer, PeerPolicy, SessionOpen
from bgpd.model.pool import Affinity, AffinityState, Block, Pool
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind

A, P = Address.parse, Prefix.parse
TOR1, TOR2 = A("10.1.11.0"), A("10.1.21.0")
UPLINKS = {TOR1: "eth1", TOR2: "eth2"}
OWN_BLOCK, BLOCK2, BLOCK3 = P("10.65.1.0/26"), P("10.65.2.0/26"), P("10.65.3.0/26")
POOL = Pool(name="default", cidr=P("10.65.0.0/16"))


def node(number: int) -> Node:
    address = A(f"10.0.0.{number}")
    return Node(
        name=f"node{number}",
        asn=65000 + number,
        ipv4_address=address,
        ipv4_subnet=Prefix.of(address, 32),
        vtep_mac=f"66:00:00:00:00:0{number}",
    )


def peer(number: int) -> Peer:
    return Peer(
        name=f"tor{number}",
        address=(TOR1, TOR2)[number - 1],
        asn=65100 + number,
        local_address=A(f"10.1.{number}1.1"),
        local_asn=65001,
    )


OPTIONS = ev.Options(restore_after_s=10.0, peers_learned_ceiling_s=60.0)
CONFIGURED = ev.Configured(node=node(1), peers=(peer(1), peer(2)), options=OPTIONS)


WATCHED = replace(CONFIGURED, peers=tuple(replace(one, policy=PeerPolicy(bfd=Bfd())) for one in CONFIGURED.peers))
"""Both peers with BFD."""
OTHERWISE = (
    replace(
        WATCHED,
        options=replace(OPTIONS, ecmp_limit=1, always_compare_med=True, enforce_first_as=True),
        announce=(StaticPrefix(prefix=P("203.0.113.0/24"), blackhole=True),),
        mesh=True,
    ),
    replace(WATCHED, peers=WATCHED.peers[:1], options=replace(OPTIONS, fallback=(), weighted_ecmp=True)),
    replace(
        WATCHED, peers=(replace(peer(2), address=TOR1, name="other"),), node=replace(node(1), labels=(("a", "b"),))
    ),
)
"""What the node's file said before it was loaded again."""


def opened(number: int, restart_s: int = 0) -> SessionOpen:
    restart = GracefulRestart(restart_s, preserved=(Family.IPV4,), families=(Family.IPV4,)) if restart_s else None
    return SessionOpen(
        asn=65100 + number,
        router_id=A(f"10.255.0.{number}"),
        hold_time_s=9,
        families=(Family.IPV4,),
        graceful_restart=restart,
    )


def learned(tor: Address, *prefixes: Prefix, last: int = 65002) -> ev.RoutesLearned:
    attributes = Attributes(
        next_hop=tor,
        origin=Origin.IGP,
        as_path=(AsSegment(SegmentKind.SEQUENCE, (65101 if tor == TOR1 else 65102, last)),),
    )
    return ev.RoutesLearned(peer=tor, announced=prefixes, attributes=attributes)


def owned(block: Prefix, name: str) -> list[ev.Event]:
    return [
        ev.BlockChanged(Block(cidr=block, node=name)),
        ev.AffinityChanged(Affinity(cidr=block, node=name, state=AffinityState.CONFIRMED)),
    ]


def kernel() -> list[ev.Event]:
    """Two uplinks, their connected routes, and an underlay that reaches the nodes through both."""
    links = [ev.LinkChanged(name=f"eth{n}", index=n, up=True, mtu_bytes=1500) for n in (1, 2)]
    connected = [
        ev.ForeignRouteChanged(prefix=P("10.1.11.0/31"), metric=0, hops=(("eth1", None),)),
        ev.ForeignRouteChanged(prefix=P("10.1.21.0/31"), metric=0, hops=(("eth2", None),)),
        ev.ForeignRouteChanged(prefix=P("10.0.0.0/24"), metric=0, hops=(("eth1", TOR1), ("eth2", TOR2))),
    ]
    return [*links, *connected, ev.KernelSynced()]


def store() -> list[ev.Event]:
    """Three nodes, each with a block, all alive."""
    events: list[ev.Event] = [ev.PoolChanged(POOL)]
    for number, block in ((1, OWN_BLOCK), (2, BLOCK2), (3, BLOCK3)):
        events += [ev.NodeChanged(node(number)), ev.NodeAlive(f"node{number}"), *owned(block, f"node{number}")]
    return events


def session(number: int, *events: ev.Event, restart_s: int = 0) -> list[ev.Event]:
    """Bring a session up: OPEN, the routes, End-of-RIB."""
    tor = (TOR1, TOR2)[number - 1]
    return [ev.PeerUp(tor, opened(number, restart_s)), *events, ev.EndOfRib(tor, Family.IPV4)]


def bgp() -> list[ev.Event]:
    return [
        ev.SpeakerUp(),
        *session(1, learned(TOR1, BLOCK2), learned(TOR1, BLOCK3, last=65003)),
        *session(2, learned(TOR2, BLOCK2), learned(TOR2, BLOCK3, last=65003)),
    ]


def whole() -> list[ev.Event]:
    return [CONFIGURED, *kernel(), *store(), ev.StoreSynced(), *bgp()]


def resources() -> list[list[ev.Event]]:
    """Lanes of BGP resources, each in its own order: a mesh, filters, BGPPeers that come, change and go, draining, health."""
    reject = BgpFilter(name="f", import_v4=(FilterRule(accept=False, cidr=BLOCK3),))
    transit = FilterRule(accept=True, remote_peers=True, operations=(AddCommunity(9),))
    far = BgpPeer(name="far", address=A("198.51.100.7"), asn=65777, filters=("f",), reachable_by=TOR2)
    mine = replace(node(1), labels=(("rack", "x"),), cluster_id=A("1.0.0.1"))
    meshed = BgpConfiguration(name="default", load_balancer=(P("203.0.113.0/24"),))
    own_port = BgpConfiguration(name="node.node1", listen_port=1790)
    prefix = StaticPrefix(prefix=P("203.0.114.1/32"), check="dns")
    return [
        [ev.BgpConfigurationChanged(meshed), ev.BgpConfigurationChanged(replace(meshed, asn=65010))],
        [
            ev.BgpConfigurationChanged(replace(own_port, ignored_interfaces=("eth1",), log_level="debug")),
            ev.BgpConfigurationChanged(
                replace(own_port, ignored_interfaces=("docker*",), aggregate=False, node_ip_only=True)
            ),
        ],
        [ev.BgpFilterChanged(BgpFilter(name="f")), ev.BgpFilterRemoved("f"), ev.BgpFilterChanged(reject)],
        [ev.BgpFilterChanged(BgpFilter(name="out", export_v4=(transit,)))],
        [ev.BgpPeerChanged(far), ev.BgpPeerChanged(replace(far, asn=65778))],
        [ev.BgpPeerChanged(BgpPeer(name="gone", address=A("198.51.100.8"), asn=1)), ev.BgpPeerRemoved("gone")],
        [ev.BgpPeerChanged(BgpPeer(name="rack", node_selector="rack == 'x'", peer_selector="all()"))],
        [ev.BgpPeerChanged(BgpPeer(name="out", address=A("198.51.100.9"), asn=65779, filters=("out",)))],
        [ev.NodeChanged(node(1)), ev.NodeChanged(mine)],
        [replace(CONFIGURED, peers=WATCHED.peers, announce=(prefix,))],
        [ev.BgpPeerChanged(BgpPeer(name="link", interface="eth2", asn=65780, extended_next_hop=True))],
        [ev.RouterFound("eth2", A("fe80::8")), ev.RouterFound("eth2", A("fe80::9"))],
        [ev.AddressAdded("eth2", A("fe80::1"), P("fe80::/64"))],
        [
            ev.AffinityChanged(Affinity(cidr=P("10.65.4.0/26"), node="node3", state=AffinityState.CONFIRMED)),
            ev.BlockChanged(Block(cidr=P("10.65.4.0/26"), node="node3", borrowed=((A("10.65.4.9"), "node2"),))),
            ev.BlockChanged(Block(cidr=P("10.65.4.0/26"), node="node3", borrowed=((A("10.65.4.7"), "node1"),))),
        ],
        [ev.BgpPeerChanged(BgpPeer(name="vm", workload_selector="app == 'vrouter'", asn=65781))],
        [
            ev.WorkloadChanged(Workload(name="ns/a", addresses=(A("10.65.1.7"),), labels=(("app", "vrouter"),))),
            ev.WorkloadChanged(Workload(name="ns/a", addresses=(A("10.65.1.8"),), labels=(("app", "vrouter"),))),
        ],
        [ev.WorkloadChanged(Workload(name="ns/b", labels=(("app", "vrouter"),))), ev.WorkloadRemoved("ns/b")],
        [ev.WireguardKeyMade("b25l"), ev.WireguardKeyMade("dHdv")],
        [
            ev.NodeChanged(node(2)),
            *(ev.NodeChanged(replace(node(2), wireguard_key=key)) for key in ("dHdv", "c2FtZQ==")),
        ],
        [ev.NodeChanged(node(3)), ev.NodeChanged(replace(node(3), wireguard_key="c2FtZQ=="))],
        [
            ev.FelixConfigurationChanged(FelixConfiguration(name="default", wireguard_enabled=True)),
            ev.FelixConfigurationChanged(
                FelixConfiguration(name="default", wireguard_enabled=True, wireguard_port=51000)
            ),
        ],
        [ev.FelixConfigurationChanged(FelixConfiguration(name="node.node3", wireguard_port=52000))],
        [ev.HealthChanged("dns", False), ev.HealthChanged("dns", True)],
        [ev.NeighbourSilent("eth1", TOR1, True), ev.NeighbourSilent("eth1", TOR1, False)],
        [ev.NeighbourSilent("eth2", TOR2, True)],
        [ev.PathForced("node2", Path.IPIP), ev.PathForced("node2", Path.VXLAN)],
        [ev.PathForced("node3", Path.VXLAN), ev.PathForced("node3", Path.AUTO)],
        [ev.DrainChanged(Stage.DRAINED, keep_blocks=True), ev.DrainChanged(Stage.DRAINING), ev.DrainChanged(Stage.OFF)],
    ]


def feed(pipeline: Pipeline, events: Iterable[ev.Event], now: float = 0.0) -> Pipeline:
    """Handle *events* at *now*, settling after each."""
    for event in events:
        pipeline.handle(event, now)
        while pipeline.settle(100):
            pass
    return pipeline


def running() -> Pipeline:
    """A pipeline that has seen the whole cluster."""
    return feed(Pipeline(), whole())


def tables(pipeline: Pipeline) -> dict[str, dict[object, object]]:
    every = pipeline.tables
    return {
        table.name: dict(table.items())
        for table in (every.kernel, every.adj_rib_out, every.neighbors, every.claims, every.releases, every.bfd)
    }
