"""The speaker's contract, in both modes, against a real BIRD."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from bgpd.model.event import EndOfRib, PeerDown, PeerUp, SpeakerLost, SpeakerUp
from bgpd.model.peer import Notification
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement, AsSegment, Attributes, Origin, SegmentKind
from tests.netns.exabgp_world import (
    OURS,
    PEER,
    PEER6,
    THEIRS,
    THEIRS6,
    Node,
    World,
    alive,
    bird_config,
    children,
    running,
    until,
)

pytestmark = pytest.mark.netns

ROUTES = """
route 10.9.0.0/24 blackhole {
  bgp_community.add((65001, 7)); bgp_community.add((65535, 65281)); bgp_large_community.add((65001, 1, 2));
  bgp_ext_community.add((rt, 65001, 100)); bgp_med = 5; bgp_origin = ORIGIN_INCOMPLETE;
};
route 10.9.1.0/26 blackhole;
route 10.9.2.1/32 blackhole;
"""
PLAIN = "route 10.9.1.0/26 blackhole;"
ROUTES6 = "route fd99:1::/64 blackhole;"
OWN = (Prefix.parse("10.1.0.0/26"), Prefix.parse("10.1.0.64/26"))


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


@pytest.fixture(params=["raw", "json"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _imported(world: World) -> str:
    return world.birdc("show route protocol b4 all")


def test_routes_of_a_peer_are_learned_with_their_attributes_and_withdrawn(world: World, mode: str) -> None:
    """What BIRD announces arrives as RoutesLearned with every attribute, then EndOfRib; what it withdraws leaves."""

    async def body() -> None:
        world.bird(bird_config(routes=ROUTES))
        async with running(Node(world, mode)) as node:
            assert await node.speaker.neighbors.apply([(THEIRS, PEER)]) == {}
            await until(node.ended, "End-of-RIB")

            learned = node.routes()
            assert set(map(str, learned)) == {"10.9.0.0/24", "10.9.1.0/26", "10.9.2.1/32"}
            expected = Attributes(
                next_hop=THEIRS,
                origin=Origin.INCOMPLETE,
                as_path=(AsSegment(SegmentKind.SEQUENCE, (65001,)),),
                med=5,
                communities=(65001 << 16 | 7, 0xFFFFFF01),
                extended_communities=(bytes.fromhex("0002fde900000064"),),
                large_communities=((65001, 1, 2),),
            )
            assert expected == learned[Prefix.parse("10.9.0.0/24")], f"{expected!r}\n{learned!r}"
            opened = next(event.open for event in node.events if isinstance(event, PeerUp))
            assert (opened.asn, opened.router_id, opened.hold_time_s) == (65001, THEIRS, 9)
            assert opened.route_refresh
            assert opened.enhanced_refresh
            assert opened.graceful_restart is not None
            assert opened.graceful_restart.restart_time_s == 30
            assert EndOfRib(THEIRS, Family.IPV4) in node.events

            world.reconfigure(bird_config(routes=PLAIN))
            await until(lambda: set(map(str, node.routes())) == {"10.9.1.0/26"}, "withdrawal")

    asyncio.run(body())


def test_a_session_ends_with_its_notification(world: World, mode: str) -> None:
    """An administrative shutdown arrives as PeerDown with code, subcode and the operator's text (RFC 9003)."""

    async def body() -> None:
        world.bird(bird_config(routes=ROUTES, graceful=False))
        async with running(Node(world, mode)) as node:
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(node.ended, "End-of-RIB")

            world.birdc('disable b4 "rack"')
            await until(lambda: not node.up(), "PeerDown")

            down = next(event for event in node.events if isinstance(event, PeerDown))
            assert down.notification == Notification(6, 2, False, "rack")
            world.birdc("enable b4")
            await until(node.up, "PeerUp again")
            await until(lambda: len(node.routes()) == 3, "routes again")

    asyncio.run(body())


