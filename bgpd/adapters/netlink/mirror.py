"""What is ours in the kernel, as keys and values, and the ids behind them.

Theory of operation: :class:`Mirror` follows two sources. What we did ourselves and the kernel accepted goes in by ``record``; what
was read back or heard goes in by ``observe_…`` and ``forget_…``, and differences count as drift. It keeps the kernel's own rules of
removal (net/ipv4/nexthop.c): a leg that goes shrinks its groups, a group without legs goes, and its routes go with it, all
without a message.

Laws: ours is what carries our protocol number and, for nexthops, an id of our range (law 4). A group found in the kernel whose
meaning is unknown is called ``#<id>`` until it is adopted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from bgpd.adapters.netlink import classic
from bgpd.adapters.netlink.classic import UNBOUND
from bgpd.adapters.netlink.encode import KIND_OF_TYPE, TYPE_OF_KIND, NeighbourEntry, NexthopEntry, RouteEntry, RuleEntry
from bgpd.model.forwarding import (
    DEFAULT_METRIC,
    NEXTHOP_ID_FIRST,
    NEXTHOP_ID_LAST,
    VXLAN_DEVICES,
    WIREGUARD_DEVICE,
    DeviceKey,
    DeviceValue,
    Fdb,
    FdbKey,
    Group,
    GroupKey,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    Neighbour,
    NeighbourKey,
    Present,
    RouteKey,
    RouteKind,
    RuleKey,
    WireguardPeer,
    WireguardPeerKey,
    weighted,
)

_PRESENT: Final = Present()
_UNICAST: Final = TYPE_OF_KIND[RouteKind.UNICAST]
VALUES: Final = 4096
"""Values of routes that are shared, one or two a group; beyond, they are collected anew."""


class Mirror:
    """Owns *actual*, ids of legs and groups in both directions, who uses whom, and the keys that drifted."""

    def __init__(self, protocol: int, *, resilient: bool = False) -> None:
        """*resilient*: groups are of that type; one of the other type is never adopted, since the kernel changes no type."""
        self._resilient = resilient
        self.actual: dict[KernelKey, KernelValue] = {}
        self.ids: dict[Leg | GroupKey, int] = {}
        self.device: Callable[[int], str | None] | None = None
        """Set where there are no nexthop objects (classic.py): names an interface, to read the hops of a route."""
        self._protocol = protocol
        self.nameless: set[int] = set()
        """Groups that were found, and wait to be adopted."""
        self._keys: dict[int, Leg | GroupKey] = {}
        self._members: dict[int, dict[int, int]] = {}
        """Group to its members, with their weights."""
        self._routes_of: dict[GroupKey, set[RouteKey]] = {}
        self._foreign_type: set[int] = set()
        """Groups that are not of our type (multipath or resilient): made by a run with other settings."""
        self._drifted: dict[KernelKey, KernelValue | None] = {}
        """Key to what it was before."""
        self._plain: dict[int, KernelRoute] = {}
        """By nexthop id, the value of a route that has nothing else; valid while the id stands for its group. One an id."""
        self._values: dict[KernelRoute, KernelRoute] = {}
        """Values of routes, each once: thousands of routes have the same."""
        self.touched: set[RouteKey] | None = None
        """While a comparison reads (else None): routes that changed meanwhile, of which its reading may be older than we are."""

    def take_drifted(self) -> list[KernelKey]:
        """Return the keys that others changed since the last call; not those that are again as they were."""
        drifted = [key for key, before in self._drifted.items() if self.actual.get(key) != before]
        self._drifted.clear()
        return drifted

    def owns(self, number: int, protocol: int) -> bool:
        return protocol == self._protocol and NEXTHOP_ID_FIRST <= number <= NEXTHOP_ID_LAST

    def knows(self, number: int) -> bool:
        return number in self._keys

    def key(self, number: int) -> Leg | GroupKey | None:
        """Return what a nexthop id of ours stands for."""
        return self._keys.get(number)

    def adoptable(self, found: GroupKey) -> bool:
        """Whether a group was found in the kernel, has no name yet, and is of our type."""
        number = self.ids.get(found)
        return number is not None and found.name.startswith(UNBOUND) and number not in self._foreign_type

    # -------------------------------------------------------------- what we did

    def claim(self, key: Leg | GroupKey, number: int) -> None:
        """Give *key* an id, before the kernel has it: what follows in the same batch refers to it."""
        self.ids[key] = number
        self._keys[number] = key
        if isinstance(key, GroupKey) and key.name.startswith(UNBOUND):
            self.nameless.add(number)
        else:
            self.nameless.discard(number)

    def release(self, key: Leg | GroupKey) -> None:
        """Take back a claim that the kernel refused."""
        self._keys.pop(self.ids.pop(key), None)

    def record(self, key: KernelKey, value: KernelValue | None) -> None:
        """The kernel has accepted our change."""
        if type(key) is RouteKey:
            self._store_route(key, value)
            return
        if isinstance(key, Leg | GroupKey) and (self.device is None or key in self.ids):
            number = self.ids.get(key)
            if number is None:
                return
            if value is None:
                self._drop_nexthop(number, key)
                return
            if isinstance(value, Group):
                self._members[number] = self._members_of(value)
        self._store(key, value)

    def record_alike(self, keys: dict[RouteKey, KernelValue | None], value: KernelValue | None) -> None:
        """As ``record``, for many routes at once (each with *value*), which were of one group before, or were not there."""
        if self.touched is not None:
            self.touched.update(keys)
        first = next(iter(keys), None)
        before = None if first is None else self.actual.get(first)
        old = before.group if type(before) is KernelRoute else None
        new = value.group if type(value) is KernelRoute else None
        if value is not None:
            self.actual.update(dict.fromkeys(keys, value))  # dicts from dicts: no key is hashed again
        else:
            for key in keys:
                self.actual.pop(key, None)
        if old is not None and old != new:
            self._routes_of.get(old, set()).difference_update(keys)
        if new is not None and old != new:
            self._routes_of.setdefault(new, set()).update(keys)

    def rename(self, names: dict[GroupKey, GroupKey]) -> None:
        """Give groups that were found the names of what they stand for; nothing else changes, so it is no drift."""
        for found, wanted in names.items():
            number = self.ids.pop(found)
            self.claim(wanted, number)
            self.actual[wanted] = self.actual.pop(found)
            routes = self._routes_of.pop(found, set())
            self._routes_of.setdefault(wanted, set()).update(routes)
            values: dict[KernelValue, KernelRoute] = {}
            for route in routes:
                before = self.actual[route]
                assert isinstance(before, KernelRoute)
                self.actual[route] = values.setdefault(before, msgspec.structs.replace(before, group=wanted))

    # -------------------------------------------------------------- what we heard

    def observe_device(self, name: str, value: DeviceValue | None) -> None:
        """A device of ours as it is; None: it is gone, and what was on it."""
        self._observe(DeviceKey(name), value)
        if value is None and name in VXLAN_DEVICES:
            self.read_neighbours(name, ())
        elif value is None and name == WIREGUARD_DEVICE:
            self.read_peers({})

    def observe_nexthop(self, entry: NexthopEntry, device: str | None) -> None:
        """A nexthop object of ours; *device* is the name of its interface."""
        if self.device is not None:
            self._leftover(entry, device)
        elif entry.members:
            if not isinstance(self._keys.get(entry.id), GroupKey):
                self.forget_nexthop(entry.id)
                self.claim(GroupKey(f"{UNBOUND}{entry.id}"), entry.id)
            if entry.resilient is self._resilient:
                self._foreign_type.discard(entry.id)
            else:
                self._foreign_type.add(entry.id)
            weights = entry.weights or (1,) * len(entry.members)
            self._members[entry.id] = dict(zip(entry.members, weights, strict=True))
            self._refresh_group(entry.id)
        elif device is not None:
            leg = Leg(device, entry.gateway, entry.onlink)
            if self._keys.get(entry.id) == leg:
                self._observe(leg, _PRESENT)
                return
            self.forget_nexthop(entry.id, keep_groups=True)
            self._keys[entry.id] = leg
            self.ids.setdefault(leg, entry.id)
            self._observe(leg, _PRESENT)
            self._refresh_users(entry.id)

    def _leftover(self, entry: NexthopEntry, device: str | None) -> None:
        """An object where we use none: of a run with other settings. It is a group of no name, so that it goes."""
        key = self._keys.get(entry.id)
        if key is None:
            key = GroupKey(f"{UNBOUND}{entry.id}")
            self.claim(key, entry.id)
        legs = (Leg(device, entry.gateway, entry.onlink),) if device is not None else ()
        self._observe(key, Group(legs))

    def forget_nexthop(self, number: int, *, keep_groups: bool = False) -> None:
        """A nexthop object is gone; with *keep_groups* it was changed into another."""
        key = self._keys.get(number)
        if key is None:
            return
        self._drifted.setdefault(key, self.actual.get(key))
        self._drop_nexthop(number, key, keep_groups=keep_groups)

    def observe_route(self, entry: RouteEntry) -> None:
        key = self.key_of(entry)
        if key is None:
            return
        value = self.value_of(entry, key)
        if self.device is not None and value.group is not None and value.group not in self.actual and entry.hops:
            found = classic.content(entry, self.device)
            if not found.legs:
                self._observe(key, None)  # nothing of it carries anything
                return
            self._store(value.group, found)
            for leg in found.legs:
                self._observe(leg, _PRESENT)  # drift: where nobody wants it, it is a note to be dropped
        self._observe(key, value)

    def value_of(self, entry: RouteEntry, key: RouteKey) -> KernelRoute:
        """Read a route of ours as a value."""
        if entry.nexthop_id and not entry.mtu_bytes and entry.source is None and entry.type == _UNICAST:
            plain = self._plain.get(entry.nexthop_id)
            if plain is not None and self._keys.get(entry.nexthop_id) is plain.group:
                return plain
        value = self._value_of(entry, key)
        if entry.nexthop_id and value.kind is RouteKind.UNICAST and not value.mtu_bytes and value.source is None:
            self._plain[entry.nexthop_id] = value
        return value

    def _value_of(self, entry: RouteEntry, key: RouteKey) -> KernelRoute:
        kind = KIND_OF_TYPE[entry.type]
        group: GroupKey | None = None
        if kind is RouteKind.UNICAST and entry.nexthop_id:
            named = self._keys.get(entry.nexthop_id)
            group = named if isinstance(named, GroupKey) else GroupKey(f"{UNBOUND}{entry.nexthop_id}")
        elif kind is RouteKind.UNICAST and self.device is not None:
            before = self.actual.get(key)
            known = before if isinstance(before, KernelRoute) else None
            group = classic.name_of(classic.content(entry, self.device), known, self.actual)
        value = KernelRoute(kind, group, entry.source, entry.mtu_bytes)
        if len(self._values) > VALUES:
            self._values.clear()
        return self._values.setdefault(value, value)

    def forget_route(self, entry: RouteEntry) -> None:
        key = self.key_of(entry)
        if key is not None:
            self._observe(key, None)

    def key_of(self, entry: RouteEntry) -> RouteKey | None:
        """Return the key of a route, of whomever; None if no route of ours can have its place."""
        if entry.tos or entry.type not in KIND_OF_TYPE:
            return None
        metric = 0 if entry.metric == DEFAULT_METRIC[entry.prefix.family] else entry.metric
        return RouteKey(entry.prefix, entry.table, metric)

    def displaced(self, entry: RouteEntry) -> None:
        """Another's route has replaced what was in its place."""
        self.forget_route(entry)

    def observe_neighbour(self, device: str, entry: NeighbourEntry) -> None:
        """An entry on a device of ours, of either kind; only permanent ones count."""
        read = _neighbour(device, entry)
        if read is not None:
            self._observe(read[0], read[1] if entry.permanent else None)

    def forget_neighbour(self, device: str, entry: NeighbourEntry) -> None:
        read = _neighbour(device, entry)
        if read is not None:
            self._observe(read[0], None)

    def observe_rule(self, entry: RuleEntry, *, present: bool) -> None:
        """A rule of whomever; ours is one of our protocol, and of a form that we make."""
        if entry.key is not None and entry.protocol == self._protocol:
            self._observe(entry.key, _PRESENT if present else None)

    # -------------------------------------------------------------- without nexthop objects

    def routes_of(self, group: GroupKey) -> list[RouteKey]:
        """Return the routes of a group."""
        return list(self._routes_of.get(group, ()))

    def bind(self, adopted: dict[RouteKey, KernelRoute]) -> None:
        """Let routes be of the groups that they stand for; nothing else changes, so it is no drift."""
        for key, route in adopted.items():
            before = self.actual[key]
            assert isinstance(before, KernelRoute)
            assert before.group is not None
            assert route.group is not None
            self.actual.setdefault(route.group, self.actual[before.group])
            self._store_route(key, route)

    def mistrust(self, keys: Iterable[RouteKey]) -> None:
        """Take note that routes are not what they were meant to be: they are looked at again."""
        for key in keys:
            before = self.actual.get(key)
            if isinstance(before, KernelRoute):
                self._observe(key, msgspec.structs.replace(before, group=GroupKey(f"{UNBOUND}?")))

    def prune(self, enabled: Callable[[str], bool]) -> None:
        """Drop the legs whose device is down or gone, as the kernel does: groups shrink, and those left empty go with their routes."""
        for leg in [key for key in self.actual if isinstance(key, Leg) and not enabled(key.device)]:
            self._observe(leg, None)
        for key, group in [(key, value) for key, value in self.actual.items() if isinstance(value, Group)]:
            if key in self.ids or all(leg in self.actual for leg in group.legs):
                continue
            weights = group.weights or (1,) * len(group.legs)
            left = {leg: weight for leg, weight in zip(group.legs, weights, strict=True) if leg in self.actual}
            self._observe(key, weighted(left) if left else None)
            if not left and isinstance(key, GroupKey):
                for route in self.routes_of(key):
                    self._observe(route, None)

    # -------------------------------------------------------------- whole readings

    def read_nexthops(self, entries: Iterable[tuple[NexthopEntry, str | None]]) -> None:
        """Replace all nexthop objects by *entries* (of ours) with the names of their devices."""
        entries = list(entries)
        for number in self._keys.keys() - {entry.id for entry, _ in entries}:
            self.forget_nexthop(number)
        for entry, device in sorted(
            entries, key=lambda pair: bool(pair[0].members)
        ):  # legs first: groups are read by them
            self.observe_nexthop(entry, device)

    def read_routes(self, entries: Iterable[RouteEntry]) -> None:
        """Replace all routes by *entries* (of ours)."""
        seen: set[KernelKey] = set()
        for entry in entries:
            key = self.key_of(entry)
            if key is not None:
                seen.add(key)
                self.observe_route(entry)
        for gone in [key for key in self.actual if type(key) is RouteKey and key not in seen]:
            self._observe(gone, None)

    def read_rules(self, entries: Iterable[RuleEntry]) -> None:
        """Replace all rules by *entries*."""
        found = [entry for entry in entries if entry.protocol == self._protocol]
        seen = {entry.key for entry in found}
        for gone in [key for key in self.actual if type(key) is RuleKey and key not in seen]:
            self._observe(gone, None)
        for entry in found:
            self.observe_rule(entry, present=True)

    def read_neighbours(self, device: str, entries: Iterable[NeighbourEntry]) -> None:
        """Replace all neighbour and forwarding entries of a device of ours by *entries*."""
        every = ((entry, _neighbour(device, entry)) for entry in entries if entry.permanent)
        found = {read[0]: read[1] for _, read in every if read is not None}
        held = (key for key in self.actual if isinstance(key, NeighbourKey | FdbKey) and key.device == device)
        for gone in [key for key in held if key not in found]:
            self._observe(gone, None)
        for key, value in found.items():
            self._observe(key, value)

    def read_peers(self, peers: Mapping[str, WireguardPeer]) -> None:
        """Replace all WireGuard peers by *peers*, by public key. Where one is now (roaming) is no difference to where it was put."""
        for gone in [key for key in self.actual if isinstance(key, WireguardPeerKey) and key.public_key not in peers]:
            self._observe(gone, None)
        for public_key, value in peers.items():
            key = WireguardPeerKey(public_key)
            put = self.actual.get(key)
            same_place = isinstance(put, WireguardPeer) and msgspec.structs.replace(
                value, endpoint=put.endpoint, port=put.port
            )
            self._observe(key, same_place or value)

    # -------------------------------------------------------------- inside

    def _observe(self, key: KernelKey, value: KernelValue | None) -> None:
        before = self.actual.get(key)
        if before != value:
            self._drifted.setdefault(key, before)
            self._store(key, value)

    def _store(self, key: KernelKey, value: KernelValue | None) -> None:
        if type(key) is RouteKey:
            self._store_route(key, value)
            return
        if value is None:
            self.actual.pop(key, None)
        else:
            self.actual[key] = value

    def _store_route(self, key: RouteKey, value: KernelValue | None) -> None:
        """As ``_store``: on the way of every route."""
        if self.touched is not None:
            self.touched.add(key)
        if value is None:
            before = self.actual.pop(key, None)
        else:
            before = self.actual.get(key)
            self.actual[key] = value
        old = before.group if type(before) is KernelRoute else None
        new = value.group if type(value) is KernelRoute else None
        if old == new:
            return
        if old is not None:
            left = self._routes_of.get(old, set())
            left.discard(key)
            if not left and self.device is not None and old.name.startswith(UNBOUND) and old not in self.ids:
                self.actual.pop(old, None)  # hops that no route has any more
        if new is not None:
            routes = self._routes_of.get(new)
            if routes is None:
                routes = self._routes_of[new] = set()
            routes.add(key)

    def _drop_nexthop(self, number: int, key: Leg | GroupKey, *, keep_groups: bool = False) -> None:
        """Follow the kernel in removing an id: shrink groups, drop what is left empty, and its routes."""
        del self._keys[number]
        self.nameless.discard(number)
        self._members.pop(number, None)
        self._foreign_type.discard(number)
        if self.ids.get(key) == number:
            del self.ids[key]
            twin = (
                next((other for other, same in self._keys.items() if same == key), None)
                if isinstance(key, Leg)
                else None
            )
            if twin is not None:  # another id with the same content, not made by us: the key stays, by that id
                self.ids[key] = twin
                self._drifted.setdefault(key, None)
            else:
                self._store(key, None)
        if isinstance(key, GroupKey):
            for route in self._routes_of.pop(key, set()):
                self._observe(route, None)
        elif not keep_groups:
            for group, members in list(self._members.items()):
                if number in members:
                    self._shrink(group, {member: weight for member, weight in members.items() if member != number})

    def _shrink(self, number: int, members: dict[int, int]) -> None:
        self._members[number] = members
        if members:
            self._refresh_group(number)
        else:
            self.forget_nexthop(number)

    def _refresh_users(self, number: int) -> None:
        for group, members in list(self._members.items()):
            if number in members:
                self._refresh_group(group)

    def _refresh_group(self, number: int) -> None:
        key = self._keys.get(number)
        if isinstance(key, GroupKey):
            shares = {
                leg: weight
                for member, weight in self._members[number].items()
                if isinstance(leg := self._keys.get(member), Leg)
            }
            self._observe(key, weighted(shares))

    def _members_of(self, group: Group) -> dict[int, int]:
        weights = group.weights or (1,) * len(group.legs)
        return {self.ids[leg]: weight for leg, weight in zip(group.legs, weights, strict=True) if leg in self.ids}


def neighbour_key(device: str, entry: NeighbourEntry) -> NeighbourKey | FdbKey | None:
    """Return the key of an entry on a device of ours."""
    read = _neighbour(device, entry)
    return None if read is None else read[0]


def _neighbour(device: str, entry: NeighbourEntry) -> tuple[NeighbourKey, Neighbour] | tuple[FdbKey, Fdb] | None:
    if entry.address is None:
        return None
    if entry.fdb:
        return FdbKey(device, entry.mac), Fdb(entry.address)
    return NeighbourKey(device, entry.address), Neighbour(entry.mac)
