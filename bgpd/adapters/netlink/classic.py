"""Legs and groups where the kernel has no nexthop objects, or is not to use them: each route has its hops written out.

Theory of operation: desired state is the same as with objects. A leg and a group are then notes of ours; a group's change is one message
for each of its routes. A route that was read is of a group if its hops are that group's; else of one named after the hops, until adopted or
written anew. Hops that the kernel calls dead do not count: so a link that goes down shrinks groups here as the kernel shrinks them there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bgpd.adapters.netlink.encode import RTNH_F_DEAD, RouteEntry
from bgpd.adapters.netlink.monitor import Surroundings
from bgpd.model.forwarding import Group, GroupKey, KernelKey, KernelRoute, KernelValue, Leg, RouteKey, weighted

UNBOUND = "#"
_RTNH_F_ONLINK = 4


def content(entry: RouteEntry, device: Callable[[int], str | None]) -> Group:
    """Return the living hops of a route; *device* names an interface."""
    weights = entry.weights or (1,) * len(entry.hops)
    shares: dict[Leg, int] = {}
    for (index, gateway, flags), weight in zip(entry.hops, weights, strict=True):
        name = device(index)
        if name is not None and not flags & RTNH_F_DEAD:
            shares[Leg(name, gateway, bool(flags & _RTNH_F_ONLINK))] = weight
    return weighted(shares)


def name_of(found: Group, before: KernelRoute | None, actual: Mapping[KernelKey, KernelValue]) -> GroupKey:
    """Return the group of a route with these hops: the one it was of, if that has the same; else one named after them."""
    if before is not None and before.group is not None and actual.get(before.group) == found:
        return before.group
    legs = ", ".join(f"{leg.device} {leg.gateway}{'!' if leg.onlink else ''}" for leg in found.legs)
    return GroupKey(f"{UNBOUND}{legs} {found.weights or ''}".rstrip())


def hops(group: Group, around: Surroundings) -> list[tuple[int, Leg, int]] | str:
    """Return a group's hops to write into a route; a string says why not."""
    found: list[tuple[int, Leg, int]] = []
    for leg, weight in zip(group.legs, group.weights or (1,) * len(group.legs), strict=True):
        index = around.index(leg.device)
        if index is None:
            return f"no device {leg.device}"
        found.append((index, leg, weight))
    return found


def refusal(
    key: Leg | GroupKey, value: KernelValue, actual: Mapping[KernelKey, KernelValue], around: Surroundings
) -> str | None:
    """Say why a leg or group cannot be: as the kernel would of an object. Whether a gateway is reachable shows at the route."""
    if isinstance(key, Leg):
        link = around.link_named(key.device)
        if link is None:
            return f"no device {key.device}"
        return None if link.enabled else "ENETDOWN: Network is down"
    legs: Sequence[Leg] = value.legs if isinstance(value, Group) else ()
    missing = [leg for leg in legs if leg not in actual]
    if missing:
        return f"no leg via {missing[0].gateway} on {missing[0].device}"
    return None if legs else "a group without legs"


def adopt(
    desired: Sequence[tuple[RouteKey, KernelRoute]], actual: Mapping[KernelKey, KernelValue]
) -> dict[RouteKey, KernelRoute]:
    """Return the routes whose hops are those of the group wanted, or the first of a group that has none yet, under that group."""
    bound: dict[GroupKey, KernelValue] = {}
    adopted: dict[RouteKey, KernelRoute] = {}
    for key, route in desired:
        present = actual.get(key)
        if route.group is None or not isinstance(present, KernelRoute) or present.group is None:
            continue
        if not present.group.name.startswith(UNBOUND) or present.group not in actual:
            continue
        found = actual[present.group]
        known = actual.get(route.group, bound.setdefault(route.group, found))
        if known == found:
            adopted[key] = KernelRoute(present.kind, route.group, present.source, present.mtu_bytes)
    return adopted
