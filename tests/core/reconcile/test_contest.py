"""Keys that others keep changing back."""

from __future__ import annotations

import pytest

from bgpd.core.reconcile.contest import CALM_S, CHANGES, FIRST_WAIT_S, KEYS, LAST_WAIT_S, WINDOW_S, Contest

pytestmark = pytest.mark.core


def test_few_changes_are_no_fight() -> None:
    """Changes by others are repaired at once as long as they are fewer than CHANGES in WINDOW_S."""
    contest: Contest[str] = Contest()

    waits = [contest.changed("a", "x", at).wait_s for at in range(CHANGES - 1)]
    later = contest.changed("a", "x", WINDOW_S + 1)

    assert [0.0] * (CHANGES - 1) == waits
    assert 0.0 == later.wait_s
    assert contest.get("a", WINDOW_S + 1) is None


def test_a_fight_is_damped_up_to_a_ceiling() -> None:
    """From the CHANGES-th change in the window on each repair waits twice as long as the one before, up to LAST_WAIT_S."""
    contest: Contest[str] = Contest()
    now, waits = 0.0, []
    for _ in range(CHANGES + 8):
        waits.append(contest.changed("a", "x", now).wait_s)
        now += waits[-1]

    assert [0.0] * (CHANGES - 1) == waits[: CHANGES - 1]
    assert [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S] == waits[CHANGES - 1 : CHANGES + 2]
    assert LAST_WAIT_S == waits[-1]


def test_a_fight_ends_with_calm() -> None:
    """After CALM_S without a change by others the key is repaired at once again; until then it counts as contested."""
    contest: Contest[str] = Contest()
    for _ in range(CHANGES):
        contest.changed("a", "x", 0.0)

    assert contest.get("a", CALM_S) is not None
    assert contest.get("a", CALM_S + 1) is None
    assert 0.0 == contest.changed("a", "y", CALM_S + 1).wait_s


def test_memory_is_bounded() -> None:
    """At most KEYS are remembered, and those that are over are dropped."""
    contest: Contest[int] = Contest()
    for key in range(KEYS + 10):
        contest.changed(key, "x", 0.0)
    assert KEYS == len(contest)

    contest.changed(0, "x", CALM_S + 1)

    assert 1 == len(contest)
