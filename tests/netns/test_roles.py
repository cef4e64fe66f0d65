"""Roles in OPENs (RFC 9234 section 4): with BIRD and FRR as the neighbor, and with a raw speaker for what no router sends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from bgpd.model.event import PeerDown, PeerUp
from bgpd.model.peer import Peer, Role
from tests.netns.exabgp_world import PEER, THEIRS, Node, World, running, until
from tests.netns.raw_speaker import IPV4, NOTIFICATION, RawSpeaker, asn4, capability, message
from tests.netns.routers import Wanted, router

pytestmark = pytest.mark.netns

WAIT_S = 60.0
CUSTOMER = replace(PEER, role=Role.CUSTOMER)
MISMATCH = (2, 11)
PROVIDERS, CUSTOMERS, UNKNOWN = capability(9, b"\0"), capability(9, b"\3"), capability(9, b"\x63")
"""The capability with the value of each."""


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def _reason(node: Node) -> str:
    downs = (event for event in reversed(node.events) if isinstance(event, PeerDown))
    return next((event.reason for event in downs), "")


@pytest.mark.parametrize("kind", ["bird", "frr"])
def test_roles_that_fit_make_a_session_and_others_none(world: World, kind: str) -> None:
    """A strict router takes us as its customer, and is told to be a provider; without a role, or with a wrong one, each side says so."""

    async def body() -> None:
        router(kind, world, Wanted(role="provider", role_strict=True))
        async with running(Node(world)) as node:
            await node.speaker.neighbors.apply([(THEIRS, PEER)])
            await until(lambda: "Role Mismatch" in _reason(node), "a router that insists", WAIT_S)
            assert "the neighbor sent OPEN Message Error: Role Mismatch (2/11): " in _reason(node)
            assert _reason(node).endswith("we have none")

            await node.speaker.neighbors.apply([(THEIRS, CUSTOMER)])
            await until(node.up, "a session", WAIT_S)
            opened = [event.open for event in node.events if isinstance(event, PeerUp)][-1]
            assert ("provider",) == opened.roles

            await node.speaker.neighbors.apply([(THEIRS, replace(PEER, role=Role.PEER))])
            await until(lambda: not node.up() and "Role Mismatch" in _reason(node), "the wrong role", WAIT_S)
            assert "ours is peer" in _reason(node)

    asyncio.run(body())


def _outcome(world: World, peer: Peer, *roles: bytes) -> tuple[tuple[int, int], str] | None:
    """Have a neighbor with these capabilities connect; returns what it was told and our reason, None if there is a session."""

    async def body() -> tuple[tuple[int, int], str] | None:
        async with (
            RawSpeaker(world.theirs, THEIRS, 65001, IPV4, asn4(65001), *roles) as speaker,
            running(Node(world)) as node,
        ):
            await node.speaker.neighbors.apply([(THEIRS, peer)])
            await until(lambda: node.up() or (speaker.notifications() and _reason(node)), "an outcome", WAIT_S)
            return None if node.up() else (speaker.notifications()[0], _reason(node))

    return asyncio.run(body())


STRICT = replace(CUSTOMER, role_strict=True)
INTERNAL = replace(CUSTOMER, local_asn=65001)


@pytest.mark.parametrize(
    ("peer", "roles", "reason"),
    [
        (CUSTOMER, (), None),
        (CUSTOMER, (PROVIDERS, PROVIDERS), None),
        (PEER, (PROVIDERS,), None),
        (INTERNAL, (CUSTOMERS,), None),
        (STRICT, (PROVIDERS,), None),
        (STRICT, (), "it offers no role, ours is customer, and we insist on one"),
        (CUSTOMER, (CUSTOMERS,), "its role is customer, ours is customer"),
        (CUSTOMER, (PROVIDERS, CUSTOMERS), "its role is provider, customer, ours is customer"),
        (CUSTOMER, (UNKNOWN,), "its role is 0x63, ours is customer"),
    ],
    ids=["none", "twice", "not-asked", "internal", "strict", "strict-none", "same", "contradicts", "unknown"],
)
def test_an_open_is_judged_by_its_role(world: World, peer: Peer, roles: tuple[bytes, ...], reason: str | None) -> None:
    """Roles that do not fit, contradict each other, or are missing where we are strict: Role Mismatch; others pass."""
    expected = None if reason is None else (MISMATCH, f"we sent OPEN Message Error: Role Mismatch (2/11): {reason}")

    assert expected == _outcome(world, peer, *roles)


def test_a_neighbor_that_refuses_our_role_is_understood(world: World) -> None:
    """Role Mismatch from the neighbor is the reason shown, with our role."""

    async def body() -> None:
        async with RawSpeaker(world.theirs, THEIRS, 65001) as speaker, running(Node(world)) as node:
            speaker.openings.append(message(NOTIFICATION, bytes(MISMATCH)))
            await node.speaker.neighbors.apply([(THEIRS, CUSTOMER)])
            await until(lambda: "Role Mismatch" in _reason(node), "its refusal", WAIT_S)
            assert "the neighbor sent OPEN Message Error: Role Mismatch (2/11): ours is customer" == _reason(node)

    asyncio.run(body())
