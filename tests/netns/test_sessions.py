"""Sessions in unusual places: link-local addresses, several hops, both sides calling, nobody there, a hundred of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from bgpd.model.event import PeerDown, PeerUp, SpeakerUp
from bgpd.model.peer import Notification, Peer
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement
from tests.netns.exabgp_world import OURS, PEER, THEIRS, Node, World, running, sh, until
from tests.netns.routers import Wanted, router

pytestmark = pytest.mark.netns

OWN = Prefix.parse("10.1.0.0/26")
LINK_OURS, LINK_THEIRS = Address.parse("fe80::1"), Address.parse("fe80::2")
FAR = LINK_THEIRS.on("xa")
WAIT_S = 40.0


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def _reason(node: Node, peer: Address) -> str:
    downs = (event for event in reversed(node.events) if isinstance(event, PeerDown) and event.peer == peer)
    return next((event.reason for event in downs), "")


def _links(world: World) -> None:
    sh(f"ip -n {world.ours} address add {LINK_OURS}/64 dev xa nodad")
    sh(f"ip -n {world.theirs} address add {LINK_THEIRS}/64 dev xb nodad")


@pytest.mark.parametrize(("kind", "passive"), [("bird", False), ("bird", True), ("frr", False)])
def test_a_session_over_link_local_addresses(world: World, kind: str, passive: bool) -> None:
    """fe80::2%xa is a peer like another, whoever calls: routes go both ways with link-local next hops, with FRR of IPv4 alone."""
    families = (Family.IPV4,) if kind == "frr" else (Family.IPV4, Family.IPV6)
    own = {Family.IPV4: OWN, Family.IPV6: Prefix.parse("fd98::/64")}
    _links(world)
    wanted = Wanted(
        interface="xb",
        ours=LINK_OURS,
        theirs=LINK_THEIRS,
        families=families,
        extended_next_hop=True,
        active=passive,
        originated=("10.9.0.0/24", "fd99:1::/64"),
    )
    peer = replace(
        PEER,
        address=FAR,
        local_address=LINK_OURS,
        interface="xa",
        families=families,
        extended_next_hop=True,
        passive=passive,
    )

    async def body() -> None:
        there = router(kind, world, wanted)
        async with running(Node(world)) as node:
            node.announce({(FAR, own[family]): Announcement() for family in families})
            assert await node.speaker.neighbors.apply([(FAR, peer)]) == {}
            await until(lambda: len(node.routes(FAR)) >= len(families), "routes", WAIT_S)
            await until(lambda: all(there.has(str(own[family])) for family in families), "announced", WAIT_S)

            learned = node.routes(FAR)[Prefix.parse("10.9.0.0/24")]
            assert LINK_THEIRS in {learned.next_hop, learned.link_local_next_hop}
            assert str(LINK_OURS) in str(there.seen(str(OWN)))

    asyncio.run(body())


@pytest.mark.parametrize("passive", [False, True])
def test_one_link_local_address_on_two_links_is_two_neighbors(world: World, passive: bool) -> None:
    """fe80::2 on two links, towards fe80::1 of ours on both: two sessions, each with its own routes, and one ends without the other."""
    sh(f"ip link add ya netns {world.ours} type veth peer name yb netns {world.theirs}")
    for netns, near, address in ((world.ours, "a", LINK_OURS), (world.theirs, "b", LINK_THEIRS)):
        for link in (f"x{near}", f"y{near}"):
            sh(f"ip -n {netns} link set {link} up")
            sh(f"ip -n {netns} address add {address}/64 dev {link} nodad")
    peers = [
        replace(PEER, name=link, address=LINK_THEIRS.on(link), local_address=LINK_OURS, interface=link, passive=passive)
        for link in ("xa", "ya")
    ]
    peers = [replace(peer, families=(Family.IPV6,)) for peer in peers]
    own = Prefix.parse("fd98::/64")

    def config(*links: str) -> str:
        sessions = "\n".join(
            f"""protocol static s{link} {{ ipv6; route fd99:{number}::/64 blackhole; }}
