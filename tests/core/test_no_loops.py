"""A simulated network of several nodes, each with a pipeline of its own: packets are walked through their tables hop by hop.

A node's table is what its pipeline desires, with the routes of others beside it; the longest prefix decides, as in the kernel. A tunnel's
outer packet is looked up in the same table. Routers know where each node and each announced block is.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bgpd.core.explain import Explainer
from bgpd.core.overlay.choose import How
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.bfd import BfdStatus
from bgpd.model.forwarding import TUNNEL_DEVICES, Group, KernelRoute, Leg, RouteKey, RouteKind
from bgpd.model.node import Node
from bgpd.model.overlay import Path
from bgpd.model.peer import Bfd, Peer, PeerPolicy
from bgpd.model.pool import Fallback, Mode, Pool
from bgpd.model.prefix import Address, Prefix
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind
from tests.core import world as w

pytestmark = pytest.mark.core

NUMBERS = (1, 2, 3)
TORS = (1, 2)
HOPS = 8
"""A packet that is not there after so many is in a loop: the longest way is node, router, node."""
FAILED = BfdStatus(diagnostic="silence", failed=True)
Hops = tuple[tuple[str, Address | None], ...]


def tor(number: int, node: int) -> Address:
    return w.A(f"10.1.{number}{node}.0")


def block(number: int) -> Prefix:
    return w.P(f"10.65.{number}.0/26")


class Host:
    """A node: its pipeline, and the routes of others in its kernel."""

    def __init__(self, number: int, address: Address) -> None:
        self.number = number
        self.address = address
        self.others: dict[Prefix, Hops] = {}
        self.pipeline = Pipeline()

    def look_up(self, address: Address) -> tuple[str, tuple[Leg, ...]]:
        """Return what the longest route says: a kind, and legs to take one of."""
        for length in range(32, -1, -1):
            prefix = Prefix.of(address, length)
            ours = self.pipeline.tables.kernel.get(RouteKey(prefix))
            if isinstance(ours, KernelRoute):
                if ours.group is None:
                    return ours.kind.value, ()
                group = self.pipeline.tables.kernel.get(ours.group)
                assert isinstance(group, Group)
                return "unicast", group.legs
            if prefix in self.others:
                return "unicast", tuple(Leg(device, gateway) for device, gateway in self.others[prefix])
        return "none", ()


class Network:
    """All hosts, and which router knows whose block."""

    def __init__(self, hosts: dict[int, Host], known: set[tuple[int, int]]) -> None:
        self.hosts = hosts
        self.known = known
        """(router, node): the router has a route to the node's block."""

    def walk(self, at: int, target: Address, owner: int) -> None:
        """Take every way that a packet could; it arrives, or is dropped, and no tunnel is in a tunnel."""
        todo = [(at, HOPS)]
        while todo:
            number, left = todo.pop()
            assert left, f"a packet from {at} to {target} goes round"
            if number == owner:
                continue
            host = self.hosts[number]
            kind, legs = host.look_up(target)
            assert kind != "none", f"{target} would leave node {number} by no route, or by another's"
            for leg in legs:
                if leg.device in TUNNEL_DEVICES:
                    assert leg.gateway is not None
                    self.outer(host, leg.gateway)
                    end = self.at(leg.gateway)
                else:
                    end = owner if (self.router(leg), owner) in self.known else None
                if end is not None:
                    todo.append((end, left - 1))

    def outer(self, host: Host, address: Address) -> None:
        """An outer packet leaves by a link, never by a tunnel, and is not dropped by a route of ours."""
        kind, legs = host.look_up(address)
        assert kind == "unicast", f"outer packets to {address} are dropped at node {host.number}: {kind}"
        assert not {leg.device for leg in legs} & set(TUNNEL_DEVICES), f"a tunnel in a tunnel at node {host.number}"

    def at(self, address: Address) -> int | None:
        return next((host.number for host in self.hosts.values() if host.address == address), None)

    @staticmethod
    def router(leg: Leg) -> int:
        return int(leg.device.removeprefix("eth"))


def peers(number: int) -> tuple[Peer, ...]:
    return tuple(
        Peer(
            name=f"tor{router}",
            address=tor(router, number),
            asn=65100 + router,
            local_address=Address(tor(router, number) + 1),
            local_asn=65000 + number,
            policy=PeerPolicy(bfd=Bfd()),
        )
        for router in TORS
    )


