"""What ExaBGP's sessions lack, put in by the launcher: connecting that says why it fails, listening that never ends the process,
NOTIFICATIONs with a text of ours, and a restart that is claimed only where there was one.

What is replaced, and why:

* ``ParseNeighbor._post_capa_nexthop``: stock ExaBGP offers IPv6 next hops of IPv4 (RFC 8950) empty where IPv6 routes are not carried.
* ``Outgoing.establish``: stock ExaBGP takes a refused connection for an established one and waits two minutes for one that is not
  answered. Here an attempt fails with its reason, after CONNECT_WAIT_S at the latest.
* ``Peer._connect`` reports that reason as a line ``{"raw":0,..}`` whose body is text, ``Peer._reset`` an end before the session was up.
* ``Reactor._listen_for_neighbors``: a port that cannot be bound costs incoming connections, not the process; it is tried again.
  Sockets may be bound before their address is there (IP_FREEBIND), and to link-local addresses (with the neighbor's interface).
* ``Listener._listen`` sets no minimum TTL: the socket is shared, so one neighbor's GTSM (RFC 5082) would shut out the others.
  ``set_accepted_ttl`` sets it for the accepted connection instead.
* ``Peer._main`` ends the session with the NOTIFICATION that the command ``bgpd-end`` left, graceful restart or not, and waits for
  MALFORMED_PAUSE_S after one that answers a malformed message;
  ``Peer.remove`` tells the neighbor what was left for it, else that it was de-configured (RFC 4486 section 4), as a hard reset where
  that can be said (RFC 8538).
* ``Graceful.set`` adds the N bit (RFC 8538 section 2); ``FORCE_GRACEFUL`` is what RESTARTED says for the first configuration, and
  false for neighbors that are added later or change.
* ``Peer.reestablish`` gives a passive neighbor without a connection its new settings at once: such a peer gets no turn to take them.
"""

from __future__ import annotations

import os
import random
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from exabgp.bgp.message import Notify
from exabgp.bgp.message.open.capability.graceful import Graceful
from exabgp.configuration.neighbor import ParseNeighbor
from exabgp.protocol.family import AFI, SAFI
from exabgp.reactor import delay, listener, loop, peer
from exabgp.reactor.api.command.command import Command
from exabgp.reactor.api.command.limit import extract_neighbors, match_neighbor
from exabgp.reactor.network.error import NetworkError, NotConnected
from exabgp.reactor.network.outgoing import Outgoing
from exabgp.reactor.network.tcp import md5, set_minimum_ttl

from bgpd.adapters.exabgp.child.links import identity

RESTARTED = "BGPD_RESTARTED"
"""Environment: ``1`` if this process follows one whose routes its peers still keep (RFC 4724 section 4.1)."""
CONNECT_WAIT_S = 5.0
"""A neighbor on the net answers a SYN in milliseconds; after two repetitions of it (1 s, 3 s) it is taken for not there."""
RECONNECT_CEILING_S = 5
"""Longest pause between two attempts to connect. A refused or unanswered SYN every 5 s is nothing; a router that is back and not
called for a minute is an outage."""
RECONNECT_JITTER_S = 0.5
"""Added by chance: two speakers that call each other at the same moment, and both give way, must not do so forever."""
MALFORMED = (1, 3)
"""Codes of NOTIFICATIONs that answer what a neighbor has sent, which it may send again: header and UPDATE errors."""
MALFORMED_PAUSE_S = 2.0
"""Pause after them (RFC 4271 section 8.1.1, DampPeerOscillations): else a broken table would be sent, and refused, without end."""
BACKLOG = 200
"""Connections that wait to be accepted, as stock ExaBGP's sockets have it."""
LISTEN_AGAIN_S = 5.0
"""Pause before a port that is taken is tried again."""

NOTIFICATION_BIT = 0x4
"""N, beside R = 0x8 (RFC 8538 section 2)."""
_FREEBIND = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}
"""IP_FREEBIND, IPV6_FREEBIND (linux/in.h, linux/in6.h): Python has no names for them."""
_MD5_COUNTERS = ("TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure")


