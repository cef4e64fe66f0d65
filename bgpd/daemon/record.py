"""The event recorder (``bgpd run --record FILE``): one JSON line an event, written before it is handled.

The last events are kept in any case, for ``bgpd doctor``, which has the state before its end from core/snapshot.py.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import BinaryIO

from bgpd.model.event import Event, Recorded
from bgpd.model.wire import encode

LIMIT_BYTES = 256 << 20
"""A recording stops growing here: a full disk must not take routing down."""
LAST_EVENTS = 2000
"""Kept in memory: minutes to days of what happened; 2 MB, and 60 MB where each of them is an UPDATE of 800 routes."""


class Recorder:
    """Owns the open file, and the last events; a recorder without a path has no file."""

    def __init__(self, path: Path | None) -> None:
        """Open *path* anew, readable by its owner only; raises OSError where that fails."""
        self._file: BinaryIO | None = None
        self._left = LIMIT_BYTES
        self.last: deque[Recorded] = deque(maxlen=LAST_EVENTS)
        if path is not None:
            self._file = path.open("wb")
            path.chmod(0o600)

    def write(self, event: Event, now: float) -> None:
        """Append an event. A disk that fails, or the bound, ends the recording and nothing else."""
        recorded = Recorded(now, event)
        self.last.append(recorded)
        if self._file is None:
            return
        line = encode(recorded) + b"\n"
        self._left -= len(line)
        try:
            if self._left < 0:
                self.close()
            else:
                self._file.write(line)
        except OSError:
            self._file = None

    def flush(self) -> None:
        if self._file is not None:
            try:
                self._file.flush()
            except OSError:
                self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
