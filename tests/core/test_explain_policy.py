"""``explain`` of policy: who is told of a prefix and who not, by which rule, and which rule refused what was received."""

from __future__ import annotations

import msgspec
import pytest

from bgpd.core.explain import Explainer, Step
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.bgp import BgpConfiguration, BgpFilter, BgpPeer, FilterRule
from bgpd.model.prefix import Prefix
from tests.core import world as w

pytestmark = pytest.mark.core


def steps(pipeline: Pipeline, prefix: Prefix) -> dict[str, Step]:
    explained = Explainer(pipeline.state, pipeline.forwarder, pipeline.exporter).prefix(prefix)
    return {step.name: step for step in explained.steps}


def test_each_peer_that_is_not_told_has_its_reason() -> None:
    """An own block goes to those whose filters let it; the others are named with the rule, a held one with its reason."""
    hidden = BgpFilter(name="f", export_v4=(FilterRule(accept=False, cidr=w.POOL.cidr),))
    peers = [
        BgpPeer(name="deaf", address=w.A("198.51.100.7"), asn=1, filters=("f",)),
        BgpPeer(name="held", address=w.A("198.51.100.8"), asn=1, filters=("gone",)),
    ]
    pipeline = w.feed(w.running(), [ev.BgpFilterChanged(hidden), *(ev.BgpPeerChanged(one) for one in peers)])

    found = steps(pipeline, w.OWN_BLOCK)["announced"]

    assert "to tor1, tor2" == found.outcome
    assert (
        "not to deaf: BGPFilter f exportV4[0]",
        "not to held: there is no session: BGPFilter gone does not exist",
    ) == found.detail


def test_learned_route_says_why_it_stays() -> None:
    """What is learned is announced to nobody, for the reason of law 8; what its sender sends does not go back."""
    found = steps(w.running(), w.BLOCK2)["announced"]

    assert "to nobody" == found.outcome
    assert any("carries no transit" in line for line in found.detail)
    assert any("it comes from this peer" in line for line in found.detail)


def test_refused_route_names_the_rule() -> None:
    """A route that an import filter refuses is ineligible by that rule, place and all."""
    tor = BgpPeer(name="tor1", address=w.TOR1, asn=65101, filters=("f",), use_node_ip=False)
    refuse = BgpFilter(name="f", import_v4=(FilterRule(accept=True, cidr=w.BLOCK3), FilterRule(accept=False)))
    only_tor2 = msgspec.structs.replace(w.CONFIGURED, peers=(w.peer(2),))
    pipeline = w.feed(w.running(), [only_tor2, ev.BgpFilterChanged(refuse), ev.BgpPeerChanged(tor)])

    assert ("tor1 ineligible: BGPFilter f importV4[1]",) == steps(pipeline, w.BLOCK2)["decision"].detail


def test_service_range_is_explained_as_such() -> None:
    """A range of services is announced by this node, not a block of its."""
    services = w.P("203.0.113.0/24")
    settings = BgpConfiguration(name="default", mesh=False, load_balancer=(services,))
    pipeline = w.feed(w.running(), [ev.BgpConfigurationChanged(settings)])

    explained = Explainer(pipeline.state, pipeline.forwarder, pipeline.exporter).prefix(services)

    assert "203.0.113.0/24: announced by this node (service); what serves it here gets it." == explained.answer
    assert "to tor1, tor2" == steps(pipeline, services)["announced"].outcome
