"""Why an address or prefix is reached as it is: the hops of a learned route (architecture section 6) with live values.

Everything here is read from what the stages keep anyway: reasons stay on losers, so an answer computes nothing anew.
"""

from __future__ import annotations

import msgspec

from bgpd.core.export import Exporter
from bgpd.core.forward import Forwarder, Reached
from bgpd.core.lookup import Fate, Packet, lookup
from bgpd.core.overlay import kinds, wireguard
from bgpd.core.overlay.choose import How
from bgpd.core.rib.adj_in import Path
from bgpd.core.rib.filter import Rejected
from bgpd.core.rib.policy import Source
from bgpd.core.state import State
from bgpd.model.forwarding import VXLAN_DEVICE, Leg
from bgpd.model.pool import Fallback
from bgpd.model.prefix import Address, Prefix
from bgpd.model.route import as_path_text, community_text
from bgpd.model.view import PathView

LAST_CHANGES = 5
NAMES_SHOWN = 10
"""Peers of one line."""


class Step(msgspec.Struct, frozen=True):
    """One hop of the explanation: what was asked at it, what came out, and details."""

    name: str
    outcome: str
    detail: tuple[str, ...] = ()


class Explanation(msgspec.Struct, frozen=True):
    prefix: Prefix | None
    """The longest match that we know of."""
    answer: str
    steps: tuple[Step, ...]
    """Every hop, in this order: ipam, sessions, adj-rib-in, next-hop, decision, node, route, announced, packet."""
    changes: tuple[tuple[float, str], ...]
    """(monotonic seconds, text), newest first."""
    packet: Packet = Packet(Fate.NONE)
    """The route of the kernel that a packet takes."""


