"""The BFD process: it keeps sessions up whatever the daemon does, and tells it of each change.

Laws, in the order of their importance:

1. A hello is never late because of us: no work but packets, timers and a few lines from the daemon; real-time priority where the system
   allows it; all that waits in the sockets is read before a detection time is judged, so that our own delay takes no session down.
2. It outlives the daemon: end of the connection changes nothing, only the line ``{"stop": true}`` (or SIGTERM) ends it, and then with
   AdminDown to every neighbor, which is no failure to them (RFC 5882 section 3.2).
3. Unknown and unauthentic packets are dropped; nothing from the network ends the process.

Single hop (RFC 5881): UDP port 3784, TTL 255 sent and asked for. Multihop (RFC 5883): port 4784.
Usage: ``python -m bgpd.adapters.bfd.child SOCKET``.
"""

from __future__ import annotations

import gc
import heapq
import os
import random
import secrets
import selectors
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

import msgspec

from bgpd.adapters import children
from bgpd.adapters.bfd import lines
from bgpd.adapters.bfd.packet import Authenticator, Dropped, decode
from bgpd.core.health.bfd import Control, Session, Settings, State
from bgpd.model.prefix import Address, Family

SINGLE_HOP_PORT = 3784
MULTIHOP_PORT = 4784
SOURCE_PORTS = (49152, 65535)
"""RFC 5881 section 4."""
SOURCE_PORT_ATTEMPTS = 64
"""Random source ports tried for a session; the range has 16,384."""
TTL = 255
TOS = 0xC0
"""Class selector 6: routers queue it before data."""
PACKET_BYTES = 256
DRAIN_PACKETS = 4096
"""Packets read in one go from a socket before timers are looked at: some 50 ms of work."""
RECEIVE_BYTES = 4 << 20
"""Kernel buffer of a receiving socket: packets of a stalled second for a thousand fast sessions."""
SESSIONS_MAX = 4096
OUTPUT_BYTES = 1 << 20
"""Lines that wait for the daemon; beyond, its connection is cut, and on the next one it reads every state anew."""
LINE_BYTES = 1 << 16
PRIORITY = 10
"""SCHED_RR, of 1 to 99: above every ordinary process, below what the kernel and audio run at."""
JITTER = 0.25
"""RFC 5880 section 6.8.7: a packet goes out after 75 to 100 % of the interval; after at most 90 % with multiplier 1."""
FAREWELL_PACKETS = 3
FAREWELL_GAP_S = 0.01

_RANDOM = random.SystemRandom()
_IN_PKTINFO = struct.Struct("=i4s4s")
_IN6_PKTINFO = struct.Struct("=16si")
_INT = struct.Struct("=i")
_IP_PKTINFO = 8
"""linux/in.h; Python's socket module has a name for neither before 3.14."""
_IP_RECVTTL = 12


class _Running:
    """One session: its machine, its socket, and when it sends next."""

    def __init__(self, wanted: lines.Wanted, discriminator: int) -> None:
        self.wanted = wanted
        self.machine = Session(wanted.settings, discriminator)
        self.authenticator = Authenticator(wanted.key(), secrets.randbits(32))
        self.socket: socket.socket | None = None
        self.send_at = 0.0
        self.sent: Control | None = None
        self.forget_at = float("inf")
        """When any sequence number is accepted again (bfd.AuthSeqKnown)."""
        self.problem = ""
        """Why our last packet could not be sent."""
        self.told: lines.Told | None = None
        self.due_at = float("inf")
        """When the heap looks at it next; an entry with another moment is out of date."""

    def told_now(self) -> lines.Told:
        remote = self.machine.remote
        return lines.Told(
            peer=self.wanted.peer,
            state=self.machine.state,
            diagnostic=self.machine.diagnostic,
            remote_state=remote.state if remote is not None else State.DOWN,
            remote_diagnostic=remote.diagnostic if remote is not None else 0,
            independent=remote is not None and remote.independent,
            detection_time_ms=round(self.machine.detection_time_s * 1000, 3),
            problem=self.problem,
        )


