"""The table of decisions (architecture section 5) and the way back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.overlay.choose import How, Situation, choose
from bgpd.core.overlay.restore import Restore
from bgpd.model.event import Options
from bgpd.model.forwarding import IPIP_DEVICE, VXLAN_DEVICE, Leg
from bgpd.model.overlay import Path
from bgpd.model.pool import Mode
from bgpd.model.prefix import Address

pytestmark = pytest.mark.core

NATIVE = (Leg("eth1", Address.parse("10.1.11.0")),)
DIRECT = (Leg("eth0", Address.parse("192.0.2.2")),)
TUNNEL = (Leg(VXLAN_DEVICE, Address.parse("10.0.0.2"), onlink=True),)
FALLBACK = (Leg(IPIP_DEVICE, Address.parse("10.0.0.2"), onlink=True),)

SITUATIONS = [
    Situation(
        mode=mode,
        same_subnet=same,
        native=native,
        native_reason="" if native else "no BGP peer announces it",
        direct=direct if same else (),
        restored=restored,
        alive=alive,
        tunnel=tunnel,
        tunnel_reason="" if tunnel else "the node has no VXLAN device",
        fallback=fallback,
        fallback_reason="" if fallback else "the pool allows none",
        decided=decided,
        forced=forced,
        forced_tunnel=forced_tunnel if forced is Path.IPIP else (),
        forced_reason="" if forced_tunnel else "this node has no IPIP device",
    )
    for mode, fallback, same, native, direct, restored, alive, tunnel, decided, forced, forced_tunnel in itertools.product(
        Mode,
        (FALLBACK, ()),
        (True, False),
        (NATIVE, ()),
        (DIRECT, ()),
        (True, False),
        (True, False),
        (TUNNEL, ()),
        (True, False),
        (Path.AUTO, Path.NATIVE, Path.IPIP),
        (FALLBACK, ()),
    )
]


class Row(NamedTuple):
    """A row of the table: when it applies, whatever other rows say, and what follows."""

    applies: Callable[[Situation], bool]
    how: How
    legs: Callable[[Situation], tuple[Leg, ...]]


def _forced(now: Situation) -> bool:
    return bool(now.forced_tunnel) or (now.forced is Path.NATIVE and bool(now.native or now.direct))


def _tunnelled(now: Situation) -> bool:
    by_mode = now.mode is Mode.ALWAYS or (now.mode is Mode.CROSS_SUBNET and not now.same_subnet)
    return by_mode and not _forced(now)


def _open(now: Situation) -> bool:
    """Neither an operator nor the pool's mode has a say."""
    return not _forced(now) and not _tunnelled(now)


def _can_fall_back(now: Situation) -> bool:
    return now.alive and bool(now.fallback)


def _goes_natively(now: Situation) -> bool:
    return _open(now) and bool(now.native or now.direct) and (now.restored or not _can_fall_back(now))


def _lost(now: Situation) -> bool:
    return _open(now) and not _goes_natively(now)


def nothing(_: Situation) -> tuple[Leg, ...]:
    return ()


ROWS = {
    "forced tunnel": Row(lambda now: bool(now.forced_tunnel), How.TUNNEL, lambda now: now.forced_tunnel),
    "forced native, BGP": Row(
        lambda now: now.forced is Path.NATIVE and bool(now.native), How.NATIVE, lambda now: now.native
    ),
    "forced native, on link": Row(
        lambda now: now.forced is Path.NATIVE and bool(now.direct) and not now.native,
        How.DIRECT,
        lambda now: now.direct,
    ),
    "the pool's tunnel": Row(lambda now: _tunnelled(now) and bool(now.tunnel), How.TUNNEL, lambda now: now.tunnel),
    "the pool's tunnel, which cannot be used": Row(
        lambda now: _tunnelled(now) and not now.tunnel, How.UNREACHABLE, nothing
    ),
    "native": Row(lambda now: _goes_natively(now) and bool(now.native), How.NATIVE, lambda now: now.native),
    "on link": Row(lambda now: _goes_natively(now) and not now.native, How.DIRECT, lambda now: now.direct),
    "start-up": Row(lambda now: _lost(now) and not now.decided, How.WAITING, nothing),
    "fallback": Row(
        lambda now: _lost(now) and now.decided and _can_fall_back(now), How.FALLBACK, lambda now: now.fallback
    ),
    "fail closed": Row(lambda now: _lost(now) and now.decided and not _can_fall_back(now), How.UNREACHABLE, nothing),
}


def test_exactly_one_row_applies_to_any_combination_of_facts() -> None:
    """All 4,608 combinations: no two rows apply, one does, it is the one chosen with its legs, and a reason is given."""
    assert 4608 == len(SITUATIONS)
    for now in SITUATIONS:
        applying = [name for name, row in ROWS.items() if row.applies(now)]
        assert 1 == len(applying), (applying, now)
        choice, row = choose(now), ROWS[applying[0]]
        assert (row.how, row.legs(now)) == (choice.how, choice.legs), (applying, now)
        assert choice.reason
        vain = now.forced is not Path.AUTO and not _forced(now)
        assert vain is ("in vain" in choice.reason)


@given(st.lists(st.tuples(st.floats(0.01, 30.0), st.booleans()), max_size=40))
def test_way_back_is_never_shorter_than_the_quiet_time(steps: list[tuple[float, bool]]) -> None:
    """After a loss, native carries traffic only if it was usable without a gap for the quiet time; a loss acts at once."""
    options = Options(restore_after_s=10.0, restore_ceiling_s=40.0)
    restore = Restore()
    now, usable_since, lost = 0.0, None, False
    restore.observe(True, now, options)

    for pause, usable in steps:
        now += pause
        hold = restore.hold_s
        carried = restore.observe(usable, now, options)
        usable_since = (usable_since if usable_since is not None else now) if usable else None
        if not usable:
            assert not carried
            lost = True
        elif lost and carried:
            assert usable_since is not None
            assert now >= usable_since + hold
            assert hold >= 10.0
            lost = False
        elif not lost:
            assert carried


def test_first_path_is_taken_at_once() -> None:
    """A path that was never lost needs no quiet time."""
    restore = Restore()

    assert not restore.observe(False, 0.0, Options())
    assert restore.observe(True, 0.1, Options())
    assert restore.deadline() is None
