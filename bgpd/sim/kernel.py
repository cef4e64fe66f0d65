"""A kernel in memory with the interface of the real target: for simulations, and for tests of what lies above.

Theory of operation: it holds what a kernel holds (links, addresses, routes of others, and ours with nexthop ids), keeps the
kernel's rules of who needs whom, and tells of changes as the netlink adapter does. One contract suite
(tests/adapters/netlink/test_kernel_contract.py) runs against this and against the real one, so it is a verified fake.

A second ``open`` is a restart of the daemon: groups are found without their names, and wait to be adopted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from bgpd.model.event import (
    AddressAdded,
    AddressRemoved,
    Event,
    ForeignRouteChanged,
    ForeignRouteRemoved,
    KernelSynced,
    LinkChanged,
    LinkRemoved,
)
from bgpd.model.forwarding import (
    DEFAULT_METRIC,
    MAIN_TABLE,
    NEXTHOP_ID_FIRST,
    PROTOCOL,
    TUNNEL_DEVICES,
    WIREGUARD_DEVICE,
    DeviceKey,
    FdbKey,
    Group,
    GroupKey,
    IpipDevice,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    NeighbourKey,
    RouteKey,
    RouteKind,
    RuleKey,
    VxlanDevice,
    WireguardDevice,
    WireguardPeerKey,
    weighted,
)
from bgpd.model.prefix import Address, Family, Prefix, parse_interface

UNREACHABLE = "ENETUNREACH: Network is unreachable"
DOWN = "ENETDOWN: Network is down"
MISSING = "EINVAL: Invalid argument"
EXISTS = "EEXIST: File exists"

Hops = tuple[tuple[str, Address | None], ...]


class Found(msgspec.Struct, frozen=True):
    """Where a packet would go."""

    prefix: Prefix
    route: KernelRoute | None
    """None: the route is another's."""
    legs: tuple[Leg, ...]
    """Empty if the packet is dropped."""


