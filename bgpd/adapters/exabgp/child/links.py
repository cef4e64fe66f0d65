"""Neighbors with one link-local address on several links, which stock ExaBGP takes for one neighbor.

What is replaced, and why: ``Neighbor.name`` and ``index`` (by which ExaBGP knows its neighbors, and commands choose them) and what it
tells the API process (``JSON._neighbor``, ``Reactor.neighbor_ip``) name the link, as ``fe80::1%eth0``; ``Reactor.handle_connection``
gives an accepted connection to the neighbor on the link that it came by.
"""

from __future__ import annotations

import socket
from typing import Any

from exabgp.bgp.neighbor import Neighbor
from exabgp.reactor import loop
from exabgp.reactor.api.response.json import JSON


def identity(neighbor: Any) -> str:
    """Return the address of a neighbor; a link-local one with its link."""
    address = str(neighbor["peer-address"])
    link = neighbor["source-interface"]
    return f"{address}%{link}" if link and address.lower().startswith("fe80:") else address


def install() -> None:
    """Replace what the module's docstring names; ``launcher.verify`` has looked at it before."""
    stock_name = Neighbor.name
    stock_index = Neighbor.index
    stock_neighbor = JSON._neighbor
    stock_handle = loop.Reactor.handle_connection

    def name(self: Any) -> str:
        plain = str(self["peer-address"])
        return str(stock_name(self)).replace(f"neighbor {plain} ", f"neighbor {identity(self)} ", 1)

    def index(self: Any) -> str:
        return f"{stock_index(self)} {identity(self)}"

    def in_json(self: Any, neighbor: Any, direction: Any, content: Any) -> str:
        plain = str(neighbor["peer-address"])
        written = str(stock_neighbor(self, neighbor, direction, content))
        return written.replace(f'"peer": "{plain}"', f'"peer": "{identity(neighbor)}"', 1)

    def neighbor_ip(self: Any, peer_name: str) -> str:
        session = self._peers.get(peer_name)
        return "" if session is None else identity(session.neighbor)

    def handle_connection(self: Any, peer_name: str, connection: Any) -> Any:
        return stock_handle(self, _by_link(self, peer_name, connection), connection)

    Neighbor.name = name
    Neighbor.index = index
    JSON._neighbor = in_json
    loop.Reactor.neighbor_ip = neighbor_ip
    loop.Reactor.handle_connection = handle_connection


def _by_link(reactor: Any, found: str, connection: Any) -> str:
    """Return the neighbor on the connection's link with the addresses of the one *found* by them alone."""
    chosen = reactor._peers[found].neighbor
    if identity(chosen) == str(chosen["peer-address"]) or connection.io is None:
        return found
    try:
        link = socket.if_indextoname(connection.io.getpeername()[3])
    except OSError:
        return found
    for key, session in reactor._peers.items():
        neighbor = session.neighbor
        alike = (neighbor["peer-address"], neighbor["local-address"]) == (
            chosen["peer-address"],
            chosen["local-address"],
        )
        if alike and neighbor["source-interface"] == link:
            return str(key)
    return found
