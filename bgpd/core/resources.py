"""Events about BGP resources, nodes and our links into facts, and what they concern: sessions, policies, announcements."""

from __future__ import annotations

from bgpd.core.rib.filter import compiled
from bgpd.core.state import State
from bgpd.model import event as ev
from bgpd.model.bgp import DEFAULT_CONFIGURATION, NODE_CONFIGURATION
from bgpd.model.prefix import Address, Prefix


class Resources:
    """Writes the facts of *state* that core/peering looks at; owns nothing."""

    def __init__(self, state: State) -> None:
        self._state = state

    def event(self, event: object) -> None:
        """Take note of a BGP resource's change."""
        world, sessions = self._state.facts.world, self._state.sessions
        match event:
            case ev.BgpPeerChanged(peer=peer):
                world.peers[peer.name] = peer
                sessions.peer_changed(peer.name)
            case ev.BgpPeerRemoved(name=name):
                world.peers.pop(name, None)
                sessions.peer_changed(name)
            case ev.BgpConfigurationChanged(configuration=configuration):
                world.configurations[configuration.name] = configuration
                self._configuration(configuration.name)
            case ev.BgpConfigurationRemoved(name=name):
                world.configurations.pop(name, None)
                self._configuration(name)
            case ev.BgpFilterChanged(filter=one):
                self._state.facts.filters[one.name] = compiled(one)
                self._filter(one.name)
            case ev.BgpFilterRemoved(name=name):
                self._state.facts.filters.pop(name, None)
                self._filter(name)
            case ev.WorkloadChanged(workload=workload):
                world.workloads[workload.name] = workload
                sessions.workload_changed(workload.name)
            case ev.WorkloadRemoved(name=name):
                world.workloads.pop(name, None)
                sessions.workload_changed(name)
            case _:
                raise AssertionError(f"no fact for {event!r}")

    def _configuration(self, name: str) -> None:
        me = self._state.facts.me.name
        if name in (DEFAULT_CONFIGURATION, NODE_CONFIGURATION + me):
            self._everything()
        elif name.startswith(NODE_CONFIGURATION):
            self._state.sessions.node_changed(name.removeprefix(NODE_CONFIGURATION))

    def _everything(self) -> None:
        """What holds for all sessions and all announcements changed."""
        self._state.sessions.everything_changed()
        self._state.stale.own = True
        self._state.stale.exporters.update(dict.fromkeys(self._state.facts.peers))
        self._settings()

    def _settings(self) -> None:
        """Take up what BGPConfiguration says of this node as a whole."""
        facts, stale = self._state.facts, self._state.stale
        settings = facts.world.configuration(facts.me.name)
        if self._state.resolver.ignore(settings.ignored_interfaces or ()):
            stale.resolution = stale.overlay = True
        level = settings.log_level or ""
        if level != facts.log_level:
            facts.log_level = level
            self._state.note("log.level_changed", level=level or "auto")

    def _filter(self, name: str) -> None:
        """Whoever uses a filter is looked at again: maybe it was missing, or is now; stored routes are judged anew."""
        users = self._state.facts.filter_users.get(name, ())
        self._state.stale.peers.update(dict.fromkeys(users))
        self._state.stale.policies.update(dict.fromkeys(users))

    # -------------------------------------------------------------- nodes and links

    def node(self, name: str) -> None:
        """A node came, changed or went; our own has the labels and the cluster id that selectors and reflection look at."""
        if name == self._state.facts.me.name:
            self.ourselves()
        else:
            self._state.sessions.node_changed(name)

    def ourselves(self) -> None:
        """What we are told of ourselves changed: by the node's file, or by our own resource."""
        facts = self._state.facts
        before = facts.world.me
        facts.world.me = facts.own_node()
        if facts.world.me != before:
            self._everything()

    def address(self, device: str, address: Address, subnet: Prefix | None) -> None:
        """Our address on a link came, or (None) went."""
        links = self._state.facts.world.links
        if subnet is not None:
            links.setdefault(device, {})[address] = subnet
        else:
            links.get(device, {}).pop(address, None)
            if not links.get(device, True):
                del links[device]
        self._state.sessions.links_changed()
