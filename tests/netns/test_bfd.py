"""BFD against BIRD's and FRR's: sessions, failures, orders, restarts of the daemon (RFC 5880, 5881, 5883)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from typing import Any

import msgspec
import pytest

from bgpd.model.bfd import BfdSession, BfdState
from bgpd.model.peer import Bfd, SecretRef
from tests.netns.bfd_world import (
    INTERVAL_MS,
    LOOP,
    OURS,
    OURS6,
    THEIR_LOOP,
    THEIRS,
    THEIRS6,
    World,
    attached,
    session,
    until,
)

pytestmark = [pytest.mark.netns, pytest.mark.alone]

BIRD_TIMERS = f"min rx interval {INTERVAL_MS} ms; min tx interval {INTERVAL_MS} ms; idle tx interval 1 s; multiplier 3;"
BIRD = f"""
  interface "xb" {{ {BIRD_TIMERS} }};
  multihop {{ {BIRD_TIMERS} }};
  neighbor {OURS} dev "xb";
  neighbor {OURS6} dev "xb";
  neighbor {LOOP} local {THEIR_LOOP} multihop;
"""
FRR_TIMERS = (
    f"  receive-interval {INTERVAL_MS}\n  transmit-interval {INTERVAL_MS}\n  detect-multiplier 3\n  no shutdown\n"
)
FRR = (
    f" peer {OURS} interface xb\n{FRR_TIMERS} peer {OURS6} local-address {THEIRS6} interface xb\n{FRR_TIMERS}"
    f" peer {LOOP} multihop local-address {THEIR_LOOP}\n{FRR_TIMERS}"
)
WANTED = {THEIRS: session(), THEIRS6: session(OURS6), THEIR_LOOP: session(LOOP, multihop=True)}


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def inside(world: World, body: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        await body

    world.ours.run(main)


@pytest.mark.parametrize("router", ["bird", "frr"])
def test_sessions_come_up_and_a_silent_cut_is_noticed(world: World, router: str) -> None:
    """Single hop, IPv6 and multihop sessions come up with the router; a cut without a sign fails them, and they come back."""

    async def body() -> None:
        world.bird(BIRD) if router == "bird" else world.frr(FRR)
        async with attached(world) as ours:
            for peer, wanted in WANTED.items():
                await ours.want(peer, wanted)
            await until(lambda: all(ours.state(peer) is BfdState.UP for peer in WANTED), "up")
            status = ours.status[THEIRS]
            assert status is not None
            await until(lambda: ours.status[THEIRS].detection_time_ms == 3 * INTERVAL_MS, "fast timers")  # type: ignore[union-attr]
            world.cut()
            await until(lambda: all(ours.failed(peer) for peer in WANTED), "the failure")
            assert {"control detection time expired", "neighbor signaled session down"} >= {
                ours.status[peer].diagnostic  # type: ignore[union-attr]
                for peer in WANTED
            }
            world.mend()
            await until(lambda: all(ours.state(peer) is BfdState.UP for peer in WANTED), "up again")
            assert not any(ours.failed(peer) for peer in WANTED)

    inside(world, body())


@pytest.mark.parametrize("meticulous", [False, True])
def test_only_the_right_key_brings_a_session_up(world: World, meticulous: bool) -> None:
    """Keyed SHA1 with BIRD: the same key comes up, another one does not, and a missing one is refused by name."""

    async def body() -> None:
        word = "meticulous keyed sha1" if meticulous else "keyed sha1"
        world.bird(
            f'interface "xb" {{ {BIRD_TIMERS} authentication {word}; password "same" {{ id 3; }}; }};\n'
            f'neighbor {OURS} dev "xb";'
        )
        folder = world.folder / "secrets" / "bfd"
        folder.mkdir(parents=True)
        for name in ("same", "other"):
            (folder / name).touch(0o600)
            (folder / name).write_text(f"{name}\n")

        def keyed(name: str) -> BfdSession:
            timers = msgspec.structs.replace(
                session().timers, password=SecretRef("bfd", name), key_id=3, meticulous=meticulous
            )
            return msgspec.structs.replace(session(), timers=timers)

        async with attached(world) as ours:
            await ours.want(THEIRS, keyed("same"))
            await until(lambda: ours.state() is BfdState.UP and world.bird_says() == "Up", "up")
            assert "missing" in (await ours.process.apply([(THEIRS, keyed("missing"))]))[THEIRS]
            await ours.want(THEIRS, keyed("other"))
            await until(lambda: ours.state() is not BfdState.UP and world.bird_says() != "Up", "down")
            await asyncio.sleep(1.5)  # a second of hellos that must not be believed
            assert ours.state() is BfdState.DOWN

    inside(world, body())


def test_birds_order_to_end_is_no_failure(world: World) -> None:
    """A neighbor that ends BFD by AdminDown says nothing about the path (RFC 5882 section 3.2)."""

    async def body() -> None:
        world.frr(FRR)
        async with attached(world) as ours:
            await ours.want(THEIRS, session())
            await until(lambda: ours.state() is BfdState.UP, "up")
            world.vtysh("configure terminal", "bfd", f"peer {OURS} interface xb", "shutdown")
            await until(lambda: ours.state() is not BfdState.UP, "down")
            await until(lambda: not ours.failed(), "no failure")

    inside(world, body())


def test_a_restart_of_the_daemon_is_not_seen_by_the_neighbor(world: World) -> None:
    """The process keeps its sessions while no daemon is attached, and tells the next one what it holds; an end in order says AdminDown."""

    async def body() -> None:
        world.bird(BIRD)
        async with attached(world, keep=True) as ours:
            await ours.want(THEIRS, session())
            await until(lambda: ours.state() is BfdState.UP and world.bird_says() == "Up", "up")
        before = world.birdc("show", "bfd", "sessions")
        async with attached(world) as ours:
            await until(lambda: ours.state() is BfdState.UP, "known again")
            assert {THEIRS: session()} == dict(ours.process.actual)
        assert "Up" in before
        await until(lambda: world.bird_says() != "Up", "BIRD hears of the end")

    inside(world, body())


def test_a_change_of_timers_takes_no_session_down(world: World) -> None:
    """Slower and faster timers are negotiated by Poll while the session stays up at both ends."""

    async def body() -> None:
        world.bird(BIRD)
        async with attached(world) as ours:
            await ours.want(THEIRS, session())
            await until(lambda: ours.state() is BfdState.UP, "up")
            for timers in (
                Bfd(min_tx_ms=1000, min_rx_ms=1000, multiplier=3),
                Bfd(min_tx_ms=50, min_rx_ms=50, multiplier=20),
            ):
                await ours.want(THEIRS, msgspec.structs.replace(session(), timers=timers))
                expected = 3 * max(timers.min_rx_ms, INTERVAL_MS)
                await until(lambda ms=expected: ours.status[THEIRS].detection_time_ms == ms, "negotiated")  # type: ignore[misc, union-attr]
            assert (0, "Up") == (ours.downs(), world.bird_says())

    inside(world, body())


def test_a_process_that_dies_says_nothing_about_the_path(world: World) -> None:
    """kill -9 of the BFD process is told as not known, never as a failure, and another one takes over."""

    async def body() -> None:
        world.bird(BIRD)
        async with attached(world) as ours:
            await ours.want(THEIRS, session())
            await until(lambda: ours.state() is BfdState.UP, "up")
            ours.process.kill()
            await until(lambda: ours.status[THEIRS] is None, "not known")
            await ours.want(THEIRS, session())
            await until(lambda: ours.state() is BfdState.UP, "up again")
            assert ["bfd.lost"] == [notice.name for notice in ours.notices]
            assert not any(status is not None and status.failed for _, _, status in ours.history)

    inside(world, body())


def test_packets_that_cannot_be_sent_are_told(world: World) -> None:
    """A firewall of our own and a missing route are named, once each, and forgotten when packets go out again."""

    async def body() -> None:
        world.bird(BIRD)
        async with attached(world) as ours:
            await ours.want(THEIRS, session())
            await ours.want(THEIR_LOOP, session(LOOP, multihop=True))
            await until(lambda: ours.state() is ours.state(THEIR_LOOP) is BfdState.UP, "up")
            world.ours.execute("nft", "add table inet mute")
            world.ours.execute("nft", "add chain inet mute out { type filter hook output priority 0; }")
            world.ours.execute("nft", f"add rule inet mute out ip daddr {THEIRS} udp dport 3784 drop")
            world.ours.ip("route", "delete", f"{THEIR_LOOP}/32")
            await until(lambda: "Operation not permitted" in ours.problem(), "the firewall is named")
            await until(lambda: "unreachable" in ours.problem(THEIR_LOOP), "the missing route is named")
            world.ours.execute("nft", "delete table inet mute")
            world.ours.ip("route", "add", f"{THEIR_LOOP}/32", "via", str(THEIRS))
            await until(lambda: not ours.problem() and not ours.problem(THEIR_LOOP), "packets go out")
            await until(lambda: ours.state() is ours.state(THEIR_LOOP) is BfdState.UP, "up again")

    inside(world, body())


def test_lost_packets_take_no_session_down(world: World) -> None:
    """A path that loses a packet in a hundred keeps its sessions; BFD_S says for how long that is looked at."""

    async def body() -> None:
        world.bird(BIRD)
        async with attached(world) as ours:
            await ours.want(THEIRS, session())
            await until(lambda: ours.state() is BfdState.UP, "up")
            world.lose(1)
            await asyncio.sleep(float(os.environ.get("BFD_S", "4")))
            assert (0, "Up") == (ours.downs(), world.bird_says())

    inside(world, body())
