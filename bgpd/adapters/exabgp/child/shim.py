"""What ExaBGP runs as its API process: it stands between ExaBGP and a daemon that may stall, die or be restarted.

Laws, in the order of their importance:

1. ExaBGP's pipe towards us is always drained. ExaBGP writes to it with a blocking write from its only thread, so a full pipe stops
   keepalives and every session is lost within a hold time.
2. It never dies while ExaBGP lives: ExaBGP exits after five deaths of its process within a minute. End of file on standard input, that is
   ExaBGP's own end, is the one way out.
3. It needs little memory: what waits for the daemon is bounded by BACKLOG_BYTES. Beyond, the backlog is dropped and the daemon's connection
   is cut; on the next connection it gets a snapshot and knows that it has to ask for a route refresh.
4. An answer (``done``, ``error`` and the text before it) reaches only the connection whose command it answers. ExaBGP's answers carry no
   identity, so the owner of each command in flight is remembered in order.

Usage: ``python -m bgpd.adapters.exabgp.child.shim SOCKET``. Standard library only. Lines of our own begin with ``{"shim":``.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from bgpd.adapters import children

BACKLOG_BYTES = 32 << 20
"""Bound of lines waiting for the daemon: a full table of 100k routes with an attribute set each is about 20 MiB."""
COMMANDS_BYTES = 1 << 20
"""Commands waiting for ExaBGP; beyond, the daemon's socket is not read, so that the daemon waits. ExaBGP's own limit for a line."""
READ_BYTES = 1 << 16
"""One read: the size of a Linux pipe."""
SPIN_S = 0.01
"""Pause after a defect of our own, so that a defect that repeats does not take a processor."""

ANSWERS = (b"done", b"error")


class Shim:
    """Owns the listening socket, one daemon's connection, both buffers and the last state and OPEN line of each neighbor."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.listener = children.listen(path)
        self.client: socket.socket | None = None
        self.generation = 0
        self.complete = True  # the backlog holds every line since the start: the first daemon needs no snapshot
        self.dropped = 0
        self.respawned = self._is_respawned(path)
        self.backlog: deque[bytes] = deque()
        self.backlog_bytes = 0
        self.from_exabgp = b""
        self.from_client = b""
        self.commands = bytearray()
        self.owners: deque[int] = deque()  # bounded: the daemon keeps a small window of commands
        self.opened: dict[str, bytes] = {}
        self.states: dict[str, bytes] = {}
        for descriptor in (0, 1):
            os.set_blocking(descriptor, False)
        self.selector.register(0, selectors.EVENT_READ)
        self.selector.register(self.listener, selectors.EVENT_READ)

    @staticmethod
    def _is_respawned(path: str) -> bool:
        """Tell whether this ExaBGP had a shim before us, whose knowledge of the sessions is gone."""
        mark = Path(path + ".parent")
        parent = os.getppid()
        started = Path(f"/proc/{parent}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
        identity = f"{parent} {started}"
        known = mark.exists() and mark.read_text("utf-8") == identity
        mark.write_text(identity, "utf-8")
        return known

    # -------------------------------------------------------------- the loop

    def run(self) -> None:
        """Serve until ExaBGP closes our standard input."""
        alive = True
        while alive:
            try:
                alive = self._turn()
            except Exception as error:  # law 2
                sys.stderr.write(f"shim: {type(error).__name__}: {error}\n")
                time.sleep(SPIN_S)

    def _turn(self) -> bool:
        self._watch()
        for key, mask in self.selector.select():
            if key.fd == 0:
                if not self._read_exabgp():
                    return False
            elif key.fd == 1:
                self._write_exabgp()
            elif key.fileobj is self.listener:
                self._accept()
            elif key.fileobj is self.client:
                if mask & selectors.EVENT_WRITE:
                    self._write_client()
                if mask & selectors.EVENT_READ and self.client is key.fileobj:
                    self._read_client()
        return True

    def _watch(self) -> None:
        """Tell the selector what we wait for now."""
        if self.commands and 1 not in self.selector.get_map():
            self.selector.register(1, selectors.EVENT_WRITE)
        elif not self.commands and 1 in self.selector.get_map():
            self.selector.unregister(1)
        if self.client is None:
            return
        events = selectors.EVENT_WRITE if self.backlog else 0
        if len(self.commands) < COMMANDS_BYTES:
            events |= selectors.EVENT_READ
        known = self.selector.get_map().get(self.client)
        if events and known is None:
            self.selector.register(self.client, events)
        elif events and known is not None and known.events != events:
            self.selector.modify(self.client, events)
        elif not events and known is not None:
            self.selector.unregister(self.client)

    # -------------------------------------------------------------- ExaBGP's side

    def _read_exabgp(self) -> bool:
        try:
            data = os.read(0, READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        *lines, self.from_exabgp = (self.from_exabgp + data).split(b"\n")
        for line in lines:
            self._take(line)
        return True

    def _take(self, line: bytes) -> None:
        """Pass a line on, after learning from it what a snapshot needs."""
        if line.startswith(b'{"raw":2,') or b'"type": "update"' in line[:512]:
            self._queue(line)
        elif line in ANSWERS:
            if self.owners and self.owners.popleft() == self.generation:
                self._queue(line)
        elif line.startswith((b'{"raw":', b'{ "exabgp"')):
            with suppress(ValueError, KeyError, TypeError):  # the daemon sees such a line itself
                self._learn(line)
            self._queue(line)
        elif self.owners and self.owners[0] == self.generation:
            self._queue(line)

    def _learn(self, line: bytes) -> None:
        message = json.loads(line)
        if message.get("raw") == 1 and message["direction"] == "receive":
            self.opened[message["peer"]] = line
            return
        kind = message.get("type")
        if kind not in ("open", "state"):
            return
        neighbor = message["neighbor"]
        peer = neighbor["address"]["peer"]
        if kind == "open":
            if neighbor.get("direction") == "receive":
                self.opened[peer] = line
        elif neighbor["state"] == "up":
            self.states[peer] = line
        else:
            self.states.pop(peer, None)
            self.opened.pop(peer, None)

    def _write_exabgp(self) -> None:
        try:
            sent = os.write(1, self.commands[:READ_BYTES])
        except BlockingIOError:
            return
        del self.commands[:sent]

    # -------------------------------------------------------------- the daemon's side

    def _queue(self, line: bytes) -> None:
        if self.client is None and not self.complete:
            return
        self.backlog.append(line + b"\n")
        self.backlog_bytes += len(line) + 1
        if self.backlog_bytes > BACKLOG_BYTES:
            self.dropped += len(self.backlog)
            self._disconnect()

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        complete = self.complete and self.client is None
        backlog, size = self.backlog, self.backlog_bytes
        if not complete:
            self._disconnect()
            backlog, size = deque(), 0
        connection.setblocking(False)
        self.client = connection
        self.generation += 1
        self.complete = False
        hello = {
            "shim": "hello",
            "exabgp": os.getppid(),
            "complete": complete,
            "respawned": self.respawned,
            "dropped": self.dropped,
        }
        self.backlog, self.backlog_bytes = deque(), 0
        self._queue(json.dumps(hello, separators=(",", ":")).encode())
        if complete:
            self.backlog.extend(backlog)
            self.backlog_bytes += size
            return
        for peer, line in self.opened.items():
            self._queue(line)
            if peer in self.states:
                self._queue(self.states[peer])
        self._queue(b'{"shim":"snapshot-end"}')

    def _disconnect(self) -> None:
        """Forget the daemon and what waits for it; commands that it completed still go to ExaBGP, their answers to nobody."""
        if self.client is not None:
            if self.client in self.selector.get_map():
                self.selector.unregister(self.client)
            self.client.close()
        self.client = None
        self.complete = False
        self.generation += 1
        self.backlog.clear()
        self.backlog_bytes = 0
        self.from_client = b""

    def _write_client(self) -> None:
        assert self.client is not None
        while self.backlog:
            chunk = self.backlog[0]
            try:
                sent = self.client.send(chunk)
            except BlockingIOError:
                return
            except OSError:
                self._disconnect()
                return
            self.backlog_bytes -= sent
            if sent < len(chunk):
                self.backlog[0] = chunk[sent:]
                return
            self.backlog.popleft()

    def _read_client(self) -> None:
        assert self.client is not None
        try:
            data = self.client.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect()
            return
        *lines, self.from_client = (self.from_client + data).split(b"\n")
        for line in lines:
            self.commands += line + b"\n"
            self.owners.append(self.generation)


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m bgpd.adapters.exabgp.child.shim SOCKET\n")
        return 2
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    Shim(sys.argv[1]).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