class FakeKernel:
    """Owns the memory of a kernel; what others do to it are the verbs at the end. *deliver* and *drifted* may be replaced."""

    name = "kernel"

    def __init__(
        self,
        deliver: Callable[[Event], Awaitable[None]],
        drifted: Callable[[Mapping[KernelKey, str]], None],
        protocol: int = PROTOCOL,
    ) -> None:
        self.deliver = deliver
        self.drifted = drifted
        self.protocol = protocol
        self.actual: dict[KernelKey, KernelValue] = {}
        self.failures: dict[KernelKey, str] = {}
        """Keys that the kernel refuses to change, and why."""
        self.writes = 0
        """Changes accepted so far: a restart with the same facts adds none."""
        self._links: dict[str, LinkChanged] = {}
        self._addresses: dict[tuple[str, Address], Prefix] = {}
        self._foreign: dict[tuple[Prefix, int], Hops] = {}
        self._next_index = 1
        self._next_group = NEXTHOP_ID_FIRST
        self._opened = False
        self._news: deque[Event] = deque()
        self._stirred: dict[KernelKey, str] = {}
        self._missed: dict[KernelKey, str] = {}
        """Changes by others that nobody told of: found by comparing."""
        self._wake = asyncio.Event()

    # -------------------------------------------------------------- the target

    async def open(self) -> None:
        """Read everything and deliver it; groups of an earlier run lose their names."""
        names = {key: self._unnamed() for key in self.actual if isinstance(key, GroupKey)}
        self._rename(names)
        self._news.clear()
        self._stirred.clear()
        self._opened = True
        for link in self._links.values():
            await self.deliver(link)
        for (device, address), subnet in self._addresses.items():
            await self.deliver(AddressAdded(device, address, subnet))
        for (prefix, metric), hops in self._foreign.items():
            await self.deliver(ForeignRouteChanged(prefix=prefix, metric=metric, hops=hops))
        await self.deliver(KernelSynced())

    async def run(self) -> None:
        """Tell what others do, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._news:
                await self.deliver(self._news.popleft())
            self._report()

    def adopt(self, desired: Iterable[tuple[RouteKey, KernelRoute]]) -> None:
        """Bind unnamed groups to the desired groups whose routes already point to them."""
        names: dict[GroupKey, GroupKey] = {}
        taken = {key for key in self.actual if isinstance(key, GroupKey)}
        for key, route in desired:
            present = self.actual.get(key)
            found = present.group if isinstance(present, KernelRoute) else None
            if route.group is None or found is None or route.group in taken or found in names:
                continue
            if found.name.startswith("#"):
                names[found] = route.group
                taken.add(route.group)
        self._rename(names)

    async def apply(self, changes: Sequence[tuple[KernelKey, KernelValue | None]]) -> dict[KernelKey, str]:
        """Make *changes* in order; return why some failed."""
        await asyncio.sleep(0)
        failed: dict[KernelKey, str] = {}
        for key, value in changes:
            reason = self.failures.get(key) or (None if value is None else self._refusal(key, value))
            if reason is not None:
                failed[key] = reason
                continue
            self.writes += 1
            if value is not None:
                self.actual[key] = value
            else:
                self._drop(key)
            if isinstance(key, DeviceKey):
                self._device(key.name, value)
        return failed

    async def compare(self) -> int:
        """Find what changed without being told; returns how many keys."""
        await asyncio.sleep(0)
        self._stirred.update(self._missed)
        self._missed.clear()
        return self._report()

    def nexthop_id(self, group: GroupKey) -> int | None:
        """Groups have no ids here."""
        del group
        return None

    async def read_fresh(self) -> dict[KernelKey, KernelValue]:
        """Read all that is ours."""
        await asyncio.sleep(0)
        return dict(self.actual)

    async def close(self) -> None:
        self._opened = False

    # -------------------------------------------------------------- the far end

    def lookup(self, address: Address) -> Found | None:
        """Find where a packet to *address* goes by the main table: longest prefix, then lowest metric."""
        ours = [key for key in self.actual if isinstance(key, RouteKey) and key.table == MAIN_TABLE]
        fitting = [key for key in ours if key.prefix.holds(address)]
        candidates = [(key.prefix.length, -(key.metric or DEFAULT_METRIC[key.prefix.family]), key) for key in fitting]
        others = [(prefix.length, -metric, prefix) for prefix, metric in self._foreign if prefix.holds(address)]
        best = max((candidate[:2] for candidate in [*candidates, *others]), default=None)
        if best is None:
            return None
        for length, metric, key in candidates:
            if (length, metric) == best:
                route = self.actual[key]
                assert isinstance(route, KernelRoute)
                group = None if route.group is None else self.actual.get(route.group)
                return Found(key.prefix, route, group.legs if isinstance(group, Group) else ())
        prefix = next(prefix for length, metric, prefix in others if (length, metric) == best)
        return Found(prefix, None, tuple(Leg(*hop) for hop in self._foreign[prefix, -best[1]]))

    # -------------------------------------------------------------- what others do

    def add_link(self, name: str, *, up: bool = True, mtu_bytes: int = 1500, mac: str = "02:00:00:00:00:01") -> None:
        link = LinkChanged(name=name, index=self._next_index, up=up, mtu_bytes=mtu_bytes, mac=mac)
        self._next_index += 1
        self._links[name] = link
        self._tell(link)

    def set_link(self, name: str, *, up: bool) -> None:
        """Change a link's carrier; going down, it takes legs, groups left empty, their routes, and routes of others along."""
        before = self._links[name]
        if before.up == up:
            return
        self._links[name] = msgspec.structs.replace(before, up=up)
        self._tell(self._links[name])
        if up:
            for (device, _), subnet in self._addresses.items():
                if device == name:
                    self._connect(device, subnet)
        else:
            self._flush(name)

    def remove_link(self, name: str) -> None:
        for device, address in [key for key in self._addresses if key[0] == name]:
            subnet = self._addresses.pop((device, address))
            self._tell(AddressRemoved(device, address, subnet))
        del self._links[name]
        self._tell(LinkRemoved(name))
        self._flush(name)
        for key in [key for key in self.actual if isinstance(key, NeighbourKey | FdbKey) and key.device == name]:
            self.remove(key)
        if name == WIREGUARD_DEVICE:
            for peer in [key for key in self.actual if isinstance(key, WireguardPeerKey)]:
                self.remove(peer)
        self.remove(DeviceKey(name))

    def add_address(self, device: str, interface: str) -> None:
        """Give *device* an address such as ``192.0.2.1/24``, with its connected route if the link is up."""
        address, subnet = parse_interface(interface)
        self._addresses[device, address] = subnet
        self._tell(AddressAdded(device, address, subnet))
        if self._links[device].up:
            self._connect(device, subnet)

    def remove_address(self, device: str, interface: str) -> None:
        address, subnet = parse_interface(interface)
        del self._addresses[device, address]
        self._tell(AddressRemoved(device, address, subnet))
        self.remove_foreign(subnet, _connected_metric(subnet))

    def add_foreign(self, prefix: Prefix, hops: Hops, metric: int | None = None) -> None:
        """Add or change another's route; without a metric, the kernel's default."""
        metric = DEFAULT_METRIC[prefix.family] if metric is None else metric
        if self._foreign.get((prefix, metric)) != hops:
            self._foreign[prefix, metric] = hops
            self._tell(ForeignRouteChanged(prefix=prefix, metric=metric, hops=hops))

    def remove_foreign(self, prefix: Prefix, metric: int | None = None) -> None:
        metric = DEFAULT_METRIC[prefix.family] if metric is None else metric
        if self._foreign.pop((prefix, metric), None) is not None:
            self._tell(ForeignRouteRemoved(prefix=prefix, metric=metric))

    def remove(self, key: KernelKey, *, told: bool = True) -> None:
        """Remove an object of ours, as another would; without *told* only a comparison finds it."""
        if key in self.actual:
            if told:
                self._stir(key, "another")
            else:
                self._missed[key] = ""
            self._drop(key)
            if isinstance(key, DeviceKey) and key.name in self._links:
                self.remove_link(key.name)

    # -------------------------------------------------------------- inside

    def _refusal(self, key: KernelKey, value: KernelValue) -> str | None:
        match key:
            case Leg():
                return self._leg_refusal(key)
            case GroupKey():
                legs = value.legs if isinstance(value, Group) else ()
                return None if legs and all(leg in self.actual for leg in legs) else MISSING
            case RouteKey():
                assert isinstance(value, KernelRoute)
                return self._route_refusal(key, value)
            case WireguardPeerKey():
                return None if DeviceKey(WIREGUARD_DEVICE) in self.actual else f"no device {WIREGUARD_DEVICE}"
            case DeviceKey():
                return None if key.name in TUNNEL_DEVICES else f"{key.name} is not a device of ours"
            case RuleKey():
                return None
            case _:
                return None if DeviceKey(key.device) in self.actual else f"no device {key.device}"

    def _route_refusal(self, key: RouteKey, value: KernelRoute) -> str | None:
        family = key.prefix.family
        if value.kind is RouteKind.UNICAST:
            group = None if value.group is None else self.actual.get(value.group)
            if not isinstance(group, Group) or (family is Family.IPV6 and any(_is_ipv4(leg) for leg in group.legs)):
                return MISSING
            if value.source is not None and all(value.source != address for _, address in self._addresses):
                return MISSING
        taken = key.table == MAIN_TABLE and (key.prefix, key.metric or DEFAULT_METRIC[family]) in self._foreign
        return EXISTS if taken else None

    def _leg_refusal(self, leg: Leg) -> str | None:
        link = self._links.get(leg.device)
        if link is None or not link.up:
            return f"no device {leg.device}" if link is None else DOWN
        if leg.gateway is None or leg.onlink or leg.gateway.is_link_local:
            return None
        on_link = (subnet for (device, _), subnet in self._addresses.items() if device == leg.device)
        return None if any(subnet.holds(leg.gateway) for subnet in on_link) else UNREACHABLE

    def _device(self, name: str, value: KernelValue | None) -> None:
        if not isinstance(value, VxlanDevice | IpipDevice | WireguardDevice):
            if name in self._links:
                self.remove_link(name)
            return
        # an IPIP device's link-layer address is its outer one, WireGuard has none
        mac = value.mac if isinstance(value, VxlanDevice) else str(value.local) if isinstance(value, IpipDevice) else ""
        if name not in self._links:
            self.add_link(name, mtu_bytes=value.mtu_bytes, mac=mac)
        else:
            self._links[name] = msgspec.structs.replace(self._links[name], mtu_bytes=value.mtu_bytes, mac=mac)
            self._tell(self._links[name])

    def _drop(self, key: KernelKey) -> None:
        """Remove a key and, as the kernel does, what cannot be without it."""
        self.actual.pop(key, None)
        if isinstance(key, Leg):
            for group, value in list(self.actual.items()):
                if isinstance(value, Group) and key in value.legs:
                    self._stir(group)
                    weights = value.weights or (1,) * len(value.legs)
                    left = {leg: weight for leg, weight in zip(value.legs, weights, strict=True) if leg != key}
                    self.actual[group] = weighted(left)
                    if not left:
                        self._drop(group)
        elif isinstance(key, GroupKey):
            for route, value in list(self.actual.items()):
                if isinstance(value, KernelRoute) and value.group == key:
                    self._stir(route)
                    self._drop(route)

    def _flush(self, device: str) -> None:
        for leg in [key for key in self.actual if isinstance(key, Leg) and key.device == device]:
            self._stir(leg)
            self._drop(leg)
        for (prefix, metric), hops in list(self._foreign.items()):
            left = tuple(hop for hop in hops if hop[0] != device)
            if left and left != hops:
                self.add_foreign(prefix, left, metric)
            elif not left:
                self.remove_foreign(prefix, metric)

    def _connect(self, device: str, subnet: Prefix) -> None:
        if not subnet.is_host:
            self.add_foreign(subnet, ((device, None),), _connected_metric(subnet))

    def _unnamed(self) -> GroupKey:
        self._next_group += 1
        return GroupKey(f"#{self._next_group}")

    def _rename(self, names: dict[GroupKey, GroupKey]) -> None:
        for found, wanted in names.items():
            self.actual[wanted] = self.actual.pop(found)
        for key, value in list(self.actual.items()):
            if isinstance(value, KernelRoute) and value.group in names:
                self.actual[key] = msgspec.structs.replace(value, group=names[value.group])

    def _tell(self, event: Event) -> None:
        if self._opened:
            self._news.append(event)
            self._wake.set()

    def _stir(self, key: KernelKey, by: str = "") -> None:
        if self._opened:
            self._stirred[key] = by
            self._wake.set()

    def _report(self) -> int:
        stirred, self._stirred = self._stirred, {}
        if stirred:
            self.drifted(stirred)
        return len(stirred)


def _is_ipv4(leg: Leg) -> bool:
    return leg.gateway is not None and leg.gateway.family is Family.IPV4


def _connected_metric(prefix: Prefix) -> int:
    return 0 if prefix.family is Family.IPV4 else 256
