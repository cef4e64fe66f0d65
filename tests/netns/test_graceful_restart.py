"""Graceful restart as the restarting speaker (RFC 4724 section 4.1), seen by a raw peer through a real ExaBGP."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from bgpd.model.event import PeerUp
from bgpd.model.prefix import Address, Prefix
from bgpd.model.route import Announcement
from tests.netns.exabgp_world import PEER, THEIRS, Node, World, running, until
from tests.netns.raw_speaker import IPV4, OPEN, REFRESH, UPDATE, RawSpeaker, asn4, graceful

pytestmark = pytest.mark.netns

WAIT_S = 60.0
BLOCKS = 300
OWN = tuple(Prefix.of(Address(Address.parse("10.64.0.0") + 64 * number), 26) for number in range(BLOCKS))
END_OF_RIB = b"\0\0\0\0"
R, N, F = 0x80, 0x40, 0x80


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def flags(speaker: RawSpeaker) -> list[tuple[int, int, int]]:
    """Restart flags, restart time and the family's flags of each OPEN received (RFC 4724 section 3, RFC 8538 section 2)."""
    found = []
    for kind, body in speaker.received:
        if kind == OPEN:
            at = body.index(b"\x40\x06", 10)  # the capability, of one family
            time_s = int.from_bytes(body[at + 2 : at + 4], "big") & 0xFFF
            found.append((body[at + 2] & 0xF0, time_s, body[at + 7]))
    return found


def updates(speaker: RawSpeaker) -> list[bytes]:
    """UPDATEs of the last session."""
    last = max(at for at, (kind, _) in enumerate(speaker.received) if kind == OPEN)
    return [body for kind, body in speaker.received[last:] if kind == UPDATE]


def announced(speaker: RawSpeaker) -> int:
    """Prefixes announced in the last session: each has a length byte of 26 and 4 bytes of address."""
    return sum(len(body) - 4 - int.from_bytes(body[2:4], "big") for body in updates(speaker)) // 5


def test_everything_is_announced_before_end_of_rib(world: World) -> None:
    """A cold start claims no restart and nothing preserved, one after a crash both; each announces all first, and End-of-RIB last, once."""

    async def body() -> None:
        capabilities = (IPV4, REFRESH, asn4(65001), graceful(30, 1))
        async with RawSpeaker(world.theirs, THEIRS, 65001, *capabilities) as speaker, running(Node(world)) as node:
            wanted = {(THEIRS, prefix): Announcement(med=number % 7) for number, prefix in enumerate(OWN)}
            node.announce(wanted)
            await node.speaker.neighbors.apply([(THEIRS, replace(PEER, graceful_restart_s=30))])
            for life in (1, 2):
                await until(lambda life=life: speaker.established == life, f"session {life}", WAIT_S)
                await until(lambda: END_OF_RIB in updates(speaker), "End-of-RIB", WAIT_S)

                assert BLOCKS == announced(speaker)
                assert END_OF_RIB == updates(speaker)[-1]
                assert 1 == updates(speaker).count(END_OF_RIB)
                await until(lambda life=life: node.count(PeerUp) == life, "PeerUp", WAIT_S)
                if life == 1:
                    assert node.speaker.pid is not None
                    os.kill(node.speaker.pid, signal.SIGKILL)
            assert [(N, 30, 0), (N | R, 30, F)] == flags(speaker)

    asyncio.run(body())


def test_a_session_that_was_lost_claims_no_restart(world: World) -> None:
    """A session that comes back without a restart of ours has R clear and F set: the kernel's routes stood. It is sent everything again."""

    async def body() -> None:
        capabilities = (IPV4, REFRESH, asn4(65001), graceful(30, 1))
        async with RawSpeaker(world.theirs, THEIRS, 65001, *capabilities) as speaker, running(Node(world)) as node:
            node.announce({(THEIRS, prefix): Announcement() for prefix in OWN[:3]})
            await node.speaker.neighbors.apply([(THEIRS, replace(PEER, graceful_restart_s=30))])
            await until(lambda: speaker.established == 1 and END_OF_RIB in updates(speaker), "End-of-RIB", WAIT_S)

            speaker.close()
            await until(lambda: speaker.established == 2 and END_OF_RIB in updates(speaker), "the next one's", WAIT_S)

            assert [(N, 30, 0), (N, 30, F)] == flags(speaker)
            assert 3 == announced(speaker)

    asyncio.run(body())
