"""The table of decisions (architecture section 5) and the way back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.overlay.choose import How, Situation, choose
from bgpd.core.overlay.restore import Restore
from bgpd.model.event import Options
from bgpd.model.forwarding import IPIP_DEVICE, VXLAN_DEVICE, Leg
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
    )
    for mode, fallback, same, native, direct, restored, alive, tunnel, decided in itertools.product(
        Mode,
        (FALLBACK, ()),
        (True, False),
        (NATIVE, ()),
        (DIRECT, ()),
        (True, False),
        (True, False),
        (TUNNEL, ()),
        (True, False),
    )
]


def expected(now: Situation) -> How:
    """The table, written as its rows read."""
    tunnelled = now.mode is Mode.ALWAYS or (now.mode is Mode.CROSS_SUBNET and not now.same_subnet)
    fallback = now.alive and bool(now.fallback)
    rows = [
        (tunnelled and bool(now.tunnel), How.TUNNEL),
        (tunnelled, How.UNREACHABLE),
        (bool(now.native) and (now.restored or not fallback), How.NATIVE),
        (bool(now.direct) and not now.native and (now.restored or not fallback), How.DIRECT),
        (not now.decided, How.WAITING),
        (fallback, How.FALLBACK),
        (True, How.UNREACHABLE),
    ]
    return next(how for applies, how in rows if applies)


def test_every_situation_has_the_row_that_the_table_gives_it() -> None:
    """All 1,536 combinations: the row is right, its legs are those of its kind, and a reason is given."""
    for now in SITUATIONS:
        choice = choose(now)

        assert expected(now) == choice.how, now
        wanted = {How.NATIVE: now.native, How.DIRECT: now.direct, How.TUNNEL: now.tunnel, How.FALLBACK: now.fallback}
        assert wanted.get(choice.how, ()) == choice.legs
        assert choice.reason


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
