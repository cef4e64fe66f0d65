"""What waits is taken in an order in which nothing lacks what it points to."""

from __future__ import annotations

import pytest

from bgpd.core.reconcile.order import Work
from bgpd.model.forwarding import DeviceKey, GroupKey, KernelKey, Leg, RouteKey, RuleKey
from bgpd.model.prefix import Family, Prefix

pytestmark = pytest.mark.core

DEVICE, LEG, GROUP = DeviceKey("vxlan.bgpd"), Leg("vxlan.bgpd"), GroupKey("node")
ROUTES = [RouteKey(Prefix.parse(f"10.0.{number}.0/24")) for number in range(4)]
RULE = RuleKey(Family.IPV4, 900, 1000)


def test_what_is_pointed_to_comes_first_and_goes_last() -> None:
    """Additions come from the device to the rule, in pieces of any size; removals the other way round, and after all of them."""
    work: Work[KernelKey] = Work()
    work.put([RULE, *ROUTES[:2], GROUP, LEG, DEVICE, *ROUTES[2:]], desired={RULE, *ROUTES[:2], GROUP, LEG, DEVICE})
    gone: Work[KernelKey] = Work()
    gone.put([DEVICE, LEG, GROUP, *ROUTES, RULE], desired=())

    assert [] == work.take_removed(9)
    assert [DEVICE, LEG, GROUP, ROUTES[0]] == work.take_added(4)
    assert [] == work.take_removed(9)
    assert [ROUTES[1], RULE] == work.take_added(4)
    assert [ROUTES[2]] == work.take_removed(1)
    assert [ROUTES[3]] == work.take_removed(9)
    assert 0 == len(work)
    assert [RULE, *ROUTES, GROUP, LEG, DEVICE] == gone.take_removed(99)


def test_a_group_does_not_wait_behind_routes() -> None:
    """What arrives while thousands of routes wait goes first if others hang on it; a key that is put twice waits once."""
    work: Work[KernelKey] = Work()
    work.put([*ROUTES, *ROUTES], desired=[*ROUTES, GROUP])
    assert ROUTES[:2] == work.take_added(2)

    work.put([GROUP], desired=[GROUP])

    assert [GROUP, *ROUTES[2:]] == work.take_added(99)
