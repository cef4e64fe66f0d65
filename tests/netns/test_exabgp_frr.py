"""The speaker against a real FRR: a session's life, and what FRR keeps while ExaBGP is away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bgpd.model.event import PeerDown, PeerUp, SpeakerLost
from bgpd.model.peer import Notification
from bgpd.model.prefix import Prefix
from bgpd.model.route import Announcement, as_path_text
from tests.netns.exabgp_world import OURS, PEER, THEIRS, Node, World, frr_config, running, until

pytestmark = pytest.mark.netns

OWN = (Prefix.parse("10.1.0.0/26"), Prefix.parse("10.1.0.64/26"))
VALUE = Announcement(med=7, communities=(65000 << 16 | 1,), large_communities=((65000, 2, 3),))


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


@pytest.fixture(params=["raw", "json"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _table(world: World) -> dict[str, Any]:
    routes = json.loads(world.vtysh("show bgp ipv4 unicast json")).get("routes", {})
    return dict(routes)


def _held(world: World) -> bool:
    table = _table(world)
    return all(str(prefix) in table for prefix in OWN)


def test_routes_go_both_ways_and_a_shutdown_says_why(world: World, mode: str) -> None:
    """FRR's routes are learned, ours arrive with their attributes, and FRR's shutdown ends in PeerDown with its message."""

    async def body() -> None:
        world.frr(frr_config("10.9.0.0/24", "10.9.1.0/26"))
        async with running(Node(world, mode)) as node:
            node.announce({(THEIRS, prefix): VALUE for prefix in OWN})
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(node.ended, "End-of-RIB")

            learned = node.routes()
            assert set(map(str, learned)) >= {"10.9.0.0/24", "10.9.1.0/26"}  # FRR sends ours back, too
            assert as_path_text(learned[Prefix.parse("10.9.0.0/24")].as_path) == "65001"
            await until(lambda: _held(world), "announced")
            shown = json.loads(world.vtysh(f"show bgp ipv4 unicast {OWN[0]} json"))["paths"][0]
            assert shown["community"]["string"] == "65000:1"
            assert shown["largeCommunity"]["string"] == "65000:2:3"
            assert shown["metric"] == 7

            world.vtysh("configure terminal", "router bgp 65001", f"neighbor {OURS} shutdown message rack")
            await until(lambda: not node.up(), "PeerDown")
            down = next(event for event in node.events if isinstance(event, PeerDown))
            # FRR agrees to RFC 8538 where it is offered, so it says that this one ends the routes, too
            assert down.notification == Notification(6, 2, False, "rack", hard=mode == "raw")

    asyncio.run(body())


def test_frr_keeps_our_routes_while_exabgp_is_replaced(world: World, mode: str) -> None:
    """After kill -9 of ExaBGP FRR holds our routes until they are announced again, and the session is back in seconds."""

    async def body() -> None:
        world.frr(frr_config("10.9.0.0/24"))
        async with running(Node(world, mode)) as node:
            node.announce({(THEIRS, prefix): VALUE for prefix in OWN})
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(lambda: _held(world) and node.ended(), "announced")
            ups = node.count(PeerUp)

            assert node.speaker.pid is not None
            os.kill(node.speaker.pid, signal.SIGKILL)
            killed = time.monotonic()
            while not (node.count(PeerUp) > ups and node.ended() and len(node.speaker.adj_rib_out.actual) == 2):
                assert time.monotonic() < killed + 20, "not back"
                assert _held(world), "a route was dropped"
                await asyncio.sleep(0.02)
            assert node.count(SpeakerLost) == 1
            await until(lambda: "stale" not in json.dumps(_table(world)).lower(), "refreshed")
            assert _held(world)

    asyncio.run(body())
