"""The forwarding stage: selections and the store's facts in, kernel objects, announcements and claims out (architecture section 5).

A remote node's blocks share a group as long as they share their legs: its path, native or tunnel, is one kernel object, so that
losing or restoring it is one message whatever the number of its blocks. Prefixes that BGP alone knows share a group by legs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice

import msgspec

from bgpd.core.fib import Fib
from bgpd.core.ipam.qualify import draws_from, selects
from bgpd.core.overlay import kinds, wireguard
from bgpd.core.overlay.choose import Choice, How, Situation, choose
from bgpd.core.overlay.kind import Here, Kind, There
from bgpd.core.overlay.mtu import work_out
from bgpd.core.overlay.restore import Restore
from bgpd.core.overlay.turn import Turns
from bgpd.core.overlay.ways import Ways
from bgpd.core.rib import adj_in
from bgpd.core.rib.bandwidth import shares
from bgpd.core.rib.decision import Selection
from bgpd.core.rib.policy import Exportable, Source
from bgpd.core.state import State
from bgpd.core.survive import Survivors
from bgpd.model.felix import NOTHING_SAID
from bgpd.model.forwarding import DeviceKey, Group, GroupKey, KernelKey, KernelRoute, KernelValue, Leg, RouteKind
from bgpd.model.node import Node
from bgpd.model.overlay import Path
from bgpd.model.pool import BlockClaim, BlockRelease, Fallback, Mode, Pool
from bgpd.model.prefix import Address, Family, Prefix

TEXTS = 256
"""Texts of changes kept to be written again: more than a node has ways in use."""


class Reached(msgspec.Struct, frozen=True, cache_hash=True):
    """How a prefix is reached now, since when (monotonic seconds) and why."""

    how: How
    node: str
    legs: tuple[Leg, ...]
    reason: str
    since: float
    route: KernelRoute | None = None
    """What is wanted of the kernel for it, where that is a remote node's."""


class Candidate(msgspec.Struct, frozen=True):
    """A way to a node: its legs, and what is in its way."""

    path: str
    legs: tuple[Leg, ...]
    """Empty if it cannot be used."""
    reason: str


@dataclass(slots=True)
class _Remote:
    """What this stage installed for one node."""

    routed: set[Prefix] = field(default_factory=set)
    held: dict[KernelKey, KernelValue] = field(default_factory=dict)
    groups: list[tuple[GroupKey, _Alike]] = field(default_factory=list)
    """Which blocks go to which group."""


@dataclass(slots=True)
class _Alike:
    """Blocks of a node that share all that the choice depends on, but the node."""

    pool: Pool | None
    selection: Selection | None
    """With a usable path for the blocks, or for an aggregate above them."""
    refused: tuple[tuple[adj_in.Path, str], ...]
    """Where there is none: the paths that are ineligible, and why."""
    same_subnet: bool
    direct: tuple[Leg, ...]
    restored: bool
    blocks: list[Prefix] = field(default_factory=list)

    @property
    def native_reason(self) -> str:
        """Say why there is no native path by BGP; empty if there is one."""
        if self.selection is not None:
            return ""
        return "; ".join(sorted({reason for _, reason in self.refused})) or "no BGP peer announces it"


