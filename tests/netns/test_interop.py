"""What sessions can do, with a real BIRD, FRR and GoBGP each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from bgpd.model.event import EndOfRib, PeerDown, PeerUp, RoutesLearned
from bgpd.model.peer import Peer
from bgpd.model.prefix import Family, Prefix
from bgpd.model.route import Announcement
from tests.netns.exabgp_world import OURS6, THEIRS6, Node, World, running, until
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


def _reason(node: Node) -> str:
    return next((event.reason for event in reversed(node.events) if isinstance(event, PeerDown)), "")


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
            assert node.speaker.adj_rib_out.actual == node.want

            node.announce({(THEIRS6, OWN6): Announcement()})
            await until(lambda: not there.has(str(OWN)), "withdrawn")
            assert there.has(str(OWN6))

    asyncio.run(body())
