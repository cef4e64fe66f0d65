"""What sessions can do, with a real BIRD, FRR and GoBGP each."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from bgpd.model.event import EndOfRib, PeerDown, PeerUp, RefreshBegun, RoutesLearned
from bgpd.model.peer import Peer
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement, AsSegment, SegmentKind, as_path_text
from tests.netns.exabgp_world import OURS, OURS6, THEIRS, THEIRS6, Node, World, running, until
from tests.netns.routers import KINDS, Wanted, router

pytestmark = pytest.mark.netns

OWN = Prefix.parse("10.1.0.0/26")
OWN6 = Prefix.parse("fd98::/64")
BIG = 4_200_000_001
WAIT_S = 40.0


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _reason(node: Node, peer: Address = THEIRS) -> str:
    downs = (event for event in reversed(node.events) if isinstance(event, PeerDown) and event.peer == peer)
    return next((event.reason for event in downs), "")


def _theirs(node: Node) -> int:
    """Count the router's own routes: FRR sends ours back, too."""
    return sum(str(prefix).startswith("10.9.") for prefix in node.routes())


def test_one_ipv6_session_carries_everything(world: World, kind: str) -> None:
    """iBGP over IPv6 with GTSM: both families, IPv4 with IPv6 next hops both ways (RFC 8950), two paths of one prefix kept apart."""
    wanted = Wanted(
        asn=BIG,
        peer_asn=BIG,
        v6=True,
        families=(Family.IPV4, Family.IPV6),
        ttl_security=True,
        add_path=True,
        extended_next_hop=True,
        originated=("10.9.0.0/24", "10.9.1.0/26", "fd99:1::/64"),
    )
    peer = Peer(
        name="tor",
        address=THEIRS6,
        asn=BIG,
        local_address=OURS6,
        local_asn=BIG,
        hold_time_s=9,
        graceful_restart_s=30,
        families=(Family.IPV4, Family.IPV6),
        ttl_security=1,
        add_path_receive=True,
        extended_next_hop=True,
    )

    async def body() -> None:
        there = router(kind, world, wanted)
        async with running(Node(world)) as node:
            node.announce({(THEIRS6, OWN): Announcement(local_pref=250), (THEIRS6, OWN6): Announcement()})
            assert await node.speaker.neighbors.apply([(THEIRS6, peer)]) == {}
            await until(lambda: len(node.routes(THEIRS6)) == 3, "routes", WAIT_S)
            await until(lambda: there.has(str(OWN)) and there.has(str(OWN6)), "announced", WAIT_S)

            opened = next(event.open for event in node.events if isinstance(event, PeerUp))
            assert opened.asn == BIG
            assert opened.extended_next_hop
            assert Family.IPV4 in opened.add_path
            assert {event.family for event in node.events if isinstance(event, EndOfRib)} == set(Family)
            learned = node.routes(THEIRS6)
            assert learned[Prefix.parse("10.9.1.0/26")].next_hop == THEIRS6
            assert learned[Prefix.parse("fd99:1::/64")].next_hop == THEIRS6
            paths = {
                event.path_id: event.attributes.med
                for event in node.events
                if isinstance(event, RoutesLearned)
                and event.attributes
                and Prefix.parse("10.9.0.0/24") in event.announced
            }
            assert len(paths) == 2, paths
            seen = str(there.seen(str(OWN)))
            assert str(OURS6) in seen, seen
            assert "250" in seen, seen
            await until(lambda: node.speaker.adj_rib_out.actual == node.want, "acknowledged", WAIT_S)

            node.announce({(THEIRS6, OWN6): Announcement()})
            await until(lambda: not there.has(str(OWN)), "withdrawn")
            assert there.has(str(OWN6))

    asyncio.run(body())


EBGP = Peer(
    name="tor",
    address=THEIRS,
    asn=BIG,
    local_address=OURS,
    local_asn=65000,
    hold_time_s=9,
    graceful_restart_s=30,
)


def test_what_is_wrong_is_named(world: World, kind: str) -> None:
    """A refused connection, a wrong AS, a shutdown with its text: each is the reason shown; a reset tells the router our text."""

    async def body() -> None:
        async with running(Node(world)) as node:
            await node.speaker.neighbors.apply([(THEIRS, replace(EBGP, local_asn=64999))])
            await until(lambda: "connection refused" in _reason(node), "refused")

            there = router(kind, world, Wanted(asn=BIG))
            await until(lambda: "Bad Peer AS" in _reason(node), "wrong AS", WAIT_S)
            assert "64999" in _reason(node)
            node.announce({(THEIRS, OWN): Announcement(as_path=PREPENDED)})
            await node.speaker.neighbors.apply([(THEIRS, EBGP)])
            await until(lambda: node.ended() and _theirs(node) == 2, "routes", WAIT_S)
            await until(lambda: there.has(str(OWN)), "announced")
            assert "65000 65000 65000" in _path(there.seen(str(OWN)))
            assert as_path_text(node.routes()[Prefix.parse("10.9.0.0/24")].as_path) == str(BIG)

            before = len(node.events)
            assert await node.speaker.refresh(THEIRS) == ""
            await until(lambda: EndOfRib(THEIRS, Family.IPV4) in node.events[before:], "refreshed", WAIT_S)
            told = [event.announced for event in node.events[before:] if isinstance(event, RoutesLearned)]
            assert {Prefix.parse("10.9.0.0/24"), Prefix.parse("10.9.1.0/26")} <= {
                each for part in told for each in part
            }
            assert RefreshBegun(THEIRS, Family.IPV4) in node.events[before:]

            assert await node.speaker.reset(THEIRS, hard=False, text="rack 7") == ""
            await until(lambda: node.count(PeerUp) == 2, "a new session", WAIT_S)
            assert 'we sent Cease: Administrative Reset, "rack 7" (6/4)' == _reason(node)
            log = (world.folder / "router.log").read_text()
            assert kind != "bird" or 'Received: Administrative reset: "rack 7"' in log, log

            there.shutdown("moving out")
            await until(lambda: "Cease: Administrative Shutdown" in _reason(node), "shutdown", WAIT_S)
            assert kind == "gobgp" or '"moving out"' in _reason(node)  # GoBGP 3.10 sends no text

    asyncio.run(body())


