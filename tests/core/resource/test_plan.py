"""Plans: fields that differ, and what nodes would do about it."""

from __future__ import annotations

from typing import Any

import pytest

from bgpd.core.resource import plan
from bgpd.core.resource.plan import World, difference, effects
from bgpd.model.pool import Block
from bgpd.model.prefix import Prefix
from tests.core.resource.examples import Resource, resource

pytestmark = pytest.mark.core

NO_MESH = resource("BGPConfiguration", {"nodeToNodeMeshEnabled": False, "asNumber": 64512})


def world(*values: Resource, blocks: tuple[Block, ...] = ()) -> World:
    return World({(value["kind"], value["metadata"]["name"]): value for value in values}, blocks)


def node(name: str, **labels: str) -> Resource:
    number = int("0" + "".join(filter(str.isdigit, name)))
    address = f"10.1.{number >> 8}.{number & 255}/16" if number else f"192.0.2.{ord(name[-1]) - 96}/24"
    return resource("Node", {"bgp": {"ipv4Address": address}}, name, labels=labels)


def peer(name: str, **spec: Any) -> Resource:
    return resource("BGPPeer", spec, name)


def pool(**spec: Any) -> Resource:
    return resource("IPPool", {"cidr": "10.0.0.0/16", **spec}, "main")


def block(cidr: str, owner: str | None, in_use: int = 0) -> Block:
    return Block(cidr=Prefix.parse(cidr), node=owner, in_use=in_use)


BLOCKS = (
    block("10.0.0.64/26", "a", 3),
    block("10.0.0.0/26", "b"),
    block("10.9.0.0/26", "c", 1),
    block("10.0.1.0/26", None),
)


def test_difference_is_told_field_by_field() -> None:
    """Each field that differs has a line, at any depth; what the store writes by itself has none."""
    before = resource(
        "IPPool", {"a": 1, "b": {"c": [1, 2], "d": 2}, "g": [{"h": 1}]}, "p", uid="x", resourceVersion="1"
    )
    after = resource("IPPool", {"a": 2, "b": {"c": [1, 3]}, "e": None, "g": [{"h": 1}, {"h": {}}]}, "p", uid="y")

    assert difference(before, after) == [
        "~ spec.a: 1 -> 2",
        "~ spec.b.c: [1,2] -> [1,3]",
        "- spec.b.d: 2",
        "+ spec.e: null",
        "+ spec.g[1].h: {}",
    ]
    assert difference(before, before) == []
    assert difference(None, resource("Node", {"a": 1}, "n")) == ["+ spec.a: 1"]


def test_peer_adds_a_session_on_each_node_it_selects() -> None:
    """A peer by selector is a session of each node with such labels; its removal removes them."""
    nodes = [NO_MESH, node("a", rack="x"), node("b", rack="y"), node("c", rack="x")]
    tor = peer("tor", nodeSelector="rack == 'x'", peerIP="198.51.100.1", asNumber=65001)

    assert effects(world(*nodes), world(*nodes, tor)) == [
        "session of a with 198.51.100.1: would be added",
        "session of c with 198.51.100.1: would be added",
    ]
    assert effects(world(*nodes, tor), world(*nodes)) == [
        "session of a with 198.51.100.1: would be removed",
        "session of c with 198.51.100.1: would be removed",
    ]


def test_label_moves_a_session() -> None:
    """A node's label decides about its sessions as much as the peer does."""
    tor = peer("tor", nodeSelector="rack == 'x'", peerIP="198.51.100.1", asNumber=65001)

    found = effects(world(NO_MESH, tor, node("a", rack="x")), world(NO_MESH, tor, node("a", rack="y")))

    assert found == ["session of a with 198.51.100.1: would be removed"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"asNumber": 65002}, "AS number of the peer"),
        ({"localASNumber": 7}, "AS number of the node"),
        ({"password": {"secretKeyRef": {"name": "a", "key": "b"}}}, "password"),
        ({"ttlSecurity": 1}, "ttlSecurity"),
        ({"keepaliveTime": "1s"}, "hold time"),
        ({"maxRestartTime": "30s"}, "restart time"),
        ({"peerIP": "198.51.100.1:1790"}, "port of the peer"),
    ],
)
def test_session_is_reset_by_what_it_is_made_with(change: dict[str, Any], reason: str) -> None:
    """A change of what a session is made with resets it, and it is said by what."""
    spec = {"peerIP": "198.51.100.1", "asNumber": 65001}

    found = effects(
        world(NO_MESH, node("a"), peer("p", **spec)), world(NO_MESH, node("a"), peer("p", **(spec | change)))
    )

    assert found == [f"session of a with 198.51.100.1: would be reset ({reason})"]


def test_same_as_number_in_another_form_resets_nothing() -> None:
    """0.65001 and 65001 are one AS number."""
    spec = {"peerIP": "198.51.100.1", "asNumber": 65001}

    found = effects(
        world(NO_MESH, node("a"), peer("p", **spec)),
        world(NO_MESH, node("a"), peer("p", **(spec | {"asNumber": "0.65001", "ttlSecurity": 0}))),
    )

    assert found == []


