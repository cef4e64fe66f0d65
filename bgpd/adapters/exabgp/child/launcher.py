"""Start ExaBGP's own server with received UPDATE bodies passed through undecoded.

Stock ExaBGP decodes each UPDATE into objects and prints them as JSON: 0.25 ms a message and 20 us a route of its only thread, which
also sends the keepalives. Here a received message becomes one line, ``{"raw":TYPE,"direction":..,"peer":..,"body":HEX}``, and UPDATEs are
not looked into beyond the three length fields (RFC 4271 section 6.3: their disagreement ends the session, and only ExaBGP can send
the NOTIFICATION).

Replaced are here, and beside them what sessions.py, opening.py, links.py and sharing.py name; the rest is stock:

* ``Processes.packets`` writes the short line instead of a JSON document with host name, counters and a slow hex dump;
* ``Message.unpack`` returns an empty Update for a received UPDATE, and for the marks of an enhanced refresh (RFC 7313), which stock
  ExaBGP mistakes for a request to send everything again.

``install`` verifies that the functions are the ones this was written for, and ``Unfit`` names what differs: then the process ends with
status 78 and nothing was started (the daemon's other mode, stock JSON, needs none of this).

Usage: ``python -m bgpd.adapters.exabgp.child.launcher CONF``; with ``validate`` before CONF it is only read, as ``exabgp validate`` does.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

from exabgp import version as exabgp_version
from exabgp.application import main as exabgp_main
from exabgp.bgp.message import Message, Notify, Update
from exabgp.bgp.message.direction import Direction
from exabgp.bgp.message.open.capability.capabilities import Capabilities
from exabgp.bgp.message.open.capability.graceful import Graceful
from exabgp.bgp.message.open.capability.negotiated import Negotiated
from exabgp.bgp.neighbor import Neighbor
from exabgp.configuration.neighbor import ParseNeighbor
from exabgp.reactor import delay, listener, loop, peer, protocol
from exabgp.reactor.api.processes import Processes
from exabgp.reactor.api.response.json import JSON
from exabgp.reactor.network.outgoing import Outgoing
from exabgp.rib import outgoing

from bgpd.adapters.exabgp.child import links, opening, sessions, sharing

EXIT_UNFIT = 78
"""EX_CONFIG of sysexits.h: starting again does not help."""
REFRESH_MARKS = (1, 2)
"""Subtypes BoRR and EoRR of a ROUTE-REFRESH message (RFC 7313 section 3.2)."""

_UPDATE = 2
_ROUTE_REFRESH = 5


class Unfit(Exception):  # noqa: N818  what the caller learns
    """The installed ExaBGP is not what the patches were written for; the text names the difference."""


def install() -> None:
    """Replace the functions named in the module's docstring; raises Unfit and changes nothing if one looks different."""
    verify()
    empty = Update([], {})
    stock_unpack = Message.unpack

    def packets(
        self: Any, neighbor: Any, direction: str, category: int, _negotiated: Any, _header: bytes, body: bytes
    ) -> None:
        if self.silence:
            return
        line = (
            f'{{"raw":{category},"direction":"{direction}","peer":"{links.identity(neighbor)}","body":"{body.hex()}"}}'
        )
        for process in self._notify(neighbor, f"{direction}-packets"):
            self.write(process, line, neighbor)

    def unpack(_cls: type, message: int, data: bytes, direction: int, negotiated: Any) -> Any:
        if direction == Direction.IN:
            if message == _UPDATE:
                check_lengths(data)
                return empty
            if message == _ROUTE_REFRESH and len(data) == 4 and data[2] in REFRESH_MARKS:
                return empty
        return stock_unpack(message, data, direction, negotiated)

    sessions.install()
    opening.install()
    links.install()
    sharing.install()
    Processes.packets = packets
    Message.unpack = classmethod(unpack)


def check_lengths(body: bytes) -> None:
    """Raise ExaBGP's Notify(3,1) if the length fields of an UPDATE exceed it (RFC 4271 section 6.3, RFC 7606 section 3)."""
    if len(body) >= 4:
        withdrawn = 2 + int.from_bytes(body[:2], "big")
        if withdrawn + 2 <= len(body) and withdrawn + 2 + int.from_bytes(body[withdrawn : withdrawn + 2], "big") <= len(
            body
        ):
            return
    raise Notify(3, 1, "the lengths in an UPDATE exceed it")