def test_announcements_follow_what_is_wanted(world: World, mode: str) -> None:
    """What is wanted is announced with its attributes, a change replaces, a removal withdraws, and End-of-RIB ends the replay."""

    async def body() -> None:
        world.bird(bird_config())
        async with running(Node(world, mode)) as node:
            value = Announcement(med=7, communities=(65000 << 16 | 1, 0xFFFFFF04), large_communities=((65000, 2, 3),))
            node.announce({(THEIRS, prefix): value for prefix in OWN})
            await node.speaker.neighbors.apply([(THEIRS, PEER)])

            await until(lambda: all(str(prefix) in _imported(world) for prefix in OWN), "announced")
            shown = _imported(world)
            assert "BGP.community: (65000,1) (65535,65284)" in shown
            assert "BGP.large_community: (65000, 2, 3)" in shown
            assert "BGP.med: 7" in shown
            assert "BGP.origin: IGP" in shown
            assert f"BGP.next_hop: {OURS}" in shown
            assert "BGP.as_path: 65000" in shown

            node.announce({(THEIRS, OWN[0]): Announcement(med=9)})
            await until(lambda: "BGP.med: 9" in _imported(world), "replaced")
            await until(lambda: str(OWN[1]) not in _imported(world), "withdrawn")
            left = {(THEIRS, OWN[0]): Announcement(med=9)}  # known by ExaBGP's answer, which comes after the UPDATE
            await until(lambda: node.speaker.adj_rib_out.actual == left, "answered")

    asyncio.run(body())


def test_ipv6_is_carried_in_a_session_of_its_own(world: World, mode: str) -> None:
    """IPv6 routes are learned, and announced with the session's address as next hop."""

    async def body() -> None:
        world.bird(bird_config(routes6=ROUTES6))
        async with running(Node(world, mode)) as node:
            own = Prefix.parse("fd98::/64")
            node.announce({(THEIRS6, own): Announcement()})
            await node.speaker.neighbors.apply([(THEIRS6, PEER6)])
            await until(lambda: node.ended(THEIRS6), "End-of-RIB")
            await until(lambda: node.routes(THEIRS6), "routes")

            attributes = node.routes(THEIRS6)[Prefix.parse("fd99:1::/64")]
            assert attributes.next_hop == THEIRS6
            await until(lambda: str(own) in world.birdc("show route protocol b6"), "announced")

    asyncio.run(body())


def test_killed_exabgp_is_back_and_its_peer_keeps_our_routes(world: World, mode: str) -> None:
    """After kill -9 the speaker is lost at once and back within seconds; with graceful restart BIRD never drops a route."""

    async def body() -> None:
        world.bird(bird_config(routes=ROUTES))
        async with running(Node(world, mode)) as node:
            node.announce({(THEIRS, prefix): Announcement() for prefix in OWN})
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(lambda: all(str(prefix) in _imported(world) for prefix in OWN), "announced")
            await until(node.ended, "End-of-RIB")
            held = world.birdc("show protocols all b4")
            assert "Neighbor capabilities" in held
            assert "Restart time: 30" in held
            assert "AF supported: ipv4" in held
            assert mode == "json" or "AF preserved: ipv4" not in held  # nothing was, before the first session
            ups = node.count(PeerUp)

            assert node.speaker.pid is not None
            os.kill(node.speaker.pid, signal.SIGKILL)
            killed = time.monotonic()
            while not (node.count(PeerUp) > ups and node.ended()):
                assert time.monotonic() < killed + 20, "not back"
                shown = _imported(world)
                assert all(str(prefix) in shown for prefix in OWN), f"a route was dropped: {shown}"
                await asyncio.sleep(0.02)
            assert node.count(SpeakerLost) == 1
            assert "AF preserved: ipv4" in world.birdc("show protocols all b4")
            assert len(node.routes()) == 3
            await until(lambda: len(node.speaker.adj_rib_out.actual) == 2, "announced again")
            await until(lambda: "stale" not in _imported(world).lower(), "refreshed")
            shown = _imported(world)
            assert all(str(prefix) in shown for prefix in OWN)
            assert "AF preserved: ipv4" in world.birdc("show protocols all b4")

    asyncio.run(body())


