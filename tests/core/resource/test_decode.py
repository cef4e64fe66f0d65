"""Resources as decisions see them: every field of Calico's documents, and the annotations beyond them."""

from __future__ import annotations

from typing import Any

import pytest

from bgpd.core.resource import check, decode
from bgpd.model.bgp import (
    AddCommunity,
    Advertisement,
    BgpConfiguration,
    BgpFilter,
    BgpPeer,
    FilterRule,
    Operator,
    PrependAsPath,
    SetPriority,
)
from bgpd.model.peer import MaxPrefix, NextHopMode, Role, SecretRef
from bgpd.model.prefix import Address, Prefix
from tests.core.resource.examples import EVERY_FIELD, resource

pytestmark = pytest.mark.core

A, P = Address.parse, Prefix.parse


def wrong(annotations: dict[str, str], **spec: Any) -> list[str]:
    """Return what is wrong with a BGPPeer of these annotations."""
    _, defects = check.read("", resource("BGPPeer", spec, "p", annotations=annotations))
    return [str(one).partition(": ")[2] for one in defects]


def test_every_field_of_a_bgppeer_is_read() -> None:
    """A BGPPeer's fields and annotations become a value; durations are seconds, AS numbers plain."""
    document = EVERY_FIELD["BGPPeer"]
    notes = {
        "bgpd.io/max-prefix": "1000,80%,5m",
        "bgpd.io/role": "customer",
        "bgpd.io/role-strict": "true",
        "bgpd.io/extended-next-hop": "true",
        "bgpd.io/add-path": "receive",
    }
    metadata = document["metadata"] | {"annotations": notes}

    found = decode.bgp_peer("tor", document | {"metadata": metadata})

    assert found == BgpPeer(
        name="tor",
        node_selector="rack == 'a'",
        address=A("fd00::1"),
        port=1790,
        asn=4294967295,
        local_asn=65010,
        next_hop_mode=NextHopMode.SELF,
        password=SecretRef("tor", "a"),
        use_node_ip=False,
        restart_s=120,
        keepalive_s=0.5,
        allowed_own_asns=2,
        ttl_security=1,
        reachable_by=A("fd00::ffff"),
        filters=("f",),
        reverse=False,
        max_prefix=MaxPrefix(1000, 80, 300),
        role=Role.CUSTOMER,
        role_strict=True,
        extended_next_hop=True,
        add_path=True,
    )


def test_every_field_of_a_bgpconfiguration_is_read() -> None:
    """Named communities are resolved, ranges are prefixes."""
    found = decode.bgp_configuration("default", EVERY_FIELD["BGPConfiguration"])

    assert found == BgpConfiguration(
        name="default",
        mesh=True,
        asn=65546,
        listen_port=1790,
        mesh_password=SecretRef("mesh", "password"),
        mesh_restart_s=3724,
        load_balancer=(P("203.0.113.0/24"),),
        external=(P("198.51.100.0/24"),),
        cluster=(P("10.96.0.0/12"), P("fd00:96::/108")),
        advertisements=(Advertisement(P("10.65.0.0/16"), (65000 << 16 | 1, (65000, 1, 2), 1 << 16 | 2)),),
        priority_v4=1,
        priority_v6=2147483646,
        workload_v4=A("169.254.1.1"),
        workload_v6=A("fe80::1"),
        node_ip_only=True,
        ignored_interfaces=("docker0", "veth*"),
        log_level="warning",
        aggregate=False,
    )


def test_every_field_of_a_bgpfilter_is_read() -> None:
    """Each match and each operation of a rule is kept, in order."""
    found = decode.bgp_filter("f", EVERY_FIELD["BGPFilter"])

    whole = FilterRule(
        accept=True,
        cidr=P("10.0.0.0/8"),
        operator=Operator.NOT_IN,
        min_length=0,
        max_length=32,
        remote_peers=True,
        interface="*.calico",
        external=True,
        community=65000 << 16 | 100,
        as_path_prefix=(65001, 65546),
        priority=512,
        operations=(
            AddCommunity(65000 << 16 | 1),
            AddCommunity((65000, 1, 2)),
            PrependAsPath((65000, 65000, 65546)),
            SetPriority(2147483646),
        ),
    )
    assert found.export_v4 == (whole, FilterRule(accept=False))
    assert isinstance(found, BgpFilter)
    assert [len(rules) for rules in (found.import_v4, found.export_v6, found.import_v6)] == [2, 2, 2]