protocol bgp {link} {{
  local {LINK_THEIRS} as 65001; neighbor {LINK_OURS}%{link} as 65000; passive {"off" if passive else "on"};
  hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2;
  ipv6 {{ import all; export where proto = "s{link}"; next hop self; }};
}}"""
            for number, link in enumerate(links)
        )
        return f"router id {THEIRS};\nprotocol device {{ }}\n{sessions}\n"

    async def body() -> None:
        world.bird(config("xb", "yb"))
        async with running(Node(world)) as node:
            node.announce({(peers[1].address, own): Announcement()})
            assert await node.speaker.neighbors.apply([(peer.address, peer) for peer in peers]) == {}
            for number, peer in enumerate(peers):
                expected = {Prefix.parse(f"fd99:{number}::/64")}
                await until(
                    lambda peer=peer, expected=expected: set(node.routes(peer.address)) == expected, "routes", WAIT_S
                )
            await until(lambda: "fd98::/64" in world.birdc("show route protocol yb"), "announced", WAIT_S)
            assert "fd98::/64" not in world.birdc("show route protocol xb")

            assert await node.speaker.neighbors.apply([(peers[0].address, None)]) == {}
            await until(lambda: not node.up(peers[0].address), "the end of one")
            assert (1, 1) == (node.count(PeerUp, peers[1].address), node.count(PeerUp, peers[0].address))
            assert node.up(peers[1].address)
            assert node.speaker.adj_rib_out.actual == node.want

    asyncio.run(body())


def test_nobody_there_is_told_apart(world: World) -> None:
    """No route to a neighbor, one that is not on its link, and one that does not answer: each is named, and none is taken for up."""
    nowhere, absent, silent = Address.parse("192.0.2.1"), Address.parse("10.255.77.9"), THEIRS
    peers = [replace(PEER, name=str(each), address=each) for each in (nowhere, absent, silent)]

    async def body() -> None:
        sh(f"ip netns exec {world.theirs} nft add table inet quiet")
        sh(f"ip netns exec {world.theirs} nft add chain inet quiet in {{ type filter hook input priority 0 ; }}")
        sh(f"ip netns exec {world.theirs} nft add rule inet quiet in tcp dport 179 drop")
        async with running(Node(world)) as node:
            assert await node.speaker.neighbors.apply([(peer.address, peer) for peer in peers]) == {}
            await until(lambda: "unreachable: Network is unreachable" in _reason(node, nowhere), "no route")
            await until(lambda: "unreachable: No route to host" in _reason(node, absent), "not on the link")
            await until(lambda: "no answer from port 179 within 5 s" in _reason(node, silent), "silent")

            sh(f"ip netns exec {world.theirs} nft delete table inet quiet")
            await until(lambda: "connection refused" in _reason(node, silent), "refused")
            router("bird", world, Wanted())
            await until(node.up, "PeerUp")

    asyncio.run(body())


def test_a_peer_that_is_ended_is_told_why_and_not_called_again(world: World) -> None:
    """BIRD is told that it sent too many routes (Cease/1 with the limit), a new daemon keeps it so, and another wish begins anew."""
    limit = Notification(6, 1, sent=True, data=b"\0\1\1\0\0\0\7")
    ended = replace(PEER, ended=limit)

    async def body() -> None:
        router("bird", world, Wanted())
        async with running(Node(world), keep=True) as node:
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(node.ended, "a session", WAIT_S)
            assert await node.speaker.neighbors.apply([(THEIRS, ended)]) == {}
            await until(lambda: not node.up(), "its end", WAIT_S)
            told = "we sent Cease: Maximum Number of Prefixes Reached (6/1): our limit is 7 IPv4 prefixes"
            assert told == _reason(node, THEIRS)
            log = world.folder / "router.log"
            await until(lambda: "Received: Maximum number of prefixes reached" in log.read_text(), "BIRD's log")

        async with running(Node(world)) as node:
            assert {THEIRS: ended} == dict(node.speaker.neighbors.actual)
            await until(lambda: SpeakerUp() in node.events, "attached", WAIT_S)
            assert await node.speaker.neighbors.apply([(THEIRS, PEER)]) == {}
            await until(node.ended, "a session again", WAIT_S)
            assert 1 == node.count(PeerUp)

    asyncio.run(body())


def test_both_sides_may_call(world: World) -> None:
    """Two speakers that call each other at the same time end with one session, which stays."""

    async def body() -> None:
        there = router("bird", world, Wanted(active=True))
        async with running(Node(world)) as node:
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(node.ended, "End-of-RIB")
            await asyncio.sleep(1.0)
            assert "Established" in there.state()
            assert node.up()

    asyncio.run(body())


def test_ttl_security_shuts_out_its_own_neighbor_only(world: World) -> None:
    """GTSM (RFC 5082): a neighbor that does not send TTL 255 has no session; another on the same listening socket has."""
    second = Address.parse("10.255.77.3")

    async def body() -> None:
        sh(f"ip -n {world.theirs} address add {second}/24 dev xb")
        for name, address in (("near", THEIRS), ("far", second)):  # one BIRD holds one session with an address
            file = world.folder / f"{name}.conf"
            file.write_text(f"""
