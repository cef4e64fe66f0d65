"""Who speaks with whom: mesh, BGPPeers of all forms, reverse peerings, reflectors, precedence (calico.md 2.2, 2.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.core.peering.resolve import Sessions
from bgpd.core.peering.world import World
from bgpd.model.bgp import BgpConfiguration, BgpPeer
from bgpd.model.node import Node
from bgpd.model.peer import NextHopMode, Peer, PeerKind, Role, SecretRef
from bgpd.model.prefix import Address, Family, Prefix

pytestmark = pytest.mark.core

A, P = Address.parse, Prefix.parse
MESH = BgpConfiguration(name="default")
NO_MESH = BgpConfiguration(name="default", mesh=False)


def node(name: str, v4: str | None = None, v6: str | None = None, **more: Any) -> Node:
    labels = tuple(sorted(more.pop("labels", {}).items()))
    return Node(
        name=name,
        ipv4_address=A(v4) if v4 else None,
        ipv6_address=A(v6) if v6 else None,
        labels=labels,
        **more,
    )


ME = node("a", "192.0.2.1", labels={"rack": "x"})
B, C = node("b", "192.0.2.2"), node("c", "192.0.2.10", labels={"rr": ""})


def world(
    me: Node = ME, nodes: Iterable[Node] = (B, C), peers: Iterable[BgpPeer] = (), *more: BgpConfiguration
) -> World:
    configurations = more or (NO_MESH,)
    return World(
        me=me,
        nodes={one.name: one for one in (me, *nodes)},
        peers={one.name: one for one in peers},
        configurations={one.name: one for one in configurations},
    )


def worked_out(world: World) -> dict[str, Peer]:
    """Return the winner at each address."""
    sessions = Sessions(world)
    for name in world.nodes:
        if name != world.me.name:
            sessions.node_changed(name)
    sessions.everything_changed()
    sessions.settle(1_000_000)
    found = ((address, sessions.winner(address)) for address in sessions.touched())
    return {str(address): winner[0] for address, winner in found if winner is not None}


def tor(**fields: Any) -> BgpPeer:
    return BgpPeer(**({"name": "tor", "address": A("198.51.100.1"), "asn": 65001} | fields))


# ------------------------------------------------------------------ mesh


def test_mesh_joins_every_node_with_every_other() -> None:
    """A mesh session has the node's address, AS number and port; the side whose address is the smaller text waits (2.5)."""
    other = BgpConfiguration(name="node.c", listen_port=1790)

    found = worked_out(world(ME, (B, C), (), MESH, other))

    assert found.keys() == {"192.0.2.2", "192.0.2.10"}
    assert [found["192.0.2.10"].passive, found["192.0.2.2"].passive] == [True, True]
    assert found["192.0.2.10"].port == 1790
    assert {one.asn for one in found.values()} == {64512}
    assert {one.policy.kind for one in found.values()} == {PeerKind.MESH}
    back = worked_out(world(B, (ME, C), (), MESH, other))
    assert [back["192.0.2.1"].passive, back["192.0.2.10"].passive] == [
        False,
        False,
    ]  # "192.0.2.10" < "192.0.2.2" as text


def test_mesh_needs_a_bgpconfiguration_or_the_nodes_word() -> None:
    """Without a BGPConfiguration nobody asked for a mesh; the node's file decides where it says anything."""
    without = msgspec.structs.replace(MESH, name="node.a")

    assert worked_out(world(ME, (B,), (), without)) == {}
    for word, configuration in ((True, NO_MESH), (False, MESH)):
        asked = world(ME, (B,), (), configuration)
        asked.mesh = word
        assert bool(worked_out(asked)) is word


def test_mesh_has_no_reflectors_and_no_node_without_address() -> None:
    """A node with a cluster id is no member, at either end; nor is one without an address of the family."""
    reflector = node("r", "192.0.2.9", cluster_id=A("1.0.0.1"))
    nowhere = node("n", v6="2001:db8::9")

    assert worked_out(world(ME, (reflector, nowhere), (), MESH)) == {}
    assert worked_out(world(reflector, (B,), (), MESH)) == {}