def install() -> None:
    """Replace what the module's docstring names; ``launcher.verify`` has looked at it before."""
    _next_hops()
    _connecting()
    _listening()
    _ending()
    _restarting()


def tell(session: Any, text: str, direction: str = "reason") -> None:
    """Write *text* about the neighbor of ExaBGP's peer *session* to the API process; a ``hint`` is worth less than what is known."""
    neighbor = session.neighbor
    line = f'{{"raw":0,"direction":"{direction}","peer":"{identity(neighbor)}","body":"{text.encode().hex()}"}}'
    processes = session.reactor.processes
    for process in processes._notify(neighbor, "neighbor-changes"):
        if process in processes._process:  # not before the first configuration is loaded
            processes.write(process, line, neighbor)


def _next_hops() -> None:
    stock = ParseNeighbor._post_capa_nexthop

    def post_capa_nexthop(self: Any, neighbor: Any, local: Any) -> None:
        stock(self, neighbor, local)
        if neighbor["capability"]["nexthop"]:
            neighbor.add_nexthop(AFI.ipv4, SAFI.unicast, AFI.ipv6)

    ParseNeighbor._post_capa_nexthop = post_capa_nexthop


# ------------------------------------------------------------------ connecting


def _connecting() -> None:
    stock_connect = peer.Peer._connect
    stock_increase = delay.Delay.increase

    def establish(self: Any) -> Iterator[bool]:
        issue = self._connect()
        if issue:
            raise NotConnected(_issue(issue))
        deadline = time.monotonic() + CONNECT_WAIT_S
        while not _answered(self.io):
            if time.monotonic() > deadline:
                raise NotConnected(_silence(self))
            yield False
        self.success()
        if not self.local:
            self.local = self.io.getsockname()[0]
        yield True

    def connect(self: Any) -> Iterator[Any]:
        try:
            yield from stock_connect(self)
        except NetworkError as error:
            tell(self, str(error))
            raise

    def increase(self: Any) -> None:
        stock_increase(self)
        self._next = min(self._next, RECONNECT_CEILING_S)
        self._time += random.uniform(0, RECONNECT_JITTER_S)  # noqa: S311  no secret

    def reset(self: Any, message: str = "", error: Any = "") -> None:
        if isinstance(error, NetworkError) and self.proto is not None and not self.established():
            tell(
                self,
                f"the connection was closed before both sides agreed ({error}): the neighbor may not know us",
                "hint",
            )
        stock_reset(self, message, error)

    stock_reset = peer.Peer._reset
    peer.Peer._reset = reset
    Outgoing.establish = establish
    peer.Peer._connect = connect
    delay.Delay.increase = increase


def _answered(io: socket.socket) -> bool:
    """Tell whether a connection is established; raises NotConnected if it failed."""
    poller = select.poll()
    poller.register(io, select.POLLOUT)
    if not poller.poll(0):
        return False
    number = io.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise NotConnected(_named(number))
    return True


def _named(number: int) -> str:
    text = os.strerror(number)
    if number == 111:  # ECONNREFUSED
        return "connection refused: nothing listens on the neighbor's port, or it does not know us"
    if number in (101, 113):  # ENETUNREACH, EHOSTUNREACH
        return f"unreachable: {text}"
    return f"cannot connect: {text}"


def _issue(issue: Exception) -> str:
    """Shorten what ExaBGP's socket code says; its words end with the system's."""
    text = str(issue)
    for number in (101, 113):
        if os.strerror(number).lower() in text.lower():
            return f"unreachable: {os.strerror(number)}"
    return f"cannot connect: {text}"


def _silence(connection: Any) -> str:
    """Say what can be known of a neighbor that does not answer: with TCP-MD5 a wrong password looks like silence (RFC 2385)."""
    text = f"no answer from port {connection.port} within {CONNECT_WAIT_S:.0f} s: the neighbor is down, or a filter is in between"
    if connection.md5:
        text += ", or its password is not ours"
    wrong = _wrong_signatures()
    if wrong:
        text += f" (TCP-MD5: the kernel has dropped {wrong} segments with a missing, unexpected or wrong signature)"
    return text


