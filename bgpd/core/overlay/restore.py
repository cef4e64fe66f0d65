"""Hysteresis of the way back: to the fallback at once, back to native only after a quiet time that grows for a path that flaps."""

from __future__ import annotations

from bgpd.model.event import Options

FLAP_WINDOW = 10
"""A path that is lost again within so many times its quiet time after its return has flapped."""


class Restore:
    """Owns, for one remote block, since when its native path is usable again and how long it must stay so.

    ``lost`` says that a native path there was is gone; it ends when the path was usable for ``hold_s``. A path that is
    usable for the first time is taken at once: a new block need not sit out a quiet time for an outage that never was.
    """

    def __init__(self) -> None:
        self.lost = False
        self.hold_s = 0.0
        self._known = False
        self._usable_since: float | None = None
        self._returned_at: float | None = None

    def observe(self, usable: bool, now: float, options: Options) -> bool:
        """Take note of whether the native path is usable; returns whether it may carry traffic."""
        if not self.lost:
            if usable:
                self._known = True
            elif self._known:
                self._fall(now, options)
            return usable
        if not usable:
            self._usable_since = None
            return False
        if self._usable_since is None:
            self._usable_since = now
        if now < self._usable_since + self.hold_s:
            return False
        self.lost = False
        self._returned_at = now
        return True

    def deadline(self) -> float | None:
        """When the quiet time is over; None if none is running."""
        if not self.lost or self._usable_since is None:
            return None
        return self._usable_since + self.hold_s

    def _fall(self, now: float, options: Options) -> None:
        self.lost = True
        self._usable_since = None
        flapped = self._returned_at is not None and now < self._returned_at + FLAP_WINDOW * self.hold_s
        self.hold_s = min(self.hold_s * 2, options.restore_ceiling_s) if flapped else options.restore_after_s
