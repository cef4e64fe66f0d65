"""The present facts as events: fed to a fresh pipeline they give the same tables, once quiet times are over (law 2).

So a recording of any length can be had of a daemon that has recorded nothing: what a bug report needs is the state, and the last events.
What is not a fact of now is not in it: routes that are stale come as fresh ones, and quiet times have begun anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from bgpd.core.pipeline import Phase, Pipeline
from bgpd.core.state import KERNEL_TARGET, State
from bgpd.model import event as ev
from bgpd.model.drain import Stage
from bgpd.model.prefix import Address, Prefix
from bgpd.model.route import Attributes

PREFIXES_MAX = 1000
"""Of one event: about what an UPDATE brings."""


def snapshot(pipeline: Pipeline) -> list[ev.Event]:
    """Return events that make the present facts. O(facts)."""
    state = pipeline.state
    found = [
        *_ourselves(state),
        *_kernel(state),
        *_resources(state),
        *_blocks(state),
        *_store(state),
        *_sessions(state),
    ]
    if pipeline.phase is Phase.READY:
        found.append(ev.Converged(KERNEL_TARGET, len(found) + 1))
    return found


def _ourselves(state: State) -> Iterator[ev.Event]:
    facts, world = state.facts, state.facts.world
    if facts.drain is not Stage.OFF:
        yield ev.DrainChanged(facts.drain, facts.drain_keeps_blocks)
    if facts.me.name:
        peers = tuple(world.configured.values())
        yield ev.Configured(node=facts.me, peers=peers, options=facts.options, mesh=world.mesh, announce=facts.announce)
    if facts.wireguard_key is not None:
        yield ev.WireguardKeyMade(facts.wireguard_key)
    yield from (ev.HealthChanged(check, healthy) for check, healthy in facts.health.items())
    yield from (ev.PathForced(node, path) for node, path in facts.forced.items())


def _kernel(state: State) -> Iterator[ev.Event]:
    facts, resolver = state.facts, state.resolver
    yield from resolver.links.values()
    for device, addresses in facts.world.links.items():
        yield from (ev.AddressAdded(device, address, subnet) for address, subnet in addresses.items())
    for prefix, by_metric in resolver.others():
        yield from (ev.ForeignRouteChanged(prefix=prefix, metric=one, hops=hops) for one, hops in by_metric.items())
    yield from (ev.NeighbourSilent(device, address, True) for device, address in resolver.silent())
    yield from (ev.RouterFound(link, address) for link, address in facts.world.found.items())
    if facts.kernel_synced:
        yield ev.KernelSynced()


def _resources(state: State) -> Iterator[ev.Event]:
    facts, world = state.facts, state.facts.world
    yield from (ev.PoolChanged(pool) for pool in facts.pools.values())
    yield from (ev.FelixConfigurationChanged(one) for one in facts.felix.values())
    yield from (ev.BgpConfigurationChanged(one) for one in world.configurations.values())
    yield from (ev.BgpFilterChanged(one.source) for one in facts.filters.values())
    yield from (ev.BgpPeerChanged(one) for one in world.peers.values())
    yield from (ev.WorkloadChanged(one) for one in world.workloads.values())


def _blocks(state: State) -> Iterator[ev.Event]:
    facts = state.facts
    yield from (ev.NodeChanged(node) for node in facts.nodes.values())
    yield from (ev.NodeAlive(name) for name in sorted(facts.alive))
    yield from (ev.AffinityChanged(one) for one in facts.affinities.values())
    yield from (ev.BlockChanged(one) for one in facts.blocks.values())


def _store(state: State) -> Iterator[ev.Event]:
    if state.facts.store.synced_once:
        yield ev.StoreSynced()
    if state.facts.store.lost_reason:
        yield ev.StoreLost(state.facts.store.lost_reason)


def _sessions(state: State) -> Iterator[ev.Event]:
    facts = state.facts
    if facts.speaker_up:
        yield ev.SpeakerUp()
    for address, session in facts.sessions.items():
        if session.up and session.open is not None:
            yield ev.PeerUp(address, session.open)
        elif session.reason:
            yield ev.PeerDown(address, session.reason, session.notification, session.unreachable_since is not None)
        yield from _routes(state, address)
        yield from (ev.EndOfRib(address, family) for family in sorted(session.learned) if session.up)
    yield from (ev.BfdChanged(peer, told.status) for peer, told in facts.bfd.items())


def _routes(state: State, peer: Address) -> Iterator[ev.Event]:
    """Tell what a peer has announced, gathered by attributes as UPDATEs do it."""
    together: dict[tuple[int, int, Attributes], list[Prefix]] = {}
    for prefix, path_id in state.adj_in.of_peer(peer):
        path = state.adj_in.paths(prefix)[peer, path_id]
        together.setdefault((path_id, prefix.family, path.attributes), []).append(prefix)
    for (path_id, _, attributes), prefixes in together.items():
        for start in range(0, len(prefixes), PREFIXES_MAX):
            part = tuple(prefixes[start : start + PREFIXES_MAX])
            yield ev.RoutesLearned(peer=peer, announced=part, attributes=attributes, path_id=path_id)