def test_a_router_that_has_too_many_of_our_routes_says_so(world: World, kind: str) -> None:
    """The router's own limit ends the session, and the reason is the NOTIFICATION's."""

    async def body() -> None:
        router(kind, world, Wanted(asn=BIG, max_prefix=2))
        async with running(Node(world)) as node:
            node.announce({(THEIRS, Prefix.parse(f"10.1.{i}.0/26")): Announcement() for i in range(5)})
            await node.speaker.neighbors.apply([(THEIRS, EBGP)])
            await until(lambda: "Maximum Number of Prefixes Reached" in _reason(node), "limit", WAIT_S)

    asyncio.run(body())


@pytest.mark.parametrize("kind", ["frr", "gobgp"])
@pytest.mark.parametrize("override", [False, True])
def test_a_route_of_our_own_as_comes_as_it_is_or_overridden(world: World, kind: str, override: bool) -> None:
    """A router with as-override puts its AS in the place of ours; without it ours is in the path, for the core to judge."""

    async def body() -> None:
        router(kind, world, Wanted(asn=BIG, prepend=65000, as_override=override, originated=("10.9.0.0/24",)))
        async with running(Node(world)) as node:
            await node.speaker.neighbors.apply([(THEIRS, EBGP)])
            await until(lambda: _theirs(node), "route", WAIT_S)
            path = as_path_text(node.routes()[Prefix.parse("10.9.0.0/24")].as_path)
            assert f"{BIG} {BIG if override else 65000}" == path

    asyncio.run(body())


@pytest.mark.parametrize("kind", ["bird", "frr"])
@pytest.mark.parametrize("allowed", [False, True])
def test_a_route_of_the_routers_own_as_is_taken_where_it_allows_that(world: World, kind: str, allowed: bool) -> None:
    """What we learned from another router of the same AS reaches this one with allowas-in, and is a loop to it without."""
    other = Prefix.parse("10.1.9.0/26")

    async def body() -> None:
        there = router(kind, world, Wanted(asn=BIG, allow_own=allowed))
        async with running(Node(world)) as node:
            learned = Announcement(as_path=(AsSegment(SegmentKind.SEQUENCE, (BIG,)),))
            node.announce({(THEIRS, other): learned, (THEIRS, OWN): Announcement()})
            await node.speaker.neighbors.apply([(THEIRS, EBGP)])
            await until(lambda: there.has(str(OWN)) and there.has(str(other)) is allowed, "its verdict", WAIT_S)
            assert node.up()

    asyncio.run(body())


def test_graceful_restart_of_either_side(world: World, kind: str) -> None:
    """Our restart loses no route at the router, since all is announced before End-of-RIB; its own is claimed by it, and ours was not."""

    async def body() -> None:
        there = router(kind, world, Wanted(asn=BIG))
        own = [Prefix.parse(f"10.1.{i}.0/26") for i in range(20)]
        async with running(Node(world)) as node:
            node.announce({(THEIRS, prefix): Announcement() for prefix in own})
            await node.speaker.neighbors.apply([(THEIRS, EBGP)])
            await until(lambda: node.ended() and len(node.speaker.adj_rib_out.actual) == 20, "announced", WAIT_S)
            await until(lambda: there.has(str(own[-1])), "arrived")
            assert kind == "frr" or not _restarting(node)  # FRR claims it at each start
            assert kind != "bird" or "Restart recovery" not in there.state()

            assert node.speaker.pid is not None
            os.kill(node.speaker.pid, signal.SIGKILL)
            ups = node.count(PeerUp)
            while not (node.count(PeerUp) > ups and len(node.speaker.adj_rib_out.actual) == 20):
                assert there.has(str(own[0])), "dropped"
                assert there.has(str(own[-1])), "dropped"
                await asyncio.sleep(0.05)
            await until(node.ended, "its routes again", WAIT_S)
            assert there.has(str(own[-1]))
            assert _theirs(node) == 2
            assert kind != "bird" or "Restart recovery" in there.state()

            ups = node.count(PeerUp)
            there.kill()
            await until(lambda: not node.up(), "lost", WAIT_S)
            lost = next(event for event in reversed(node.events) if isinstance(event, PeerDown))
            assert lost.notification is None
            there.again()
            await until(lambda: node.count(PeerUp) > ups and node.ended(), "back", WAIT_S)
            assert kind == "gobgp" or _restarting(node)
            assert _theirs(node) == 2

    asyncio.run(body())


def _restarting(node: Node) -> bool:
    opened = next(event.open for event in reversed(node.events) if isinstance(event, PeerUp))
    return opened.graceful_restart is not None and opened.graceful_restart.restarting


def _path(seen: str | None) -> str:
    """Flatten what a router shows of an AS path."""
    return " ".join(re.findall(r"\d+", str(seen)))


PREPENDED = (AsSegment(SegmentKind.SEQUENCE, (65000, 65000)),)
