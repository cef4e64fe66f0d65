"""What the walk over addresses holds for a disagreement, and what for incomplete; the tour walks the quickstart in every phase."""

from __future__ import annotations

import pytest

from bgpd.lab.walk import HERE, disagreement, incomplete
from bgpd.model.view import ExplainView, PacketView, StepView

pytestmark = pytest.mark.core

VIA = ("10.1.11.0 dev eth1", "10.1.21.0 dev eth2")


def view(fate: str = "unicast", via: tuple[str, ...] = VIA, outcome: str = "there") -> ExplainView:
    return ExplainView(
        query="10.65.1.1",
        prefix="10.65.1.0/26",
        answer="10.65.1.1 goes natively.",
        steps=tuple(StepView(name, outcome) for name in HERE),
        changes=(),
        packet=PacketView(fate=fate, prefix="10.65.1.0/26", via=via, ours=True),
    )


def test_one_of_several_ways_is_agreement_and_another_is_not() -> None:
    """The kernel picks one of equal paths; a way that explain does not name is told with both."""
    assert "" == disagreement(view(), {"gateway": "10.1.21.0", "dev": "eth2"})
    assert "the kernel via dev eth3" in disagreement(view(), {"dev": "eth3"})
    assert "" == disagreement(view("blackhole"), "blackhole")
    assert "explain says blackhole, the kernel unicast" == disagreement(view("blackhole"), {"dev": "eth1"})
    assert "explain says unicast, the kernel none" == disagreement(view(), "none")


def test_a_hop_without_outcome_or_an_unknown_is_incomplete() -> None:
    """Each hop has to be there and to say something that is known."""
    assert "" == incomplete(view(), HERE)
    assert "says nothing at ipam" in incomplete(view(outcome=""), HERE)
    assert "says unknown" == incomplete(view(outcome="unknown"), HERE)
    assert "has the hops" in incomplete(view(), HERE[1:])
