"""The decision stage: stale prefixes in, selections out (eligibility, next hop, RFC 4271 section 9.1.2)."""

from __future__ import annotations

from itertools import islice

import msgspec

from bgpd.core.limits import Limits
from bgpd.core.rib.adj_in import Path
from bgpd.core.rib.decision import NOTHING, Candidate, Rules, Selection, candidate, select
from bgpd.core.rib.filter import Rejected
from bgpd.core.rib.policy import admitted, filtered
from bgpd.core.state import State
from bgpd.model.peer import Peer
from bgpd.model.prefix import Address, Prefix
from bgpd.model.route import Attributes


class ByPolicy(str):
    """A refusal by import policy: what it refuses does not count against a peer's limit."""

    __slots__ = ()


class Outcome(msgspec.Struct, frozen=True):
    """What the decision makes of a set of paths, for each prefix that has exactly these."""

    selection: Selection
    refused: tuple[tuple[Path, str], ...]
    users: tuple[dict[Prefix, None], ...]
    """Of the paths' next hops."""


class Decider:
    """Owns which prefixes go through which next hop, and how many of a limited peer's routes are accepted."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._users: dict[Address, dict[Prefix, None]] = {}
        self._judged: dict[Path, Candidate | str] = {}
        """Of the settling under way: at most the paths of its budget."""
        self._outcomes: dict[tuple[Path, ...], Outcome] = {}
        """The same for sets of paths: the blocks of a node come in one UPDATE from each peer."""
        self._changed: dict[Path, Candidate] = {}
        """The same for paths as filters have changed them."""
        self._filtering: set[Address] = set()
        """Peers with import filters."""
        self._limits = Limits(state)
        self._rules = Rules()
        self._clusters: set[Address | None] = set()
        self._own: list[tuple[int, int, int]] = []
        """Own blocks, to compare with packed prefixes: bits of a prefix beyond the block's network, its length, its network."""

    def refresh(self) -> None:
        """Links or routes of others changed: mark stale what goes through a next hop whose answer changed."""
        state = self._state
        if not state.stale.resolution:
            return
        state.stale.resolution = False
        for next_hop in state.resolver.refresh():
            state.stale.losses = True
            users = self._users.get(next_hop, {})
            for prefix in list(users):
                if any(path.next_hop == next_hop for path in state.adj_in.paths(prefix).values()):
                    state.stale.prefixes[prefix] = None
                else:
                    del users[prefix]
            nodes = [name for name, node in state.facts.nodes.items() if node.address(next_hop.family) == next_hop]
            state.stale.nodes.update(dict.fromkeys(nodes))
            if next_hop in state.facts.gateways:
                state.stale.gateways[next_hop] = None
            if not users:
                self._users.pop(next_hop, None)
                if not nodes and next_hop not in state.facts.gateways:
                    state.resolver.forget(next_hop)

    def settle(self, budget: int) -> int:
        """Decide at most *budget* stale prefixes; returns what is left of the budget."""
        state = self._state
        self._judged.clear()
        self._outcomes.clear()
        self._changed.clear()
        options = state.facts.options
        self._rules = Rules(options.ecmp_limit, options.multipath_relax, options.always_compare_med)
        self._filtering = {address for address, peer in state.facts.peers.items() if peer.policy.filters}
        self._limits.begin()
        clusters = {peer.policy.reflector_cluster for peer in state.facts.peers.values()}
        self._clusters = (clusters | {state.facts.world.me.cluster_id}) - {None}
        self._own = [
            (block.family.bits - block.length + 8, block.length, block >> block.family.bits - block.length + 8)
            for block in state.facts.blocks_of.get(state.facts.me.name, ())
        ]
        for prefix in list(islice(state.stale.prefixes, budget)):
            del state.stale.prefixes[prefix]
            self._decide(prefix)
            budget -= 1
        return budget

    def _decide(self, prefix: Prefix) -> None:
        """Run the decision for one prefix, or take what came out for another one with the same paths. O(its paths)."""
        state = self._state
        own = False
        for beyond, length, network in self._own:
            own = own or (prefix >> beyond == network and prefix & 255 >= length)
        if (borrower := state.facts.borrower.get(prefix)) is not None:
            own = borrower == state.facts.me.name
        paths = tuple(state.adj_in.paths(prefix).values())
        outcome = None if own else self._outcomes.get(paths)
        if outcome is None:
            outcome = self._weigh(prefix, paths, own)
            if not own and not any(path.peer in self._filtering for path in paths):
                self._outcomes[paths] = outcome
        for users in outcome.users:
            users[prefix] = None
        if outcome.refused or prefix in state.ineligible:
            state.refuse(prefix, outcome.refused)
        new = outcome.selection
        old = state.selections.get(prefix)
        if old is not new:
            state.select(prefix, new if new.chosen else None)
            if new != (old or NOTHING):
                self._selected(prefix)
        if self._limits.any:
            accepted = [one.path.peer for one in new.chosen]
            accepted += [one.path.peer for one, _ in new.lost]
            accepted += [path.peer for path, why in outcome.refused if not isinstance(why, ByPolicy)]
            self._limits.count(prefix, accepted)

    def _weigh(self, prefix: Prefix, paths: tuple[Path, ...], own: bool) -> Outcome:
        """Judge each path, and choose among the eligible ones; *own*: the prefix is in a block of ours."""
        candidates: list[Candidate] = []
        refused: list[tuple[Path, str]] = []
        for path in paths:
            found = "it is inside a block of ours" if own else self._judged.get(path) or self._judge(path)
            if type(found) is Candidate and path.peer in self._filtering:
                found = self._filtered(prefix, found)
            if type(found) is Candidate:
                candidates.append(found)
            else:
                assert isinstance(found, str)
                refused.append((path, found))
        users = tuple(self._users.setdefault(path.next_hop, {}) for path in paths)
        return Outcome(select(candidates, self._rules), tuple(refused), users)

    def _selected(self, prefix: Prefix) -> None:
        """Pass a changed selection on to whom it concerns: the owner of that block, of the blocks below it, or the prefix itself."""
        facts, stale = self._state.facts, self._state.stale
        holder = facts.holder(prefix)
        if holder is not None:
            stale.nodes[holder] = None
        else:
            stale.learned[prefix] = None
        for below in facts.covered.get(prefix, ()):
            if (name := facts.holder(below)) is not None:
                stale.nodes[name] = None
        if self._state.transit:
            stale.exports[prefix] = None

    def _judge(self, path: Path) -> Candidate | str:
        """Check eligibility (RFC 4271 section 9.1.2); returns the reason where it is not given.

        Remembered within one settling: a path is shared by the prefixes of its UPDATE, and facts do not change meanwhile.
        """
        found = self._judged[path] = self._candidate(path)
        return found

    def _candidate(self, path: Path) -> Candidate | str:
        facts = self._state.facts
        peer = facts.peers.get(path.peer)
        session = facts.sessions.get(path.peer)
        if peer is None or session is None or session.open is None:
            return "its peer is not configured"
        if peer.policy.hold_reason:
            return f"its peer is held: {peer.policy.hold_reason}"
        if reason := facts.broken(path.peer):
            return reason
        attributes = path.attributes
        reason = self._loop(peer, attributes)
        if reason:
            return reason
        if facts.options.enforce_first_as and peer.is_external and attributes.neighbor_asn != peer.asn:
            return f"its AS path does not begin with the peer's AS {peer.asn}"
        resolved = self._state.resolve(path)
        if not resolved.legs:
            return f"next hop {path.next_hop} is unusable: {resolved.reason}"
        taken = admitted(attributes, peer)
        if isinstance(taken, Rejected):
            return ByPolicy(taken.rule)
        if taken is not attributes:
            path = msgspec.structs.replace(path, attributes=taken)
        return candidate(path, resolved, external=peer.is_external, asn=peer.asn, router_id=session.open.router_id)

    def _filtered(self, prefix: Prefix, found: Candidate) -> Candidate | str:
        """Ask the peer's filters about an eligible path; they may change its attributes, LOCAL_PREF also of an external peer's."""
        facts = self._state.facts
        peer, path = facts.peers[found.path.peer], found.path
        devices = tuple(leg.device for leg in found.resolved.legs)
        taken = filtered(prefix, path.attributes, peer, facts.filters, devices)
        if isinstance(taken, Rejected):
            return ByPolicy(taken.rule)
        if taken is path.attributes:
            return found
        path = msgspec.structs.replace(path, attributes=taken)
        changed = self._changed.get(path)
        if changed is None:
            session = facts.sessions[path.peer].open
            assert session is not None
            changed = self._changed[path] = candidate(
                path,
                found.resolved,
                external=peer.is_external,
                asn=peer.asn,
                router_id=session.router_id,
                local_pref=taken.local_pref,
            )
        return changed

    def _loop(self, peer: Peer, attributes: Attributes) -> str:
        """Say how the path has come through us already; empty if it has not. AS sets count, too (RFC 4271 section 9.1.2)."""
        facts = self._state.facts
        times = sum(segment.asns.count(peer.local_asn) for segment in attributes.as_path)
        if times > peer.policy.allowed_own_asns:
            return f"our AS {peer.local_asn} is in the AS path"
        if peer.is_external:
            return ""
        if attributes.originator_id is not None and attributes.originator_id == facts.router_id:
            return "we are its originator (RFC 4456 section 8)"
        if self._clusters.intersection(attributes.cluster_list):
            return "it has been in a cluster of ours (RFC 4456 section 8)"
        return ""
