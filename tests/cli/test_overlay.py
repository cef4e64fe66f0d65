"""``bgpd overlay``, its probes and forced ways, against served views."""

from __future__ import annotations

import json

import pytest

from bgpd.model.overlay import ForceRequest, Path
from tests.api.fake import FakeViews
from tests.cli.conftest import Bgpd

pytestmark = pytest.mark.netns

NODES = """\
NODE   ADDRESS   PATH      SINCE  VIA                       MTU  BLOCKS  WHY
node2  10.0.0.2  fallback  3d04h  10.0.0.2 dev vxlan.bgpd  1450       2  no BGP peer announces it
"""
PROBES = """\
PATH    DEVICE      SENT  RECEIVED  LOSS  MIN MS  AVG MS  MAX MS  WHY
vxlan   vxlan.bgpd     5         4   20%    0.50    0.75    1.00  -
native  -              -         -     -       -       -       -  no BGP peer announces it
"""


def test_nodes_and_one_in_detail(bgpd: Bgpd, views: FakeViews) -> None:
    """Nodes are a table; one has its candidates with their reasons, what is forced, and counters; JSON is the view."""
    assert NODES == bgpd("overlay").output
    shown = bgpd("overlay", "node2")

    assert 0 == shown.exit_code
    for part in ("fallback for 3d04h", "vxlan, until `bgpd overlay force node2 auto`", "in use", "vxlan.bgpd  device"):
        assert part in shown.output
    assert bgpd("overlay", "show", "node2").output == shown.output
    (view,) = json.loads(bgpd("overlay", "node2", "-o", "json").output)
    assert ["native", "vxlan"] == [one["path"] for one in view["candidates"]]


def test_probes_by_each_way(bgpd: Bgpd, views: FakeViews) -> None:
    """Loss and round-trip time of each way, or why it could not be probed."""
    shown = bgpd("overlay", "test", "node2")

    assert (0, PROBES) == (shown.exit_code, shown.output)
    assert [9, 0] == [
        one["sent"] for one in json.loads(bgpd("overlay", "test", "node2", "--count", "9", "-o", "json").output)
    ]


def test_a_way_is_forced_for_a_time(bgpd: Bgpd, views: FakeViews) -> None:
    """The time is read with its unit; auto ends it; what cannot be used is refused with its reason, exit status 1."""
    assert 0 == bgpd("overlay", "force", "node2", "vxlan", "--for", "10m").exit_code
    assert "the way to node2 is chosen by its pools' rules\n" == bgpd("overlay", "force", "node2", "auto").output
    refused = bgpd("overlay", "force", "node2", "wireguard")

    expected = [ForceRequest(node="node2", path=Path.VXLAN, for_s=600.0), ForceRequest(node="node2", path=Path.AUTO)]
    assert [("force", one) for one in expected] == views.done
    assert (1, "bgpd: node2 cannot be reached by wireguard now: there are no tunnels by wireguard here\n") == (
        refused.exit_code,
        refused.stderr,
    )


@pytest.mark.parametrize(
    "command",
    [
        ["overlay", "nowhere"],
        ["overlay", "test", "nowhere"],
        ["overlay", "force", "nowhere", "vxlan"],
        ["overlay", "force", "node2", "gre"],
        ["overlay", "force", "node2", "vxlan", "--for", "soon"],
        ["overlay", "force", "node2", "vxlan", "--for", "0s"],
        ["overlay", "test", "node2", "--count", "0"],
    ],
)
def test_bad_input_ends_with_status_2(bgpd: Bgpd, views: FakeViews, command: list[str]) -> None:
    """Unknown nodes, ways and times are named, and nothing is done."""
    refused = bgpd(*command)

    assert 2 == refused.exit_code
    assert refused.stderr
    assert [] == views.done
