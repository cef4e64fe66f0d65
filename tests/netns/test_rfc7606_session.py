"""Malformed UPDATEs from a raw peer through a real ExaBGP to the events (RFC 7606): the session lives where it may, and ends as it must."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from bgpd.adapters.exabgp.child.sessions import MALFORMED_PAUSE_S
from bgpd.model.event import Event, PeerDown, PeerUp, RoutesLearned, Treatment, UpdateMalformed
from bgpd.model.peer import Notification, Peer
from bgpd.model.prefix import Family, Prefix
from tests.netns.exabgp_world import OURS, PEER, THEIRS, Node, World, running, until
from tests.netns.raw_speaker import IPV4, IPV6, REFRESH, RawSpeaker, asn4, graceful
from tests.rfc.wire import (
    AS_PATH,
    LINK_LOCAL,
    MANDATORY,
    NEXT_HOP,
    NLRI6,
    ORIGIN,
    V6,
    as_path,
    attribute,
    reach,
    unreach,
    update,
)

pytestmark = pytest.mark.netns

WAIT_S = 60.0
BOTH = (Family.IPV4, Family.IPV6)
WITHDRAW, DISCARD = Treatment.WITHDRAW, Treatment.DISCARD
GOOD = update(MANDATORY, b"\x10\xac\x10")
KEPT = Prefix.parse("172.16.0.0/16")

Case = tuple[Treatment, str, bytes]
EITHER: list[Case] = [
    (WITHDRAW, "ORIGIN", attribute(0x40, 1, b"\3") + AS_PATH + NEXT_HOP),
    (WITHDRAW, "ORIGIN", attribute(0x40, 1, b"\0\0") + AS_PATH + NEXT_HOP),
    (WITHDRAW, "ORIGIN", attribute(0xC0, 1, b"\0") + AS_PATH + NEXT_HOP),
    (WITHDRAW, "AS_PATH", ORIGIN + attribute(0x40, 2, b"\7\1\0\0\0\1") + NEXT_HOP),
    (WITHDRAW, "AS_PATH", ORIGIN + attribute(0x40, 2, b"\2\2\0\0\0\1") + NEXT_HOP),
    (WITHDRAW, "AS_PATH", ORIGIN + attribute(0x40, 2, b"\2\1\0\0\0\1\2") + NEXT_HOP),
    (WITHDRAW, "AS_PATH", ORIGIN + attribute(0x40, 2, b"\2\0") + NEXT_HOP),
    (WITHDRAW, "AS_PATH", ORIGIN + as_path(65001, 0) + NEXT_HOP),
    (WITHDRAW, "AS_PATH", ORIGIN + NEXT_HOP),
    (WITHDRAW, "NEXT_HOP", ORIGIN + AS_PATH + attribute(0x40, 3, b"\1\2\3")),
    (WITHDRAW, "NEXT_HOP", ORIGIN + AS_PATH),
    (WITHDRAW, "MULTI_EXIT_DISC", MANDATORY + attribute(0x80, 4, b"\0\0\0")),
    (WITHDRAW, "COMMUNITIES", MANDATORY + attribute(0xC0, 8, b"")),
    (WITHDRAW, "COMMUNITIES", MANDATORY + attribute(0xC0, 8, b"\0" * 5)),
    (WITHDRAW, "TRAFFIC_ENGINEERING", MANDATORY + attribute(0x80, 24, b"\0")),
    (WITHDRAW, "EXTENDED_COMMUNITIES", MANDATORY + attribute(0xC0, 16, b"\0" * 9)),
    (WITHDRAW, "IPV6_EXTENDED_COMMUNITIES", MANDATORY + attribute(0xC0, 25, b"\0" * 21)),
    (WITHDRAW, "LARGE_COMMUNITY", MANDATORY + attribute(0xC0, 32, b"\0" * 13)),
    (WITHDRAW, "ATTR_SET", MANDATORY + attribute(0xC0, 128, b"\0\0")),
    (WITHDRAW, "attributes", MANDATORY + b"\x80\x04\x09\0"),
    (DISCARD, "ATOMIC_AGGREGATE", MANDATORY + attribute(0x40, 6, b"x")),
    (DISCARD, "AGGREGATOR", MANDATORY + attribute(0xC0, 7, b"\1" * 7)),
    (DISCARD, "ORIGIN", MANDATORY + attribute(0x40, 1, b"\1")),
    (DISCARD, "AS4_PATH", MANDATORY + attribute(0xC0, 17, b"\2\1\0\0\0\1")),
]
EXTERNAL: list[Case] = [
    (WITHDRAW, "AS_PATH", ORIGIN + as_path(65001, kind=3) + NEXT_HOP),
    (DISCARD, "LOCAL_PREF", MANDATORY + attribute(0x40, 5, b"\0")),
    (DISCARD, "ORIGINATOR_ID", MANDATORY + attribute(0x80, 9, b"\0")),
    (DISCARD, "CLUSTER_LIST", MANDATORY + attribute(0x80, 10, b"\0")),
]
INTERNAL: list[Case] = [
    (WITHDRAW, "LOCAL_PREF", MANDATORY + attribute(0x40, 5, b"\0")),
    (WITHDRAW, "ORIGINATOR_ID", MANDATORY + attribute(0x80, 9, b"\0")),
    (WITHDRAW, "CLUSTER_LIST", MANDATORY + attribute(0x80, 10, b"\0")),
]
ENDINGS = [
    pytest.param((3, 1), b"\0\0\xff\xff", 30, id="lengths exceed the message"),
    pytest.param((3, 1), update(MANDATORY + unreach() * 2, b"\x08\x0b"), 30, id="MP_UNREACH_NLRI twice"),
    pytest.param(
        (3, 2), update(MANDATORY + attribute(0x40, 200, b""), b"\x08\x0b"), 30, id="unknown well-known attribute"
    ),
    pytest.param((3, 4), update(MANDATORY + reach(flags=0xC0), b"\x08\x0b"), 30, id="MP_REACH_NLRI flags"),
    pytest.param((3, 5), update(attribute(0x80, 4, b"\0"), withdrawn=b"\x08\x0b"), 30, id="defect without routes"),
    pytest.param(
        (3, 9), update(ORIGIN + AS_PATH + reach(b"\0\1\1\5\1\1\1\1\1\0\x08\x0b")), 30, id="only family broken"
    ),
    pytest.param((3, 10), update(MANDATORY, b"\x21\0\0\0\0\0"), 30, id="prefix of 33 bits"),
    pytest.param((3, 10), update(withdrawn=b"\x18\0"), 30, id="withdrawn prefix truncated"),
]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def prefix(number: int) -> tuple[Prefix, bytes]:
    """A prefix for each case, and its NLRI."""
    return Prefix.parse(f"10.9.{number}.0/24"), bytes((24, 10, 9, number))


def routes(node: Node) -> dict[Prefix, object]:
    return dict(node.routes())


def defects(events: list[Event]) -> list[tuple[Treatment, str]]:
    return [(event.treatment, event.attribute) for event in events if isinstance(event, UpdateMalformed)]


async def established(node: Node, speaker: RawSpeaker, peer: Peer) -> None:
    assert {} == await node.speaker.neighbors.apply([(peer.address, peer)])
    await until(lambda: node.up() and speaker.is_up, "session", WAIT_S)


@pytest.mark.parametrize(
    ("asn", "cases"),
    [pytest.param(65001, EITHER + EXTERNAL, id="eBGP"), pytest.param(65000, EITHER + INTERNAL, id="iBGP")],
)
def test_the_session_stays_up_and_the_routes_are_treated(world: World, asn: int, cases: list[Case]) -> None:
    """Each malformed attribute of section 7 leaves the session up: its routes are withdrawn, or stand without the attribute."""

    async def body() -> None:
        async with (
            RawSpeaker(world.theirs, THEIRS, asn, IPV4, REFRESH, asn4(asn)) as speaker,
            running(Node(world)) as node,
        ):
            await established(node, speaker, replace(PEER, asn=asn))
            speaker.send(GOOD)
            for number, (treatment, name, attributes) in enumerate(cases):
                route, nlri = prefix(number)
                speaker.send(update(MANDATORY, nlri))
                await until(lambda route=route: route in routes(node), f"sound {route}", WAIT_S)
                sound, since = routes(node)[route], len(node.events)

                speaker.send(update(attributes, nlri))
                await until(lambda since=since: defects(node.events[since:]), f"{name} of {attributes.hex()}", WAIT_S)

                assert [(treatment, name)] == defects(node.events[since:])
                if treatment is WITHDRAW:
                    await until(lambda route=route: route not in routes(node), f"withdrawal by {name}", WAIT_S)
                else:
                    assert sound == routes(node)[route]
            assert KEPT in routes(node)
            assert [] == speaker.notifications()
            assert (1, 0, 1) == (node.count(PeerUp), node.count(PeerDown), speaker.established)

    asyncio.run(body())


WITHOUT_RESTART = pytest.param((3, 10), update(MANDATORY, b"\x21\0\0\0\0\0"), 0, id="without graceful restart")


@pytest.mark.parametrize(("expected", "malformed", "restart_s"), [*ENDINGS, WITHOUT_RESTART])
def test_the_session_ends_with_the_notification(
    world: World, expected: tuple[int, int], malformed: bytes, restart_s: int
) -> None:
    """What RFC 4271 section 6.3 answers with a NOTIFICATION is answered with it, graceful restart or not; after a pause it is back."""

    async def body() -> None:
        capabilities = [IPV4, REFRESH, asn4(65001), *([graceful(restart_s, 1)] if restart_s else [])]
        async with RawSpeaker(world.theirs, THEIRS, 65001, *capabilities) as speaker, running(Node(world)) as node:
            await established(node, speaker, replace(PEER, graceful_restart_s=restart_s))
            speaker.send(GOOD)
            await until(lambda: KEPT in routes(node), "a sound route", WAIT_S)

            speaker.send(malformed)
            await until(speaker.notifications, "a NOTIFICATION", WAIT_S)
            await until(lambda: node.count(PeerDown) == 1, "the end", WAIT_S)

            assert [expected] == speaker.notifications()
            down = next(event for event in node.events if isinstance(event, PeerDown))
            assert isinstance(down.notification, Notification)
            assert (*expected, True) == (down.notification.code, down.notification.subcode, down.notification.sent)
            ended = time.monotonic()
            if restart_s:
                return
            await until(lambda: speaker.established == 2 and node.up(), "the next session", WAIT_S)
            assert time.monotonic() - ended > MALFORMED_PAUSE_S / 2, "called again at once"
            assert 1 == node.count(PeerDown)

    asyncio.run(body())


def test_a_broken_family_is_disabled_where_there_is_another(world: World) -> None:
    """A defect of MP_REACH_NLRI ends its family for the session (AFI/SAFI disable); the other family goes on."""

    async def body() -> None:
        capabilities = (IPV4, IPV6, REFRESH, asn4(65001))
        async with RawSpeaker(world.theirs, THEIRS, 65001, *capabilities) as speaker, running(Node(world)) as node:
            await established(node, speaker, replace(PEER, families=BOTH))
            speaker.send(GOOD)
            speaker.send(update(ORIGIN + AS_PATH + reach()))
            await until(lambda: len(routes(node)) == 2, "a route of each family", WAIT_S)

            broken = reach(b"\0\2\1\x08" + V6[:8] + b"\0" + NLRI6)
            speaker.send(update(MANDATORY + broken, b"\x08\x0b"))
            speaker.send(update(ORIGIN + AS_PATH + reach(b"\0\2\1\x20" + V6 + LINK_LOCAL + b"\0\x10\x20\x02")))
            speaker.send(update(MANDATORY, b"\x08\x0c"))
            await until(lambda: Prefix.parse("12.0.0.0/8") in routes(node), "what came after", WAIT_S)

            (told,) = (event for event in node.events if isinstance(event, UpdateMalformed))
            assert (Treatment.DISABLE, "MP_REACH_NLRI", Family.IPV6) == (told.treatment, told.attribute, told.family)
            at = node.events.index(told)
            later = [event for event in node.events[at:] if isinstance(event, RoutesLearned)]
            assert {"11.0.0.0/8", "12.0.0.0/8"} == {str(one) for event in later for one in event.announced}
            assert [] == speaker.notifications()
            assert 0 == node.count(PeerDown)

    asyncio.run(body())


def test_a_speaker_of_two_byte_as_numbers_is_understood(world: World) -> None:
    """With a peer without 4-byte AS numbers, AS_TRANS is replaced by AS4_PATH, and a path of two bytes by itself is read (RFC 6793)."""

    async def body() -> None:
        async with RawSpeaker(world.theirs, THEIRS, 65001, IPV4, REFRESH) as speaker, running(Node(world)) as node:
            await established(node, speaker, PEER)
            path = as_path(65001, 23456, size=2)
            newer = attribute(0xC0, 17, b"\2\1" + (4200000001).to_bytes(4, "big"))
            speaker.send(update(ORIGIN + path + NEXT_HOP + newer, b"\x08\x0b"))
            await until(lambda: routes(node), "a route", WAIT_S)

            (attributes,) = node.routes().values()
            assert [65001, 4200000001] == [asn for segment in attributes.as_path for asn in segment.asns]
            assert OURS != attributes.next_hop

    asyncio.run(body())