def test_mesh_has_a_session_a_family() -> None:
    """Nodes with addresses of both families have two sessions, each with its family; settings of the mesh go with both."""
    me, other = node("a", "192.0.2.1", "2001:db8::1"), node("b", "192.0.2.2", "2001:db8::2")
    settings = BgpConfiguration(name="default", mesh_restart_s=30, mesh_password=SecretRef("mesh", "key"))

    found = worked_out(world(me, (other,), (), settings))

    assert {(one.name, one.families) for one in found.values()} == {
        ("mesh-b", (Family.IPV4,)),
        ("mesh-b-ipv6", (Family.IPV6,)),
    }
    assert {(one.graceful_restart_s, one.password) for one in found.values()} == {(30, SecretRef("mesh", "key"))}


# ------------------------------------------------------------------ BGPPeers


def test_each_field_of_a_bgppeer_is_in_its_session() -> None:
    """Ports, AS numbers, timers, TTL, password and what routes are judged by come from the BGPPeer and the configuration."""
    described = tor(
        port=1179,
        local_asn=65010,
        keepalive_s=10.0,
        restart_s=60,
        ttl_security=1,
        password=SecretRef("tor", "key"),
        filters=("f",),
        next_hop_mode=NextHopMode.SELF,
        allowed_own_asns=2,
        role=Role.CUSTOMER,
        add_path=True,
    )
    own = BgpConfiguration(name="node.a", listen_port=2179)

    peer = worked_out(world(ME, (), (described,), NO_MESH, own))["198.51.100.1"]

    assert (peer.port, peer.listen_port, peer.asn, peer.local_asn) == (1179, 2179, 65001, 65010)
    assert (peer.hold_time_s, peer.graceful_restart_s, peer.ttl_security, peer.multihop_ttl) == (30, 60, 1, 0)
    assert (peer.password, peer.local_address, peer.passive) == (SecretRef("tor", "key"), A("192.0.2.1"), False)
    assert (peer.policy.filters, peer.policy.next_hop_mode, peer.policy.allowed_own_asns) == (
        ("f",),
        NextHopMode.SELF,
        2,
    )
    assert (peer.policy.kind, peer.role, peer.add_path_receive) == (PeerKind.GLOBAL, Role.CUSTOMER, True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"node": "a"}, True),
        ({"node": "b"}, False),
        ({"node_selector": "rack == 'x'"}, True),
        ({"node_selector": "rack == 'y'"}, False),
        ({"node_selector": "bad bad"}, False),
    ],
)
def test_bgppeer_is_of_the_nodes_that_it_chooses(fields: dict[str, Any], expected: bool) -> None:
    """A global BGPPeer is everybody's, the others are those of the node named or chosen by labels."""
    assert bool(worked_out(world(ME, (B,), (tor(**fields),)))) is expected


def test_peer_selector_names_nodes() -> None:
    """Far ends by label are nodes, with their AS numbers and ports; this node itself is none; the smaller text waits."""
    chosen = BgpPeer(name="p", peer_selector="has(rr)")
    far = msgspec.structs.replace(C, asn=65003)

    found = worked_out(world(ME, (B, far), (chosen,)))

    assert {name: (one.name, one.asn, one.passive) for name, one in found.items()} == {
        "192.0.2.10": ("p-c", 65003, True)
    }


def test_reverse_peering_comes_by_itself() -> None:
    """A node that is chosen as far end has the session too, unless the BGPPeer says Manual; roles are mirrored."""
    reflector = node("r", "192.0.2.9", labels={"rr": ""}, cluster_id=A("1.0.0.1"))
    peer = BgpPeer(name="p", node_selector="rack == 'x'", peer_selector="has(rr)", role=Role.CUSTOMER, local_asn=65010)

    found = worked_out(world(reflector, (ME, B), (peer,)))
    manual = worked_out(world(reflector, (ME, B), (msgspec.structs.replace(peer, reverse=False),)))

    assert found.keys() == {"192.0.2.1"}
    assert (found["192.0.2.1"].policy.kind, found["192.0.2.1"].role) == (PeerKind.REVERSE, Role.PROVIDER)
    assert found["192.0.2.1"].asn == 65010  # the far end uses localASNumber
    assert manual == {}


