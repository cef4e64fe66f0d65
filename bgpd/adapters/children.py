"""What processes that outlive the daemon need on both sides. Standard library only: they are small on purpose."""

from __future__ import annotations

import os
import socket
from pathlib import Path

BACKLOG = 4
"""Connections that wait: there is one daemon, and perhaps its successor."""


def listen(path: str) -> socket.socket:
    """Listen on a unix socket that only our own user can open, from the first instant on; one that is there is replaced."""
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def has_ended(child: int) -> bool:
    """Whether our child has ended; it is waited for without blocking, so that it does not stay as a zombie."""
    try:
        done, _ = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return True
    return done != 0
