"""The file that tells a CNI plugin which MTU workloads are to have: a decimal number, as in Calico's /var/lib/calico/mtu, and a newline.

Laws: it is replaced as a whole, so that who reads it reads a number; it is written once pools and links are known, and when the
number changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bgpd.core.state import State
from bgpd.model.notice import Notice

MODE = 0o644


class MtuFile:
    """Owns what was written last."""

    def __init__(self, path: Path, state: State, notice: Callable[[Notice], None]) -> None:
        self._path = path
        self._state = state
        self._notice = notice
        self._tried = 0

    def look(self) -> None:
        """Write the MTU if it has changed; where that fails it is told, and tried again with the next change."""
        state = self._state
        mtu_bytes = state.mtu.workload_bytes
        if not (state.facts.store.synced_once and state.facts.kernel_synced) or mtu_bytes == self._tried:
            return
        self._tried = mtu_bytes
        half = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            half.write_text(f"{mtu_bytes}\n")
            half.chmod(MODE)
            half.rename(self._path)
        except OSError as error:
            self._notice(Notice("mtu.unwritten", {"path": str(self._path), "reason": error.strerror or str(error)}))