def described(number: int, address: Address) -> Node:
    return Node(
        name=f"node{number}",
        asn=65000 + number,
        ipv4_address=address,
        ipv4_subnet=Prefix.of(address, 24 if number < 3 else 32),
        vtep_mac=f"66:00:00:00:00:0{number}",
    )


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Draw a network: addresses (also in the pool), pools, and of each node its options, underlay, sessions, failures and forced ways."""
    inside = draw(st.booleans())
    addresses = {number: w.A(f"10.65.{number}.5" if inside else f"10.0.0.{number}") for number in NUMBERS}
    known = draw(st.sets(st.sampled_from([(router, number) for router in TORS for number in NUMBERS])))
    modes = st.sampled_from(Mode)
    pool = Pool(name="default", cidr=w.P("10.65.0.0/16"))
    mode = draw(modes)
    pool = draw(st.sampled_from([replace(pool, vxlan_mode=mode), replace(pool, ipip_mode=mode)]))
    kinds = st.lists(st.sampled_from([Fallback.VXLAN, Fallback.IPIP]), unique=True).map(tuple)
    pool = replace(pool, fallback=draw(st.one_of(st.none(), kinds)))
    hosts = {}
    for number in NUMBERS:
        host = hosts[number] = Host(number, addresses[number])
        options = replace(w.OPTIONS, fallback=draw(kinds))
        events: list[ev.Event] = [
            ev.Configured(node=described(number, addresses[number]), peers=peers(number), options=options)
        ]
        events += [ev.LinkChanged(name=f"eth{t}", index=t, up=draw(st.booleans()), mtu_bytes=1500) for t in TORS]
        tunnels = draw(st.sets(st.sampled_from(TUNNEL_DEVICES)))
        events += [ev.LinkChanged(name=name, index=9, up=True, mtu_bytes=1450) for name in sorted(tunnels)]
        host.others |= {w.P(f"10.1.{t}{number}.0/31"): ((f"eth{t}", None),) for t in TORS}
        gateways: Hops = tuple((f"eth{t}", tor(t, number)) for t in TORS)
        underlay = draw(st.sampled_from(["10.0.0.0/24", "0.0.0.0/0", "10.64.0.0/10", "hosts", "tunnel"]))
        if underlay == "hosts":
            host.others |= {Prefix.of(addresses[other], 32): gateways for other in NUMBERS if other != number}
        elif underlay == "tunnel":
            host.others[w.P("10.0.0.0/24")] = ((draw(st.sampled_from(TUNNEL_DEVICES)), None),)
        else:
            host.others[w.P(underlay)] = gateways
        events += [ev.ForeignRouteChanged(prefix=p, metric=0, hops=hops) for p, hops in host.others.items()]
        events += [ev.KernelSynced(), ev.PoolChanged(pool)]
        for other in NUMBERS:
            events += [ev.NodeChanged(described(other, addresses[other])), *w.owned(block(other), f"node{other}")]
            events += [ev.NodeAlive(f"node{other}")] if draw(st.integers(0, 4)) else []
        events += [ev.StoreSynced(), ev.SpeakerUp()]
        for router in TORS:
            events += session(number, router, [other for other in NUMBERS if (router, other) in known])
            events += [ev.BfdChanged(tor(router, number), FAILED)] if not draw(st.integers(0, 3)) else []
        forced = draw(st.sampled_from([*Path, Path.AUTO, Path.AUTO]))
        events.append(ev.PathForced(f"node{draw(st.sampled_from(NUMBERS))}", forced))
        for event in events:
            host.pipeline.handle(event, 0.0)
        while host.pipeline.settle(1000):
            pass
        w.feed(host.pipeline, [ev.Tick()], now=1000.0)
    return Network(hosts, known)


def session(number: int, router: int, owners: list[int]) -> list[ev.Event]:
    """A session of a node with a router that announces the blocks of *owners*."""
    address = tor(router, number)
    learned: list[ev.Event] = []
    for other in owners:
        path = (AsSegment(SegmentKind.SEQUENCE, (65100 + router, 65000 + other)),)
        attributes = Attributes(next_hop=address, origin=Origin.IGP, as_path=path)
        learned.append(ev.RoutesLearned(peer=address, announced=(block(other),), attributes=attributes))
    return [ev.PeerUp(address, w.opened(router)), *learned, ev.EndOfRib(address, w.Family.IPV4)]


@settings(max_examples=150, deadline=None)
@given(networks())
def test_no_configuration_of_the_nodes_makes_a_loop(network: Network) -> None:
    """Whatever each node is configured to, has lost or is forced to: a packet to a block arrives or is dropped, not by another's route."""
    for number in NUMBERS:
        for owner in NUMBERS:
            if owner != number:
                network.walk(number, block(owner).address(9), owner)


NAMED = {
    How.NATIVE: "goes natively",
    How.DIRECT: "goes natively",
    How.TUNNEL: "goes through",
    How.FALLBACK: "has fallen back",
    How.UNREACHABLE: "is unreachable",
    How.WAITING: "waits",
}


@settings(max_examples=60, deadline=None)
@given(networks())
def test_explain_names_the_row_that_applies(network: Network) -> None:
    """Whatever is the case, explain names one way to a block, with its reason, and it is the way of the kernel's table."""
    for host in network.hosts.values():
        pipeline = host.pipeline
        explainer = Explainer(pipeline.state, pipeline.forwarder, pipeline.exporter)
        for owner in NUMBERS:
            if owner == host.number:
                continue
            reached = pipeline.forwarder.reached[block(owner)]
            told = explainer.address(block(owner).address(9))
            assert [NAMED[reached.how]] == [text for text in set(NAMED.values()) if text in told.answer]
            assert any(
                reached.reason in (step.outcome, *step.detail) or reached.reason in step.outcome for step in told.steps
            )
            kind, legs = host.look_up(block(owner).address(9))
            assert (kind == "unreachable", legs) == (reached.how is How.UNREACHABLE, reached.legs)


def test_an_address_in_a_pool_ends_no_tunnel() -> None:
    """A node whose own address is in a block's reach is not reached by a tunnel: its outer packets would go by that block's route."""
    inside = replace(w.node(2), ipv4_address=block(2).address(5))
    gone = [ev.RoutesLearned(peer=peer, withdrawn=(w.BLOCK2,)) for peer in (w.TOR1, w.TOR2)]
    underlay = ev.ForeignRouteChanged(prefix=w.P("0.0.0.0/0"), metric=0, hops=(("eth1", w.TOR1),))
    pipeline = w.feed(w.running(), [ev.NodeChanged(inside), underlay, *gone])

    route = pipeline.tables.kernel.get(RouteKey(w.BLOCK2))
    assert KernelRoute(RouteKind.UNREACHABLE) == route
    assert "is in the pool default" in pipeline.forwarder.reached[w.BLOCK2].reason

    closer = ev.ForeignRouteChanged(prefix=Prefix.of(inside.ipv4_address, 32), metric=0, hops=(("eth1", w.TOR1),))
    w.feed(pipeline, [closer])
    assert "is in the pool" not in pipeline.forwarder.reached[w.BLOCK2].reason