def test_changed_filter_leaves_the_session() -> None:
    """A filter's change judges the routes of the sessions that use it anew, and resets none."""
    tor = peer("p", peerIP="198.51.100.1", asNumber=65001, filters=["f"])
    rules = [resource("BGPFilter", {"importV4": [{"action": action}]}, "f") for action in ("Accept", "Reject")]

    found = effects(world(NO_MESH, node("a"), tor, rules[0]), world(NO_MESH, node("a"), tor, rules[1]))

    assert found == ["session of a with 198.51.100.1: would stay, its routes judged anew (filters)"]


def test_cluster_as_number_resets_sessions_that_rest_on_it() -> None:
    """Nodes without an AS number of their own have the cluster's."""
    tor = peer("p", peerIP="198.51.100.1", asNumber=65001)
    other = resource("BGPConfiguration", {"nodeToNodeMeshEnabled": False, "asNumber": 64513})

    found = effects(world(NO_MESH, node("a"), tor), world(other, node("a"), tor))

    assert found == ["session of a with 198.51.100.1: would be reset (AS number of the node)"]


def test_mesh_is_told_pair_by_pair() -> None:
    """A configuration that does not forbid it brings the mesh, none does not; a route reflector is no member."""
    reflector = resource("Node", {"bgp": {"ipv4Address": "192.0.2.9/24", "routeReflectorClusterID": "1.1.1.1"}}, "r")
    nodes = [node("a"), node("b"), reflector]

    assert effects(world(*nodes, NO_MESH), world(*nodes)) == []
    assert effects(world(*nodes, NO_MESH), world(*nodes, resource("BGPConfiguration", {}))) == [
        "session of a with node b: would be added",
        "session of b with node a: would be added",
    ]


def test_global_peer_stands_before_one_of_a_node() -> None:
    """Of two peers with the same far end the global one counts, as in Calico: the plan says what that changes."""
    everywhere = peer("z", peerIP="198.51.100.1", asNumber=65001)
    own = peer("a", node="a", peerIP="198.51.100.1", asNumber=65002)

    assert effects(world(NO_MESH, node("a"), everywhere), world(NO_MESH, node("a"), own, everywhere)) == []
    assert effects(world(NO_MESH, node("a"), own), world(NO_MESH, node("a"), own, everywhere)) == [
        "session of a with 198.51.100.1: would be reset (AS number of the peer)"
    ]


def test_missing_filter_holds_the_session() -> None:
    """A peer whose filter is not there would have no session, and the plan says which filter."""
    plain, named = (peer("p", peerIP="198.51.100.1", asNumber=65001, **more) for more in ({}, {"filters": ["f"]}))
    there = resource("BGPFilter", {}, "f")

    assert effects(world(NO_MESH, node("a"), plain), world(NO_MESH, node("a"), named)) == [
        "session of a with 198.51.100.1: would be held (BGPFilter f does not exist)"
    ]
    assert effects(world(NO_MESH, node("a"), named), world(NO_MESH, node("a"), named, there)) == [
        "session of a with 198.51.100.1: would be made"
    ]


def test_what_needs_no_reset_is_planned_so() -> None:
    """Next hop mode and limits leave the session; a role is said in the OPEN, and a description touches nothing."""
    spec = {"peerIP": "198.51.100.1", "asNumber": 65001}
    before = world(NO_MESH, node("a"), peer("p", **spec))

    changed = peer("p", **spec, nextHopMode="Self") | {}
    changed["metadata"] = {"name": "p", "annotations": {"bgpd.io/max-prefix": "10"}}
    assert effects(before, world(NO_MESH, node("a"), changed)) == [
        "session of a with 198.51.100.1: would stay, its routes judged anew (nextHopMode, max-prefix)"
    ]
    described = peer("p", **spec)
    described["metadata"] = {"name": "p", "annotations": {"description": "the left router"}}
    assert effects(before, world(NO_MESH, node("a"), described)) == []


def test_peer_selector_joins_nodes() -> None:
    """A peer selector is a session with each node that it selects, but not with itself; the other end has it by itself."""
    nodes = [NO_MESH, node("a", rr="1"), node("b")]
    by_hand = peer("p", peerSelector="has(rr)", reversePeering="Manual")

    assert effects(world(*nodes), world(*nodes, by_hand)) == ["session of b with node a: would be added"]
    assert effects(world(*nodes, by_hand), world(*nodes, peer("p", peerSelector="has(rr)"))) == [
        "session of a with node b: would be added"
    ]


def test_many_sessions_are_counted() -> None:
    """Beyond the bound, sessions are told by number."""
    nodes = [NO_MESH, *(node(f"n{index:03}a") for index in range(50))]

    found = effects(world(*nodes), world(*nodes, peer("p", peerIP="198.51.100.1", asNumber=1)))

    assert len(found) == plan.LINES_MAX + 1
    assert found[-1] == "… and 30 more that would be added"