class Explainer:
    """Reads the state; owns nothing."""

    def __init__(self, state: State, forwarder: Forwarder, exporter: Exporter) -> None:
        self._state = state
        self._forwarder = forwarder
        self._exporter = exporter

    def match(self, address: Address) -> Prefix | None:
        """Return the longest prefix that we forward, own or have learned and that holds *address*. O(prefix lengths)."""
        for length in range(address.family.bits, -1, -1):
            prefix = Prefix.of(address, length)
            if (
                prefix in self._forwarder.reached
                or self._state.adj_in.paths(prefix)
                or prefix in self._state.facts.blocks
            ):
                return prefix
        return None

    def asked(self, query: str) -> Prefix:
        """Read an address or a prefix; raises ValueError with the reason."""
        if "/" in query:
            return Prefix.parse(query)
        address = Address.parse(query)
        return Prefix.of(address, address.family.bits)

    def query(self, query: str) -> Explanation:
        """Explain an address or a prefix; raises ValueError for anything else."""
        return self.prefix(Prefix.parse(query)) if "/" in query else self.address(Address.parse(query))

    def address(self, address: Address) -> Explanation:
        """Explain how *address* is reached."""
        return self._explain(str(address), self.match(address), Prefix.of(address, address.family.bits))

    def prefix(self, prefix: Prefix) -> Explanation:
        """Explain how *prefix* is reached, by itself or by what covers it."""
        for length in range(prefix.length, -1, -1):
            found = Prefix.of(prefix.network, length)
            if found in self._forwarder.reached or self._state.adj_in.paths(found) or found in self._state.facts.blocks:
                return self._explain(str(prefix), found, prefix)
        return self._explain(str(prefix), None, prefix)

    def paths(self, prefix: Prefix) -> tuple[PathView, ...]:
        """Return every path learned for *prefix*: best, equals, losers with their step, ineligible ones with their reason."""
        selection = self._state.selection(prefix)
        views = [
            self._path(prefix, c.path, best=i == 0, equal=i > 0, why_not="") for i, c in enumerate(selection.chosen)
        ]
        views += [self._path(prefix, c.path, best=False, equal=False, why_not=step.value) for c, step in selection.lost]
        refused = self._state.ineligible.get(prefix, ())
        views += [
            self._path(prefix, path, best=False, equal=False, why_not=f"ineligible: {why}") for path, why in refused
        ]
        return tuple(views)

    def fate(self, prefix: Prefix, path: Path) -> PathView:
        """Return one path with what the decision made of it."""
        selection = self._state.selection(prefix)
        key = (path.peer, path.path_id)
        for at, chosen in enumerate(selection.chosen):
            if (chosen.path.peer, chosen.path.path_id) == key:
                return self._path(prefix, path, best=at == 0, equal=at > 0, why_not="")
        whys = [step.value for lost, step in selection.lost if (lost.path.peer, lost.path.path_id) == key]
        whys += [why for other, why in self._state.ineligible.get(prefix, ()) if (other.peer, other.path_id) == key]
        return self._path(prefix, path, best=False, equal=False, why_not=whys[0] if whys else "")

    # -------------------------------------------------------------- the hops

    def _explain(self, query: str, prefix: Prefix | None, asked: Prefix) -> Explanation:
        """Say what each hop has, also where it has nothing. O(prefix lengths + peers + HISTORY)."""
        packet = lookup(self._state, self._forwarder, asked)
        subject = prefix if prefix is not None else asked
        reached = self._forwarder.reached.get(subject)
        steps = (
            self._ipam(asked),
            self._sessions(),
            self._adj_rib_in(subject),
            self._next_hop(subject),
            self._decision(subject),
            self._node(reached),
            self._route(subject, reached),
            self._announced(subject),
            _packet_step(packet),
        )
        if prefix is None:
            answer = f"{query}: bgpd has no route for it; {_packet_text(packet)}."
        else:
            answer = self._answer(query, prefix, reached) + _beside(
                packet, subject, own_block=self._state.facts.owner.get(subject) == self._state.facts.me.name
            )
        return Explanation(prefix, answer, steps, self._changes(asked), packet)

    def _changes(self, asked: Prefix) -> tuple[tuple[float, str], ...]:
        """Return the last changes of whatever covers what was asked for, the newest first: also of what is gone by now."""
        covering = {Prefix.of(asked.network, length): length for length in range(asked.length + 1)}
        found: list[tuple[float, str]] = []
        for change in reversed(self._state.history):
            concerned = [prefix for prefix in change.prefixes if prefix in covering]
            if concerned:
                found.append((change.at, f"{max(concerned, key=covering.__getitem__)} {change.text}"))
            if len(found) == LAST_CHANGES:
                break
        return tuple(found)

    def _sessions(self) -> Step:
        """Say which sessions could bring it, and why the others do not. O(peers)."""
        facts = self._state.facts
        down = [address for address in facts.peers if not facts.sessions[address].up]
        details = [
            f"{facts.peers[address].name} {address} is down: "
            f"{facts.peers[address].policy.hold_reason or facts.sessions[address].reason or 'not established yet'}"
            for address in down[:NAMES_SHOWN]
        ]
        if len(down) > NAMES_SHOWN:
            details.append(f"{len(down) - NAMES_SHOWN} more are down")
        if not facts.peers:
            return Step("sessions", "no peer is configured")
        return Step("sessions", f"{len(facts.peers) - len(down)} of {len(facts.peers)} established", tuple(details))

    def _next_hop(self, prefix: Prefix) -> Step:
        """Say of each next hop whether and how it is reached. O(paths)."""
        state = self._state
        details: dict[str, bool] = {}
        for path in state.adj_in.paths(prefix).values():
            hop, resolved = path.next_hop, state.resolve(path)
            through = f" (route {resolved.through})" if resolved.through is not None else ""
            text = f"via {_legs(resolved.legs)}{through}" if resolved.legs else f"not usable: {resolved.reason}"
            details[f"{hop} {text}"] = bool(resolved.legs)
        if not details:
            return Step("next-hop", "no path, so no next hop")
        return Step("next-hop", f"{sum(details.values())} of {len(details)} usable", tuple(details))

    def _ipam(self, asked: Prefix) -> Step:
        facts = self._state.facts
        pool = facts.pool_of(asked)
        if pool is None:
            return Step("ipam", "in no pool of the store")
        kind, mode = kinds.of_pool(pool)
        name = f"pool {pool.name} {pool.cidr}, {kind.name if kind is not None else Fallback.VXLAN} mode {mode}"
        if wireguard.enabled(facts.felix_of(facts.me.name), pool.cidr.family):
            name += ", WireGuard enabled"
        for length in range(asked.length, pool.cidr.length - 1, -1):
            cidr = Prefix.of(asked.network, length)
            block = facts.blocks.get(cidr)
            if block is None:
                continue
            owner = facts.owner.get(cidr)
            address = Prefix.of(asked.network, asked.family.bits)
            borrower = facts.borrower.get(address) if asked == address else None
            if borrower is not None:
                owned = f"block {cidr} of {owner or 'nobody'}"
                return Step("ipam", f"address {asked.network} borrowed by {borrower}", (name, owned))
            if owner is not None:
                return Step(
                    "ipam", f"block {cidr} of {owner}", (name, f"{block.in_use} of {cidr.size} addresses in use")
                )
            why = "its affinity is not confirmed" if block.node is not None else "it has no affinity"
            return Step("ipam", f"block {cidr} has no owner: {why}", (name,))
        return Step("ipam", "no node has claimed a block for it", (name,))

    def _adj_rib_in(self, prefix: Prefix) -> Step:
        state = self._state
        details = []
        for path in state.adj_in.paths(prefix).values():
            stale = ", stale" if state.adj_in.is_stale(prefix, path) else ""
            attributes = path.attributes
            details.append(
                f"from {self._peer_name(path.peer)} {path.peer}: next hop {attributes.next_hop}, "
                f"AS path [{as_path_text(attributes.as_path)}]{stale}"
            )
        if not details and prefix in state.originated:
            return Step("adj-rib-in", f"none is needed: this node announces it ({state.originated[prefix].source})")
        if not details:
            return Step("adj-rib-in", "no peer announces it")
        return Step("adj-rib-in", f"{len(details)} path{'s' if len(details) > 1 else ''}", tuple(details))

    def _announced(self, prefix: Prefix) -> Step:
        """Say which peers are told of a prefix, and of the others why not. O(peers)."""
        if prefix not in self._state.originated and self._state.selection(prefix).best is None:
            return Step("announced", "to nobody: it is neither ours nor learned")
        told: list[str] = []
        refused: dict[str, list[str]] = {}
        for address, peer in self._state.facts.peers.items():
            found = self._exporter.outcome(address, prefix)
            if isinstance(found, Rejected):
                refused.setdefault(found.rule, []).append(peer.name)
            else:
                told.append(peer.name)
        details = tuple(f"not to {_names(names)}: {why}" for why, names in sorted(refused.items()))
        return Step("announced", f"to {_names(told)}" if told else "to nobody", details)

    def _decision(self, prefix: Prefix) -> Step:
        selection = self._state.selection(prefix)
        lost = [f"{self._peer_name(c.path.peer)} lost: {step.value}" for c, step in selection.lost]
        lost += [f"{self._peer_name(p.peer)} ineligible: {why}" for p, why in self._state.ineligible.get(prefix, ())]
        if selection.best is None:
            return Step("decision", "no usable path" if lost else "no path to decide between", tuple(lost))
        names = ", ".join(self._peer_name(c.path.peer) for c in selection.chosen)
        equals = len(selection.chosen) - 1
        outcome = f"best {names}" if not equals else f"best and {equals} equal{'s' if equals > 1 else ''}: {names}"
        return Step("decision", outcome, tuple(lost))

    def _node(self, reached: Reached | None) -> Step:
        facts = self._state.facts
        name = reached.node if reached is not None else ""
        if not name:
            return Step("node", "none: the store names no node that it belongs to")
        if name == facts.me.name:
            return Step("node", f"{name}, this one")
        node = facts.nodes.get(name)
        if node is None or node.ipv4_address is None:
            return Step("node", f"{name}: its address is not known")
        resolved = self._state.resolver.resolve(node.ipv4_address, default_allowed=True)
        reach = "reachable via " + _legs(resolved.legs) if resolved.legs else f"not reachable: {resolved.reason}"
        alive = "alive (lease held)" if name in facts.alive else "not alive (no lease)"
        vtep = f"VTEP {node.vtep_mac} on {VXLAN_DEVICE}" if node.vtep_mac else "no VTEP"
        return Step("node", f"{name} {node.ipv4_address} is {alive}", (f"address {reach}", vtep))

    def _route(self, prefix: Prefix, reached: Reached | None) -> Step:
        route = self._forwarder.fib.route(prefix)
        if reached is None or route is None:
            why = reached.reason if reached is not None else "it is not used"
            return Step("route", f"no route of ours: {why}")
        if route.group is None:
            return Step("route", f"{route.kind} {prefix}", (reached.reason,))
        legs = self._forwarder.fib.legs(route.group)
        return Step(
            "route", f"{reached.how} {prefix} via {_legs(legs)}", (reached.reason, f"nexthop group: {route.group.name}")
        )

    def _answer(self, query: str, prefix: Prefix, reached: Reached | None) -> str:
        where = "" if query == str(prefix) else f" (in {prefix})"
        if reached is None:
            return f"{query}{where} is known, but no path of it is usable."
        to = f" to {reached.node}" if reached.node else ""
        legs = _legs(reached.legs)
        own = self._state.originated.get(prefix)
        if reached.how is How.OWN and own is not None and own.source is not Source.BLOCK:
            return f"{query}{where}: {reached.reason}; what serves it here gets it."
        match reached.how:
            case How.OWN:
                return f"{query}{where} belongs to a block of this node."
            case How.NATIVE | How.DIRECT | How.BGP:
                return f"{query}{where} goes natively{to} via {legs}."
            case How.TUNNEL:
                return f"{query}{where} goes through {_tunnel(reached.legs)}{to}: {reached.reason}."
            case How.FALLBACK:
                return f"{query}{where} has fallen back to {_tunnel(reached.legs)}{to}: {reached.reason}."
            case How.UNREACHABLE:
                return f"{query}{where} is unreachable: {reached.reason}."
            case How.FOREIGN:
                return f"{query}{where} goes by another's route of the kernel: {reached.reason}."
            case How.WAITING:
                return f"{query}{where} waits: {reached.reason}; a route that the kernel has is kept."

    def _peer_name(self, address: Address) -> str:
        peer = self._state.facts.peers.get(address)
        return peer.name if peer is not None else str(address)

    def _path(self, prefix: Prefix, path: Path, *, best: bool, equal: bool, why_not: str) -> PathView:
        attributes = path.attributes
        return PathView(
            peer=self._peer_name(path.peer),
            next_hop=str(attributes.next_hop),
            as_path=as_path_text(attributes.as_path),
            origin=attributes.origin.name,
            med=attributes.med,
            local_pref=attributes.local_pref,
            communities=tuple(map(community_text, attributes.communities)),
            best=best,
            equal=equal,
            why_not=why_not,
            stale=self._state.adj_in.is_stale(prefix, path),
            since=path.since,
        )


