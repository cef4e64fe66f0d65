"""systemd's notification protocol (sd_notify(3)), without a library: a datagram to a socket that the environment names.

Laws: without a service manager every call does nothing, and one that does not listen is no failure of ours. What runs below us
does not speak in our name: the variables leave our environment. Calls never block: a datagram for which there is no room is
dropped, and ``alive`` comes again.
"""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

FEEDS: Final = 4
"""The watchdog is fed so many times in its limit, so that a feed that is late or dropped ends nobody."""
START_LIMIT_S: Final = 30.0
"""While starting, a core loop that does not turn for so long has the unit fail (EXTEND_TIMEOUT_USEC)."""
STATUS_CHARACTERS: Final = 500
"""One line on a terminal, and far below what a datagram holds."""


class Systemd:
    """Owns the socket, and what the service manager was told."""

    def __init__(self, environment: MutableMapping[str, str], pid: int) -> None:
        self._socket = _connected(environment.pop("NOTIFY_SOCKET", ""))
        limit_us = environment.pop("WATCHDOG_USEC", "")
        meant = environment.pop("WATCHDOG_PID", str(pid)) == str(pid)
        watched = self._socket is not None and meant and limit_us.isdecimal()
        self._watchdog_s = int(limit_us) / 1e6 if watched else 0.0
        self._ready = False
        self._status = ""
        self._fed_at = float("-inf")

    @property
    def feed_s(self) -> float | None:
        """How often ``alive`` has to be called at least; None: nobody watches."""
        if self._socket is None:
            return None
        limit_s = START_LIMIT_S if not self._ready or not self._watchdog_s else self._watchdog_s
        return limit_s / FEEDS

    def alive(self, now: float) -> None:
        """Say that the core loop turns; may be called as often as it does."""
        feed_s = self.feed_s
        if feed_s is None or now - self._fed_at < feed_s / 2:
            return
        self._fed_at = now
        self._send("WATCHDOG=1" if self._ready else f"EXTEND_TIMEOUT_USEC={int(START_LIMIT_S * 1e6)}")

    def ready(self) -> None:
        """Say that the start is over: what waits for the unit goes on. Said once."""
        if not self._ready:
            self._ready = True
            self._send("READY=1\nWATCHDOG=1")

    def status(self, text: str) -> None:
        """Tell in one line what ``systemctl status`` is to show."""
        line = " ".join(text.split())[:STATUS_CHARACTERS]
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def reloading(self, now: float) -> None:
        """Say that the configuration is loaded again, until :meth:`reloaded`; *now* is of CLOCK_MONOTONIC (Type=notify-reload wants it)."""
        if self._ready:
            self._send(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1e6)}")

    def reloaded(self) -> None:
        """Say that the reload is over, however it ended."""
        if self._ready:
            self._send("READY=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # a service manager that restarts, or is busy: see the laws
                self._socket.send(text.encode())


def _connected(address: str) -> socket.socket | None:
    """Connect to the manager's socket: a path, or a name in the abstract namespace with ``@`` for its first byte (unix(7))."""
    if not address.startswith(("/", "@")):
        return None
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError:
        made.close()
        return None
    return made
