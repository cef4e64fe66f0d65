"""Policy: what is taken, what is announced to whom and in which form, step by step (calico.md 2.5; law 8)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bgpd.core.rib.filter import Rejected, compiled
from bgpd.core.rib.policy import OWN_ATTRIBUTES, Exportable, Ground, Source, admitted, export, filtered
from bgpd.model.bgp import AddCommunity, Advertisement, BgpFilter, FilterRule, PrependAsPath, SetPriority
from bgpd.model.drain import Stage
from bgpd.model.peer import NextHopMode, Peer, PeerPolicy, Role
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement, AsSegment, Attributes, Origin, SegmentKind, UnknownAttribute

pytestmark = pytest.mark.core

A, P = Address.parse, Prefix.parse
POOL, BLOCK, OTHER = P("10.65.0.0/16"), P("10.65.1.0/26"), P("198.51.100.0/24")
CLUSTER = A("1.0.0.1")
LEARNED = Attributes(
    next_hop=A("192.0.2.99"),
    origin=Origin.IGP,
    as_path=(AsSegment(SegmentKind.SEQUENCE, (65009,)),),
    med=7,
    local_pref=150,
    communities=(65009 << 16 | 1,),
)


def peer(number: int, *, external: bool = False, client: bool = False, role: Role | None = None, **policy: Any) -> Peer:
    return Peer(
        name=f"p{number}",
        address=A(f"192.0.2.{number}"),
        asn=65000 + number if external else 64512,
        local_address=A("192.0.2.250"),
        local_asn=64512,
        role=role,
        policy=PeerPolicy(reflector_cluster=CLUSTER if client else None, **policy),
    )


def ground(*filters: BgpFilter, **more: Any) -> Ground:
    given: dict[str, Any] = {
        "filters": {one.name: compiled(one) for one in filters},
        "hidden": lambda _prefix: "",
        "in_pool": POOL.covers,
        "in_own_block": BLOCK.covers,
    }
    return Ground(**(given | more))


def own(prefix: Prefix = BLOCK, source: Source = Source.BLOCK) -> Exportable:
    return Exportable(prefix=prefix, source=source)


def learned(by: Peer, prefix: Prefix = OTHER, **attributes: Any) -> Exportable:
    return Exportable(
        prefix=prefix,
        source=Source.LEARNED,
        attributes=msgspec.structs.replace(LEARNED, **attributes),
        peer=by,
        router_id=A("10.255.0.9"),
        devices=("eth0",),
    )


def reason(found: Announcement | Rejected) -> str:
    assert isinstance(found, Rejected)
    return found.rule


def exporting(*rules: FilterRule) -> BgpFilter:
    return BgpFilter(name="f", export_v4=rules)


# ------------------------------------------------------------------ own routes


@pytest.mark.parametrize("source", [Source.BLOCK, Source.SERVICE, Source.STATIC])
@pytest.mark.parametrize("external", [True, False])
def test_own_prefixes_are_announced_to_everybody(source: Source, external: bool) -> None:
    """A block and a service range go to eBGP and iBGP, with our own address as next hop and nothing else."""
    prefix = BLOCK if source is Source.BLOCK else OTHER

    assert export(own(prefix, source), peer(1, external=external), ground()) == Announcement()


def test_borrowed_address_goes_out_of_a_pool_only() -> None:
    """An address of ours in another's block is announced since a pool holds it (step 10)."""
    borrowed = own(P("10.65.2.7/32"), Source.BORROWED)

    assert export(borrowed, peer(1), ground()) == Announcement()
    assert reason(export(borrowed, peer(1), ground(in_pool=lambda _: False))) == "it is in no pool"
    inside = own(P("10.65.1.7/32"), Source.BORROWED)
    assert "which is announced as a whole" in reason(export(inside, peer(1), ground()))


def test_pool_without_export_keeps_its_blocks() -> None:
    """disableBGPExport rejects (step 3), unless a filter accepted before (step 2)."""
    hidden = ground(exporting(FilterRule(accept=True)), hidden=lambda _: "main")

    assert reason(export(own(), peer(1), hidden)) == "IPPool main has disableBGPExport"
    assert export(own(), peer(1, filters=("f",)), hidden) == Announcement()


def test_prefix_advertisements_add_communities() -> None:
    """Communities of each range that holds the prefix are added (step 6), to plain and large ones."""
    ranges = (Advertisement(POOL, (1, (1, 2, 3))), Advertisement(OTHER, (2,)), Advertisement(BLOCK, (3,)))

    found = export(own(), peer(1), ground(advertisements=ranges))

    assert found == Announcement(communities=(1, 3), large_communities=((1, 2, 3),))