class Process:
    """Owns every session, the receiving sockets, the timers and the daemon's connection."""

    def __init__(self, path: str) -> None:
        self.selector = selectors.DefaultSelector()
        self.listener = children.listen(path)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.client: socket.socket | None = None
        self.output = bytearray()
        self.input = b""
        self.sessions: dict[Address, _Running] = {}
        self.by_discriminator: dict[int, _Running] = {}
        self.timers: list[tuple[float, int]] = []
        self.receivers: dict[socket.socket, tuple[Family, bool]] = {}
        self.stopping = False

    # -------------------------------------------------------------- the loop

    def run(self) -> None:
        """Serve until told to stop."""
        while not self.stopping:
            timeout_s = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            for key, mask in self.selector.select(timeout_s):
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj is self.client:
                    self._serve(mask)
            for receiver in self.receivers:
                self._drain(receiver)
            self._expire()
        self._farewell()

    def _expire(self) -> None:
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            at, discriminator = heapq.heappop(self.timers)
            running = self.by_discriminator.get(discriminator)
            if running is None or running.due_at != at:
                continue
            running.machine.expire(now)
            if running.send_at <= now:
                self._send(running, now)
            self._changed(running, now)

    def _changed(self, running: _Running, now: float) -> None:
        """Tell the daemon what changed, send at once what the neighbor should know at once, and set the timer anew."""
        told = running.told_now()
        if told != running.told:
            if running.told is not None and told.state is not running.told.state:
                self._send(running, now)
                told = running.told_now()
            running.told = told
            self._tell(told)
        interval_s = running.machine.transmit_interval_s
        latest = now + interval_s
        if interval_s == 0.0:
            running.send_at = float("inf")
        elif running.send_at > latest:
            running.send_at = latest
        due_at = min(running.send_at, running.machine.deadline or float("inf"))
        if due_at != running.due_at:
            running.due_at = due_at
            if due_at != float("inf"):
                heapq.heappush(self.timers, (due_at, running.machine.discriminator))

    # -------------------------------------------------------------- packets

    def _drain(self, receiver: socket.socket) -> None:
        for _ in range(DRAIN_PACKETS):
            try:
                data, ancillary, _, source = receiver.recvmsg(PACKET_BYTES, 256)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error of an earlier packet: the timers judge the path
                continue
            self._packet(receiver, data, ancillary, source)

    def _packet(
        self, receiver: socket.socket, data: bytes, ancillary: list[tuple[int, int, bytes]], source: tuple[Any, ...]
    ) -> None:
        _, multihop = self.receivers[receiver]
        peer = _sender_of(source)
        running = self.sessions.get(peer)
        if running is None or running.wanted.multihop is not multihop:
            return
        now = time.monotonic()
        if now > running.forget_at:
            running.authenticator.forget()
        try:
            control = _judge(running, data, *_control(ancillary))
        except Dropped:
            return
        if running.machine.receive(control, now):
            self._transmit(running, running.machine.control(final=True))
        running.forget_at = now + 2 * running.machine.detection_time_s
        self._changed(running, now)

    def _send(self, running: _Running, now: float) -> None:
        control = running.machine.control()
        if control != running.sent:
            running.authenticator.renew()
            running.sent = control
        self._transmit(running, control)
        interval_s = running.machine.transmit_interval_s
        most = 0.9 if running.machine.settings.multiplier == 1 else 1.0
        running.send_at = now + interval_s * _RANDOM.uniform(1 - JITTER, most) if interval_s else float("inf")

    def _transmit(self, running: _Running, control: Control) -> None:
        if running.socket is None:
            self._open(running)
        if running.socket is None:
            return
        port = MULTIHOP_PORT if running.wanted.multihop else SINGLE_HOP_PORT
        address = str(running.wanted.peer.plain)
        target: tuple[str, int] | tuple[str, int, int, int] = (address, port)
        try:
            if running.wanted.interface and running.wanted.peer.family is Family.IPV6:
                target = (address, port, 0, socket.if_nametoindex(running.wanted.interface))
            running.socket.sendto(running.authenticator.seal(control), target)
        except OSError as error:
            # No route, no link: the neighbor's silence says the same. An address or an interface may come back as another one.
            running.problem = f"packets cannot be sent: {error.strerror}"
            running.socket.close()
            running.socket = None
        else:
            running.problem = ""

    # -------------------------------------------------------------- sockets

    def _open(self, running: _Running) -> None:
        """Open the session's sending socket with a source port of its own (RFC 5881 section 4)."""
        try:
            running.socket = _sender(running.wanted)
        except (
            OSError
        ) as error:  # its address is not there yet, or not any more: it is tried again with the next packet
            running.problem = f"packets cannot be sent from {running.wanted.local}: {error.strerror}"

    def _receiver(self, family: Family, multihop: bool) -> str:
        """Open the receiving socket for sessions of this sort, if it is not open yet; returns why it cannot be."""
        if (family, multihop) in self.receivers.values():
            return ""
        port = MULTIHOP_PORT if multihop else SINGLE_HOP_PORT
        try:
            receiver = _bound(family, port)
        except OSError as error:
            return f"UDP port {port} cannot be opened: {error.strerror}"
        self.receivers[receiver] = (family, multihop)
        self.selector.register(receiver, selectors.EVENT_READ)
        return ""

    # -------------------------------------------------------------- the daemon

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        self._disconnect()
        connection.setblocking(False)
        self.client = connection
        self.selector.register(connection, selectors.EVENT_READ)
        wanted = tuple(running.wanted.without_secret() for running in self.sessions.values())
        self._write(lines.encode(lines.Greeting(pid=os.getpid(), wanted=wanted)))
        for running in self.sessions.values():
            self._tell(running.told_now())

    def _disconnect(self) -> None:
        if self.client is not None:
            self.selector.unregister(self.client)
            self.client.close()
        self.client = None
        self.output.clear()
        self.input = b""

    def _tell(self, told: lines.Told) -> None:
        if self.client is not None:
            self._write(lines.encode(told))

    def _write(self, line: bytes) -> None:
        self.output += line
        if len(self.output) > OUTPUT_BYTES:
            self._disconnect()
        elif self.client is not None:
            self._flush()

    def _flush(self) -> None:
        assert self.client is not None
        try:
            sent = self.client.send(self.output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._disconnect()
            return
        del self.output[:sent]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.output else 0)
        self.selector.modify(self.client, events)

    def _serve(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush()
        if self.client is None or not mask & selectors.EVENT_READ:
            return
        try:
            data = self.client.recv(LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect()
            return
        *whole, self.input = (self.input + data).split(b"\n")
        if len(self.input) > LINE_BYTES:
            self._disconnect()
            return
        for line in whole:
            self._command(line)

    def _command(self, line: bytes) -> None:
        try:
            command = lines.decode_command(line)
        except msgspec.MsgspecError as error:
            self._write(lines.encode(lines.Refused(reason=f"a line that cannot be read: {error}")))
            return
        if command.stop:
            self.stopping = True
        if command.remove is not None:
            self._remove(command.remove)
        if command.set is not None:
            self._set(command.set)

    def _set(self, wanted: lines.Wanted) -> None:
        old = self.sessions.get(wanted.peer)
        now = time.monotonic()
        if old is not None and old.wanted.same_path(wanted):
            old.wanted = wanted
            old.machine.configure(wanted.settings)
            old.send_at = now
        else:
            if old is not None:
                self._remove(wanted.peer)
            if len(self.sessions) >= SESSIONS_MAX:
                self._write(lines.encode(lines.Refused(peer=wanted.peer, reason=f"more than {SESSIONS_MAX} sessions")))
                return
            old = self.sessions[wanted.peer] = _Running(wanted, self._discriminator())
            self.by_discriminator[old.machine.discriminator] = old
            old.send_at = now
        reason = self._receiver(wanted.peer.family, wanted.multihop)
        if reason:
            self._write(lines.encode(lines.Refused(peer=wanted.peer, reason=reason)))
            self._remove(wanted.peer)
            return
        self._send(old, now)
        old.told = None  # the daemon waits for a word about it, changed or not
        self._changed(old, now)

    def _remove(self, peer: Address) -> None:
        running = self.sessions.pop(peer, None)
        if running is None:
            return
        self._say_goodbye(running)
        del self.by_discriminator[running.machine.discriminator]
        if running.socket is not None:
            running.socket.close()

    def _discriminator(self) -> int:
        while True:
            value = secrets.randbits(32)
            if value and value not in self.by_discriminator:
                return value

    # -------------------------------------------------------------- the end

    def _say_goodbye(self, running: _Running) -> None:
        running.machine.configure(Settings(admin_down=True, multiplier=running.machine.settings.multiplier))
        self._send(running, time.monotonic())

    def _farewell(self) -> None:
        """Tell every neighbor AdminDown, some times since nobody repeats it for us."""
        for _ in range(FAREWELL_PACKETS):
            for running in self.sessions.values():
                self._say_goodbye(running)
            time.sleep(FAREWELL_GAP_S)


def _judge(running: _Running, data: bytes, ttl: int, interface: int) -> Control:
    """Apply the checks of RFC 5880 section 6.8.6 and RFC 5881 section 5. Raises Dropped."""
    if not running.wanted.multihop and ttl != TTL:
        raise Dropped(f"TTL {ttl}")
    if running.wanted.interface and running.wanted.interface != _interface_name(interface):
        raise Dropped("another interface")
    control = decode(data)
    running.authenticator.check(data, running.machine.settings.multiplier)
    if control.your_discriminator not in (0, running.machine.discriminator):
        raise Dropped("another discriminator")
    return control


def _bound(family: Family, port: int) -> socket.socket:
    receiver = socket.socket(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        receiver.setblocking(False)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        if family is Family.IPV4:
            receiver.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            receiver.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            receiver.bind(("0.0.0.0", port))
        else:
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            receiver.bind(("::", port))
    except OSError:
        receiver.close()
        raise
    return receiver


def _sender_of(source: tuple[Any, ...]) -> Address:
    """Return who sent a packet: a link-local address with its link, as sessions are named."""
    address = Address.parse(source[0].partition("%")[0])
    if len(source) < 4 or not address.is_link_local:
        return address
    try:
        return address.on(socket.if_indextoname(source[3]))
    except OSError:  # the link is gone already
        return address


def _sender(wanted: lines.Wanted) -> socket.socket:
    four = wanted.peer.family is Family.IPV4
    sender = socket.socket(socket.AF_INET if four else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sender.setblocking(False)
        if wanted.interface:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, wanted.interface.encode() + b"\0")
        if four:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, TTL)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, TOS)
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, TTL)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, TOS)
        _bind_source(sender, wanted)
    except OSError:
        sender.close()
        raise
    return sender


