"""``explain`` is complete for any address in any state, and its packet hop is the kernel's rule: longest prefix, then metric."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bgpd.core.explain import Explainer, Explanation
from bgpd.core.explain_from import explain_from
from bgpd.core.lookup import Fate
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.bgp import BgpConfiguration
from bgpd.model.pool import Affinity, AffinityState
from bgpd.model.prefix import Address, Prefix
from tests.core import world as w

pytestmark = pytest.mark.core

HOPS = ("ipam", "sessions", "adj-rib-in", "next-hop", "decision", "node", "route", "announced", "packet")
THERE = ("ipam", "alive", "sessions", "route", "without BGP", "announced", "kernel")
WORKLOAD = w.P("10.65.1.5/32")


def explainer(pipeline: Pipeline) -> Explainer:
    return Explainer(pipeline.state, pipeline.forwarder, pipeline.exporter)


def explain(pipeline: Pipeline, query: str) -> Explanation:
    return explainer(pipeline).query(query)


def outcome(found: Explanation, hop: str) -> str:
    return next(step.outcome for step in found.steps if step.name == hop)


def foreign(prefix: str, *hops: tuple[str, Address | None], metric: int = 0) -> ev.Event:
    return ev.ForeignRouteChanged(prefix=w.P(prefix), metric=metric, hops=hops)


STATES = {
    "empty": [],
    "configured": [w.CONFIGURED],
    "no store": [w.CONFIGURED, *w.kernel(), *w.bgp()],
    "running": w.whole(),
    "no session": [*w.whole(), ev.PeerDown(w.TOR1, "hold timer"), ev.PeerDown(w.TOR2, "hold timer")],
    "nobody alive": [*w.whole(), ev.NodeDead("node2"), ev.PeerDown(w.TOR1, "x"), ev.PeerDown(w.TOR2, "x")],
    "everything": [*w.whole(), *(event for lane in w.resources() for event in lane)],
}
NEAR = (
    "10.65.0.0",
    "10.65.1.0",
    "10.65.1.63",
    "10.65.1.64",
    "10.65.2.9",
    "10.65.4.7",
    "10.0.0.2",
    "10.1.11.0",
    "127.0.0.1",
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(STATES)),
    st.one_of(
        st.sampled_from(NEAR),
        st.ip_addresses().map(str),
        st.tuples(st.sampled_from(NEAR), st.integers(0, 32)).map(lambda of: str(Prefix.of(w.A(of[0]), of[1]))),
    ),
)
def test_every_explanation_has_every_hop(state: str, query: str) -> None:
    """Whatever is asked in whatever state, each hop is there with an outcome, and nothing is unknown."""
    found = explain(w.feed(Pipeline(), STATES[state]), query)

    assert HOPS == tuple(step.name for step in found.steps)
    assert all(step.outcome for step in found.steps)
    assert found.answer.startswith(query)
    assert "unknown" not in " ".join([found.answer, *(step.outcome for step in found.steps)])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["running", "nobody alive", "everything"]),
    st.sampled_from(NEAR),
    st.sampled_from(["node2", "node3"]),
)
def test_every_explanation_from_another_node_has_every_hop(state: str, query: str, node: str) -> None:
    """What another node would do is told hop by hop, and what cannot be known here is named."""
    pipeline = w.feed(Pipeline(), STATES[state])
    found = explain_from(pipeline.state.facts, explainer(pipeline), query, node)

    assert THERE == tuple(step.name for step in found.steps)
    assert all(step.outcome for step in found.steps)
    assert any("supposed" in line for step in found.steps for line in step.detail)


def test_from_another_node() -> None:
    """Seen from another node, our block is a remote one; its own is its own; a node that is none is refused by name."""
    mesh = ev.BgpConfigurationChanged(BgpConfiguration(name="default"))
    pipeline = w.feed(w.running(), [mesh])
    facts, here = pipeline.state.facts, explainer(pipeline)

    remote = explain_from(facts, here, "10.65.1.9", "node2")
    assert "10.65.1.9 (in 10.65.1.0/26) goes from node2 natively to node1, if BGP brings it" in remote.answer
    assert ("native to node1", "fallback") == (outcome(remote, "route"), outcome(remote, "without BGP"))
    assert "belongs to a block of node2 itself" in explain_from(facts, here, "10.65.2.9", "node2").answer
    with pytest.raises(ValueError, match="the store has no node node9; it has node"):
        explain_from(facts, here, "10.65.2.9", "node9")


def test_a_packet_takes_the_longest_prefix_whoever_has_it() -> None:
    """A workload's own route wins within our block, whose rest is dropped; a default route takes what we have no route for."""
    default = foreign("0.0.0.0/0", ("eth0", w.A("192.0.2.254")))
    pipeline = w.feed(w.running(), [foreign(str(WORKLOAD), ("cali1", None)), default])

    workload = explain(pipeline, "10.65.1.5")
    assert (WORKLOAD, False, ["cali1"]) == (
        workload.packet.prefix,
        workload.packet.ours,
        [leg.device for leg in workload.packet.legs],
    )
    assert "A packet takes 10.65.1.5/32 via dev cali1 (another's)." in workload.answer
    rest = explain(pipeline, "10.65.1.6")
    assert Fate.BLACKHOLE is rest.packet.fate
    assert "No workload of this node has it" in rest.answer
    assert "via 192.0.2.254 dev eth0 (another's)" in explain(pipeline, "8.8.8.8").answer