def test_reverse_peering_by_address_needs_as_number_and_port() -> None:
    """A BGPPeer whose peerIP, AS number and port are this node's is answered."""
    right = BgpPeer(name="p", node="b", address=A("192.0.2.1"), asn=64512)

    assert worked_out(world(ME, (B,), (right,)))["192.0.2.2"].policy.kind is PeerKind.REVERSE
    for wrong in ({"asn": 64513}, {"port": 1790}, {"address": A("192.0.2.77")}):
        assert worked_out(world(ME, (B,), (msgspec.structs.replace(right, **wrong),))) == {}


def test_explicit_stands_before_automatic() -> None:
    """One session an address: the node's file, global, per node, reverse, mesh; names decide between equals."""
    far = A("192.0.2.2")
    mine = Peer(name="file", address=far, asn=1, local_address=A("192.0.2.1"), local_asn=2)
    everywhere, own = BgpPeer(name="z", address=far, asn=64512), BgpPeer(name="y", node="a", address=far, asn=64512)
    reverse = BgpPeer(name="x", node="b", address=A("192.0.2.1"), asn=64512)
    asked = world(ME, (B,), (everywhere, own, reverse), MESH)
    asked.configured = {far: mine}
    order = []

    for forget in (asked.configured.clear, *(lambda name=name: asked.peers.pop(name) for name in "zyx"), lambda: None):
        order.append(worked_out(asked)["192.0.2.2"].policy.kind)
        forget()

    assert order == [PeerKind.CONFIGURED, PeerKind.GLOBAL, PeerKind.NODE, PeerKind.REVERSE, PeerKind.MESH]


def test_reflector_has_clients() -> None:
    """iBGP peers of a node with a cluster id are its clients, unless they have the same cluster id (2.5, RR)."""
    reflector = node("r", "192.0.2.9", cluster_id=A("1.0.0.1"))
    twin = node("t", "192.0.2.8", cluster_id=A("1.0.0.1"))
    other = node("o", "192.0.2.7", cluster_id=A("1.0.0.2"))
    peers = (BgpPeer(name="all", peer_selector="all()"), tor())

    found = worked_out(world(reflector, (B, twin, other), peers))

    clients = {name for name, one in found.items() if one.policy.reflector_cluster == A("1.0.0.1")}
    assert clients == {"192.0.2.2", "192.0.2.7"}
    assert found.keys() - clients == {"192.0.2.8", "198.51.100.1"}


# ------------------------------------------------------------------ addresses


def test_source_address_is_the_nodes_or_that_of_the_link() -> None:
    """UseNodeIP binds to the node's address, None to ours on the link towards the peer; without one the peer is held."""
    asked = world(ME, (), (tor(use_node_ip=False),))
    asked.links = {"eth1": {A("198.51.100.9"): P("198.51.100.0/24")}, "eth0": {A("192.0.2.1"): P("192.0.2.0/24")}}
    assert worked_out(asked)["198.51.100.1"].local_address == A("198.51.100.9")

    held = worked_out(world(ME, (), (tor(address=A("2001:db8::1")),)))["2001:db8::1"]
    assert held.policy.hold_reason == "this node has no ipv6 address"


def test_link_local_and_unnumbered_peers_are_on_their_link() -> None:
    """A link-local peer speaks from our link-local address; an unnumbered one is there once it was found."""
    link_local = tor(name="l", address=A("fe80::2"), interface="eth0")
    unnumbered = tor(name="u", address=None, interface="eth1", extended_next_hop=True)
    asked = world(ME, (), (link_local, unnumbered))
    asked.links = {name: {A(address): P("fe80::/64")} for name, address in (("eth0", "fe80::a"), ("eth1", "fe80::b"))}

    assert worked_out(asked).keys() == {"fe80::2%eth0"}
    asked.found["eth1"] = A("fe80::3")
    found = worked_out(asked)

    assert (found["fe80::2%eth0"].local_address, found["fe80::2%eth0"].interface) == (A("fe80::a"), "eth0")
    assert found["fe80::3%eth1"].families == (Family.IPV4, Family.IPV6)
    assert found["fe80::3%eth1"].extended_next_hop


