"""What ``bgpd overlay`` shows and does: each remote node's way and its alternatives, probes by each, and forced ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from bgpd.adapters import clock
from bgpd.adapters.netlink import counters
from bgpd.adapters.probe import Probed, probe
from bgpd.api.protocol import Refused
from bgpd.core.forward import Candidate, Reached
from bgpd.core.overlay import kinds
from bgpd.core.overlay.ways import WORST
from bgpd.core.pipeline import Pipeline
from bgpd.daemon.force import Forces
from bgpd.daemon.kept import Unkept
from bgpd.model.forwarding import DeviceKey, GroupKey, Leg
from bgpd.model.node import Node
from bgpd.model.overlay import (
    CandidateView,
    CounterView,
    ForceRequest,
    ForceView,
    OverlayView,
    Path,
    ProbeRequest,
    ProbeView,
)
from bgpd.model.prefix import Prefix


class Numbered(Protocol):
    """A kernel whose ids can be asked for."""

    def nexthop_id(self, group: GroupKey | Leg) -> int | None: ...


class OverlayViews:
    """Reads the pipeline and the kernel's counters; what is forced is a Forces' affair."""

    def __init__(self, pipeline: Pipeline, kernel: Numbered, forces: Forces) -> None:
        self._pipeline = pipeline
        self._state = pipeline.state
        self._kernel = kernel
        self._forces = forces

    def forced(self) -> tuple[ForceView, ...]:
        """Return what is forced, by node."""
        return tuple(ForceView(node, one.path.value, one.until) for node, one in sorted(self._forces.now.items()))

    async def show(self, name: str | None) -> list[OverlayView]:
        """Return every remote node, or the one of *name*; raises ValueError where there is none of that name. O(nodes, blocks)."""
        names = [self._known(name).name] if name is not None else self._names()
        groups = await counters.of_groups()
        devices = counters.of_devices()
        return [self._node(each, groups, devices) for each in names]

    async def force(self, asked: ForceRequest) -> None:
        """Force a way; raises ValueError for an unknown node, Refused where the way cannot be used now, or not be written down."""
        if asked.path is not Path.AUTO:
            self._known(asked.node)
            candidates = {one.path: one for one in self._pipeline.forwarder.candidates(asked.node)}
            found = candidates.get(asked.path.value) or Candidate(
                asked.path, (), f"there are no tunnels by {asked.path} here"
            )
            direct = candidates.get("direct")
            if not found.legs and not (asked.path is Path.NATIVE and direct is not None and direct.legs):
                raise Refused(f"{asked.node} cannot be reached by {asked.path} now: {found.reason}")
        try:
            await self._forces.force(asked)
        except Unkept as error:
            raise Refused(str(error)) from error

    async def test(self, asked: ProbeRequest) -> list[ProbeView]:
        """Probe a node by each way; raises ValueError for an unknown node, Refused where nothing can be sent."""
        node = self._known(asked.node)
        source, target = self._state.facts.me.ipv4_address, node.ipv4_address
        if source is None or target is None:
            raise Refused(f"there is no IPv4 address of {'this node' if source is None else asked.node} to probe by")
        ways: list[tuple[str, str, str]] = []
        """Path, device, and why it cannot be probed."""
        for one in self._pipeline.forwarder.candidates(asked.node):
            tunnel = next((kind for kind in kinds.KINDS if kind.name.value.lower() == one.path), None)
            if not one.legs:
                ways.append((one.path, tunnel.devices[0] if tunnel is not None else "", one.reason))
            else:
                ways += [(one.path, leg.device, "") for leg in one.legs]
        devices = list(dict.fromkeys(device for _, device, why in ways if not why))
        try:
            probed = await probe(source, target, devices, count=asked.count, interval_s=asked.interval_ms / 1000)
        except OSError as error:
            raise Refused(f"no probe can be sent: {error.strerror}") from error
        by_device = {one.device: one for one in probed}
        return [_probed(path, device, why, by_device.get(device)) for path, device, why in ways]

    # -------------------------------------------------------------- one node

    def _names(self) -> list[str]:
        facts = self._state.facts
        return sorted({*facts.nodes, *facts.holders()} - {facts.me.name})

    def _known(self, name: str) -> Node:
        facts = self._state.facts
        if name == facts.me.name:
            raise ValueError(f"{name} is this node: it has no way to itself")
        if name not in facts.nodes:
            known = ", ".join(self._names()[:10]) or "none"
            raise ValueError(f"there is no node {name!r} in the store; others are: {known}")
        return facts.nodes[name]

    def _node(
        self, name: str, groups: Mapping[int, Mapping[int, int]], devices: Mapping[str, counters.DeviceCount]
    ) -> OverlayView:
        facts, forwarder = self._state.facts, self._pipeline.forwarder
        node = facts.nodes.get(name)
        held = sorted((*facts.blocks_of.get(name, ()), *facts.borrowed_of.get(name, ())))
        reached = {block: one for block in held if (one := forwarder.reached.get(block)) is not None}
        worst = max(reached.values(), key=_badness, default=None)
        blocks: dict[str, int] = {}
        for one in reached.values():
            blocks[one.how.value] = blocks.get(one.how.value, 0) + 1
        legs = worst.legs if worst is not None else ()
        force = self._forces.now.get(name)
        return OverlayView(
            node=name,
            address=str(node.ipv4_address or node.ipv6_address or "") if node is not None else "",
            alive=name in facts.alive,
            path=worst.how.value if worst is not None else "",
            reason=worst.reason if worst is not None else "it has no block",
            via=tuple(leg.via for leg in legs),
            since=clock.wall_or_none(worst.since) if worst is not None else None,
            blocks=blocks,
            mtu_bytes=self._mtu_bytes(legs),
            candidates=tuple(self._candidate(one, legs) for one in forwarder.candidates(name)),
            forced=force.path.value if force is not None else "",
            forced_until=force.until if force is not None else None,
            counters=tuple(self._counters(reached, legs, groups, devices)),
        )

    def _candidate(self, one: Candidate, legs: tuple[Leg, ...]) -> CandidateView:
        return CandidateView(
            path=str(one.path),
            usable=bool(one.legs),
            in_use=bool(one.legs) and one.legs == legs,
            via=tuple(leg.via for leg in one.legs),
            mtu_bytes=self._mtu_bytes(one.legs),
            reason=one.reason,
        )

    def _mtu_bytes(self, legs: tuple[Leg, ...]) -> int:
        """Return the smallest MTU of the devices; 0 where one is not known."""
        links = self._state.resolver.links
        found = [links[leg.device].mtu_bytes if leg.device in links else self._wanted_mtu_bytes(leg) for leg in legs]
        return min(found, default=0)

    def _wanted_mtu_bytes(self, leg: Leg) -> int:
        value = self._pipeline.tables.kernel.get(DeviceKey(leg.device))
        return int(getattr(value, "mtu_bytes", 0))

    def _counters(
        self,
        reached: Mapping[Prefix, Reached],
        legs: tuple[Leg, ...],
        groups: Mapping[int, Mapping[int, int]],
        devices: Mapping[str, counters.DeviceCount],
    ) -> list[CounterView]:
        """Return what the kernel counts: of the node's groups where packets have a choice, and of the devices in use."""
        names = {one.route.group for one in reached.values() if one.route is not None and one.route.group is not None}
        members: dict[int, int] = {}
        for group in names:
            for member, packets in groups.get(self._kernel.nexthop_id(group) or 0, {}).items():
                members[member] = members.get(member, 0) + packets
        found = [
            CounterView(of="nexthop", name=leg.via, sent_packets=members[number])
            for leg in legs
            if len(legs) > 1 and (number := self._kernel.nexthop_id(leg)) in members and number is not None
        ]
        used = dict.fromkeys(leg.device for leg in legs if leg.device in devices)
        return found + [_counted(device, devices[device]) for device in used]


def _counted(device: str, count: counters.DeviceCount) -> CounterView:
    return CounterView(
        of="device",
        name=device,
        sent_packets=count.sent_packets,
        sent_bytes=count.sent_bytes,
        received_packets=count.received_packets,
        received_bytes=count.received_bytes,
        errors=count.errors,
    )


def _badness(one: Reached) -> int:
    return WORST.index(one.how) if one.how in WORST else -1


def _probed(path: str, device: str, why: str, one: Probed | None) -> ProbeView:
    if one is None or why:
        return ProbeView(path=path, device=device, sent=0, received=0, reason=why)
    times = [1000 * time_s for time_s in one.times_s]
    return ProbeView(
        path=path,
        device=device,
        sent=one.sent,
        received=len(times),
        min_ms=min(times, default=None),
        avg_ms=sum(times) / len(times) if times else None,
        max_ms=max(times, default=None),
        reason=one.error,
    )
