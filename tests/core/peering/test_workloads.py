"""Sessions with workloads of this node (localWorkloadSelector): one for each that matches and each of its addresses."""

from __future__ import annotations

import pytest

from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.bgp import BgpConfiguration, BgpPeer, Workload
from bgpd.model.peer import Peer, PeerKind
from tests.core import world as w

pytestmark = pytest.mark.core

ROUTER = (("app", "vrouter"),)
ADDRESS, ADDRESS6 = w.A("10.65.1.7"), w.A("fd00:65::7")
WORKLOAD = Workload(name="ns/node1-k8s-a-eth0", addresses=(ADDRESS, ADDRESS6), labels=ROUTER)
SELECTING = BgpPeer(name="vm", workload_selector="app == 'vrouter'", asn=65781)
VIRTUAL = w.A("169.254.1.1")


def peers(*events: ev.Event) -> dict[str, Peer]:
    """What peers of workloads there are after these events."""
    pipeline = w.feed(Pipeline(), [w.CONFIGURED, *w.kernel(), *w.store(), ev.StoreSynced(), *events])
    found = pipeline.state.facts.peers
    return {str(address): peer for address, peer in found.items() if peer.policy.kind is PeerKind.WORKLOAD}


def test_each_address_of_a_matching_workload_is_a_session() -> None:
    """Our side is the node's address where no other is said; a family that the node has no address of is held and says so."""
    found = peers(ev.BgpPeerChanged(SELECTING), ev.WorkloadChanged(WORKLOAD))

    assert {str(ADDRESS), str(ADDRESS6)} == set(found)
    four, six = found[str(ADDRESS)], found[str(ADDRESS6)]
    assert ("vm-ns/node1-k8s-a-eth0", 65781, w.CONFIGURED.node.ipv4_address) == (
        four.name,
        four.asn,
        four.local_address,
    )
    assert "this node has no ipv6 address" == six.policy.hold_reason


def test_sessions_follow_labels_selectors_and_nodes() -> None:
    """A workload that goes, loses its label, or whose BGPPeer is for another node or another selector, has no session."""
    there: list[ev.Event] = [ev.WorkloadChanged(WORKLOAD), ev.BgpPeerChanged(SELECTING)]
    for last in (
        ev.WorkloadRemoved(WORKLOAD.name),
        ev.WorkloadChanged(Workload(name=WORKLOAD.name, addresses=(ADDRESS,))),
        ev.BgpPeerChanged(BgpPeer(name="vm", workload_selector="has(other)", asn=65781)),
        ev.BgpPeerChanged(BgpPeer(name="vm", node="node2", workload_selector="app == 'vrouter'", asn=65781)),
        ev.BgpPeerRemoved("vm"),
    ):
        assert {} == peers(*there, last)


def test_the_virtual_address_is_ours_once_it_is_on_a_link() -> None:
    """localWorkloadPeeringIPV4 is our address; until somebody has put it on a link the peer is held, and names it."""
    there: list[ev.Event] = [
        ev.WorkloadChanged(Workload(name="ns/a", addresses=(ADDRESS,), labels=ROUTER)),
        ev.BgpPeerChanged(SELECTING),
        ev.BgpConfigurationChanged(BgpConfiguration(name="default", mesh=False, workload_v4=VIRTUAL)),
    ]
    held = peers(*there)[str(ADDRESS)]
    assert "169.254.1.1 (localWorkloadPeeringIPV4) is on no link" == held.policy.hold_reason

    there.append(ev.AddressAdded("cali1", VIRTUAL, w.P("169.254.1.1/32")))
    ready = peers(*there)[str(ADDRESS)]
    assert (VIRTUAL, "") == (ready.local_address, ready.policy.hold_reason)
    assert held == peers(*there, ev.AddressRemoved("cali1", VIRTUAL, w.P("169.254.1.1/32")))[str(ADDRESS)]