def test_node_is_read_with_labels_and_cluster_id() -> None:
    """Selectors see a node's labels; its cluster id makes it a reflector."""
    document = resource(
        "Node",
        {"bgp": {"ipv4Address": "192.0.2.1/24", "routeReflectorClusterID": "1.0.0.1"}},
        "n",
        labels={"b": "2", "a": ""},
    )

    found = decode.node("n", document)

    assert (found.labels, found.cluster_id) == ((("a", ""), ("b", "2")), A("1.0.0.1"))


@pytest.mark.parametrize(
    ("annotations", "spec", "expected"),
    [
        ({"bgpd.io/hold-time": "2"}, {}, "must be whole seconds: 0 (no keepalives), or 3 to 65535"),
        ({"bgpd.io/hold-time": "30s"}, {"keepaliveTime": "3s"}, "must be absent where keepaliveTime is given"),
        ({"bgpd.io/max-prefix": "many"}, {}, "must be LIMIT[,WARN%][,RESTART]"),
        ({"bgpd.io/max-prefix": "0"}, {}, "the limit must be 1 to"),
        ({"bgpd.io/max-prefix": "5,101%"}, {}, "the share to warn at must be 0 to 100 %"),
        ({"bgpd.io/max-prefix": "5,soon"}, {}, "must be a duration"),
        ({"bgpd.io/role-strict": "true"}, {}, "needs bgpd.io/role"),
        ({"bgpd.io/role": "boss"}, {}, "must be one of provider, customer, rs, rs-client, peer"),
        ({"bgpd.io/extended-next-hop": "yes"}, {}, 'must be "true" or "false"'),
        ({"bgpd.io/extended-next-hop": "true"}, {}, "needs a session over IPv6"),
        ({"bgpd.io/add-path": "both"}, {}, "must be one of receive"),
        ({"bgpd.io/interface": "a/b"}, {}, "must be the name of a link"),
        ({"bgpd.io/interface": "eth0"}, {}, "has a link, but is no link-local IPv6 address"),
        ({}, {"peerIP": "fe80::1"}, "needs its link: write ADDRESS%LINK"),
        ({"bgpd.io/interface": "eth1"}, {"peerIP": "fe80::1%eth0"}, "must be absent or eth0, as peerIP says"),
        ({"bgpd.io/interface": "eth1"}, {"peerIP": "", "asNumber": None}, "is required where annotation"),
        (
            {"bgpd.io/interface": "eth1"},
            {"peerIP": "", "asNumber": None, "peerSelector": "all()"},
            "must be absent where peerSelector is given",
        ),
    ],
)
def test_annotation_that_breaks_a_rule_is_named(
    annotations: dict[str, str], spec: dict[str, Any], expected: str
) -> None:
    """A wrong annotation, alone or beside the spec, is refused with place, value and rule."""
    found = wrong(annotations, **({"peerIP": "192.0.2.1", "asNumber": 1} | spec))

    assert len(found) == 1
    assert expected in found[0]


def test_link_local_and_unnumbered_peers_are_sound() -> None:
    """peerIP may name its link, and an interface alone stands for whoever is on it."""
    assert wrong({}, peerIP="fe80::1%eth0", asNumber=1) == []
    assert wrong({"bgpd.io/interface": "eth0"}, peerIP="[fe80::1]:1790", asNumber=1) == []
    assert wrong({"bgpd.io/interface": "eth0", "bgpd.io/extended-next-hop": "true"}, asNumber=1) == []
