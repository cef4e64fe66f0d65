"""BGPFilter: every match and operation, in order, in each direction and family (calico.md 2.3)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bgpd.core.rib import filter as rib_filter
from bgpd.core.rib.filter import Accepted, Asked, Rejected, compiled, judge
from bgpd.model.bgp import AddCommunity, BgpFilter, FilterRule, Operator, PrependAsPath, SetPriority
from bgpd.model.prefix import Address, Prefix
from bgpd.model.route import AsSegment, Attributes, SegmentKind

pytestmark = pytest.mark.core

P = Prefix.parse
PATH = (AsSegment(SegmentKind.SEQUENCE, (65001, 65002)), AsSegment(SegmentKind.SET, (65003,)))
ATTRIBUTES = Attributes(
    next_hop=Address.parse("192.0.2.1"),
    as_path=PATH,
    local_pref=200,
    communities=(65000 << 16 | 1,),
    large_communities=((65000, 1, 2),),
)


def asked(prefix: str = "10.1.0.0/24", **fields: Any) -> Asked:
    given: dict[str, Any] = {"attributes": ATTRIBUTES, "external": True, "remote": True, "devices": ("eth0", "bond1")}
    return Asked(P(prefix), **(given | fields))


def matches(rule: FilterRule, one: Asked) -> bool:
    family = "import_v6" if ":" in str(one.prefix) else "import_v4"
    whole = compiled(msgspec.structs.replace(BgpFilter(name="f"), **{family: (rule,)}))
    return judge(("f",), {"f": whole}, "import", one) is not None


@pytest.mark.parametrize(
    ("operator", "lengths", "expected"),
    [
        (Operator.EQUAL, (None, None), ["10.1.0.0/16"]),
        (Operator.NOT_EQUAL, (None, None), ["10.0.0.0/8", "10.1.0.0/24", "10.1.2.3/32", "10.2.0.0/16"]),
        (Operator.IN, (None, None), ["10.1.0.0/16", "10.1.0.0/24", "10.1.2.3/32"]),
        (Operator.NOT_IN, (None, None), ["10.0.0.0/8", "10.2.0.0/16"]),
        (Operator.IN, (17, None), ["10.1.0.0/24", "10.1.2.3/32"]),
        (Operator.IN, (None, 24), ["10.1.0.0/16", "10.1.0.0/24"]),
        (Operator.IN, (20, 28), ["10.1.0.0/24"]),
        (Operator.NOT_IN, (20, 28), ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "10.2.0.0/16"]),
        (Operator.EQUAL, (17, 32), []),
    ],
)
def test_cidr_is_compared_by_operator_and_length(
    operator: Operator, lengths: tuple[int | None, int | None], expected: list[str]
) -> None:
    """Equal and In, their opposites, and prefixLength as the range of lengths that In means."""
    rule = FilterRule(
        accept=True, cidr=P("10.1.0.0/16"), operator=operator, min_length=lengths[0], max_length=lengths[1]
    )
    routes = ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24", "10.1.2.3/32", "10.2.0.0/16"]

    assert [route for route in routes if matches(rule, asked(route))] == expected


def test_cidr_of_ipv6_is_compared_alike() -> None:
    """Packed IPv6 prefixes carry a bit of their own, which comparing must not lose."""
    rule = FilterRule(accept=True, cidr=P("2001:db8::/32"), min_length=48, max_length=64)

    found = [route for route in ("2001:db8::/32", "2001:db8:1::/48", "2001:db9::/48") if matches(rule, asked(route))]
    assert found == ["2001:db8:1::/48"]
    assert matches(FilterRule(accept=True, cidr=P("::/0")), asked("2001:db8::/32"))


@pytest.mark.parametrize(
    ("rule", "fields", "other"),
    [
        ({"remote_peers": True}, {"remote": True}, {"remote": False}),
        ({"external": True}, {"external": True}, {"external": False}),
        ({"external": False}, {"external": False}, {"external": True}),
        ({"interface": "eth*"}, {"devices": ("eth0",)}, {"devices": ("veth0",)}),
        ({"interface": "*.calico"}, {"devices": ("vxlan.calico",)}, {"devices": ("vxlanXcalico",)}),
        ({"interface": "eth0"}, {"devices": ("bond1", "eth0")}, {"devices": ()}),
        ({"community": 65000 << 16 | 1}, {}, {"attributes": msgspec.structs.replace(ATTRIBUTES, communities=())}),
        ({"community": (65000, 1, 2)}, {}, {"attributes": msgspec.structs.replace(ATTRIBUTES, large_communities=())}),
        ({"as_path_prefix": (65001,)}, {}, {"attributes": msgspec.structs.replace(ATTRIBUTES, as_path=())}),
        ({"as_path_prefix": (65001, 65002)}, {}, {"attributes": msgspec.structs.replace(ATTRIBUTES, as_path=PATH[1:])}),
        ({"priority": 2147483447}, {}, {"attributes": msgspec.structs.replace(ATTRIBUTES, local_pref=201)}),
        (
            {"priority": 2147483547},  # LOCAL_PREF 100, which iBGP has where none is given
            {"attributes": msgspec.structs.replace(ATTRIBUTES, local_pref=None)},
            {"attributes": msgspec.structs.replace(ATTRIBUTES, local_pref=None), "priority": 1024},
        ),
    ],
)
def test_each_match_tells_routes_apart(rule: dict[str, Any], fields: dict[str, Any], other: dict[str, Any]) -> None:
    """A rule with one match takes the first route and leaves the second."""
    one = FilterRule(accept=True, **rule)

    assert matches(one, asked(**fields))
    assert not matches(one, asked(**other))


def test_all_matches_of_a_rule_must_hold() -> None:
    """Matches are joined by and; a rule without any takes everything."""
    both = FilterRule(accept=True, cidr=P("10.1.0.0/16"), external=False)

    assert not matches(both, asked(external=True))
    assert not matches(both, asked("10.2.0.0/24", external=False))
    assert matches(both, asked(external=False))
    assert matches(FilterRule(accept=False), asked())


def test_operations_apply_in_order() -> None:
    """Communities are added once and sorted, AS numbers stand in front in the order given, priority becomes LOCAL_PREF."""
    operations = (
        AddCommunity(64999 << 16 | 5),
        AddCommunity(65000 << 16 | 1),
        AddCommunity((1, 2, 3)),
        PrependAsPath((65010, 65011)),
        PrependAsPath((65012,)),
        SetPriority(1024),
    )
    whole = compiled(BgpFilter(name="f", export_v4=(FilterRule(accept=True, operations=operations),)))

    found = judge(("f",), {"f": whole}, "export", asked())

    assert isinstance(found, Accepted)
    assert found.attributes.communities == (64999 << 16 | 5, 65000 << 16 | 1)
    assert found.attributes.large_communities == ((1, 2, 3), (65000, 1, 2))
    assert found.attributes.as_path == (AsSegment(SegmentKind.SEQUENCE, (65012, 65010, 65011, 65001, 65002)), PATH[1])
    assert found.attributes.local_pref == 2147482623


def test_first_match_decides_and_is_named() -> None:
    """Rules and filters are tried in order; the verdict names the rule; what nothing matches is left open."""
    first = BgpFilter(
        name="one",
        import_v4=(
            FilterRule(accept=True, cidr=P("10.1.0.0/24"), operator=Operator.EQUAL),
            FilterRule(accept=False, cidr=P("10.1.0.0/16")),
        ),
    )
    second = BgpFilter(name="two", import_v4=(FilterRule(accept=False, cidr=P("10.0.0.0/8")),))
    filters = {one.name: compiled(one) for one in (first, second)}

    def verdict(prefix: str, direction: str = "import") -> object:
        return judge(("one", "two"), filters, direction, asked(prefix))

    assert isinstance(verdict("10.1.0.0/24"), Accepted)
    assert verdict("10.1.1.0/24") == Rejected("BGPFilter one importV4[1]")
    assert verdict("10.9.0.0/24") == Rejected("BGPFilter two importV4[0]")
    assert verdict("192.0.2.0/24") is None
    assert verdict("10.1.1.0/24", "export") is None


def test_missing_filter_takes_nothing() -> None:
    """A name that no filter has rejects everything (law 7), by name."""
    assert judge(("gone",), {}, "import", asked()) == Rejected("BGPFilter gone does not exist")


def test_changed_attributes_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes that share attributes share them after the change; beyond the bound the memory begins anew."""
    monkeypatch.setattr(rib_filter, "CHANGED_MAX", 2)
    whole = compiled(BgpFilter(name="f", import_v4=(FilterRule(accept=True, operations=(AddCommunity(7),)),)))
    found = []
    for local_pref in (1, 1, 2, 3, 1):
        one = asked(attributes=msgspec.structs.replace(ATTRIBUTES, local_pref=local_pref))
        verdict = judge(("f",), {"f": whole}, "import", one)
        assert isinstance(verdict, Accepted)
        found.append(verdict.attributes)

    assert found[0] is found[1]
    assert found[4] == found[0]
    assert found[4] is not found[0]
