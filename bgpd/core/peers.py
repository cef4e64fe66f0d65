"""The stage of peers: who wins at each address, whether it is held, and what follows for its session and its routes.

``facts.peers`` holds every peer, the held ones with their reason; the table of neighbors holds those that a session may
stand with, without their policy, so that what changes no session is no change there. A peer that names a missing
BGPFilter is held (law 7): at once where there was none, after a short time where a session stands, because a filter and
the peer that names it come by two watches of the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from bgpd.core.facts import Session
from bgpd.core.health.path import session_for
from bgpd.core.limits import over
from bgpd.core.peering.session import held, missing
from bgpd.core.state import State
from bgpd.model.peer import Peer, PeerPolicy
from bgpd.model.prefix import Address

MISSING_FILTER_S: Final = 3.0
"""How long a standing session waits for a filter that its peer names anew: one transaction arrives within milliseconds."""


class Peers:
    """Owns since when standing sessions wait for a missing filter, and which filters each peer names or is about to."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._waiting: dict[Address, float] = {}
        self._named: dict[Address, frozenset[str]] = {}

    def settle(self, budget: int) -> int:
        """Work out at most *budget* stale sources, and all addresses that they touch once none is stale; returns what is left."""
        state = self._state
        if state.sessions:
            budget = state.sessions.settle(budget)
            if state.sessions:
                return budget
        addresses = state.stale.peers | dict.fromkeys(state.sessions.touched())
        state.stale.peers = {}
        for address in addresses:
            self._resolve(address)
        for address in state.stale.policies:
            state.stale.prefixes.update((prefix, None) for prefix, _ in state.adj_in.of_peer(address))
            state.stale.exporters[address] = None
        state.stale.policies = {}
        return max(0, budget - len(addresses))

    def deadline(self) -> float | None:
        """When the next wait for a filter, or a limit's restart time, is over."""
        times = [since + MISSING_FILTER_S for since in self._waiting.values()]
        times += [limit.until for limit in self._state.facts.limits.values() if limit.until is not None]
        return min(times, default=None)

    def expire(self, now: float) -> None:
        """Look again at the peers whose time is over."""
        facts = self._state.facts
        over = [address for address, since in self._waiting.items() if since + MISSING_FILTER_S <= now]
        for address, limit in list(facts.limits.items()):
            if limit.until is not None and limit.until <= now:
                del facts.limits[address]
                over.append(address)
        self._state.stale.peers.update(dict.fromkeys(over))

    def _resolve(self, address: Address) -> None:
        """Take the winner at *address* into use."""
        facts = self._state.facts
        old = facts.peers.get(address)
        won = self._state.sessions.winner(address)
        self._reach(address, won[1] if won is not None else None)
        if won is None:
            self._waiting.pop(address, None)
            self._remove(address, old)
            return
        new = self._limited(held(won[0], facts.filters))
        if missing(new, facts.filters) and old is not None and not old.policy.hold_reason:
            since = self._waiting.setdefault(address, self._state.now)
            if self._state.now < since + MISSING_FILTER_S:
                self._uses(address, (*old.policy.filters, *new.policy.filters))
                return
        self._waiting.pop(address, None)
        self._uses(address, new.policy.filters)
        if new != old:
            self._replace(address, old, new)

    def _limited(self, peer: Peer) -> Peer:
        """Hold a peer that sent more than it may."""
        limits = self._state.facts.limits
        limit = limits.get(peer.address)
        if limit is None:
            return peer
        if limit.limit != peer.policy.max_prefix:
            del limits[peer.address]
            return peer
        return msgspec.structs.replace(
            peer, ended=over(peer), policy=msgspec.structs.replace(peer.policy, hold_reason=limit.reason)
        )

    def _replace(self, address: Address, old: Peer | None, new: Peer) -> None:
        state = self._state
        state.facts.peers[address] = new
        state.facts.sessions.setdefault(address, Session())
        if new.policy.hold_reason:
            if new.ended is not None:
                state.tables.neighbors.set(address, msgspec.structs.replace(new, policy=PeerPolicy()))
            else:
                state.tables.neighbors.discard(address)
            if old is None or old.policy.hold_reason != new.policy.hold_reason:
                state.note("peer.held", peer=str(address), reason=f"{new.name}: {new.policy.hold_reason}")
        else:
            state.tables.neighbors.set(address, msgspec.structs.replace(new, policy=PeerPolicy()))
        watch = session_for(new) if not new.policy.hold_reason else None
        if watch is not None:
            state.tables.bfd.set(address, watch)
        else:
            self._unwatch(address)
        if old is None or _judged_by(old) != _judged_by(new):
            state.stale.policies[address] = None

    def _remove(self, address: Address, old: Peer | None) -> None:
        """Give a peer up. Its routes count no more; they go with its session, which ends when it is told to the speaker."""
        if old is None:
            return
        state = self._state
        del state.facts.peers[address]
        state.facts.limits.pop(address, None)
        state.tables.neighbors.discard(address)
        self._unwatch(address)
        self._uses(address, ())
        state.stale.policies[address] = None
        session = state.facts.sessions.get(address)
        if session is not None and not session.up:
            del state.facts.sessions[address]
            state.stale.prefixes.update(dict.fromkeys(state.adj_in.clear(address)))

    def _unwatch(self, address: Address) -> None:
        self._state.tables.bfd.discard(address)
        self._state.facts.bfd.pop(address, None)

    def _uses(self, address: Address, names: Iterable[str]) -> None:
        """Have *address* looked at when one of the filters *names* comes, changes or goes."""
        users = self._state.facts.filter_users
        before, after = self._named.pop(address, frozenset()), frozenset(names)
        for name in before - after:
            users[name].discard(address)
            if not users[name]:
                del users[name]
        for name in after - before:
            users.setdefault(name, set()).add(address)
        if after:
            self._named[address] = after

    def _reach(self, address: Address, gateway: Address | None) -> None:
        """Have *address* reached by *gateway* (reachableBy), or by whatever the kernel has."""
        gateways = self._state.facts.gateways
        if gateways.get(address) == gateway:
            return
        if gateway is None:
            del gateways[address]
        else:
            gateways[address] = gateway
        self._state.resolver.reach(address, gateway)
        self._state.stale.resolution = True
        self._state.stale.gateways[address] = None


def _judged_by(peer: Peer) -> tuple[object, ...]:
    """Return what routes from and to a peer are judged by."""
    policy = msgspec.structs.replace(peer.policy, hold_reason="", max_prefix=None, bfd=None)
    limited = peer.policy.max_prefix is not None
    return (
        policy,
        limited,
        bool(peer.policy.hold_reason),
        peer.role,
        peer.asn,
        peer.local_asn,
        peer.local_address,
        peer.families,
    )
