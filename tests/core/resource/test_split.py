"""Splitting a pool."""

from __future__ import annotations

import pytest

from bgpd.core.resource import check
from bgpd.core.resource.split import split

pytestmark = pytest.mark.core

POOL = {
    "kind": "IPPool",
    "apiVersion": "projectcalico.org/v3",
    "metadata": {"name": "main", "uid": "u", "labels": {"a": "b"}, "annotations": {"bgpd.io/fallback": "None"}},
    "spec": {"cidr": "10.65.0.0/24", "blockSize": 26, "vxlanMode": "Always", "natOutgoing": True},
    "status": {"conditions": []},
}


def test_parts_are_the_pool_but_for_name_and_range():
    """Parts cover the pool, each once, and keep everything else but what is one object's own."""
    parts = split(POOL, 4)

    assert ["10.65.0.0/26", "10.65.0.64/26", "10.65.0.128/26", "10.65.0.192/26"] == [
        one["spec"]["cidr"] for one in parts
    ]
    assert [f"split-main-{index}" for index in range(4)] == [one["metadata"]["name"] for one in parts]
    assert {"name": "split-main-0", "labels": {"a": "b"}, "annotations": {"bgpd.io/fallback": "None"}} == parts[0][
        "metadata"
    ]
    assert {**POOL["spec"], "cidr": "10.65.0.0/26"} == parts[0]["spec"]
    assert [] == [defect for one in parts for defect in check.read("", one)[1]]


@pytest.mark.parametrize("parts", [1, 3, 8, 128])
def test_a_split_that_cannot_be_is_refused(parts):
    """Parts are a power of two, not more than there are blocks and than one transaction holds."""
    assert isinstance(split(POOL, parts), str)


def test_ipv6_pools_are_split_as_well():
    """An IPv6 pool is split by its own default block size."""
    parts = split({**POOL, "spec": {"cidr": "2001:db8::/120"}}, 4)

    assert "2001:db8::c0/122" == parts[3]["spec"]["cidr"]
    assert isinstance(split({**POOL, "spec": {"cidr": "2001:db8::/120"}}, 8), str)
