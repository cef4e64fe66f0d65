"""The stage of announcements: what each peer is told, by difference (core/rib/policy.py says what and why).

Own prefixes go by policy to every peer. Learned routes are looked at only for peers that could get one: iBGP peers of a route
reflector, and those with a BGPFilter that lets learned routes out; a node that is neither spends nothing on them.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice

from bgpd.core.rib.filter import Rejected
from bgpd.core.rib.policy import Exportable, Ground, Source, export
from bgpd.core.state import State
from bgpd.model.peer import Peer
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement


class Exporter:
    """Owns what is announced to whom, and who could get learned routes."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._announced: dict[Address, dict[Prefix, None]] = {}
        self.announced: Counter[tuple[Address, Family]] = Counter()
        """How many routes each peer is to be told of, by family."""

    def settle(self, budget: int) -> int:
        """Look at stale peers and prefixes, then at most *budget* pairs of them; returns what is left of the budget."""
        stale = self._state.stale
        for address in stale.exporters:
            self._peer(address)
        stale.exporters = {}
        for prefix in list(islice(stale.exports, max(0, budget))):
            del stale.exports[prefix]
            stale.pairs.update(((address, prefix), None) for address in self._concerned(prefix))
            budget -= 1
        if not stale.pairs:
            return budget
        ground = self._ground()
        for address, prefix in list(islice(stale.pairs, max(0, budget))):
            del stale.pairs[address, prefix]
            self._pair(address, prefix, ground)
            budget -= 1
        return budget

    def outcome(self, address: Address, prefix: Prefix) -> Announcement | Rejected:
        """Say what a peer is told of a prefix, and if nothing, why."""
        return self._judge(self._state.facts.peers.get(address), prefix, self._ground())

    # -------------------------------------------------------------- what is stale

    def _peer(self, address: Address) -> None:
        """Mark all that a peer gets or could get."""
        state = self._state
        peer = state.facts.peers.get(address)
        prefixes = dict(self._announced.get(address, {}))
        if peer is not None:
            prefixes.update(dict.fromkeys(state.originated))
        if peer is not None and self._takes_learned(peer):
            state.transit.add(address)
            prefixes.update(dict.fromkeys(state.selections))
        else:
            state.transit.discard(address)
        state.stale.pairs.update(((address, prefix), None) for prefix in prefixes)

    def _takes_learned(self, peer: Peer) -> bool:
        facts = self._state.facts
        if facts.world.me.cluster_id is not None and not peer.is_external:
            return True
        return any(name in facts.filters and facts.filters[name].takes_remote for name in peer.policy.filters)

    def _concerned(self, prefix: Prefix) -> list[Address]:
        """Return the peers that get or could get a prefix."""
        state = self._state
        if prefix in state.originated:
            return list(state.facts.peers)
        held = [address for address, prefixes in self._announced.items() if prefix in prefixes]
        return held + [address for address in state.transit if prefix not in self._announced.get(address, ())]

    # -------------------------------------------------------------- one pair

    def _pair(self, address: Address, prefix: Prefix, ground: Ground) -> None:
        table = self._state.tables.adj_rib_out
        found = self._judge(self._state.facts.peers.get(address), prefix, ground)
        if isinstance(found, Announcement):
            table.set((address, prefix), found)
            mine = self._announced.setdefault(address, {})
            if prefix not in mine:
                mine[prefix] = None
                self.announced[address, prefix.family] += 1
            return
        table.discard((address, prefix))
        mine = self._announced.get(address, {})
        if prefix in mine:
            del mine[prefix]
            self.announced[address, prefix.family] -= 1
            if not self.announced[address, prefix.family]:
                del self.announced[address, prefix.family]
        if not mine:
            self._announced.pop(address, None)

    def _judge(self, peer: Peer | None, prefix: Prefix, ground: Ground) -> Announcement | Rejected:
        if peer is None:
            return Rejected("its peer is not configured")
        if peer.policy.hold_reason:
            return Rejected(f"there is no session: {peer.policy.hold_reason}")
        route = self._state.originated.get(prefix) or self._learned(prefix)
        return Rejected("there is no such route") if route is None else export(route, peer, ground)

    def _learned(self, prefix: Prefix) -> Exportable | None:
        best = self._state.selection(prefix).best
        peer = self._state.facts.peers.get(best.path.peer) if best is not None else None
        if best is None or peer is None:
            return None
        return Exportable(
            prefix=prefix,
            source=Source.LEARNED,
            attributes=best.path.attributes,
            peer=peer,
            router_id=best.router_id,
            devices=tuple(leg.device for leg in best.resolved.legs),
        )

    def _ground(self) -> Ground:
        facts = self._state.facts
        settings = facts.world.configuration(facts.me.name)
        mine = facts.blocks_of.get(facts.me.name, ())

        def hidden(prefix: Prefix) -> str:
            pool = facts.pool_of(prefix)
            return pool.name if pool is not None and pool.disable_bgp_export else ""

        return Ground(
            filters=facts.filters,
            hidden=hidden,
            in_pool=lambda prefix: facts.pool_of(prefix) is not None,
            in_own_block=lambda prefix: any(block.covers(prefix) for block in mine),
            advertisements=settings.advertisements or (),
            priority=settings.priority,
            encoded=bool(facts.world.configurations),
            drain=facts.drain,
            drain_keeps_blocks=facts.drain_keeps_blocks,
            cluster=facts.world.me.cluster_id,
        )