def test_export_withdraws_the_blocks_of_the_pool() -> None:
    """disableBGPExport withdraws each block of the pool that a node owns, and its end announces them."""
    before, after = world(pool(), blocks=BLOCKS), world(pool(disableBGPExport=True), blocks=BLOCKS)

    assert effects(before, after) == ["10.0.0.0/26 of b: would be withdrawn", "10.0.0.64/26 of a: would be withdrawn"]
    assert effects(after, before) == ["10.0.0.0/26 of b: would be announced", "10.0.0.64/26 of a: would be announced"]


def test_encapsulation_says_which_blocks_are_reached_anew() -> None:
    """A mode or a fallback that changes affects the blocks of the pool, and how much depends on them is said."""
    found = effects(world(pool(), blocks=BLOCKS), world(pool(vxlanMode="Always"), blocks=BLOCKS))

    assert found == [
        "pool main: 3 blocks of 2 nodes with 3 addresses in use would be reached anew (vxlanMode Never -> Always)"
    ]


def test_pool_that_goes_leaves_its_blocks_alone() -> None:
    """Deleting or disabling a pool says what becomes of its blocks."""
    extent = "3 blocks of 2 nodes with 3 addresses in use"

    assert effects(world(pool(), blocks=BLOCKS), world(blocks=BLOCKS)) == [
        f"pool main: would be gone; {extent} would belong to no pool"
    ]
    assert effects(world(pool(), blocks=BLOCKS), world(pool(disabled=True), blocks=BLOCKS)) == [
        f"pool main: nodes would take no more blocks; {extent} stay as they are"
    ]


def test_default_written_out_changes_nothing() -> None:
    """A field that says what its absence means has no effect."""
    written = pool(disabled=False, vxlanMode="Never", blockSize=26, nodeSelector="all()")

    assert effects(world(pool(), blocks=BLOCKS), world(written, blocks=BLOCKS)) == []


def test_pool_without_blocks_is_told_by_name() -> None:
    """Where a pool has no block yet, what would hold for its blocks is said of the pool."""
    assert effects(world(), world(pool())) == ["pool main: nodes could take blocks of 10.0.0.0/16"]
    assert effects(world(), world(pool(), blocks=BLOCKS))[0].endswith("with 3 addresses in use stand there already")
    assert effects(world(pool()), world(pool(disableBGPExport=True))) == [
        "pool main: blocks would no longer be announced"
    ]
    assert effects(world(pool()), world(pool(nodeSelector="has(x)"))) == [
        'pool main: other blocks would be given by nodeSelector "has(x)"; its blocks (there is none yet) stay as they are'
    ]


def test_large_mesh_is_told_as_a_whole() -> None:
    """Beyond the bound of pairs, the mesh is told by the number of its nodes."""
    nodes = [node(f"n{index:03}a") for index in range(plan.MESH_NODES_MAX + 1)]

    found = effects(world(*nodes, NO_MESH), world(*nodes, resource("BGPConfiguration", {})))

    assert found == ["the mesh of 301 nodes would be turned on"]


def test_settings_of_nodes_are_planned() -> None:
    """Ranges, ignored links and the log level are told by what nodes would do; what has no effect here says so."""
    before = resource("BGPConfiguration", {"serviceLoadBalancerIPs": [{"cidr": "203.0.113.0/24"}]}, "default")
    spec = {
        "serviceLoadBalancerIPs": [{"cidr": "203.0.113.0/24"}],
        "serviceLoadBalancerAggregation": "Disabled",
        "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
        "ignoredInterfaces": ["docker0", "veth*"],
        "logSeverityScreen": "Trace",
        "programClusterRoutes": "Disabled",
    }
    expected = [
        "10.96.0.0/12: would be announced by every node",
        "203.0.113.0/24: would be withdrawn by every node",
        "every node: next hops would be resolved anew; links whose connected routes do not count: docker0, veth*",
        "every node: would log from debug on, where its file says no level",
        "programClusterRoutes has no effect here: bgpd itself programs every route of the cluster, and no other program does",
    ]

    assert expected == effects(world(before), world(resource("BGPConfiguration", spec, "default")))
    own = resource("BGPConfiguration", {"logSeverityScreen": "Error"}, "node.a")
    assert ["node a: would log from error on, where its file says no level"] == effects(
        world(before), world(before, own)
    )


def test_sessions_with_workloads_are_planned_by_their_selector() -> None:
    """Which workloads there are nodes know; a plan says whom a new, changed or removed BGPPeer is about."""
    before = world(NO_MESH, node("a"))
    peers = [
        world(NO_MESH, node("a"), peer("vm", localWorkloadSelector=one, asNumber=65001)) for one in ("has(x)", "has(y)")
    ]
    line = "BGPPeer vm: each node that it is for would have a session with each of its workloads that match {}"

    assert [line.format("has(x)")] == effects(before, peers[0])
    assert [line.format("has(y)")] == effects(peers[0], peers[1])
    assert ["BGPPeer vm: sessions with workloads that match has(y) would be removed"] == effects(peers[1], before)