class Forwarder:
    """Owns what it installed for whom, and the quiet times of lost native paths."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.fib = Fib(state.tables.kernel, lambda: state.facts.options.routes)
        self.reached: dict[Prefix, Reached] = {}
        self.ways = Ways()
        """Counts of what *reached* holds."""
        self._remotes: dict[str, _Remote] = {}
        self._restores: dict[Prefix, Restore] = {}
        self._pools: dict[Prefix, Pool | None] = {}
        """The pools of remote blocks, as looked up."""
        self._quiet: dict[float, dict[str, None]] = {}
        """Nodes to look at again, by when a quiet time of a block of theirs is over; blocks lost together share it."""
        self._ways: dict[Hashable, tuple[GroupKey, Choice, tuple[int, ...]]] = {}
        """Ways of prefixes that BGP alone knows, of the settling under way: few legs carry many prefixes."""
        self._turns = Turns()
        self._large: dict[str, tuple[int, int]] = {}
        """Workloads' devices whose MTU is too large, as told: theirs, and the limit."""
        self._felix = NOTHING_SAID
        """As it holds for this node."""
        self._tunnels: dict[str, tuple[bool, bool]] = {}
        """Of each device: whether it is wanted, and whether it is up."""

    def settle(self, budget: int) -> int:
        """Recompute at most *budget* stale nodes and prefixes; returns what is left of the budget."""
        stale = self._state.stale
        if stale.overlay:
            stale.overlay = False
            self.fib.lead()
            self._pools.clear()
            self._devices()
        for address in stale.gateways:
            self._gateway(address)
        stale.gateways = {}
        self._ways.clear()
        for name in list(islice(stale.nodes, budget)):
            del stale.nodes[name]
            if name == self._state.facts.me.name:
                self._own()
            else:
                self._remote(name)
            budget -= 1
        for prefix in list(islice(stale.learned, max(0, budget))):
            del stale.learned[prefix]
            self._learned(prefix)
            budget -= 1
        return budget

    def deadline(self) -> float | None:
        """When the next quiet time is over, or would have been: one that began anew is found out then. O(instants)."""
        turn = self._turns.deadline()
        return min([*self._quiet, *([turn] if turn is not None else [])], default=None)

    def expire(self, now: float) -> None:
        """Mark the nodes stale whose quiet time is over."""
        for due in [due for due in self._quiet if due <= now]:
            self._state.stale.nodes.update(self._quiet.pop(due))
        if self._turns.expire(now):
            self._state.stale.overlay = True
            self._state.stale.nodes.update(dict.fromkeys(self._state.facts.nodes))

    # -------------------------------------------------------------- own

    def _own(self) -> None:
        """Drop what has no more specific route within our blocks; a single address is no aggregate (calico.md 2.5)."""
        facts = self._state.facts
        mine = facts.blocks_of.get(facts.me.name, set())
        remote = self._remotes.setdefault(facts.me.name, _Remote())
        for block in sorted(mine):
            if block.is_host:
                self.fib.remove(block)
            else:
                self.fib.drop(block, RouteKind.BLACKHOLE)
            self._reach(block, facts.me.name, Choice(How.OWN, (), "a block of this node"))
            self._restores.pop(block, None)
        borrowed = facts.borrowed_of.get(facts.me.name, set())
        for address in borrowed:
            # Its workload's own route leads to it; a blackhole here would be on the way of a route that comes a moment later.
            self.fib.remove(address)
            self._reach(
                address, facts.me.name, Choice(How.OWN, (), "an address of another block, borrowed by this node")
            )
            self._restores.pop(address, None)
        self._leave(remote, mine | borrowed)

    def claim(self) -> None:
        """Want a block of each pool that nodes draw from by themselves, while we have none of it."""
        facts, table = self._state.facts, self._state.tables.claims
        if not facts.store.synced_once:
            return
        mine = facts.blocks_of.get(facts.me.name, set())
        labels = dict(facts.own_node().labels)
        wanted = {
            pool.name: BlockClaim(pool=pool, node=facts.me.name)
            for pool in facts.pools.values()
            if draws_from(pool, labels) and not any(pool.cidr.covers(block) for block in mine)
        }
        for name, _ in list(table.items()):
            if name not in wanted:
                table.discard(name)
        for name, claim in wanted.items():
            table.set(name, claim)
        self._give_back(mine, labels)

    def _give_back(self, mine: set[Prefix], labels: dict[str, str]) -> None:
        """Want the empty blocks gone whose pool does not select this node any more, or is gone itself; others may use them.

        Nothing is concluded before our own Node is known, whose labels the selectors look at.
        """
        facts, table = self._state.facts, self._state.tables.releases
        wanted: set[Prefix] = set()
        if facts.me.name in facts.nodes:
            for cidr in mine:
                pool = facts.pool_of(cidr)
                if not facts.blocks[cidr].in_use and (pool is None or not selects(pool, labels)):
                    wanted.add(cidr)
        for cidr, _ in list(table.items()):
            if cidr not in wanted:
                table.discard(cidr)
        for cidr in sorted(wanted):
            table.set(cidr, BlockRelease(cidr=cidr, node=facts.me.name))

    # -------------------------------------------------------------- losses

    def hasten(self) -> bool:
        """Take the groups of remote nodes off what was just lost, before anything is decided; returns whether any was. O(groups).

        Traffic need not wait for the decisions, which come to the same: nodes that are changed here are looked at again after them.
        """
        stale = self._state.stale
        if not stale.losses:
            return False
        stale.losses = False
        if not self._state.decided:
            return False
        survivors = Survivors(self._state)
        hastened = [name for name, remote in self._remotes.items() if self._hasten(name, remote, survivors)]
        stale.nodes.update(dict.fromkeys(hastened))
        return bool(hastened)

    def _hasten(self, name: str, remote: _Remote, survivors: Survivors) -> bool:
        """Give the groups of a node the legs that are left to them, where all blocks of a group agree on it."""
        node = self._state.facts.nodes.get(name)
        wanted: dict[GroupKey, set[Group | None]] = {}
        for group, alike in remote.groups:
            wanted.setdefault(group, set()).add(self._left(group, alike, node, survivors))
        changed = False
        for group, ways in wanted.items():
            way = ways.pop()
            if not ways and way is not None and self._state.tables.kernel.get(group) != way:
                self.fib.set_legs(group, way.legs, way.weights)
                changed = True
        return changed

    def _left(self, group: GroupKey, alike: _Alike, node: Node | None, survivors: Survivors) -> Group | None:
        """Return the way that is left to blocks that go to *group*; None where the decision must tell."""
        block = alike.blocks[0]
        now = self._state.tables.kernel.get(group)
        selection = alike.selection
        if selection is not None:
            chosen_for = self._state.selected_lengths.covering(block)
            prefix = next((one for one in chosen_for if self._state.selections.get(one) is selection), None)
            selection = survivors.of(prefix, selection) if prefix is not None else None
            if selection is None or (not selection.chosen and len(chosen_for) > 1):
                return None
        direct = self._direct(node, block.family)[1]
        if selection is alike.selection and direct == alike.direct:
            return now if isinstance(now, Group) else None
        left = replace(
            alike, selection=selection if selection is not None and selection.chosen else None, direct=direct
        )
        choice = self._choose(block, node, left)
        if not choice.legs:
            return None
        return Group(choice.legs, self._weights(left.selection, choice.legs) if choice.how is How.NATIVE else ())

    # -------------------------------------------------------------- remote nodes

    def _devices(self) -> None:
        """Have a kind's device up whenever a pool could use it: the other side decides for itself when it sends through it."""
        facts = self._state.facts
        links = self._state.resolver.links
        felix = self._felix = facts.felix_of(facts.me.name)
        uplink_mtu_bytes = kinds.uplink_mtu_bytes(links.values(), felix.mtu_interface_pattern)
        here = Here(facts.me, facts.options, felix, uplink_mtu_bytes)
        pools = [(pool, facts.fallback_of(pool)) for pool in facts.pools.values()]
        before, self._state.mtu = self._state.mtu, work_out(here, pools)
        tunnels: dict[str, tuple[bool, bool]] = {}
        for kind in kinds.KINDS:
            wanted = kinds.wanted(kind, pools, felix)
            if kind is wireguard.KIND:
                self._state.wireguard_wanted = wanted
            stands = self._turns.observe(kind.name, wanted, self._state.now, live=self._state.decided)
            made = kind.make(here) if stands else {}
            for name in kind.devices:
                if name in made:
                    self.fib.hold(DeviceKey(name), made[name])
                else:
                    self.fib.release(DeviceKey(name))
                tunnels[name] = name in made, name in links and links[name].up
        self._judge_workloads()
        if tunnels != self._tunnels or before.pools != self._state.mtu.pools:
            self._tunnels = tunnels
            self._state.stale.nodes.update(dict.fromkeys(facts.nodes))

    def _judge_workloads(self) -> None:
        """Tell of workloads that send more than the overlay takes, once for each that is so; several that come together are one notice."""
        limit = self._state.mtu.workload_bytes
        links = [link for link in self._state.resolver.links.values() if kinds.is_workload(link.name)]
        large = {link.name: link.mtu_bytes for link in links if link.mtu_bytes > limit}
        fresh = [name for name, mtu_bytes in large.items() if self._large.get(name) != (mtu_bytes, limit)]
        self._large = {name: (mtu_bytes, limit) for name, mtu_bytes in large.items()}
        if fresh:
            self._state.note(
                "mtu.exceeded",
                device=fresh[0],
                devices=len(fresh),
                mtu_bytes=large[fresh[0]],
                limit_bytes=limit,
                mend="let the CNI plugin take its MTU from bgpd's file ([mtu] file), and make the workloads anew",
            )

    def _remote(self, name: str) -> None:
        """Decide once for the blocks of a node that share their facts, and give those with the same legs one group. O(its blocks)."""
        facts = self._state.facts
        node = facts.nodes.get(name)
        remote = self._remotes.setdefault(name, _Remote())
        remote.groups = []
        # Blocks first: one of them names the group, and borrowed addresses that come and go join it.
        blocks = [*sorted(facts.blocks_of.get(name, ())), *sorted(facts.borrowed_of.get(name, ()))]
        self._hold_tunnel(node, remote, blocks)
        leader: dict[tuple[tuple[Leg, ...], tuple[int, ...]], GroupKey] = {}
        for alike in self._alike(blocks, node):
            first = alike.blocks[0]
            choice = self._choose(first, node, alike)
            route = _UNREACHABLE if choice.how is How.UNREACHABLE else None
            if choice.legs:
                weights = self._weights(alike.selection, choice.legs) if choice.how is How.NATIVE else ()
                group = leader.get((choice.legs, weights))
                if group is None:
                    group = leader[choice.legs, weights] = GroupKey(f"node {name} {first}")
                    self.fib.set_legs(group, choice.legs, weights)
                remote.groups.append((group, alike))
                route = self.fib.to(group, first.family, self._route_mtu_bytes(alike.pool))
            self._install(alike.blocks, name, choice, route)
        self._leave(remote, set(blocks))
        if not remote.routed and not remote.held:
            del self._remotes[name]

    def _route_mtu_bytes(self, pool: Pool | None) -> int:
        """Return the MTU of routes to a pool's blocks; 0 where it is that of the uplinks anyway."""
        mtu = self._state.mtu
        mtu_bytes = mtu.pools.get(pool.name, 0) if pool is not None else 0
        return mtu_bytes if mtu_bytes < mtu.uplink_bytes else 0

    def _install(self, blocks: list[Prefix], node: str, choice: Choice, route: KernelRoute | None) -> None:
        """Have *blocks* reached alike; those that have their route already cost no more than a look."""
        before: dict[Reached | None, list[Prefix]] = {}
        for block in blocks:
            before.setdefault(self.reached.get(block), []).append(block)
        for old, those in before.items():
            if old is None or old.node != node or old.route != route:
                for block in those:
                    self.fib.put(block, route)
            now = self._renew(old, tuple(those), node, choice, route)
            self.reached.update(dict.fromkeys(those, now))

    def _leave(self, remote: _Remote, now_routed: set[Prefix]) -> None:
        """Give up blocks that the node no longer owns; a new owner, or BGP alone, takes them over when its turn comes."""
        for block in remote.routed - now_routed:
            if self._state.facts.holder(block) is None:
                self._restores.pop(block, None)
                self._state.stale.learned[block] = None
        remote.routed = now_routed

    def _hold_tunnel(self, node: Node | None, remote: _Remote, blocks: list[Prefix]) -> None:
        """Keep the entries towards *node* standing, used or not: make before break."""
        wanted: dict[KernelKey, KernelValue] = {}
        if node is not None:
            facts = self._state.facts
            there = There(facts.as_peer(node), blocks, facts.felix_of(node.name))
            for kind in kinds.KINDS:
                if any(self._tunnels.get(device, (False,))[0] for device in kind.devices):
                    wanted |= kind.towards(facts.me, there)
        for key in remote.held.keys() - wanted.keys():
            # What another node has taken over meanwhile (a WireGuard key that both name) is that node's.
            if isinstance(key, Leg) or self._state.tables.kernel.get(key) == remote.held[key]:
                self.fib.release(key)
        for key, value in wanted.items():
            if remote.held.get(key) != value:
                self.fib.hold(key, value)
        remote.held = wanted

    def _alike(self, blocks: list[Prefix], node: Node | None) -> Iterable[_Alike]:
        """Put the blocks of *node* together that share all that the choice depends on. O(blocks and lengths of selections)."""
        state = self._state
        classes: dict[Hashable, _Alike] = {}
        direct = {family: self._direct(node, family) for family in Family}
        for block in blocks:
            pool = self._pool_of(block)
            selection = self._selected(block)
            refused = state.ineligible.get(block, ()) if selection is None else ()
            restored = self._restored(block, selection is not None or bool(direct[block.family][1]))
            key = (id(pool), id(selection), id(refused), block.family, restored)
            found = classes.get(key)
            if found is None:
                found = classes[key] = _Alike(pool, selection, refused, *direct[block.family], restored)
            found.blocks.append(block)
        return classes.values()

    def _restored(self, block: Prefix, usable: bool) -> bool:
        """Tell whether the native path of *block* may carry traffic, and take note of when its quiet time is over."""
        state = self._state
        if not state.decided:
            return True
        restore = self._restores.get(block)
        if restore is None:
            restore = self._restores[block] = Restore()
        restored = restore.observe(usable, state.now, state.facts.options)
        if usable and not restored:
            due, owner = restore.deadline(), state.facts.holder(block)
            if due is not None and owner is not None:
                self._quiet.setdefault(due, {})[owner] = None
        return restored

    def _pool_of(self, block: Prefix) -> Pool | None:
        """Return the pool that covers *block*, remembered until nodes or pools change."""
        try:
            return self._pools[block]
        except KeyError:
            pool = self._pools[block] = self._state.facts.pool_of(block)
            return pool

    def _choose(self, block: Prefix, node: Node | None, facts: _Alike) -> Choice:
        """Collect the situation of blocks like *block* and apply the table."""
        state = self._state
        encrypts = (
            wireguard.enabled(self._felix, block.family)
            and not self._turns.yields(wireguard.KIND.name)
            and self._encrypts(block, node)
        )
        kind, mode = kinds.of_pool(facts.pool, self._felix, encrypts=encrypts)
        kind, mode = self._in_turn(block, kind, mode, usable=facts.selection is not None or bool(facts.direct))
        tunnel, tunnel_reason = self._tunnel(block, node, kind) if kind is not None else ((), "")
        fallback, fallback_reason = self._preferred(block, node, state.facts.fallback_of(facts.pool))
        forced = state.facts.forced.get(node.name, Path.AUTO) if node is not None else Path.AUTO
        forced_tunnel, forced_reason = self._forced(block, node, forced)
        return choose(
            Situation(
                mode=mode,
                same_subnet=facts.same_subnet,
                native=self._legs(facts.selection) if facts.selection is not None else (),
                native_reason=facts.native_reason,
                direct=facts.direct,
                restored=facts.restored,
                alive=node is not None and node.name in state.facts.alive,
                tunnel=tunnel,
                tunnel_reason=tunnel_reason,
                fallback=fallback,
                fallback_reason=fallback_reason,
                forced=forced,
                forced_tunnel=forced_tunnel,
                forced_reason=forced_reason,
                decided=state.decided,
            )
        )

    def _forced(self, block: Prefix, node: Node | None, path: Path) -> tuple[tuple[Leg, ...], str]:
        """Return the leg of the kind that an operator has forced; or none, and why."""
        if path in (Path.AUTO, Path.NATIVE):
            return (), ""
        kind = kinds.BY_PATH.get(path)
        return self._tunnel(block, node, kind) if kind is not None else ((), f"there are no tunnels by {path} here")

    def candidates(self, name: str) -> list[Candidate]:
        """Return every way to a node, as it is for the first of its blocks. O(its blocks)."""
        facts = self._state.facts
        node = facts.nodes.get(name)
        blocks = sorted(facts.blocks_of.get(name, ())) or sorted(facts.borrowed_of.get(name, ()))
        if blocks:
            block, selection = blocks[0], self._selected(blocks[0])
        elif node is not None and node.ipv4_address is not None:
            block, selection = Prefix.of(node.ipv4_address, 32), None
        else:
            return []
        legs = self._legs(selection) if selection is not None else ()
        refused = self._state.ineligible.get(block, ())
        why = "; ".join(sorted({reason for _, reason in refused})) or "no BGP peer announces it"
        same_subnet, direct = self._direct(node, block.family)
        found = [Candidate(Path.NATIVE, legs, "" if legs else why if blocks else "the node has no block")]
        if same_subnet:
            found.append(Candidate("direct", direct, "" if direct else "the node's address is not on link"))
        pool = facts.pool_of(block)
        encrypts = wireguard.enabled(self._felix, block.family) and self._encrypts(block, node)
        wanted, _ = kinds.of_pool(pool, self._felix, encrypts=encrypts)
        for kind in kinds.KINDS:
            leg, reason = self._tunnel(block, node, kind)
            if leg and kind is not wanted and kind.name not in self._state.facts.fallback_of(pool):
                reason = "the pool does not allow it: only by force"
            found.append(Candidate(kind.name.value.lower(), leg, reason))
        return found

    def _in_turn(self, block: Prefix, kind: Kind | None, mode: Mode, *, usable: bool) -> tuple[Kind | None, Mode]:
        """Return the kind that may carry *block* now: where a new one gives way, that which does; none if the native path is *usable*."""
        if kind is None or not self._turns.yields(kind.name):
            return kind, mode
        reached = self.reached.get(block)
        before = kinds.of_device(reached.legs[0].device) if reached is not None and reached.how is How.TUNNEL else None
        if before is not None and before is not kind and self._tunnels.get(before.devices[0]) == (True, True):
            return before, Mode.ALWAYS
        return (None, Mode.NEVER) if usable else (kind, mode)

    def _selected(self, block: Prefix) -> Selection | None:
        """Return the selection with a usable path for the block, or for the longest aggregate above it. O(lengths of selections).

        A path to a block leads to its owner, which a borrowed address of that block is not at.
        """
        exact = self._state.selections.get(block)
        if exact is not None:
            return exact
        borrowed = block in self._state.facts.borrower
        for above in self._state.selected_lengths.covering(block):
            if borrowed and above in self._state.facts.owner:
                continue
            selection = self._state.selections.get(above)
            if selection is not None and selection.chosen:
                return selection
        return None

    def _direct(self, node: Node | None, family: Family) -> tuple[bool, tuple[Leg, ...]]:
        me = self._state.facts.me
        mine = me.ipv4_subnet if family is Family.IPV4 else me.ipv6_subnet
        address = node.address(family) if node is not None else None
        if address is None or mine is None or not mine.holds(address):
            return False, ()
        resolved = self._state.resolver.resolve(address, default_allowed=True)
        return True, resolved.legs if resolved.on_link else ()

    def _tunnel(self, block: Prefix, node: Node | None, kind: Kind) -> tuple[tuple[Leg, ...], str]:
        """Return the leg of *kind* to the node; or none, and why."""
        if node is None:
            return (), "the node's address is not known"
        me, node = self._state.facts.me, self._state.facts.as_peer(node)
        lacks = kind.lacks(me, node, block.family)
        if lacks:
            return (), lacks
        way = kind.way(me, node, block.family)
        if self._state.tables.kernel.get(DeviceKey(way.leg.device)) is None:
            return (), f"this node has no {kind.name} device"
        resolved = self._state.resolver.resolve(way.outer, default_allowed=True)
        if not resolved.legs:
            return (), f"the node's address {way.outer} is not reachable: {resolved.reason}"
        pool = self._state.facts.pool_of(Prefix.of(way.outer, way.outer.family.bits))
        if pool is not None and (resolved.through is None or resolved.through.length <= pool.block_size):
            # Outer packets would go by the route of a block, which may lead into a tunnel again.
            return (), f"the node's address {way.outer} is in the pool {pool.name}"
        return (way.leg,), ""

    def _encrypts(self, block: Prefix, node: Node | None) -> bool:
        """Whether WireGuard can be used with the node now: else what is to be encrypted goes as its pool says, as in Calico."""
        legs, _ = self._tunnel(block, node, wireguard.KIND)
        return bool(legs) and self._tunnels.get(legs[0].device) == (True, True)

    def _preferred(self, block: Prefix, node: Node | None, names: tuple[Fallback, ...]) -> tuple[tuple[Leg, ...], str]:
        """Return the leg of the first kind that can be used, and why those before it were passed over; or none, and why.

        One whose device the kernel does not have is passed over for a later one whose device is there; else it is chosen, since
        its device may be on its way.
        """
        if not names:
            return (), "the pool allows none"
        links = self._state.resolver.links
        usable: list[tuple[Fallback, tuple[Leg, ...]]] = []
        passed: list[str] = []
        for name in names:
            kind = kinds.BY_NAME[name]
            legs, reason = self._tunnel(block, node, kind)
            if legs and legs[0].device in links and links[legs[0].device].up:
                return legs, "; ".join(passed)
            if legs:
                usable.append((name, legs))
                reason = f"the kernel has no device {legs[0].device}"
            passed.append(f"{name} was passed over: {reason}")
        if not usable:
            return (), "; ".join(passed) if len(names) > 1 else passed[0].partition(": ")[2]
        name, legs = usable[0]
        return legs, "; ".join(each for each in passed[: names.index(name)])

    # -------------------------------------------------------------- BGP alone

    def _learned(self, prefix: Prefix) -> None:
        """Forward a prefix that is no owned block: by BGP's selection, or not at all; never by a tunnel.

        Connected, static and DHCP routes of the same prefix win (a router's lower administrative distance), and so a default route from BGP
        is installed only where the host has none.
        """
        if self._state.facts.holder(prefix) is not None or (
            prefix.is_host and prefix.network in self._state.facts.gateways
        ):
            return
        own = self._state.originated.get(prefix)
        if own is not None and own.source is not Source.BORROWED:
            self._originated(own)
            return
        selection = self._state.selection(prefix)
        if not selection.chosen:
            self.fib.remove(prefix)
            if self._forget(prefix):
                self._state.remember((prefix,), "gone: no usable path")
            return
        if not self._state.facts.store.synced_once:
            # It may be a node's block: a route that the kernel has keeps its group, instead of getting one for a moment (law 3).
            self._reach(prefix, "", Choice(How.WAITING, (), "the store was not read yet: it may be a node's block"))
            return
        if self._state.resolver.knows(prefix):
            self.fib.remove(prefix)
            self._reach(
                prefix, "", Choice(How.FOREIGN, (), "the kernel has a route of another for this prefix: it is kept")
            )
            return
        group, choice, weights = self._way(selection)
        self.fib.unicast(prefix, group, choice.legs, weights)
        self._reach(prefix, "", choice)

    def _way(self, selection: Selection) -> tuple[GroupKey, Choice, tuple[int, ...]]:
        """Return the group, legs and weights of a selection; the group is named after them."""
        weighted = self._state.facts.options.weighted_ecmp
        chosen = selection.chosen
        key: Hashable = chosen[0].resolved
        if len(chosen) > 1:
            key = tuple([(one.resolved, one.path.attributes) if weighted else one.resolved for one in chosen])
        found = self._ways.get(key)
        if found is None:
            legs = self._legs(selection)
            names = ", ".join(f"{leg.gateway} {leg.device}" for leg in legs)
            weights = self._weights(selection, legs)
            name = f"via {names}" if not weights else f"via {names} by {' '.join(map(str, weights))}"
            found = self._ways[key] = GroupKey(name), Choice(How.BGP, legs, "BGP has a usable path"), weights
        return found

    def _originated(self, own: Exportable) -> None:
        """Drop what has no more specific route in a range that we announce, or leave it to whoever serves it; BGP's paths are not ours."""
        if own.blackhole:
            self.fib.drop(own.prefix, RouteKind.BLACKHOLE)
        else:
            self.fib.remove(own.prefix)
        self._reach(
            own.prefix, self._state.facts.me.name, Choice(How.OWN, (), f"announced by this node ({own.source})")
        )

    def _gateway(self, address: Address) -> None:
        """Have the peer at *address* reached by its gateway (reachableBy of a BGPPeer): a static route of ours."""
        prefix = Prefix.of(address, address.family.bits)
        self._forget(prefix)
        if address not in self._state.facts.gateways:
            self.fib.remove(prefix)
            self._state.stale.learned[prefix] = None
            return
        resolved = self._state.resolver.resolve(address, default_allowed=True)
        if resolved.legs:
            self.fib.unicast(prefix, GroupKey(f"peer {address}"), resolved.legs)
        else:
            self.fib.remove(prefix)

    def _legs(self, selection: Selection) -> tuple[Leg, ...]:
        legs = {leg for candidate in selection.chosen for leg in candidate.resolved.legs}
        return tuple(sorted(legs)[: self._state.facts.options.ecmp_limit])

    def _weights(self, selection: Selection | None, legs: tuple[Leg, ...]) -> tuple[int, ...]:
        """Return the weights of *legs* by link bandwidth, where that is asked for and every path says it; empty for equal shares."""
        if selection is None or not self._state.facts.options.weighted_ecmp or len(legs) < 2:
            return ()
        found = shares(selection.chosen)
        weights = tuple(found.get(leg, 1) for leg in legs)
        return weights if found and len(set(weights)) > 1 else ()

    # -------------------------------------------------------------- history

    def _reach(self, prefix: Prefix, node: str, choice: Choice) -> None:
        """Note how *prefix* is reached."""
        self.reached[prefix] = self._renew(self.reached.get(prefix), (prefix,), node, choice, None)

    def _renew(
        self, old: Reached | None, prefixes: tuple[Prefix, ...], node: str, choice: Choice, route: KernelRoute | None
    ) -> Reached:
        """Return how *prefixes*, which were reached alike, are reached now; count them, and tell of a change of the way or its legs."""
        same_way = old is not None and (old.how, old.node, old.legs) == (choice.how, node, choice.legs)
        if not same_way:
            self._tell(prefixes, node, old, choice)
        since = old.since if old is not None and same_way else self._state.now
        self.ways.count(old.node if old is not None else "", old.how if old is not None else None, -len(prefixes))
        self.ways.count(node, choice.how, len(prefixes))
        return Reached(choice.how, node, choice.legs, choice.reason, since, route)

    def _forget(self, prefix: Prefix) -> bool:
        """Note that *prefix* is reached no more; returns whether it was."""
        old = self.reached.pop(prefix, None)
        if old is not None:
            self.ways.count(old.node, old.how, -1)
        return old is not None

    def _tell(self, prefixes: tuple[Prefix, ...], node: str, old: Reached | None, choice: Choice) -> None:
        """Tell that *prefixes*, which were reached alike, are reached another way: one entry, one notice, however many they are."""
        self._state.remember(
            prefixes, _told(old.how if old is not None else None, choice.how, choice.legs, choice.reason)
        )
        if old is not None and old.how is not choice.how and How.WAITING not in (old.how, choice.how):
            self._state.note(
                "path.changed",
                prefix=str(prefixes[0]),
                prefixes=len(prefixes),
                node=node,
                was=old.how.value,
                now=choice.how.value,
                reason=choice.reason,
            )


_UNREACHABLE = KernelRoute(RouteKind.UNREACHABLE)


@lru_cache(maxsize=TEXTS)
def _told(before: How | None, how: How, legs: tuple[Leg, ...], reason: str) -> str:
    """Write a change of the way for the history: few texts stand for many prefixes."""
    was = before.value if before is not None else "new"
    change = f"{was}, other legs" if before is how else f"{was} -> {how.value}"
    via = ", ".join(leg.via for leg in legs)
    return f"{change}{f' via {via}' if via else ''}: {reason}"
