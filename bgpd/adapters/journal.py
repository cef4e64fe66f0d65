"""Log entries as journald takes them: each fact is a field, to be asked for by ``journalctl BGPD_EVENT=peer.lost``.

The protocol is systemd's "Native Journal Protocol": a datagram of ``NAME=value`` lines; a value with line breaks has its length
before it. ``MESSAGE`` is for people (``peer.lost peer=10.0.0.1``), ``PRIORITY`` is the level, ``BGPD_EVENT`` the event's name,
``BGPD_<FIELD>`` a fact.

Law: writing never blocks. What the journal does not take goes to standard error, as a line of JSON.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

SOCKET: Final = Path("/run/systemd/journal/socket")
VALUE_BYTES: Final = 16 * 1024
"""Longest value: a traceback has some 10 KB. A datagram of a few such values is below the 200 KB that a socket's buffer takes."""

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_NOT_IN_NAMES: Final = re.compile(r"[^A-Z0-9]+")
_OWN: Final = ("event", "level")


def connected_stderr() -> bool:
    """Tell whether our standard error goes to the journal: then ``$JOURNAL_STREAM`` names its device and inode (systemd.exec(5))."""
    found = os.fstat(sys.stderr.fileno())
    return os.environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"


class Journal:
    """Owns the socket; a logger for structlog whose last processor is ``entry``."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def write(self, fields: Mapping[str, Any]) -> None:
        """Send one entry."""
        try:
            self._socket.sendto(entry(fields), self._path)
        except OSError as error:
            print(json.dumps({**fields, "journal": str(error)}, default=str), file=sys.stderr, flush=True)

    def msg(self, **fields: Any) -> None:
        """Take what structlog hands over."""
        self.write(fields)

    def close(self) -> None:
        self._socket.close()

    debug = info = warning = error = critical = msg


def entry(fields: Mapping[str, Any]) -> bytes:
    """Write *fields* (with ``event`` and ``level``) as a datagram."""
    facts = {name: value for name, value in fields.items() if name not in _OWN}
    name = str(fields.get("event", ""))
    message = " ".join([name, *(f"{key}={_shown(value)}" for key, value in facts.items() if key != "exception")])
    lines = {
        "MESSAGE": message,
        "PRIORITY": str(_PRIORITIES.get(str(fields.get("level", "info")), 6)),
        "SYSLOG_IDENTIFIER": "bgpd",
        "BGPD_EVENT": name,
    } | {f"BGPD_{_NOT_IN_NAMES.sub('_', key.upper())}": _plain(value) for key, value in facts.items()}
    return b"".join(_field(key, value) for key, value in lines.items())


def _field(name: str, value: str) -> bytes:
    content = value.encode("utf-8", "replace")[:VALUE_BYTES]
    if b"\n" in content:
        return name.encode() + b"\n" + len(content).to_bytes(8, "little") + content + b"\n"
    return name.encode() + b"=" + content + b"\n"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _shown(value: object) -> str:
    text = _plain(value)
    return json.dumps(text) if " " in text or not text else text
