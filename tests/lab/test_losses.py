"""What a failure costs traffic between workloads, at a thousand packets a second each way: lost packets, and the time to the new way.

By hand: ``LOSSES=all python -m pytest -s tests/lab/test_losses.py`` prints the whole table. LOSSES names cases (comma separated);
FLAPS and FLAP_S say how often a router flaps and how long a round takes. CI runs a few. Figures are for reading; what is asserted is
that traffic goes the new way, comes back, and that no packet of a workload ever leaves by the default route.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.losses_world import DEADLINE_S, HOLD_S, RESTORE_S, STORE, Loss, Stream, World

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

SHORT = "withdrawn,cut"
FLAPS = int(os.environ.get("FLAPS", "10"))
FLAP_S = float(os.environ.get("FLAP_S", "6"))
UPLINKS = ("mgmt", "up1", "up2")
LEAD_S = 1.0
"""Traffic before the failure, and after its end."""
BFD_MS = (50, 300, 0)
"""0: none, the hold time has to do."""


def sessions(world: World, verb: str, *names: str) -> None:
    """Have both routers enable or disable their sessions with nodes, at the same moment."""
    running = [router.told(verb, name) for router in world.routers for name in names]
    for one in running:
        one.communicate(timeout=DEADLINE_S)
        assert one.returncode == 0


def flap(world: World) -> None:
    for _ in range(FLAPS):
        sessions(world, "disable", "node1", "node2")
        time.sleep(FLAP_S / 2)
        sessions(world, "enable", "node1", "node2")
        time.sleep(FLAP_S / 2)


def kill_node(world: World) -> None:
    world.nodes[1].kill()
    for device in UPLINKS:
        world.nodes[1].netns.ip("link", "set", device, "down")


def revive_node(world: World) -> None:
    node = world.nodes[1]
    for device in UPLINKS:
        node.netns.ip("link", "set", device, "up")
    hops = [word for t in (1, 2) for word in ("nexthop", "via", f"10.1.{t}2.0", "dev", f"up{t}")]
    node.netns.ip("route", "replace", "10.0.0.0/24", "src", "10.0.0.2", *hops)
    node.netns.ip("route", "replace", STORE, "via", "10.9.2.0")
    node.start()
    world.until(world.native, "native again")
    # Not before: a node that boots has no routes of ours, and no workloads either, while this one's goes on sending.
    node.netns.ip("route", "replace", "default", "via", "10.9.2.0")


def lose_store(world: World) -> None:
    world.etcd.members[0].end(signal.SIGKILL)
    sessions(world, "disable", "node1", "node2")


def return_store(world: World) -> None:
    world.etcd.members[0].start()
    sessions(world, "enable", "node1", "node2")


@dataclass(frozen=True)
class Case:
    """A failure and its end."""

    title: str
    fail: Callable[[World], None]
    mend: Callable[[World], None]
    way: tuple[str, str] | None
    """How node 1 reaches the other's workload during it; None: that is not one thing."""
    noticed: bool = False
    """It is found by silence: after the detection time."""
    by_kernel: bool = False
    """The kernel takes the route away before we know, and what covers it counts for a moment: a default route, if there is one."""


FALLBACK = ("fallback", "vxlan.bgpd")
SECOND = ("native", "up2")
CLOSED = ("unreachable", "none")
CASES = {
    "withdrawn": Case(
        "all sessions withdrawn",
        lambda world: sessions(world, "disable", "node1", "node2"),
        lambda world: sessions(world, "enable", "node1", "node2"),
        FALLBACK,
    ),
    "killed": Case(
        "router killed (kill -9)", lambda world: world.routers[0].kill(), lambda world: world.routers[0].start(), SECOND
    ),
    "both-killed": Case(
        "both routers killed",
        lambda world: [router.kill() for router in world.routers].clear(),
        lambda world: [router.start() for router in world.routers].clear(),
        FALLBACK,
    ),
    "cut": Case(
        "router cut off silently",
        lambda world: world.routers[0].cut(),
        lambda world: world.routers[0].mend(),
        SECOND,
        noticed=True,
    ),
    "carrier": Case(
        "carrier lost",
        lambda world: world.routers[0].netns.ip("link", "set", "to1", "down") and None,
        lambda world: world.routers[0].netns.batch("link set to1 up", "route replace 10.0.0.1/32 via 10.1.11.1"),
        SECOND,
        by_kernel=True,
    ),
    "remote": Case(
        "remote node's sessions lost",
        lambda world: sessions(world, "disable", "node2"),
        lambda world: sessions(world, "enable", "node2"),
        FALLBACK,
    ),
    "store": Case("all withdrawn, store down", lose_store, return_store, FALLBACK),
    "flaps": Case(f"routers flap {FLAPS} times in {FLAPS * FLAP_S:g} s", flap, lambda _: None, None),
    "dead": Case("remote node dead", kill_node, revive_node, CLOSED),
}


