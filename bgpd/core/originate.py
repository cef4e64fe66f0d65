"""What this node announces of its own: confirmed blocks, borrowed addresses, ranges of services, prefixes of its file.

A prefix of the file with a health check is there while the check passes. Ranges of LoadBalancer and external addresses, and
prefixes of the file that say so, are dropped here where nothing more specific is known: else a router that sends us such a
packet would get it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bgpd.core.rib.filter import with_communities
from bgpd.core.rib.policy import OWN_ATTRIBUTES, Exportable, Source
from bgpd.core.state import State
from bgpd.model.prefix import Prefix

NO_SERVICES: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Label of a node that announces no ranges of services (calico.md 2.5)."""


class Originator:
    """Writes ``state.originated``; owns nothing."""

    def __init__(self, state: State) -> None:
        self._state = state

    def settle(self) -> None:
        """Work out what is originated, and mark what differs. O(own prefixes)."""
        state = self._state
        wanted: dict[Prefix, Exportable] = {}
        for one in self._wanted():
            wanted.setdefault(one.prefix, one)
        before, state.originated = state.originated, wanted
        for prefix in {**before, **wanted}:
            old, new = before.get(prefix), wanted.get(prefix)
            if old != new:
                state.stale.exports[prefix] = None
                state.stale.learned[prefix] = None
        if _blocks(before) != _blocks(wanted):
            state.stale.exporters.update(dict.fromkeys(state.transit))  # learned routes inside a block do not go out

    def _wanted(self) -> Iterator[Exportable]:
        """Yield what is announced; of two with one prefix the first counts."""
        facts = self._state.facts
        for block in sorted(facts.blocks_of.get(facts.me.name, ())):
            yield Exportable(prefix=block, source=Source.BLOCK)
        for address in sorted(facts.borrowed_of.get(facts.me.name, ())):
            yield Exportable(prefix=address, source=Source.BORROWED)
        for one in facts.announce:
            if one.check and not facts.health.get(one.check):
                continue
            attributes = with_communities(OWN_ATTRIBUTES, (*one.communities, *one.large_communities))
            yield Exportable(prefix=one.prefix, source=Source.STATIC, attributes=attributes, blackhole=one.blackhole)
        if any(name == NO_SERVICES for name, _ in facts.world.me.labels):
            return
        settings = facts.world.configuration(facts.me.name)
        for ranges, is_dropped in (
            (settings.load_balancer, True),
            (settings.external, True),
            (
                settings.cluster,
                False,
            ),  # the host's own processes use these: their packets are routed before they are translated
        ):
            for prefix in ranges or ():
                if ranges is settings.load_balancer and settings.aggregate is False and not prefix.is_host:
                    continue  # single addresses of it go out as the node's file announces them, with their checks
                yield Exportable(prefix=prefix, source=Source.SERVICE, blackhole=is_dropped and not prefix.is_host)


def _blocks(routes: dict[Prefix, Exportable]) -> set[Prefix]:
    return {prefix for prefix, one in routes.items() if one.source is Source.BLOCK}