def test_peer_at_our_own_address_is_none() -> None:
    """A global BGPPeer that names a node is not that node's own."""
    assert worked_out(world(ME, (), (tor(address=A("192.0.2.1")),))) == {}


# ------------------------------------------------------------------ increments


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_changes_end_where_a_fresh_look_does(data: st.DataObject) -> None:
    """Whatever came, changed and went, and in which order: the winners are those of the facts that remain."""
    nodes = [B, C, node("d", "192.0.2.2"), node("r", "192.0.2.9", labels={"rr": ""}, cluster_id=A("1.0.0.1"))]
    peers = [
        tor(),
        tor(name="two", asn=65002, node="a"),
        BgpPeer(name="rr", node_selector="!has(rr)", peer_selector="has(rr)"),
        BgpPeer(name="back", node="b", address=A("192.0.2.1"), asn=64512),
        BgpPeer(name="to-b", address=A("192.0.2.2"), asn=64512, use_node_ip=False),
    ]
    now = world(ME, (), (), MESH)
    sessions = Sessions(now)
    for _ in range(data.draw(st.integers(1, 30))):
        if data.draw(st.booleans()):
            one = data.draw(st.sampled_from(nodes))
            changed = data.draw(st.sampled_from([None, one, msgspec.structs.replace(one, asn=65009, labels=())]))
            if changed is None:
                now.nodes.pop(one.name, None)
            else:
                now.nodes[one.name] = changed
            sessions.node_changed(one.name)
        else:
            peer = data.draw(st.sampled_from(peers))
            if data.draw(st.booleans()):
                now.peers[peer.name] = msgspec.structs.replace(peer, ttl_security=data.draw(st.integers(0, 2)))
            else:
                now.peers.pop(peer.name, None)
            sessions.peer_changed(peer.name)
        sessions.settle(data.draw(st.integers(0, 20)))
    sessions.settle(1_000_000)
    fresh = worked_out(now)

    for address in {*map(A, fresh), *(n.ipv4_address for n in nodes if n.ipv4_address), A("198.51.100.1")}:
        winner = sessions.winner(address)
        assert (winner[0] if winner else None) == fresh.get(str(address))


def test_one_changed_peer_touches_one_address() -> None:
    """Of 500 peers, changing one works out one source and touches one address; a node's change does not look at them."""
    peers = {f"p{n}": tor(name=f"p{n}", address=Address(A("198.51.100.0") + n)) for n in range(500)}
    now = world(ME, (B, C), peers.values())
    sessions = Sessions(now)
    sessions.everything_changed()
    sessions.settle(1_000_000)
    assert len(sessions.touched()) == 500

    now.peers["p7"] = tor(name="p7", address=A("198.51.100.7"), asn=65077)
    sessions.peer_changed("p7")
    assert sessions.settle(10) == 9
    assert sessions.touched() == [A("198.51.100.7")]

    now.nodes["b"] = msgspec.structs.replace(B, labels=(("x", "y"),))
    sessions.node_changed("b")
    assert sessions.settle(10) == 9
    assert sessions.touched() == []


def test_one_link_local_address_on_two_links_is_two_peers() -> None:
    """Two BGPPeers of the same fe80 address on different links are two sessions, each with its link as part of its identity."""
    peers = [BgpPeer(name=link, address=A("fe80::9"), interface=link, asn=65001) for link in ("eth1", "eth2")]
    here = world(peers=peers)
    here.links = {link: {A("fe80::1"): P("fe80::/64")} for link in ("eth1", "eth2")}
    found = worked_out(here)

    assert {"fe80::9%eth1": "eth1", "fe80::9%eth2": "eth2"} == {text: peer.interface for text, peer in found.items()}
    assert {A("fe80::1")} == {peer.local_address for peer in found.values()}