@dataclass(frozen=True)
class Row:
    """A line of the table: each way's losses, out and back."""

    title: str
    detection_ms: int
    out: tuple[Loss, Loss]
    back: tuple[Loss, Loss]
    leaked: int
    """Packets that left a node by its default route."""
    closed_ms: float | None = None
    """When the block became unreachable, where there is no other way."""


def measure(world: World, case: Case) -> Row:
    """Let *case* happen and end under traffic."""
    silence_s = (3 * world.bfd_ms / 1e3 if world.bfd_ms else float(HOLD_S)) if case.noticed else 0.0
    leaked = world.leaked()
    stream = Stream(world)
    try:
        time.sleep(LEAD_S)
        failed = time.monotonic()
        case.fail(world)
        if case.way is not None:
            world.until(lambda: world.nodes[0].way(world.nodes[1]) == case.way, f"{case.title}: {case.way}")
        moved = time.monotonic()
        time.sleep(2 * silence_s + LEAD_S)
        mended = time.monotonic()
        case.mend(world)
        time.sleep(RESTORE_S)
        world.until(world.native, f"{case.title}: back")
        time.sleep(LEAD_S)
        ended = time.monotonic()
    finally:
        stream.end()
    out = stream.loss(0, failed, mended), stream.loss(1, failed, mended)
    back = stream.loss(0, mended, ended), stream.loss(1, mended, ended)
    closed_ms = (moved - failed) * 1e3 if case.way == CLOSED else None
    leaked = world.leaked() - leaked
    assert case.by_kernel or not leaked
    return Row(case.title, round(silence_s * 1e3), out, back, leaked, closed_ms)


def table(rows: list[tuple[str, Row]]) -> str:
    """Write the table as Markdown, for the README."""
    lines = [
        "| failure | detection | lost out (to / from) | new way after | lost back | by the default route |",
        "|---|---|---|---|---|---|",
    ]
    for detection, row in rows:
        after = f"{max(loss.until_ms for loss in row.out):.0f} ms"
        if row.closed_ms is not None:
            after = f"none; unreachable after {row.closed_ms / 1e3:.1f} s"
        out, back = (" / ".join(str(loss.packets) for loss in losses) for losses in (row.out, row.back))
        found = f"{detection}, {row.detection_ms} ms" if row.detection_ms else "at once"
        lines.append(f"| {row.title} | {found} | {out} | {after} | {back} | {row.leaked} |")
    return "\n".join(lines)


def chosen() -> list[str]:
    names = os.environ.get("LOSSES", SHORT)
    wanted = list(CASES) if names == "all" else names.split(",")
    assert set(wanted) <= set(CASES), f"no such case; there are {', '.join(CASES)}"
    return wanted


def test_failures_under_traffic(tmp_path: Path) -> None:
    """Each failure moves traffic to the way that is left and back, without a packet by the default route; the table says what it cost."""
    wanted = chosen()
    rows: list[tuple[str, Row]] = []
    whole = "LOSSES" in os.environ
    for bfd_ms in BFD_MS if whole else (300,):
        names = [name for name in wanted if bfd_ms == 300 or CASES[name].noticed]
        if not names:
            continue
        folder = tmp_path / str(bfd_ms)
        folder.mkdir()
        with World(folder, bfd_ms) as world:
            for name in names:
                rows.append(
                    (f"BFD {bfd_ms} ms x 3" if bfd_ms else f"hold time {HOLD_S} s", measure(world, CASES[name]))
                )
                print(f"\n{table(rows[-1:]).splitlines()[-1]}", end="")
    load = Path("/proc/loadavg").read_text().split()[0]
    print(f"\n\n{table(rows)}\n\nload {load}")