def test_a_daemon_that_comes_back_finds_sessions_and_routes(world: World, mode: str) -> None:
    """Detaching and attaching flaps no session; routes are learned again, strays withdrawn, and what is unchanged sends no UPDATE."""

    async def body() -> None:
        world.bird(bird_config(routes=ROUTES))
        async with running(Node(world, mode), keep=True) as node:
            node.announce({(THEIRS, prefix): Announcement(communities=(1, 2)) for prefix in OWN})
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(lambda: all(str(prefix) in _imported(world) for prefix in OWN), "announced")
            await until(node.ended, "End-of-RIB")
            pid = node.speaker.pid
            since = world.birdc("show protocols b4").splitlines()[-1].split()[4]

        async with running(Node(world, mode)) as again:
            again.announce({(THEIRS, OWN[0]): Announcement(communities=(1, 2))})
            await until(again.ended, "refreshed")
            assert again.speaker.pid == pid
            assert isinstance(again.events[0], SpeakerUp)
            assert isinstance(again.events[1], PeerUp)
            assert len(again.routes()) == 3
            assert again.speaker.neighbors.actual == {THEIRS: PEER}
            await until(lambda: str(OWN[1]) not in _imported(world), "stray withdrawn")
            assert str(OWN[0]) in _imported(world)
            assert await again.speaker.neighbors.apply([(THEIRS, PEER)]) == {}
            assert world.birdc("show protocols b4").splitlines()[-1].split()[4] == since
            assert again.count(PeerDown) == 0
            if mode == "raw":  # stock ExaBGP answers the marks of an enhanced refresh by sending everything again
                updates = [
                    line for line in world.birdc("show protocols all b4").splitlines() if "Import updates" in line
                ]
                assert updates[0].split()[2] == "2"

    asyncio.run(body())


def test_a_stalled_daemon_loses_no_session(world: World, mode: str) -> None:
    """A daemon that reads nothing for longer than the hold time finds its sessions up and misses no change."""

    async def body() -> None:
        world.bird(bird_config(routes=PLAIN))
        async with running(Node(world, mode)) as node:
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(node.ended, "End-of-RIB")

            node.gate.clear()
            world.reconfigure(bird_config(routes=ROUTES))
            await asyncio.sleep(PEER.hold_time_s + 2)
            assert "Established" in world.birdc("show protocols b4")
            node.gate.set()

            await until(lambda: len(node.routes()) == 3, "routes that came meanwhile")
            assert node.count(PeerDown) == 0
            assert node.count(SpeakerLost) == 0

    asyncio.run(body())


def test_a_peer_without_route_refresh_is_learned_again_by_a_new_session(world: World, mode: str) -> None:
    """Where route refresh is not offered, attaching restarts the session, and the routes come again."""

    async def body() -> None:
        world.bird(bird_config(routes=ROUTES, refresh=False))
        async with running(Node(world, mode), keep=True) as node:
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(node.ended, "End-of-RIB")
            assert not next(event.open for event in node.events if isinstance(event, PeerUp)).route_refresh

        async with running(Node(world, mode)) as again:
            await until(lambda: again.count(PeerUp) == 2, "a second session")
            await until(lambda: again.ended() and len(again.routes()) == 3, "routes again")

    asyncio.run(body())


def test_neighbors_come_and_go_without_harm_to_others(world: World, mode: str) -> None:
    """Adding and removing a neighbor leaves other sessions up; what ExaBGP refuses is refused alone, with its reason."""

    async def body() -> None:
        world.bird(bird_config(routes=ROUTES, routes6=ROUTES6))
        async with running(Node(world, mode)) as node:
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            node.announce({(THEIRS6, Prefix.parse("fd98::/64")): Announcement()})
            await until(node.ended, "End-of-RIB")

            stranger = Address.parse("10.255.77.9")
            broken = type(PEER)(
                name="x", address=stranger, asn=65009, local_address=PEER6.local_address, local_asn=65000
            )
            refused = await node.speaker.neighbors.apply([(THEIRS6, PEER6), (stranger, broken)])
            assert list(refused) == [stranger]
            assert "same family" in refused[stranger]
            await until(lambda: node.ended(THEIRS6), "the second session")
            await until(lambda: "fd98::/64" in world.birdc("show route protocol b6"), "announced")

            assert await node.speaker.neighbors.apply([(THEIRS6, None)]) == {}
            await until(lambda: "fd98::/64" not in world.birdc("show route protocol b6"), "withdrawn before removal")
            await until(lambda: not node.up(THEIRS6), "PeerDown")
            assert node.count(PeerDown) == 0
            assert set(node.speaker.neighbors.actual) == {THEIRS}

    asyncio.run(body())


