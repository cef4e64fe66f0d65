"""How another node reaches an address, as far as the store tells: worked out by a pipeline of that node (core/outlook.py).

What cannot be known here is said: the node's links and file, what its routers tell it, and its kernel. Only what the answer depends on
is fed: the nodes that it is about, reflectors, and the blocks that cover it, so that it costs the same in a large cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

from bgpd.core.explain import Explainer, Explanation, Step
from bgpd.core.facts import Facts
from bgpd.core.outlook import Outlook, Way, outlook
from bgpd.core.overlay.choose import How
from bgpd.core.rib.filter import Rejected
from bgpd.model import event as ev
from bgpd.model.prefix import Prefix

NAMES_SHOWN = 10
SUPPOSED = (
    "supposed, since only the node knows them: its links are up, its routers announce all blocks, its configuration "
    "file names no peer and has this node's options"
)


def explain_from(facts: Facts, explainer: Explainer, query: str, node: str) -> Explanation:
    """Explain *query* as *node* would decide; raises ValueError where the query or the node is none."""
    here = explainer.query(query)
    asked = explainer.asked(query)
    known = facts.nodes.get(node)
    if known is None:
        names = ", ".join(sorted(facts.nodes)[:NAMES_SHOWN])
        raise ValueError(f"the store has no node {node}; it has {names or 'none'}")
    subject = here.prefix or asked
    found = outlook(ev.Configured(node=known, peers=(), options=facts.options), _relevant(facts, node, asked))
    way = found.ways.get(subject)
    steps = (
        here.steps[0],
        Step("alive", f"{node} is alive (lease held)" if node in facts.alive else f"{node} is not alive (no lease)"),
        _sessions(found),
        _route(facts, node, subject, way),
        _without(found.without_bgp.get(subject)),
        _announced(found, subject),
        Step("kernel", f"known on {node} alone: `bgpd explain {query}` there", (SUPPOSED,)),
    )
    return Explanation(here.prefix, _answer(query, node, facts.holder(subject), subject, way), steps, ())


def _relevant(facts: Facts, node: str, asked: Prefix) -> Iterator[ev.Event]:
    """Tell what the answer depends on. O(pools + BGP resources + reflectors)."""
    covering = [Prefix.of(asked.network, length) for length in range(asked.length + 1)]
    owners = {facts.holder(one) for one in covering} | {node}
    yield from (ev.PoolChanged(pool) for pool in facts.pools.values())
    yield from (ev.BgpConfigurationChanged(one) for one in facts.world.configurations.values())
    yield from (ev.BgpFilterChanged(one.source) for one in facts.filters.values())
    yield from (ev.BgpPeerChanged(one) for one in facts.world.peers.values())
    for name, one in facts.nodes.items():
        if name in owners or one.cluster_id is not None:
            yield ev.NodeChanged(one)
            if name in facts.alive:
                yield ev.NodeAlive(name)
    for cidr in covering:
        block = facts.blocks.get(cidr)
        if block is not None:
            yield ev.BlockChanged(block)
            if block.node is not None and (affinity := facts.affinities.get((cidr, block.node))) is not None:
                yield ev.AffinityChanged(affinity)


def _sessions(found: Outlook) -> Step:
    if not found.peers:
        return Step(
            "sessions", "the store names no peer of it", ("peers of its configuration file are known there alone",)
        )
    names = sorted(peer.name for peer in found.peers.values())
    held = [
        f"{peer.name} is held: {peer.policy.hold_reason}" for peer in found.peers.values() if peer.policy.hold_reason
    ]
    shown = ", ".join(names[:NAMES_SHOWN]) + (
        f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    )
    return Step("sessions", f"with {shown}", tuple(held[:NAMES_SHOWN]))


def _route(facts: Facts, node: str, subject: Prefix, way: Way | None) -> Step:
    if facts.holder(subject) == node:
        return Step("route", "its own: local workloads, or blackhole")
    if way is None:
        return Step("route", "none by the store: what its routers announce, or other routes of its kernel, decide")
    return Step("route", f"{way.how}{f' to {way.node}' if way.node else ''}", (way.reason,) if way.reason else ())


def _without(way: Way | None) -> Step:
    if way is None:
        return Step("without BGP", "no route by the store")
    return Step("without BGP", way.how.value, (way.reason,) if way.reason else ())


def _announced(found: Outlook, subject: Prefix) -> Step:
    told = found.told.get(subject)
    if told is None:
        return Step("announced", "not by it: it is not its own")
    to = sorted(name for name, one in told.items() if not isinstance(one, Rejected))
    refused = tuple(f"not to {name}: {one.rule}" for name, one in sorted(told.items()) if isinstance(one, Rejected))
    return Step("announced", f"to {', '.join(to[:NAMES_SHOWN])}" if to else "to nobody that the store names", refused)


def _answer(query: str, node: str, holder: str | None, subject: Prefix, way: Way | None) -> str:
    where = "" if query == str(subject) else f" (in {subject})"
    if holder == node:
        return f"{query}{where} belongs to a block of {node} itself."
    if way is None:
        return f"{query}{where}: by the store {node} has no route for it; its routers or other routes of it decide."
    hows = {
        How.NATIVE: f"natively to {way.node}, if BGP brings it",
        How.DIRECT: f"natively to {way.node}, which is in its subnet",
        How.TUNNEL: f"through the pool's tunnel to {way.node}",
        How.FALLBACK: f"through the fallback tunnel to {way.node}",
    }
    return f"{query}{where} goes from {node} {hows.get(way.how, f'nowhere ({way.how})')}: {way.reason}."
