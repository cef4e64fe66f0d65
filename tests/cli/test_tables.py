"""What people read: every table as plain text, against a daemon's views over a real socket."""

from __future__ import annotations

import pytest

from tests.api.fake import FakeViews
from tests.cli.conftest import Bgpd

pytestmark = pytest.mark.netns

STATUS = """\
node     node1, AS 65101, router id 192.0.2.1
daemon   bgpd 0.1.0, pid 4242, up 3d04h
phase    ready for 3d04h
store    synced for 3d04h
speaker  attached for 3d04h
peers    1 of 2 established
blocks   10.42.0.0/26, 10.42.9.64/26
routes   4 learned, 3 desired, 0 failed
nodes    1 native, 1 in fallback, 0 unreachable
"""

PEERS = """\
NAME  ADDRESS                AS  STATE                             SINCE  RECEIVED  ACCEPTED  ANNOUNCED  REASON
tor1  10.1.1.1            65001  Established                       3d04h         3         2          1  1 stale
tor2  2001:db8:2::1  4200000002  Idle (shut down by the neighbor)  never         0         0          0  \
Cease/Administrative Shutdown: ?[31mmaintenance
"""

ROUTES = """\
Codes: O own block, N native, D direct on the link, T tunnel, F fallback tunnel, U unreachable, B from BGP only,
       K kept route of another, W waiting for facts; * programmed, k kept from before, q pending, r failed

    PREFIX          NODE   VIA                                   STATUS            AGE  REASON
O*  10.42.0.0/26    node1  blackhole                             programmed      3d04h  -
N*  10.42.0.64/26   node2  10.1.1.1 dev eth1, 10.1.2.1 dev eth2  programmed      3d04h  BGP has 2 equal paths
Fq  10.42.0.128/26  node3  10.42.0.128 dev vxlan.bgpd            pending         3d04h  -
Ur  10.42.0.192/26  node4  -                                     failed: EINVAL  3d04h  -
B*  0.0.0.0/0       -      10.1.1.1 dev eth1                     programmed          -  -
"""

ROUTE = """\
prefix   10.42.0.64/26
reached  native: BGP has 2 equal paths
node     node2
via      10.1.1.1 dev eth1, 10.1.2.1 dev eth2
status   programmed for 3d04h

Paths: 3 known, 2 used
Codes: > best, = equal to it, S stale

    PEER      NEXT HOP  AS PATH            ORIGIN      MED  LOCPRF  COMMUNITIES        AGE  WHY NOT
>   10.1.1.1  10.1.1.1  65001 65102        igp           -       -  -                3d04h  -
=   10.1.2.1  10.1.2.1  65002 65102        igp           0     200  -                3d04h  -
 S  10.1.3.1  10.1.3.1  65003 65009 65102  incomplete   50       -  65003:1 65535:0  3d04h  AS path is longer
"""

EXPLAIN = """\
10.42.0.65 is reached natively over two uplinks: it is in node2's block 10.42.0.64/26.

 1. store   block 10.42.0.64/26 of node2
            pool main 10.42.0.0/16, CrossSubnet, fallback VXLAN
 2. adj-in  3 routes
            10.1.1.1: 65001 65102
            10.1.2.1: 65002 65102
 3. kernel  programmed

Last changes, newest first:
  05:44:10 native: BGP has 2 equal paths
  05:44:00 fallback: no session has a path
"""


@pytest.mark.parametrize(
    ("arguments", "golden"),
    [
        (["status"], STATUS),
        (["peers"], PEERS),
        (["routes"], ROUTES),
        (["routes", "10.42.0.64/26"], ROUTE),
        (["explain", "10.42.0.65"], EXPLAIN),
        (["explain", "10.42.0.64/26", "-o", "table"], EXPLAIN),
        (["ipam", "assign", "--handle", "w1", "-o", "table"], "10.42.0.7\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_plain_table(bgpd: Bgpd, views: FakeViews, arguments: list[str], golden: str) -> None:
    """Where no terminal is attached, a command writes aligned text without trailing blanks, control characters or colours."""
    result = bgpd(*arguments)

    assert golden.splitlines() == result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line for line in result.stdout.splitlines() if line != line.rstrip()] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["peers"], "no peer is configured\n"),
        (["routes"], "there are no routes\n"),
        (["routes", "10.42.0.64/26"], "10.42.0.64/26 is not in the table\n"),
    ],
)
def test_nothing_to_show_is_said(bgpd: Bgpd, views: FakeViews, arguments: list[str], sentence: str) -> None:
    """An empty answer is said on stderr, so that stdout stays empty for programs; it is no failure."""
    views.routes_held, views.peers_held = [], []

    result = bgpd(*arguments)

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", sentence)