def test_a_dead_shim_costs_a_new_speaker(world: World, mode: str) -> None:
    """A shim that dies takes what it knew of the sessions along: the speaker starts anew, and everything is there again."""

    async def body() -> None:
        world.bird(bird_config(routes=ROUTES))
        async with running(Node(world, mode)) as node:
            node.announce({(THEIRS, prefix): Announcement() for prefix in OWN})
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(lambda: node.ended() and len(node.speaker.adj_rib_out.actual) == 2, "announced")
            pid = node.speaker.pid
            assert pid is not None
            (shim,) = children(pid)

            os.kill(shim, signal.SIGKILL)
            await until(lambda: node.speaker.pid not in (None, pid) and node.ended(), "a new speaker")
            await until(lambda: len(node.speaker.adj_rib_out.actual) == 2, "announced again")

            assert all(str(prefix) in _imported(world) for prefix in OWN)
            assert not alive(pid)
            assert len(node.routes()) == 3

    asyncio.run(body())


def test_many_routes_go_both_ways(world: World, mode: str) -> None:
    """Thousands of routes are learned, and a thousand announced in batches arrive all."""

    async def body() -> None:
        theirs = "".join(f"route 10.{100 + i // 256}.{i % 256}.0/24 blackhole;\n" for i in range(3000))
        world.bird(bird_config(routes=theirs))
        async with running(Node(world, mode)) as node:
            own = [Prefix.parse(f"10.{50 + i // 256}.{i % 256}.0/26") for i in range(1000)]
            node.announce({(THEIRS, prefix): Announcement() for prefix in own})
            await node.speaker.neighbors.apply([(THEIRS, PEER)])

            await until(lambda: node.ended() and len(node.routes()) == 3000, "learned")
            await until(lambda: "1000 imported" in world.birdc("show protocols all b4"), "announced")
            node.announce({})
            await until(lambda: " 0 imported" in world.birdc("show protocols all b4"), "withdrawn")

    asyncio.run(body())


def test_a_stopped_speaker_leaves_its_routes_with_its_peers(world: World, mode: str) -> None:
    """Stopping ends ExaBGP without a NOTIFICATION: with graceful restart the peer keeps our routes."""

    async def body() -> None:
        world.bird(bird_config(routes=PLAIN))
        async with running(Node(world, mode)) as node:
            node.announce({(THEIRS, prefix): Announcement() for prefix in OWN})
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(lambda: node.ended() and len(node.speaker.adj_rib_out.actual) == 2, "announced")
            await until(lambda: all(str(prefix) in _imported(world) for prefix in OWN), "arrived")
            pid = node.speaker.pid
            assert pid is not None

        assert not alive(pid)
        await until(lambda: "Established" not in world.birdc("show protocols b4"), "session closed")
        assert all(str(prefix) in _imported(world) for prefix in OWN)

    asyncio.run(body())


def test_a_passive_neighbor_is_waited_for(world: World, mode: str) -> None:
    """With ``passive`` ExaBGP listens for the neighbor instead of calling it."""

    async def body() -> None:
        world.bird(bird_config(routes=PLAIN).replace("passive on", "passive off"))
        async with running(Node(world, mode)) as node:
            await node.speaker.neighbors.apply([(THEIRS, replace(PEER, passive=True))])
            await until(node.ended, "End-of-RIB")
            assert len(node.routes()) == 1

    asyncio.run(body())


def test_a_refused_session_says_why_once(world: World, mode: str) -> None:
    """A neighbor that refuses us with a NOTIFICATION is told as PeerDown, not at each attempt."""

    async def body() -> None:
        world.bird(bird_config())
        async with running(Node(world, mode)) as node:
            await node.speaker.neighbors.apply([(THEIRS, replace(PEER, local_asn=64999))])
            await until(lambda: node.count(PeerDown), "PeerDown")
            down = next(event for event in node.events if isinstance(event, PeerDown))
            assert down.notification is not None
            assert (down.notification.code, down.notification.subcode) == (2, 2)
            await until(lambda: world.birdc("show protocols b4").count("Bad peer AS"), "refused")
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(node.up, "PeerUp")
            assert node.count(PeerDown) == 1

    asyncio.run(body())