def test_export_filter_rejects_and_changes() -> None:
    """A filter's rule is the reason, or makes the attributes; LOCAL_PREF goes to iBGP only."""
    operations = (AddCommunity(9), PrependAsPath((64512,)), SetPriority(100))
    changed = exporting(FilterRule(accept=True, cidr=POOL, operations=operations), FilterRule(accept=False))

    inner = export(own(), peer(1, filters=("f",)), ground(changed))
    outer = export(own(), peer(1, external=True, filters=("f",)), ground(changed))

    path = (AsSegment(SegmentKind.SEQUENCE, (64512,)),)
    assert inner == Announcement(communities=(9,), as_path=path, local_pref=2147483547)
    assert outer == Announcement(communities=(9,), as_path=path)
    service = own(OTHER, Source.SERVICE)
    assert reason(export(service, peer(1, filters=("f",)), ground(changed))) == "BGPFilter f exportV4[1]"


def test_priority_of_own_routes_is_their_local_pref() -> None:
    """In a cluster with a BGPConfiguration iBGP carries 2147483647 less the normal priority, as Calico's nodes do."""
    calico = ground(encoded=True, priority=lambda family: 512 if family is Family.IPV4 else 1024)

    assert export(own(), peer(1), calico) == Announcement(local_pref=2147483135)
    assert export(own(), peer(1, external=True), calico) == Announcement()


def test_draining_asks_to_be_avoided() -> None:
    """GRACEFUL_SHUTDOWN goes with everything that is announced, and LOCAL_PREF 0 with iBGP (RFC 8326 section 4.1)."""
    draining = ground(drain=Stage.DRAINING)

    assert export(own(), peer(1, external=True), draining) == Announcement(communities=(0xFFFF0000,))
    assert export(own(), peer(1), draining) == Announcement(communities=(0xFFFF0000,), local_pref=0)


def test_session_without_the_family_gets_nothing() -> None:
    """A prefix goes only where its family is spoken."""
    assert reason(export(own(P("fd00::/64")), peer(1), ground())) == "the session carries no ipv6"


# ------------------------------------------------------------------ transit and reflection


@pytest.mark.parametrize("target", [peer(2, external=True), peer(2)])
@pytest.mark.parametrize("prefix", [OTHER, P("10.65.9.0/26")])
def test_no_transit_by_default(target: Peer, prefix: Prefix) -> None:
    """What is learned stays, also what is in a pool: Calico's nodes announce that again (law 8)."""
    assert "carries no transit" in reason(export(learned(peer(1, external=True), prefix), target, ground()))


def test_filter_lets_learned_routes_out_by_their_source_only() -> None:
    """A rule that says source: RemotePeers makes transit; one that takes everything means own routes."""
    target = peer(2, external=True, filters=("f",))
    route = learned(peer(1, external=True))

    meant = export(route, target, ground(exporting(FilterRule(accept=True, remote_peers=True))))
    broad = export(route, target, ground(exporting(FilterRule(accept=True))))

    assert meant == Announcement(communities=LEARNED.communities, as_path=LEARNED.as_path)
    assert "does not say source: RemotePeers" in reason(broad)


def test_route_does_not_go_back() -> None:
    """A peer is not told of what it sent, nor iBGP of iBGP without a client, whatever a filter says (RFC 4271 9.2)."""
    out = ground(exporting(FilterRule(accept=True, remote_peers=True)))
    one, two = peer(1, filters=("f",)), peer(2, filters=("f",))

    assert reason(export(learned(one), one, out)) == "it comes from this peer"
    assert "neither end is a client" in reason(export(learned(one), two, out))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [(True, True, True), (True, False, True), (False, True, True), (False, False, False)],
)
def test_reflector_passes_on_between_clients_and_others(source: bool, target: bool, expected: bool) -> None:
    """From a client to everybody, from a non-client to clients (RFC 4456 section 6)."""
    found = export(learned(peer(1, client=source)), peer(2, client=target), ground(cluster=CLUSTER))

    assert isinstance(found, Announcement) is expected


def test_reflected_route_keeps_its_attributes() -> None:
    """Next hop, MED, LOCAL_PREF and communities stay; ORIGINATOR_ID is set once, our cluster id is put in front (section 8)."""
    fresh = export(learned(peer(1, client=True)), peer(2, client=True), ground(cluster=CLUSTER))
    passed = learned(peer(1, client=True), originator_id=A("10.255.0.3"), cluster_list=(A("2.0.0.2"),))
    again = export(passed, peer(2, client=True), ground(cluster=CLUSTER))

    assert fresh == Announcement(
        med=7,
        communities=LEARNED.communities,
        next_hop=A("192.0.2.99"),
        as_path=LEARNED.as_path,
        local_pref=150,
        originator_id=A("10.255.0.9"),
        cluster_list=(CLUSTER,),
    )
    assert isinstance(again, Announcement)
    assert (again.originator_id, again.cluster_list) == (A("10.255.0.3"), (CLUSTER, A("2.0.0.2")))


def test_reflector_is_no_transit_for_ebgp() -> None:
    """What a reflector learned by eBGP, or would tell eBGP, needs a filter that says so."""
    reflecting = ground(cluster=CLUSTER)

    assert "no transit" in reason(export(learned(peer(1, external=True)), peer(2, client=True), reflecting))
    assert "no transit" in reason(export(learned(peer(1, client=True)), peer(2, external=True), reflecting))