def _packet_text(packet: Packet) -> str:
    """Say where a packet goes, as part of a sentence."""
    whose = "ours" if packet.ours else "another's"
    match packet.fate:
        case Fate.LOCAL:
            return "it is an address of this host"
        case Fate.BROADCAST | Fate.MULTICAST:
            return f"it is a {packet.fate} address"
        case Fate.NONE:
            return "the kernel has no other route for it either: it is unreachable"
        case Fate.UNICAST:
            return f"a packet takes {packet.prefix} via {_legs(packet.legs)} ({whose})"
        case _:
            return f"a packet is dropped by {packet.fate} {packet.prefix} ({whose})"


def _packet_step(packet: Packet) -> Step:
    return Step("packet", _packet_text(packet))


def _beside(packet: Packet, subject: Prefix, *, own_block: bool) -> str:
    """Say where a packet goes, where that is not what the route of *subject* says."""
    if own_block and packet.prefix == subject and packet.fate is Fate.BLACKHOLE:
        return " No workload of this node has it: a packet is dropped (blackhole)."
    if packet.prefix == subject:
        return ""
    text = _packet_text(packet)
    return f" {text[0].upper()}{text[1:]}."


def _tunnel(legs: tuple[Leg, ...]) -> str:
    """Name the kind of the tunnel that *legs* go through."""
    kind = kinds.of_device(legs[0].device)
    assert kind is not None
    return kind.name.value


def _legs(legs: tuple[Leg, ...]) -> str:
    return " and ".join(leg.via for leg in legs)


def _names(names: list[str]) -> str:
    """Join names; a reflector has hundreds of peers, of which some are shown."""
    shown = ", ".join(sorted(names)[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