router id {address};
protocol device {{ }}
protocol bgp b {{
  local {address} as 65001; neighbor {OURS} as 65000; strict bind on; ipv4 {{ import all; export none; }};
  hold time 3; connect retry time 1; connect delay time 1; error wait time 1, 2;
}}""")
            world.router("bird", "-f", "-c", str(file), "-s", str(world.folder / f"{name}.ctl"))
        secured = replace(PEER, passive=True, ttl_security=1)
        plain = replace(PEER, name="far", address=second, passive=True)
        async with running(Node(world)) as node:
            await node.speaker.neighbors.apply([(THEIRS, secured), (second, plain)])
            await until(lambda: node.up(second), "the one without")
            assert not node.up(THEIRS)
            await node.speaker.neighbors.apply([(THEIRS, replace(secured, ttl_security=0))])
            await until(lambda: node.up(THEIRS), "without it")
            assert node.count(PeerDown, second) == 0

    asyncio.run(body())


PEERS = int(os.environ.get("BGPD_TEST_PEERS", "100"))


def test_the_hundredth_peer_disturbs_no_other(world: World) -> None:
    """With 99 sessions up, adding one, changing one and removing one makes no event on the others."""
    # BIRD holds one session for each neighbor address, so our side has as many addresses as its
    addresses = [Address.parse(f"10.77.{number // 250}.{number % 250 + 1}") for number in range(PEERS)]
    ours = {address: Address.parse(str(address).replace("10.77.", "10.78.")) for address in addresses}
    for name, lines in ((world.theirs, ours), (world.ours, ours.values())):
        batch = "\n".join(f"address add {address}/32 dev lo" for address in lines)
        subprocess.run(["ip", "-n", name, "-batch", "-"], input=batch, text=True, check=True)
    sh(f"ip -n {world.ours} route add 10.77.0.0/16 via {THEIRS}")
    sh(f"ip -n {world.theirs} route add 10.78.0.0/16 via {OURS}")
    sessions = "".join(
        f"""
protocol bgp p{number} {{
  local {address} as 65001; neighbor {ours[address]} as 65000; hold time 90; passive on; multihop 2; graceful restart off;
  ipv4 {{ import all; export none; }};
}}"""
        for number, address in enumerate(addresses)
    )

    def peer(address: Address) -> Peer:
        return replace(
            PEER, name=str(address), address=address, local_address=ours[address], hold_time_s=90, multihop_ttl=2
        )

    async def body() -> None:
        world.bird(f"router id {THEIRS};\nprotocol device {{ }}\n{sessions}")
        async with running(Node(world)) as node:
            *early, late = addresses
            assert await node.speaker.neighbors.apply([(address, peer(address)) for address in early]) == {}
            await until(lambda: sum(node.count(PeerUp, each) for each in early) == len(early), "all but one up", 60.0)
            await until(lambda: not node.speaker.refreshing, "their End-of-RIB", 60.0)
            before = len(node.events)

            assert await node.speaker.neighbors.apply([(late, peer(late))]) == {}
            await until(lambda: node.up(late), "the last one up", WAIT_S)
            changed, removed = early[0], early[1]
            assert await node.speaker.neighbors.apply([(changed, replace(peer(changed), hold_time_s=60))]) == {}
            await until(lambda: node.count(PeerUp, changed) == 2, "the changed one up again", WAIT_S)
            assert await node.speaker.neighbors.apply([(removed, None)]) == {}
            state = world.birdc("show protocols p1")
            await until(lambda: "Established" not in world.birdc("show protocols p1"), f"gone: {state}", WAIT_S)

            concerned = {getattr(event, "peer", None) for event in node.events[before:]}
            assert concerned <= {late, changed, removed}

    asyncio.run(body())
