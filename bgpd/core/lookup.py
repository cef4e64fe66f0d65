"""Which route of the kernel a packet would take, ours or another's: what ``ip route get`` says, told from what is desired.

The longest prefix wins, then the lower metric; our own table, if it is another than the main one, is asked first, as its rule demands.
Unicast routes of others are known, other kinds of theirs are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from bgpd.core.forward import Forwarder
from bgpd.core.state import State
from bgpd.model.forwarding import MAIN_TABLE, KernelRoute, Leg, RouteKind
from bgpd.model.prefix import Address, Family, Prefix

LOOPBACK = Prefix.parse("127.0.0.0/8")
MULTICAST = {Family.IPV4: Prefix.parse("224.0.0.0/4"), Family.IPV6: Prefix.parse("ff00::/8")}
NOWHERE = Address.parse("255.255.255.255")


class Fate(StrEnum):
    """What becomes of the packet."""

    LOCAL = "local"
    """To this host itself."""
    UNICAST = "unicast"
    BROADCAST = "broadcast"
    MULTICAST = "multicast"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"
    NONE = "none"
    """No route: unreachable."""


class Packet(msgspec.Struct, frozen=True):
    """The route that a packet takes."""

    fate: Fate
    prefix: Prefix | None = None
    legs: tuple[Leg, ...] = ()
    """Any of them."""
    ours: bool = False


def lookup(state: State, forwarder: Forwarder, asked: Prefix) -> Packet:
    """Say which route takes a packet to the address *asked*, or to a prefix as a whole. O(prefix lengths)."""
    if asked.is_host and (found := _of_host(state, asked.network)) is not None:
        return found
    table = state.facts.options.routes.table
    if table != MAIN_TABLE:
        first = next((one for length in _lengths(asked) if (one := _ours(forwarder, asked, length))), None)
        if first is not None:
            return first
    theirs = dict(state.resolver.matches(asked.network))
    for length in _lengths(asked):
        prefix = Prefix.of(asked.network, length)
        mine = _ours(forwarder, asked, length) if table == MAIN_TABLE else None
        by_metric = theirs.get(prefix)
        if by_metric is not None and (mine is None or min(by_metric) < forwarder.fib.key(prefix).metric):
            hops = by_metric[min(by_metric)]
            return Packet(Fate.UNICAST, prefix, tuple(Leg(device, gateway) for device, gateway in hops))
        if mine is not None:
            return mine
    return Packet(Fate.NONE)


def _lengths(asked: Prefix) -> Iterator[int]:
    return iter(range(asked.length, -1, -1))


def _ours(forwarder: Forwarder, asked: Prefix, length: int) -> Packet | None:
    prefix = Prefix.of(asked.network, length)
    route = forwarder.fib.route(prefix)
    if not isinstance(route, KernelRoute):
        return None
    if route.kind is RouteKind.UNICAST:
        legs = forwarder.fib.legs(route.group) if route.group is not None else ()
        return Packet(Fate.UNICAST, prefix, legs, ours=True)
    return Packet(Fate(route.kind.value), prefix, ours=True)


def _of_host(state: State, address: Address) -> Packet | None:
    """Look into what the kernel's table ``local`` holds: own addresses and broadcasts; None: it holds nothing of it."""
    whole = Prefix.of(address, address.family.bits)
    devices = state.resolver.own(address)
    if devices or LOOPBACK.holds(address):
        return Packet(Fate.LOCAL, whole, tuple(Leg(device, None) for device in sorted(devices)))
    if MULTICAST[address.family].holds(address):
        return Packet(Fate.MULTICAST, MULTICAST[address.family])
    if address == NOWHERE:
        return Packet(Fate.BROADCAST, whole)
    for device, addresses in state.facts.world.links.items():
        for subnet in addresses.values():
            last = Address(int(subnet.network) + subnet.size - 1)
            if subnet.family is Family.IPV4 and subnet.length <= 30 and address == last:
                return Packet(Fate.BROADCAST, whole, (Leg(device, None),))
    return None
