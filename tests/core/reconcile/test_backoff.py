"""When a refused key is tried again."""

from __future__ import annotations

import pytest

from bgpd.core.reconcile.backoff import FIRST_RETRY_S, LAST_RETRY_S, Backoff

pytestmark = pytest.mark.core


def test_delay_doubles_up_to_a_ceiling() -> None:
    """A key is due once after each delay; delays double up to LAST_RETRY_S; the instant of the first refusal is kept."""
    backoff: Backoff[str] = Backoff()
    now, delays = 0.0, []
    for _ in range(12):
        backoff.failed("a", "ENODEV", now)
        deadline = backoff.deadline()
        assert deadline is not None
        delays.append(round(deadline - now, 6))
        assert [] == backoff.due(deadline - 0.01)
        assert ["a"] == backoff.due(deadline)
        assert [] == backoff.due(deadline)
        now = deadline

    assert [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S] == delays[:3]
    assert LAST_RETRY_S == delays[-1]
    failure = backoff.get("a")
    assert failure is not None
    assert 0.0 == failure.since


def test_success_and_hold_void_earlier_retries() -> None:
    """A key that succeeded is never due; one that is held waits for so long, whatever was planned."""
    backoff: Backoff[str] = Backoff()
    backoff.failed("a", "x", 0.0)
    backoff.failed("b", "x", 0.0)
    backoff.succeeded("a")
    backoff.hold("b", "contested", 0.0, 5.0)

    assert 5.0 == backoff.deadline()
    assert [] == backoff.due(4.9)
    assert backoff.waits("b", 4.9)
    assert ["b"] == backoff.due(5.0)
    assert backoff.deadline() is None


def test_hastened_keys_are_due_at_once() -> None:
    """When what stood in the way has gone, every refused key is due."""
    backoff: Backoff[str] = Backoff()
    backoff.failed("a", "x", 100.0)
    backoff.hold("b", "x", 100.0, 30.0)

    backoff.hasten()

    assert {"a", "b"} == set(backoff.due(100.0))


def test_news_is_another_reason() -> None:
    """The first refusal is news, the same again is not, and another reason is."""
    backoff: Backoff[str] = Backoff()

    assert [True, False, True] == [backoff.failed("a", reason, 0.0) for reason in ("x", "x", "y")]
