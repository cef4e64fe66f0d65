"""When a service counts as healthy: passes and failures in a row, so that one lost probe moves no traffic."""

from __future__ import annotations


class Verdict:
    """Owns the verdict of one check, and how many results in a row speak against it.

    The first result is the verdict at once: a daemon that starts again beside a healthy service must not withdraw its prefix.
    """

    def __init__(self, rise: int, fall: int) -> None:
        self.healthy: bool | None = None
        """None before the first result."""
        self._rise = rise
        self._fall = fall
        self._against = 0

    def take(self, passed: bool) -> bool:
        """Take note of a result; returns whether the verdict changed."""
        if self.healthy is passed:
            self._against = 0
            return False
        self._against += 1
        if self.healthy is not None and self._against < (self._rise if passed else self._fall):
            return False
        self.healthy, self._against = passed, 0
        return True
