"""Next-hop resolution through the kernel's own table (RFC 4271 section 9.1.2.1).

A next hop is usable if a route that is not ours leads to it over a link that is up. Routes of ours never resolve a next hop, and neither
does a tunnel of ours: that would be a loop. A BGP next hop does not resolve through a default route (as in FRR and BIRD);
the outer address of a tunnel may. An address of our own, or one that is no host's, is no next hop (RFC 4271 section 6.3).

A gateway of such a route is resolved in its turn where it is not on the link itself, at most DEPTH times. A gateway that no route leads
to is one that the kernel was told to take as on link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from bgpd.model.event import LinkChanged
from bgpd.model.forwarding import TUNNEL_DEVICES, Leg
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.prefix_map import PrefixMap

DEPTH = 8
"""Gateways behind gateways: the kernel allows none, and a chain longer than this is a loop in all likelihood."""

Hops = tuple[tuple[str, Address | None], ...]


class Resolved(msgspec.Struct, frozen=True, cache_hash=True):
    """Where a next hop is: the legs towards it (none: unusable, and *reason* says why) and their metric."""

    legs: tuple[Leg, ...]
    metric: int = 0
    on_link: bool = False
    """The next hop itself is on the link, no gateway between."""
    through: Prefix | None = None
    reason: str = ""


class Resolver:
    """Owns the links and foreign routes that it is told of, and remembers each answer until something changes it."""

    def __init__(self) -> None:
        self._links: dict[str, LinkChanged] = {}
        self._routes: PrefixMap[dict[int, Hops]] = PrefixMap()
        self._places: dict[Prefix, set[int]] | None = None
        """Others' routes in the table of ours, by metric, where that is not the one of *_routes*; None: it is."""
        self._answers: dict[tuple[Address, bool], Resolved] = {}
        self._own: dict[Address, set[str]] = {}
        self._gateways: dict[Address, Address] = {}
        self._on_link: dict[tuple[str, Address], Resolved] = {}
        self._silent: set[tuple[str, Address]] = set()
        self._globs: tuple[str, ...] = ()
        self._ignored: re.Pattern[str] | None = None

    @property
    def links(self) -> dict[str, LinkChanged]:
        return self._links

    def ignore(self, globs: tuple[str, ...]) -> bool:
        """Have connected routes of links with such names lead to no next hop (Calico's ignoredInterfaces); returns whether that is new."""
        if globs == self._globs:
            return False
        self._globs = globs
        words = ("".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", one)) for one in globs)
        self._ignored = re.compile("|".join(words)) if globs else None
        return True

    def link_changed(self, link: LinkChanged) -> None:
        self._links[link.name] = link

    def link_removed(self, name: str) -> None:
        self._links.pop(name, None)

    def neighbour(self, device: str, address: Address, *, silent: bool) -> None:
        if silent:
            self._silent.add((device, address))
        else:
            self._silent.discard((device, address))

    def address_added(self, device: str, address: Address) -> None:
        self._own.setdefault(address, set()).add(device)

    def address_removed(self, device: str, address: Address) -> None:
        devices = self._own.get(address, set())
        devices.discard(device)
        if not devices:
            self._own.pop(address, None)

    def route_changed(self, prefix: Prefix, metric: int, hops: Hops) -> None:
        known = self._routes.get(prefix)
        if known is None:
            self._routes.set(prefix, {metric: hops})
        else:
            known[metric] = hops

    def route_removed(self, prefix: Prefix, metric: int) -> None:
        known = self._routes.get(prefix)
        if known is not None:
            known.pop(metric, None)
            if not known:
                self._routes.pop(prefix)

    def matches(self, address: Address) -> Iterator[tuple[Prefix, dict[int, Hops]]]:
        """Yield the routes of others that hold *address*, longest prefix first, each by metric. O(prefix lengths)."""
        return self._routes.matches(address)

    def silent(self) -> Iterable[tuple[str, Address]]:
        """Return the neighbours, by link, that do not answer."""
        return sorted(self._silent)

    def others(self) -> Iterable[tuple[Prefix, dict[int, Hops]]]:
        """Return all routes of others, each by metric. O(routes of others)."""
        return self._routes.items()

    def own(self, address: Address) -> set[str]:
        """Return the links that have *address* as one of ours."""
        return self._own.get(address, set())

    def local(self) -> Iterator[Prefix]:
        """Iterate over what leads to something on this host or its links: own addresses, others' routes onto a link, host routes.

        The default route does not count. O(routes of others).
        """
        for address in self._own:
            yield Prefix.of(address, address.family.bits)
        for prefix, by_metric in self._routes.items():
            onto_link = any(gateway is None for hops in by_metric.values() for _, gateway in hops)
            if prefix.length and (prefix.is_host or onto_link):
                yield prefix

    def apart(self, prefix: Prefix, metric: int, *, there: bool) -> None:
        """Ours are in a table of their own: take note whether another has a route of *prefix* there."""
        if self._places is None:
            self._places = {}
        if there:
            self._places.setdefault(prefix, set()).add(metric)
            return
        metrics = self._places.get(prefix, set())
        metrics.discard(metric)
        if not metrics:
            self._places.pop(prefix, None)

    def knows(self, prefix: Prefix) -> bool:
        """Whether somebody else has a route of exactly *prefix* in the table of ours."""
        return prefix in (self._routes if self._places is None else self._places)

    def reach(self, address: Address, gateway: Address | None) -> None:
        """Have *address* reached by *gateway*, whatever routes say (reachableBy of a BGPPeer); None: as routes say."""
        if gateway is None:
            self._gateways.pop(address, None)
        else:
            self._gateways[address] = gateway

    def resolve(self, address: Address, default_allowed: bool = False) -> Resolved:
        """Say how *address* is reached. The answer is remembered; :meth:`refresh` tells when it has changed."""
        if address.link:
            return self.on_link(address.link, address.plain)
        key = (address, default_allowed)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = self._look_up(address, default_allowed)
        return answer

    def on_link(self, device: str, address: Address) -> Resolved:
        """Say how a link-local *address* is reached: by the link of its session, whatever routes say."""
        key = (device, address)
        answer = self._on_link.get(key)
        if answer is None:
            answer = self._on_link[key] = self._beside(device, address)
        return answer

    def _beside(self, device: str, address: Address) -> Resolved:
        link = self._links.get(device)
        if link is None or not link.up:
            return Resolved((), reason=f"link {device} is down")
        if (device, address) in self._silent:
            return Resolved((), reason=_mute(device, address))
        return Resolved((Leg(device, address),), on_link=True)

    def refresh(self) -> set[Address]:
        """Recompute the remembered answers; returns the addresses whose answer changed. O(distinct next hops)."""
        changed = set()
        for (device, address), before in self._on_link.items():
            now = self._beside(device, address)
            if now != before:
                self._on_link[device, address] = now
                changed.add(address)
        for (address, default_allowed), old in self._answers.items():
            new = self._look_up(address, default_allowed)
            if new != old:
                self._answers[address, default_allowed] = new
                changed.add(address)
        return changed

    def forget(self, address: Address) -> None:
        """Drop remembered answers for an address that nobody asks for any more."""
        self._on_link = {key: answer for key, answer in self._on_link.items() if key[1] != address}
        self._answers.pop((address, False), None)
        self._answers.pop((address, True), None)

    def _look_up(self, address: Address, default_allowed: bool) -> Resolved:
        """Resolve *address*; one that has a gateway of its own is where that is (which has none itself)."""
        reason = self._martian(address)
        if reason:
            return Resolved((), reason=reason)
        gateway = self._gateways.get(address)
        if gateway is None:
            return self._route_to(address, default_allowed)
        found = self._route_to(gateway, default_allowed)
        return Resolved(found.legs, found.metric, False, found.through, found.reason)

    def _route_to(self, address: Address, default_allowed: bool) -> Resolved:
        reason = "no route to it"
        for prefix, by_metric in self._routes.matches(address):
            if prefix.length == 0 and not default_allowed:
                reason = "only the default route leads to it"
                break
            for metric in sorted(by_metric):
                legs, why = self._usable(by_metric[metric], address)
                if legs:
                    on_link = all(gateway is None for _, gateway in by_metric[metric])
                    return Resolved(legs, 0 if on_link else metric, on_link, prefix)
                reason = f"{why} (route {prefix})"
            # The kernel would use this prefix and drop: a shorter one does not help while its link has carrier trouble,
            # but with the link down the kernel ignores or removes the route, so go on to the next match.
        return Resolved((), reason=reason)

    def _martian(self, address: Address) -> str:
        """Say why *address* cannot be a next hop whatever the routes; empty if it can."""
        if address in self._own:
            return "it is an address of ours"
        if any(prefix.holds(address) for prefix in _NO_HOSTS[address.family]):
            return "it is no host's address"
        return ""

    def _usable(self, hops: Hops, address: Address, depth: int = 0) -> tuple[tuple[Leg, ...], str]:
        """Return the legs of a route's paths towards *address*; or none, and why."""
        legs: set[Leg] = set()
        why = "no path"
        for device, gateway in hops:
            link = self._links.get(device)
            if device in TUNNEL_DEVICES:
                why = "it leads through a tunnel of ours"
            elif link is None or not link.up:
                why = f"link {device} is down"
            elif gateway is None and self._ignored is not None and self._ignored.fullmatch(device):
                why = f"link {device} is one of ignoredInterfaces"
            elif gateway is None:
                legs.add(Leg(device, address))
            else:
                found, told = self._behind(device, gateway, depth)
                legs.update(found)
                why = told or why
        mute = {leg for leg in legs if leg.gateway is not None and (leg.device, leg.gateway) in self._silent}
        if mute:
            first = min(mute)
            legs, why = legs - mute, _mute(first.device, first.gateway)
        return tuple(sorted(legs)), why

    def _behind(self, device: str, gateway: Address, depth: int) -> tuple[tuple[Leg, ...], str]:
        """Return the legs of a path through *gateway*, which may be behind another gateway."""
        if gateway.is_link_local:
            return (Leg(device, gateway),), ""
        for prefix, by_metric in self._routes.matches(gateway):
            if prefix.length == 0:
                break
            if any((device, None) in hops for hops in by_metric.values()):
                return (Leg(device, gateway),), ""
            if depth >= DEPTH:
                return (), f"gateway {gateway} is behind itself"
            return self._usable(by_metric[min(by_metric)], gateway, depth + 1)
        return (Leg(device, gateway, onlink=True),), ""


def _mute(device: str, address: Address | None) -> str:
    return f"{address} does not answer on {device}"


_NO_HOSTS = {
    Family.IPV4: tuple(map(Prefix.parse, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"))),
    Family.IPV6: tuple(map(Prefix.parse, ("::/127", "ff00::/8"))),
}
"""This network, loopback, multicast, reserved (RFC 6890); unspecified and loopback, multicast."""