@pytest.mark.parametrize(
    ("mode", "inner", "outer"),
    [
        (NextHopMode.AUTO, LEARNED.next_hop, None),
        (NextHopMode.SELF, None, None),
        (NextHopMode.KEEP, LEARNED.next_hop, LEARNED.next_hop),
    ],
)
def test_next_hop_is_as_the_peer_wants_it(mode: NextHopMode, inner: Address | None, outer: Address | None) -> None:
    """Auto is ours towards eBGP and the route's own towards iBGP; Self and Keep are both (nextHopMode)."""
    out = ground(exporting(FilterRule(accept=True, remote_peers=True)), cluster=CLUSTER)
    by = peer(1, client=True)

    found = [
        export(learned(by), peer(2, external=external, client=not external, filters=("f",), next_hop_mode=mode), out)
        for external in (False, True)
    ]

    assert [one.next_hop for one in found if isinstance(one, Announcement)] == [inner, outer]


def test_no_export_and_no_advertise_are_kept() -> None:
    """Well-known communities of learned routes hold, filter or not (RFC 1997)."""
    out = ground(exporting(FilterRule(accept=True, remote_peers=True)))
    by, outside = peer(1, external=True), peer(2, external=True, filters=("f",))

    for community in (0xFFFFFF01, 0xFFFFFF02, 0xFFFFFF03):
        assert "RFC 1997" in reason(export(learned(by, communities=(community,)), outside, out))


# ------------------------------------------------------------------ import


def test_local_pref_of_an_external_peer_is_ignored() -> None:
    """LOCAL_PREF received over eBGP is dropped (RFC 4271 section 5.1.5); over iBGP it stays."""
    outside, inside = admitted(LEARNED, peer(1, external=True)), admitted(LEARNED, peer(1))

    assert isinstance(outside, Attributes)
    assert outside.local_pref is None
    assert inside is LEARNED


def test_import_filter_rejects_changes_or_leaves() -> None:
    """The rule is the reason; operations make what is taken; what no rule matches is taken as it came."""
    rules = (
        FilterRule(accept=False, cidr=P("10.9.0.0/16")),
        FilterRule(accept=True, cidr=P("10.8.0.0/16"), operations=(SetPriority(512),)),
    )
    filters = {"f": compiled(BgpFilter(name="f", import_v4=rules))}
    by = peer(1, external=True, filters=("f",))

    found = [filtered(P(text), LEARNED, by, filters, ()) for text in ("10.9.1.0/24", "10.8.0.0/16", "10.7.0.0/16")]

    assert found[0] == Rejected("BGPFilter f importV4[0]")
    assert isinstance(found[1], Attributes)
    assert found[1].local_pref == 2147483135
    assert found[2] is LEARNED


# ------------------------------------------------------------------ roles


def otc(asn: int) -> tuple[UnknownAttribute, ...]:
    return (UnknownAttribute(0xC0, 35, asn.to_bytes(4, "big")),)


@pytest.mark.parametrize(
    ("role", "marked", "leak", "marks"),
    [
        (Role.PROVIDER, None, False, None),
        (Role.PROVIDER, 65077, True, None),
        (Role.RS, 65077, True, None),
        (Role.PEER, 65077, True, None),
        (Role.PEER, 65001, False, 65001),
        (Role.PEER, None, False, 65001),
        (Role.CUSTOMER, None, False, 65001),
        (Role.CUSTOMER, 65077, False, 65077),
        (Role.RS_CLIENT, None, False, 65001),
    ],
)
def test_received_routes_are_checked_by_role(role: Role, marked: int | None, leak: bool, marks: int | None) -> None:
    """OTC from below, or across from another AS, is a leak; what comes from above or across is marked (RFC 9234 section 5)."""
    attributes = msgspec.structs.replace(LEARNED, unknown=otc(marked) if marked else ())

    found = admitted(attributes, peer(1, external=True, role=role))

    assert isinstance(found, Rejected) is leak
    if isinstance(found, Attributes):
        assert found.unknown == (otc(marks) if marks else ())


@pytest.mark.parametrize(
    ("role", "own_mark", "passes"),
    [
        (Role.PROVIDER, True, True),
        (Role.PEER, True, False),
        (Role.RS, True, True),
        (Role.CUSTOMER, False, False),
        (Role.RS_CLIENT, False, False),
    ],
)
def test_sent_routes_are_checked_by_role(role: Role, own_mark: bool, passes: bool) -> None:
    """What goes down or across is marked with our AS; what is marked goes down only (RFC 9234 section 5)."""
    out = ground(exporting(FilterRule(accept=True, remote_peers=True)))
    target = peer(2, external=True, role=role, filters=("f",))

    originated = export(own(), target, ground(exporting()))
    passed_on = export(learned(peer(1, external=True), unknown=otc(65001)), target, out)

    assert originated == Announcement(unknown=otc(64512) if own_mark else ())
    assert isinstance(passed_on, Announcement) is passes
    assert OWN_ATTRIBUTES.unknown == ()