def test_a_packet_to_nowhere_and_to_ourselves() -> None:
    """Without any route it is unreachable; own addresses, loopback, broadcast and multicast are none of routing's."""
    own = ev.AddressAdded("eth5", w.A("192.0.2.7"), w.P("192.0.2.0/24"))
    pipeline = w.feed(w.running(), [own])
    fates = {
        "8.8.8.8": Fate.NONE,
        "192.0.2.7": Fate.LOCAL,
        "127.1.2.3": Fate.LOCAL,
        "192.0.2.255": Fate.BROADCAST,
        "255.255.255.255": Fate.BROADCAST,
        "224.0.0.5": Fate.MULTICAST,
    }

    assert fates == {query: explain(pipeline, query).packet.fate for query in fates}


def test_metric_decides_between_equal_prefixes() -> None:
    """Of two routes to one prefix the lower metric wins, as in the kernel."""
    lower = replace(w.CONFIGURED, options=replace(w.OPTIONS, routes=replace(w.OPTIONS.routes, metric=50)))
    pipeline = w.feed(w.running(), [])
    behind = w.feed(Pipeline(), [lower, *w.whole()[1:], foreign(str(w.BLOCK2), ("eth9", None), metric=20)])

    assert explain(pipeline, "10.65.2.9").packet.ours
    assert not explain(behind, "10.65.2.9").packet.ours


def test_the_block_without_owner_says_whose_it_is_to_be() -> None:
    """A block whose affinity is pending is explained as nobody's yet, and nothing is pretended about its route."""
    pending = Affinity(cidr=w.BLOCK2, node="node2", state=AffinityState.PENDING)
    found = explain(w.feed(w.running(), [ev.AffinityChanged(pending)]), "10.65.2.9")

    assert "block 10.65.2.0/26 has no owner: its affinity is not confirmed" == outcome(found, "ipam")


def test_changes_are_the_last_five_also_of_what_is_gone() -> None:
    """The last five changes are told, the newest first, with their prefix; what was withdrawn is remembered."""
    gone = w.P("198.18.0.0/15")
    pipeline = w.feed(w.running(), [w.learned(w.TOR1, gone)], now=10.0)
    w.feed(pipeline, [ev.RoutesLearned(peer=w.TOR1, withdrawn=(gone,))], now=20.0)

    found = explain(pipeline, "198.18.0.1")
    assert found.prefix is None
    assert ((20.0, "198.18.0.0/15 gone: no usable path"), 10.0) == (found.changes[0], found.changes[1][0])
    for now in range(30, 60, 10):
        w.feed(pipeline, [w.learned(w.TOR1, gone)], now=now)
        w.feed(pipeline, [ev.RoutesLearned(peer=w.TOR1, withdrawn=(gone,))], now=now + 5)
    assert [55.0, 50.0, 45.0, 40.0, 35.0] == [at for at, _ in explain(pipeline, "198.18.0.1").changes]
