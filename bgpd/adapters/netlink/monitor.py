"""What others do to the kernel, as events: links, addresses, and unicast routes that are not ours, of the main table and of that of ours.

Theory of operation: :class:`Surroundings` holds what is there by interface index, and what the core was told by name. Each message
changes the first; the difference to the second becomes events, so a repeated message tells nothing. Some changes the kernel makes
without a message (net/ipv4/fib_semantics.c, net/ipv4/nexthop.c): a link that goes down or comes up, or loses its addresses, takes
IPv4 routes and nexthop objects away, or revives them. Then *unsure* is set, and the caller reads everything again.

Laws: an event only for a real change; a route of ours (by protocol) never becomes an event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bgpd.adapters.netlink.encode import (
    RTNH_F_DEAD,
    AddressEntry,
    Hop,
    LinkEntry,
    NexthopEntry,
    RouteEntry,
)
from bgpd.adapters.netlink.socket import NLM_F_APPEND, NLM_F_REPLACE
from bgpd.model.event import (
    AddressAdded,
    AddressRemoved,
    Event,
    ForeignRouteChanged,
    ForeignRouteRemoved,
    LinkChanged,
    LinkRemoved,
)
from bgpd.model.forwarding import DEFAULT_METRIC, MAIN_TABLE, RouteKey
from bgpd.model.prefix import Address, Family, Prefix

GROUPS: Final = (1, 3, 5, 7, 8, 9, 11, 19, 32)
"""RTNLGRP_ LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, NEXTHOP."""

_RTN_UNICAST: Final = 1
_NESTING: Final = 4
"""How deep groups within a group are followed; the kernel allows one level."""

_Key = tuple[Prefix, int, int]
"""Prefix, metric, table."""
_Named = tuple[tuple[str, Address | None], ...]
_Told = tuple[str, Address, Prefix]
_Path = tuple[int, tuple[Hop, ...]]


class Surroundings:
    """Owns links, addresses, nexthop objects and foreign routes as last heard, what was told of them, and the events to tell."""

    def __init__(self, table: int = MAIN_TABLE, own: int = MAIN_TABLE) -> None:
        """*table* is the one through which next hops are resolved: that of the VRF, or the main one. *own* is that of our routes."""
        self._table = table
        self._tables = {table, own}
        self._own = own
        self.links: dict[int, LinkEntry] = {}
        self.nexthops: dict[int, NexthopEntry] = {}
        """Everybody's nexthop objects, by id."""
        self.unsure = False
        """Set when the kernel may have changed more than it says: read everything again."""
        self._indices: dict[str, int] = {}
        self._addresses: dict[tuple[int, Address, Prefix], bool] = {}
        self._routes: dict[_Key, _Path] = {}
        self._stacked: set[_Key] = set()
        """IPv4 routes that have others below them with the same key, which the kernel uses when the first one goes."""
        self._users: dict[int, set[_Key]] = {}
        self._told_links: dict[str, LinkChanged] = {}
        self._told_addresses: set[_Told] = set()
        self._told_routes: dict[_Key, _Named] = {}
        self._events: list[Event] = []

    def take_events(self) -> list[Event]:
        """Return what there is to tell, in order, and forget it."""
        events, self._events = self._events, []
        return events

    def index(self, device: str) -> int | None:
        return self._indices.get(device)

    def link_named(self, device: str) -> LinkEntry | None:
        index = self._indices.get(device)
        return None if index is None else self.links.get(index)

    def holds(self, key: RouteKey) -> bool:
        """Whether another's unicast route is in the place of *key*; of other tables than ours nothing is known."""
        metric = key.metric or DEFAULT_METRIC[key.prefix.family]
        return key.table not in self._tables or (key.prefix, metric, key.table) in self._routes

    # -------------------------------------------------------------- messages

    def link(self, entry: LinkEntry) -> None:
        """A link is there, or has changed."""
        before = self.links.get(entry.index)
        self.links[entry.index] = entry
        if before is not None and before.name != entry.name:
            self.unsure = True  # routes and nexthops are known by the old name
            self._untell_link(before)
        if before is not None and _state(before) != _state(entry):
            self.unsure = True
        self._indices[entry.name] = entry.index
        told = LinkChanged(name=entry.name, index=entry.index, up=entry.up, mtu_bytes=entry.mtu_bytes, mac=entry.mac)
        if self._told_links.get(entry.name) != told:
            self._told_links[entry.name] = told
            self._events.append(told)
        if before is None or before.name != entry.name:
            self._tell_addresses()

    def link_gone(self, index: int) -> None:
        before = self.links.pop(index, None)
        if before is None:
            return
        self.unsure = True
        self._addresses = {key: usable for key, usable in self._addresses.items() if key[0] != index}
        self._untell_link(before)
        self._tell_addresses()

    def ipv4_address(self, index: int) -> Address | None:
        """Return the lowest IPv4 address of a link; None if it has none."""
        held = (address for link, address, _ in self._addresses if link == index and address.family is Family.IPV4)
        return min(held, default=None)

    def address(self, entry: AddressEntry, *, present: bool) -> None:
        key = (entry.index, entry.address, entry.subnet)
        if present:
            self._addresses[key] = entry.usable
        elif self._addresses.pop(key, None) is not None:
            self.unsure = True  # the last address of a family takes routes with it
        self._tell_addresses()

    def route(self, entry: RouteEntry, *, present: bool, flags: int) -> None:
        """A route that is not ours was added, changed or removed; *flags* are the message's."""
        if entry.table not in self._tables or entry.tos:
            return
        key = (entry.prefix, entry.metric, entry.table)
        replaces = bool(flags & NLM_F_REPLACE)
        if not present:
            self._remove_route(key, entry)
        elif entry.type == _RTN_UNICAST:
            self._add_route(key, entry, replaces=replaces, last=bool(flags & NLM_F_APPEND))
        elif replaces:
            self._set_route(key, None)
        self._tell_route(key)

    def nexthop(self, entry: NexthopEntry) -> None:
        self.nexthops[entry.id] = entry
        self._tell_users(entry.id)

    def nexthop_gone(self, number: int) -> None:
        if self.nexthops.pop(number, None) is not None:
            self._tell_users(number)

    # -------------------------------------------------------------- whole readings

    def read_links(self, entries: Iterable[LinkEntry]) -> None:
        """Replace all links by *entries*."""
        entries = list(entries)
        for index in self.links.keys() - {entry.index for entry in entries}:
            self.link_gone(index)
        for entry in entries:
            self.link(entry)

    def read_addresses(self, entries: Iterable[AddressEntry]) -> None:
        self._addresses = {(entry.index, entry.address, entry.subnet): entry.usable for entry in entries}
        self._tell_addresses()

    def read_nexthops(self, entries: Iterable[NexthopEntry]) -> None:
        """Replace all nexthop objects; read routes next, they are told then."""
        self.nexthops = {entry.id: entry for entry in entries}

    def read_routes(self, entries: Iterable[RouteEntry]) -> None:
        """Replace all foreign routes by *entries*, in the kernel's order: of IPv4 routes with the same key the first one counts."""
        self._routes.clear()
        self._users.clear()
        self._stacked.clear()
        for entry in entries:
            if entry.table in self._tables and not entry.tos and entry.type == _RTN_UNICAST:
                self._add_route((entry.prefix, entry.metric, entry.table), entry, replaces=False, last=True)
        for key in [*self._routes, *(self._told_routes.keys() - self._routes.keys())]:
            self._tell_route(key)

    # -------------------------------------------------------------- foreign routes

    def _add_route(self, key: _Key, entry: RouteEntry, *, replaces: bool, last: bool) -> None:
        path: _Path = (entry.nexthop_id, entry.hops)
        known = self._routes.get(key)
        if known is not None and not replaces and _ends(known) != _ends(path):
            if entry.prefix.family is Family.IPV6 and not known[0] and not path[0]:
                # siblings: each device of a connected prefix, each hop of an ECMP route that grows
                fresh = _ends(path)
                path = (0, (*(hop for hop in known[1] if hop[:2] not in fresh), *path[1]))
            else:
                self._stacked.add(key)
                path = known if last else path
        self._set_route(key, path)

    def _remove_route(self, key: _Key, entry: RouteEntry) -> None:
        known = self._routes.get(key)
        if known is None:
            return
        gone = _ends((entry.nexthop_id, entry.hops))
        if entry.prefix.family is Family.IPV6 and not known[0]:
            left = tuple(hop for hop in known[1] if hop[:2] not in gone)
            self._set_route(key, (0, left) if left else None)
        elif known[0] == entry.nexthop_id and _ends(known) == gone:
            self._set_route(key, None)
            if key in self._stacked:
                self._stacked.discard(key)
                self.unsure = True  # the one below it has become the first, without a message
        # else: one that lay below the first

    def _set_route(self, key: _Key, path: _Path | None) -> None:
        before = self._routes.pop(key, None)
        if before is not None and before[0]:
            users = self._users[before[0]]
            users.discard(key)
            if not users:
                del self._users[before[0]]
        if path is not None:
            self._routes[key] = path
            if path[0]:
                self._users.setdefault(path[0], set()).add(key)

    def _tell_route(self, key: _Key) -> None:
        path = self._routes.get(key)
        hops = () if path is None else self._named(path)
        if hops == self._told_routes.get(key, ()):
            return
        prefix, metric, table = key
        resolves, beside = table == self._table, table == self._own
        if hops:
            self._told_routes[key] = hops
            self._events.append(
                ForeignRouteChanged(prefix=prefix, metric=metric, hops=hops, resolves=resolves, beside=beside)
            )
        else:
            del self._told_routes[key]
            self._events.append(ForeignRouteRemoved(prefix=prefix, metric=metric, resolves=resolves, beside=beside))

    def _tell_users(self, number: int) -> None:
        """Tell again the routes that use a nexthop, by itself or in a group. O(objects that others' routes use), not O(ours)."""
        for used, keys in self._users.items():
            entry = self.nexthops.get(used)
            if used == number or (entry is not None and number in entry.members):
                for key in keys:
                    self._tell_route(key)

    def _named(self, path: _Path) -> _Named:
        """Give the living hops of a route by device name, sorted, each once."""
        number, hops = path
        if number:
            hops = self._hops_of(number, _NESTING)
        named: set[tuple[str, Address | None]] = set()
        for index, gateway, flags in hops:
            link = self.links.get(index)
            if link is None:
                self.unsure = True
            elif not flags & RTNH_F_DEAD:
                named.add((link.name, gateway))
        return tuple(sorted(named, key=lambda hop: (hop[0], -1 if hop[1] is None else hop[1])))

    def _hops_of(self, number: int, depth: int) -> tuple[Hop, ...]:
        entry = self.nexthops.get(number)
        if entry is None or not depth:
            return ()
        if entry.members:
            return tuple(hop for member in entry.members for hop in self._hops_of(member, depth - 1))
        return ((entry.ifindex, entry.gateway, 0),) if entry.ifindex else ()

    # -------------------------------------------------------------- links and addresses

    def _untell_link(self, before: LinkEntry) -> None:
        """Tell that a name is gone, its addresses first."""
        if self._indices.get(before.name) == before.index:
            del self._indices[before.name]
        for device, address, subnet in sorted(self._told_addresses):
            if device == before.name:
                self._told_addresses.discard((device, address, subnet))
                self._events.append(AddressRemoved(device, address, subnet))
        if self._told_links.pop(before.name, None) is not None:
            self._events.append(LinkRemoved(before.name))

    def _tell_addresses(self) -> None:
        now: set[_Told] = set()
        for (index, address, subnet), usable in self._addresses.items():
            link = self.links.get(index)
            if link is not None and usable:
                now.add((link.name, address, subnet))
        for told in sorted(self._told_addresses - now):
            self._events.append(AddressRemoved(*told))
        for told in sorted(now - self._told_addresses):
            self._events.append(AddressAdded(*told))
        self._told_addresses = now


def _state(entry: LinkEntry) -> tuple[bool, bool, bool]:
    """What the kernel's routes follow. A reading may show the carrier gone before the routes are: then the rest changes later."""
    return entry.up, entry.enabled, entry.settled


def _ends(path: _Path) -> set[tuple[int, Address | None]]:
    """Say where a route leads, without flags, which change by themselves."""
    return {(-path[0], None)} if path[0] else {hop[:2] for hop in path[1]}