def _wrong_signatures() -> int:
    """Return what the kernel of this namespace has counted so far (/proc/net/netstat, TcpExt)."""
    with suppress(OSError, ValueError):
        lines = [line.split() for line in Path("/proc/net/netstat").read_text("ascii").splitlines()]
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            if names[0] == "TcpExt:":
                found = dict(zip(names, values, strict=True))
                return sum(int(found.get(name, "0")) for name in _MD5_COUNTERS)
    return 0


# ------------------------------------------------------------------ listening


class _Socket(socket.socket):
    """A listening socket that may be bound early, and knows the link of its address."""

    device = ""

    def bind(self, address: Any) -> None:
        level, option = _FREEBIND[socket.AddressFamily(self.family)]
        self.setsockopt(level, option, 1)
        if self.device:
            address = (*address[:2], 0, socket.if_nametoindex(self.device))
        super().bind(address)


def _links_of(self: Any, local: Any) -> list[str]:
    """Return the links on which neighbors are spoken with from a link-local address."""
    neighbors = [
        one for one in self._reactor.configuration.neighbors.values() if one["md5-ip"] == local and one["listen"]
    ]
    return list(dict.fromkeys(one["source-interface"] or "" for one in neighbors))


def _socket(ip: Any, device: str) -> _Socket:
    made = _Socket(socket.AF_INET6 if ip.ipv6() else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if ip.top().startswith("fe80:"):
        made.device = device
    return made


def _listen_on_others(self: Any, local: Any, remote: Any, port: int, secret: tuple[Any, Any]) -> None:
    """Listen on the other links that have the same address of ours: ExaBGP listens once for an address and port."""
    if not local.top().startswith("fe80:"):
        return
    have = {sock.device for sock, (ip, number, _, _) in self._sockets.items() if (ip, number) == (local.top(), port)}
    for link in _links_of(self, local):
        if link in have:
            continue
        made = _socket(local, link)
        if secret[0]:
            md5(made, remote.top(), 0, *secret)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        made.bind((local.top(), port))
        made.listen(BACKLOG)
        self._sockets[made] = (local.top(), port, remote.top(), secret[0])


def _listening() -> None:
    stock_listen = listener.Listener._listen
    stock_for_neighbors = loop.Reactor._listen_for_neighbors
    stock_incoming = listener.Listener.incoming
    stock_accepted = listener.set_accepted_ttl

    def new_socket(self: Any, ip: Any) -> socket.socket:
        return _socket(ip, next(iter(_links_of(self, ip)), ""))

    def listen(self: Any, *arguments: Any) -> None:
        stock_listen(self, *arguments[:-1], None)
        local, remote, port, *secret, _ = arguments
        _listen_on_others(self, local, remote, port, (secret[0], secret[1]))

    def for_neighbors(self: Any) -> bool:
        self.listener.bgpd_again = None if stock_for_neighbors(self) else time.monotonic() + LISTEN_AGAIN_S
        for session in self._peers.values():
            local = session.neighbor["md5-ip"].top()
            taken = (local, session.neighbor["listen"]) not in {held[:2] for held in self.listener._sockets.values()}
            if session.neighbor["passive"] and session.neighbor["listen"] and taken:
                tell(session, f"cannot listen on {local} port {session.neighbor['listen']}: taken by another program")
        return True

    def incoming(self: Any) -> bool:
        if self.bgpd_again is not None and self.bgpd_again < time.monotonic():
            self._reactor._listen_for_neighbors()
        return bool(stock_incoming(self))

    def accepted(connection: Any, neighbor: Any) -> None:
        stock_accepted(connection, neighbor)
        if neighbor["incoming-ttl"] and connection.io is not None:
            with suppress(NetworkError):
                set_minimum_ttl(connection.io, connection.afi, connection.peer, neighbor["incoming-ttl"])

    listener.Listener.bgpd_again = None
    listener.Listener._new_socket = new_socket
    listener.Listener._listen = listen
    listener.Listener.incoming = incoming
    listener.set_accepted_ttl = accepted
    loop.Reactor._listen_for_neighbors = for_neighbors


# ------------------------------------------------------------------ ending a session


def _ending() -> None:
    stock_main = peer.Peer._main
    stock_remove = peer.Peer.remove

    def main(self: Any) -> Iterator[Any]:
        self.bgpd_end = None
        self.bgpd_met = True
        try:
            for action in stock_main(self):
                yield action
                if self.bgpd_end is not None:
                    raise self.bgpd_end
        except Notify as notify:
            if notify.code in MALFORMED:
                self._delay._next = MALFORMED_PAUSE_S  # taken when the connection is closed
            raise

    def remove(self: Any) -> None:
        if self.established() and self.proto is not None and self.proto.connection is not None:
            graceful = self.proto.negotiated.received_open.capabilities.get(Graceful.ID)
            hard = graceful is not None and graceful.restart_flag & NOTIFICATION_BIT
            notify = self.bgpd_end or (Notify(6, 9, bytes((6, 3))) if hard else Notify(6, 3, b""))
            with suppress(OSError):  # the session ends either way
                self.proto.connection.io.send(notify.message())
        stock_remove(self)

    peer.Peer.bgpd_end = None
    peer.Peer._main = main
    peer.Peer.remove = remove
    Command.register("bgpd-end", True)(end)
    Command.register("bgpd-served", False)(served)


def served(_api: Any, reactor: Any, service: str, _line: str, _use_json: bool) -> bool:
    """Command ``bgpd-served``: print each neighbor's address and description, as ``show neighbor configuration`` does among much else.

    That takes seconds for a hundred neighbors, during which nothing else is done.
    """
    for neighbor in reactor.configuration.neighbors.values():
        reactor.processes.write(service, f"neighbor {identity(neighbor)} {{")
        reactor.processes.write(service, f'  description "{neighbor["description"]}";')
    reactor.processes.answer_done(service)
    return True


def end(_api: Any, reactor: Any, service: str, line: str, _use_json: bool) -> bool:
    """Command ``neighbor ADDRESS bgpd-end CODE SUBCODE 0xDATA [stay]``: end the session with this NOTIFICATION.

    A session that is not established is called again at once. With ``stay`` there is no other until the neighbor is configured anew.
    """
    descriptions, command = extract_neighbors(line)
    try:
        _, code, subcode, data, *stay = command.split()
        notify = Notify(int(code), int(subcode), bytes.fromhex(data.removeprefix("0x")))
    except ValueError:
        reactor.processes.answer_error(service)
        return False
    for key, session in reactor._peers.items():
        if any(match_neighbor(description, key) for description in descriptions):
            session.bgpd_end = notify
            session._restart = not stay
            session._delay.reset()
    reactor.processes.answer_done(service)
    return True


# ------------------------------------------------------------------ graceful restart


def _restarting() -> None:
    stock_set = Graceful.set
    stock_reload = loop.Reactor.reload
    stock_reestablish = peer.Peer.reestablish

    def set_(self: Any, restart_flag: int, restart_time: int, protos: Any) -> Any:
        return stock_set(self, restart_flag | NOTIFICATION_BIT, restart_time, protos)

    def reload(self: Any) -> bool:
        reloaded = bool(stock_reload(self))
        peer.FORCE_GRACEFUL = False
        return reloaded

    def reestablish(self: Any, restart_neighbor: Any = None) -> None:
        stock_reestablish(self, restart_neighbor)
        self._restarted = False
        if self.proto is None and self.neighbor["passive"] and restart_neighbor is not None:
            self.neighbor, self._neighbor, self._teardown = restart_neighbor, None, None

    peer.FORCE_GRACEFUL = os.environ.get(RESTARTED) == "1"
    Graceful.set = set_
    loop.Reactor.reload = reload
    peer.Peer.reestablish = reestablish
