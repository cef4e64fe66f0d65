"""Errors of message headers and OPENs (RFC 4271 sections 6.1 and 6.2), from a raw peer: each is answered with its NOTIFICATION."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from bgpd.model.event import PeerDown
from tests.netns.exabgp_world import PEER, THEIRS, Node, World, running, until
from tests.netns.raw_speaker import KEEPALIVE, OPEN, RawSpeaker, asn4, capability, message

pytestmark = pytest.mark.netns

WAIT_S = 60.0
MARKER = b"\xff" * 16


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


HEADERS = {
    "marker": ((1, 1), b"\0" + MARKER[1:] + b"\0\x13\4"),
    "length below 19": ((1, 2), MARKER + b"\0\x12\4"),
    "length of a KEEPALIVE": ((1, 2), message(KEEPALIVE, b"x")),
    "type": ((1, 3), message(77)),
}
OPENS: dict[str, tuple[tuple[int, int], Callable[[RawSpeaker], bytes]]] = {
    "version": ((2, 1), lambda peer: peer.open_body(version=3)),
    "AS number": ((2, 2), lambda peer: peer.open_body(asn=65123)),
    "AS 0 (RFC 7607)": ((2, 2), lambda peer: b"\4\0\0" + peer.open_body()[3:]),
    "identifier 0": ((2, 3), lambda peer: peer.open_body(router_id=b"\0\0\0\0")),
    "hold time 1": ((2, 6), lambda peer: peer.open_body(hold_time_s=1)),
}


def test_an_error_in_a_header_ends_the_session(world: World) -> None:
    """Connection Not Synchronized, Bad Message Length and Bad Message Type are told as such, and the session comes back."""

    async def body() -> None:
        async with RawSpeaker(world.theirs, THEIRS, 65001) as speaker, running(Node(world)) as node:
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            for number, (name, (expected, data)) in enumerate(HEADERS.items(), start=1):
                await until(
                    lambda number=number: speaker.established == number and node.up(), f"session {number}", WAIT_S
                )
                speaker.write(data)
                await until(lambda number=number: len(speaker.notifications()) == number, f"answer to {name}", WAIT_S)
                assert (name, expected) == (name, speaker.notifications()[-1])
                await until(lambda number=number: node.count(PeerDown) == number, f"end by {name}", WAIT_S)

    asyncio.run(body())


def test_an_error_in_an_open_is_refused(world: World) -> None:
    """Unsupported Version Number, Bad Peer AS, Bad BGP Identifier and Unacceptable Hold Time are told as such; no session comes up."""

    async def body() -> None:
        plain = (capability(1, b"\0\1\0\1"),)
        async with RawSpeaker(world.theirs, THEIRS, 65001, *plain) as speaker, running(Node(world)) as node:
            speaker.openings.extend(message(OPEN, made(speaker)) for _, made in OPENS.values())
            speaker.capabilities = (*plain, asn4(65001))
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(node.up, "a session after all", WAIT_S)

            answers = dict(zip(OPENS, speaker.notifications(), strict=True))
            assert {name: expected for name, (expected, _) in OPENS.items()} == answers
            assert 1 == speaker.established

    asyncio.run(body())