def verify() -> None:
    """Raise Unfit unless ExaBGP's functions have the shape that the patches rely on."""
    if not str(exabgp_version.version).startswith("5.0."):
        raise Unfit(f"ExaBGP is {exabgp_version.version}, not 5.0")
    signatures = {
        Processes.packets: None,  # wrapped by ExaBGP's own decorator; its caller is checked below
        Message.unpack: ["message", "data", "direction", "negotiated"],
        Processes.write: ["self", "process", "string", "neighbor"],
        Processes._notify: ["self", "neighbor", "event"],
        delay.Delay.increase: ["self"],
        ParseNeighbor._post_capa_nexthop: ["self", "neighbor", "local"],
        Outgoing.establish: ["self"],
        Outgoing._connect: ["self"],
        Graceful.set: ["self", "restart_flag", "restart_time", "protos"],
        Capabilities.new: ["self", "neighbor", "restarted", "local_as"],
        Negotiated.validate: ["self", "neighbor"],
        Neighbor.__eq__: ["self", "other"],
        Neighbor.name: ["self"],
        Neighbor.remove_self: ["self", "changes"],
        outgoing.OutgoingRIB.del_from_rib: ["self", "change"],
        JSON._neighbor: ["self", "neighbor", "direction", "content"],
        loop.Reactor.neighbor_ip: ["self", "peer_name"],
        loop.Reactor.handle_connection: ["self", "peer_name", "connection"],
        protocol.Protocol.new_open: ["self"],
        listener.Listener._new_socket: ["self", "ip"],
        listener.Listener._listen: ["self", "local_ip", "peer_ip", "local_port", "use_md5", "md5_base64", "ttl_in"],
        listener.Listener.incoming: ["self"],
        listener.set_accepted_ttl: ["connection", "neighbor"],
        loop.Reactor._listen_for_neighbors: ["self"],
        loop.Reactor.reload: ["self"],
        peer.Peer._connect: ["self"],
        peer.Peer._reset: ["self", "message", "error"],
        peer.Peer._main: ["self"],
        peer.Peer.remove: ["self"],
        peer.Peer.reestablish: ["self", "restart_neighbor"],
    }
    for function, expected in signatures.items():
        found = list(inspect.signature(function).parameters)
        if expected is not None and found != expected:
            raise Unfit(f"{function.__qualname__} takes {found}, not {expected}")
    _verify_caller(protocol)
    if not inspect.isgeneratorfunction(peer.Peer._main):
        raise Unfit("Peer._main is no generator")
    if not {"_next", "_time"} <= vars(delay.Delay()).keys():
        raise Unfit("Delay has no _next or no _time")
    if not hasattr(peer, "FORCE_GRACEFUL"):
        raise Unfit("the peer has no FORCE_GRACEFUL")


def _verify_caller(module: ModuleType) -> None:
    """Check that the reading loop passes bodies to the API before it unpacks them, by the calls in its source."""
    source = inspect.getsource(module.Protocol.read_message)
    calls = (
        "processes.packets(self.peer.neighbor, 'receive', msg_id, negotiated, header, body)",
        "Message.unpack(msg_id, body, Direction.IN, self.negotiated)",
    )
    places = [source.find(call) for call in calls]
    if -1 in places or places != sorted(places):
        raise Unfit("Protocol.read_message does not hand over a message before it unpacks it")


def main() -> int:
    verb, *rest = sys.argv[1:] if sys.argv[1:2] == ["validate"] else ["server", *sys.argv[1:]]
    if len(rest) != 1:
        sys.stderr.write("usage: python -m bgpd.adapters.exabgp.child.launcher [validate] CONF\n")
        return 2
    try:
        install()
    except Unfit as unfit:
        sys.stderr.write(f"launcher: {unfit}; use the mode json\n")
        return EXIT_UNFIT
    sys.argv = ["exabgp", verb, rest[0]]
    return int(exabgp_main.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
