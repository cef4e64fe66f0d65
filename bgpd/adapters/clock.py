"""The two clocks: monotonic for decisions, wall time for people."""

from __future__ import annotations

import time


def monotonic() -> float:
    """Seconds that never jump; the ``now`` of every event."""
    return time.monotonic()


def wall_or_none(at: float | None) -> float | None:
    """Turn an instant into wall time, where there was one."""
    return None if at is None else wall(at)


def wall(at: float) -> float:
    """Turn a monotonic instant into seconds since the epoch, by the present difference of the two clocks."""
    return time.time() - (time.monotonic() - at)