def _bind_source(sender: socket.socket, wanted: lines.Wanted) -> None:
    for attempt in range(SOURCE_PORT_ATTEMPTS):
        port = _RANDOM.randint(*SOURCE_PORTS)
        try:
            if wanted.interface and wanted.local.family is Family.IPV6:
                sender.bind((str(wanted.local), port, 0, socket.if_nametoindex(wanted.interface)))
            else:
                sender.bind((str(wanted.local), port))
        except OSError:
            if attempt == SOURCE_PORT_ATTEMPTS - 1:
                raise
        else:
            return


def _control(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    """Return TTL and interface index of a received packet; -1 and 0 where the kernel said nothing."""
    ttl, interface = -1, 0
    for level, kind, data in ancillary:
        if (level, kind) in ((socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)):
            ttl = _INT.unpack_from(data)[0]
        elif (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            interface = _IN_PKTINFO.unpack_from(data)[0]
        elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            interface = _IN6_PKTINFO.unpack_from(data)[1]
    return ttl, interface


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


def _hurry() -> None:
    """Take real-time priority where we may; without it, ordinary scheduling has to do."""
    gc.freeze()
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m bgpd.adapters.bfd.child SOCKET\n")
        return 2
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    process = Process(sys.argv[1])
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(wake, False)
    process.selector.register(wake, selectors.EVENT_READ)
    signal.set_wakeup_fd(waker)

    def stop(_number: int, _frame: object) -> None:
        process.stopping = True

    signal.signal(signal.SIGTERM, stop)
    _hurry()
    process.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
