"""The decision stage: stale prefixes in, selections out (eligibility, next hop, RFC 4271 section 9.1.2)."""

from __future__ import annotations

from bgpd.core.rib.adj_in import Path
from bgpd.core.rib.decision import Candidate, select
from bgpd.core.state import State
from bgpd.model.prefix import Address, Prefix
from bgpd.model.route import SegmentKind


class Decider:
    """Owns which prefixes go through which next hop."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._users: dict[Address, dict[Prefix, None]] = {}

    def settle(self, budget: int) -> int:
        """Decide at most *budget* stale prefixes; returns what is left of the budget."""
        state = self._state
        if state.stale.resolution:
            self._refresh()
        while budget > 0 and state.stale.prefixes:
            prefix = next(iter(state.stale.prefixes))
            del state.stale.prefixes[prefix]
            self._decide(prefix)
            budget -= 1
        return budget

    def _decide(self, prefix: Prefix) -> None:
        """Run the decision for one prefix. O(its paths)."""
        state = self._state
        candidates: list[Candidate] = []
        refused: list[tuple[Path, str]] = []
        for path in state.adj_in.paths(prefix).values():
            self._users.setdefault(path.attributes.next_hop, {})[prefix] = None
            found = self._candidate(prefix, path)
            if isinstance(found, Candidate):
                candidates.append(found)
            else:
                refused.append((path, found))
        options = state.facts.options
        new = select(candidates, options.ecmp_limit, options.multipath_relax)
        old = state.selection(prefix)
        if refused:
            state.ineligible[prefix] = tuple(refused)
        else:
            state.ineligible.pop(prefix, None)
        if new.chosen or new.lost:
            state.selections[prefix] = new
        else:
            state.selections.pop(prefix, None)
        if new != old:
            self._selected(prefix)

    def _selected(self, prefix: Prefix) -> None:
        """Pass a changed selection on to whom it concerns: the owner of that block, of the blocks below it, or the prefix itself."""
        facts, stale = self._state.facts, self._state.stale
        owner = facts.owner.get(prefix)
        if owner is not None:
            stale.nodes[owner] = None
        else:
            stale.learned[prefix] = None
        for block in facts.covered.get(prefix, ()):
            stale.nodes[facts.owner[block]] = None

    def _candidate(self, prefix: Prefix, path: Path) -> Candidate | str:
        """Check eligibility (RFC 4271 section 9.1.2); returns the reason where it is not given."""
        facts = self._state.facts
        peer = facts.peers.get(path.peer)
        session = facts.sessions.get(path.peer)
        if peer is None or session is None or session.open is None:
            return "its peer is not configured"
        if reason := facts.broken(path.peer):
            return reason
        attributes = path.attributes
        if any(peer.local_asn in s.asns for s in attributes.as_path if s.kind is not SegmentKind.SET):
            return f"our AS {peer.local_asn} is in the AS path"
        if not peer.is_external and attributes.originator_id == facts.me.ipv4_address:
            return "we are its originator (RFC 4456 section 8)"
        if any(block.covers(prefix) for block in facts.blocks_of.get(facts.me.name, ())):
            return "it is inside a block of ours"
        resolved = self._state.resolver.resolve(attributes.next_hop)
        if not resolved.legs:
            return f"next hop {attributes.next_hop} is unusable: {resolved.reason}"
        return Candidate(path, peer.is_external, attributes.originator_id or session.open.router_id, resolved)

    def _refresh(self) -> None:
        """Links or routes of others changed: what goes through a next hop whose answer changed is decided anew."""
        state = self._state
        state.stale.resolution = False
        for next_hop in state.resolver.refresh():
            users = self._users.get(next_hop, {})
            for prefix in list(users):
                if any(path.attributes.next_hop == next_hop for path in state.adj_in.paths(prefix).values()):
                    state.stale.prefixes[prefix] = None
                else:
                    del users[prefix]
            nodes = [name for name, node in state.facts.nodes.items() if node.ipv4_address == next_hop]
            state.stale.nodes.update(dict.fromkeys(nodes))
            if not users:
                self._users.pop(next_hop, None)
                if not nodes:
                    state.resolver.forget(next_hop)
