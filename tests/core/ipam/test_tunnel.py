"""Which pools a node's tunnel addresses come of."""

from __future__ import annotations

import msgspec
import pytest

from bgpd.core.ipam.tunnel import TunnelKind, pools_for
from bgpd.model.pool import Mode, Pool, Use
from bgpd.model.prefix import Family, Prefix

pytestmark = pytest.mark.core

PLAIN = Pool(name="plain", cidr=Prefix.parse("10.1.0.0/16"))
IPIP = Pool(name="ipip", cidr=Prefix.parse("10.2.0.0/16"), ipip_mode=Mode.CROSS_SUBNET)
VXLAN = Pool(name="vxlan", cidr=Prefix.parse("10.3.0.0/16"), vxlan_mode=Mode.ALWAYS)
SIX = Pool(name="six", cidr=Prefix.parse("2001:db8::/64"), block_size=122, vxlan_mode=Mode.ALWAYS)
POOLS = (VXLAN, PLAIN, SIX, IPIP)
OFF = {Family.IPV4: False, Family.IPV6: False}


def names(kind, pools=POOLS, labels=None, wireguard=None):
    return [pool.name for pool in pools_for(kind, pools, labels or {}, wireguard=wireguard or OFF)]


def test_each_kind_has_the_pools_of_its_encapsulation():
    """IPIP and VXLAN come of pools that have them on, WireGuard of all pools of a family in which it is on; fallback needs none."""
    on = {Family.IPV4: True, Family.IPV6: False}

    assert [["ipip"], ["vxlan"], ["six"], [], []] == [names(kind) for kind in TunnelKind]
    assert [["ipip", "plain", "vxlan"], []] == [
        names(kind, wireguard=on) for kind in (TunnelKind.WIREGUARD, TunnelKind.WIREGUARD_V6)
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"disabled": True}, []),
        ({"allowed_uses": (Use.WORKLOAD,)}, []),
        ({"node_selector": "rack == 'b'"}, []),
        ({"node_selector": "rack == 'a'"}, ["vxlan"]),
        ({"node_selector": "rack =="}, []),
        ({"automatic": False}, ["vxlan"]),
    ],
)
def test_a_pool_must_be_enabled_select_the_node_and_allow_tunnels(changes, expected):
    """A disabled pool, one of other uses or nodes serves no tunnel; whether it assigns automatically does not matter."""
    assert expected == names(TunnelKind.VXLAN, (msgspec.structs.replace(VXLAN, **changes),), {"rack": "a"})


def test_handles_are_calicos():
    """Each kind has Calico's handle, so that Calico's tools and ours find the same address."""
    assert [
        "ipip-tunnel-addr-n",
        "vxlan-tunnel-addr-n",
        "vxlan-v6-tunnel-addr-n",
        "wireguard-tunnel-addr-n",
        "wireguard-v6-tunnel-addr-n",
    ] == [kind.handle("n") for kind in TunnelKind]
