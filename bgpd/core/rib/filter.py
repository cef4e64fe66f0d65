"""BGPFilter: compiled once, then asked for each route (calico.md 2.3).

Rules are tried in order; the first whose matches all hold gives the verdict, and if it accepts, its operations make the
route's attributes. A route that no rule of any filter matches is left to what comes after the filters. LOCAL_PREF and
priority are one thing: 2147483647 less the priority (Calico's encoding).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, assert_never

import msgspec

from bgpd.model.bgp import (
    PRIORITY_BASE,
    AddCommunity,
    BgpFilter,
    Community,
    FilterRule,
    Operation,
    Operator,
    PrependAsPath,
    SetPriority,
)
from bgpd.model.prefix import Family, Prefix
from bgpd.model.route import DEFAULT_LOCAL_PREF, AsSegment, Attributes, SegmentKind

CHANGED_MAX: Final = 4096
"""Attribute sets whose changed form a rule remembers: routes share attributes, so that a table of 100,000 routes has some
hundreds; beyond this many all are forgotten."""


class Asked(msgspec.Struct, frozen=True):
    """A route as rules see it."""

    prefix: Prefix
    attributes: Attributes
    external: bool
    """Whether the session that it comes by, or goes to, is eBGP."""
    remote: bool
    """Learned by BGP."""
    devices: tuple[str, ...] = ()
    """Links that it leads to."""
    priority: int | None = None
    """Of a route of our own; else that of its LOCAL_PREF."""


class Accepted(msgspec.Struct, frozen=True):
    attributes: Attributes
    rule: str
    explicit_remote: bool
    """The rule says ``source: RemotePeers``: whoever wrote it means learned routes."""


class Rejected(msgspec.Struct, frozen=True):
    """Why a route is not taken, or not announced."""

    rule: str


Verdict = Accepted | Rejected | None
_Test = Callable[[Asked], bool]


class Rule:
    """Owns a compiled rule, and the attribute sets that it has changed."""

    def __init__(self, name: str, rule: FilterRule, family: Family) -> None:
        self.name = name
        self._rule = rule
        self._cidr = _cidr_test(rule, family)
        self._tests = tuple(_tests(rule))
        self._changed: dict[Attributes, Attributes] = {}

    def verdict(self, asked: Asked) -> Verdict:
        """Return what the rule says of a route; None where it does not match."""
        if not self._cidr(asked.prefix):
            return None
        for test in self._tests:
            if not test(asked):
                return None
        if not self._rule.accept:
            return Rejected(self.name)
        return Accepted(self._change(asked.attributes), self.name, self._rule.remote_peers)

    def _change(self, attributes: Attributes) -> Attributes:
        if not self._rule.operations:
            return attributes
        found = self._changed.get(attributes)
        if found is None:
            if len(self._changed) >= CHANGED_MAX:
                self._changed.clear()
            found = self._changed[attributes] = operated(attributes, self._rule.operations)
        return found


class Compiled(msgspec.Struct, frozen=True):
    """A filter's rules by direction and family."""

    source: BgpFilter
    imports: dict[Family, tuple[Rule, ...]]
    exports: dict[Family, tuple[Rule, ...]]

    @property
    def takes_remote(self) -> bool:
        """Whether a rule lets learned routes out: one that accepts with ``source: RemotePeers``."""
        rules = (*self.source.export_v4, *self.source.export_v6)
        return any(rule.accept and rule.remote_peers for rule in rules)


def compiled(source: BgpFilter) -> Compiled:
    """Compile a filter; a rule is named after its place, such as ``BGPFilter f importV4[0]``."""

    def rules(field: str, given: Iterable[FilterRule], family: Family) -> tuple[Rule, ...]:
        return tuple(Rule(f"BGPFilter {source.name} {field}[{i}]", rule, family) for i, rule in enumerate(given))

    v4, v6 = Family.IPV4, Family.IPV6
    return Compiled(
        source,
        {v4: rules("importV4", source.import_v4, v4), v6: rules("importV6", source.import_v6, v6)},
        {v4: rules("exportV4", source.export_v4, v4), v6: rules("exportV6", source.export_v6, v6)},
    )


def judge(names: Iterable[str], filters: Mapping[str, Compiled], direction: str, asked: Asked) -> Verdict:
    """Ask a peer's filters in order; one that is missing takes nothing (law 7), and None is what no rule matches."""
    for name in names:
        one = filters.get(name)
        if one is None:
            return Rejected(f"BGPFilter {name} does not exist")
        rules = one.imports if direction == "import" else one.exports
        for rule in rules[asked.prefix.family]:
            verdict = rule.verdict(asked)
            if verdict is not None:
                return verdict
    return None


# ------------------------------------------------------------------ matches


def _cidr_test(rule: FilterRule, family: Family) -> Callable[[Prefix], bool]:
    """Make the test of a route's prefix. Packed prefixes compare by two shifts: this one runs for every route."""
    if rule.cidr is None:
        return lambda _prefix: True
    cidr = rule.cidr
    shift = 8 + family.bits - cidr.length
    network = cidr >> shift
    low = cidr.length if rule.min_length is None else max(rule.min_length, cidr.length)
    high = family.bits if rule.max_length is None else rule.max_length

    def inside(prefix: Prefix) -> bool:
        return low <= prefix & 255 <= high and prefix >> shift == network

    match rule.operator:
        case Operator.EQUAL:
            return lambda prefix: prefix == cidr and low <= prefix & 255 <= high
        case Operator.NOT_EQUAL:
            return lambda prefix: not (prefix == cidr and low <= prefix & 255 <= high)
        case Operator.IN:
            return inside
        case Operator.NOT_IN:
            return lambda prefix: not inside(prefix)
        case _:
            assert_never(rule.operator)


def _tests(rule: FilterRule) -> Iterable[_Test]:
    if rule.remote_peers:
        yield lambda asked: asked.remote
    if rule.external is not None:
        external = rule.external
        yield lambda asked: asked.external is external
    if rule.community is not None:
        community = rule.community
        yield lambda asked: has_community(asked.attributes, community)
    if rule.as_path_prefix:
        wanted = rule.as_path_prefix
        yield lambda asked: _sequence(asked.attributes)[: len(wanted)] == wanted
    if rule.priority is not None:
        priority = rule.priority
        yield lambda asked: priority_of(asked) == priority
    if rule.interface:
        name = re.compile(".*".join(map(re.escape, rule.interface.split("*"))))
        yield lambda asked: any(name.fullmatch(device) for device in asked.devices)


def has_community(attributes: Attributes, community: Community) -> bool:
    if isinstance(community, tuple):
        return community in attributes.large_communities
    return community in attributes.communities


def priority_of(asked: Asked) -> int:
    """Priority of a route: what its LOCAL_PREF says, which is 100 where none is given."""
    local_pref = asked.attributes.local_pref
    if local_pref is None and asked.priority is not None:
        return asked.priority
    return PRIORITY_BASE - (DEFAULT_LOCAL_PREF if local_pref is None else local_pref)


def _sequence(attributes: Attributes) -> tuple[int, ...]:
    """Return the AS numbers that the path begins with, up to its first set."""
    asns: list[int] = []
    for segment in attributes.as_path:
        if segment.kind not in (SegmentKind.SEQUENCE, SegmentKind.CONFED_SEQUENCE):
            break
        asns.extend(segment.asns)
    return tuple(asns)


# ------------------------------------------------------------------ operations


def operated(attributes: Attributes, operations: Iterable[Operation]) -> Attributes:
    """Apply operations in order."""
    for operation in operations:
        match operation:
            case AddCommunity(value=value):
                attributes = with_communities(attributes, (value,))
            case PrependAsPath(asns=asns):
                path = (AsSegment(SegmentKind.SEQUENCE, asns), *attributes.as_path)
                attributes = msgspec.structs.replace(attributes, as_path=_joined(path))
            case SetPriority(value=value):
                attributes = msgspec.structs.replace(attributes, local_pref=PRIORITY_BASE - value)
            case _:
                assert_never(operation)
    return attributes


def with_communities(attributes: Attributes, values: Iterable[Community]) -> Attributes:
    """Add communities that are not there yet; the order of a set has no meaning, so it is kept sorted (RFC 1997)."""
    plain, large = set(attributes.communities), set(attributes.large_communities)
    for value in values:
        if isinstance(value, tuple):
            large.add(value)
        else:
            plain.add(value)
    return msgspec.structs.replace(attributes, communities=tuple(sorted(plain)), large_communities=tuple(sorted(large)))


def _joined(path: tuple[AsSegment, ...]) -> tuple[AsSegment, ...]:
    """Join two sequences at the front: prepending extends the first segment (RFC 4271 section 5.1.2), of 255 at most."""
    if len(path) > 1 and path[0].kind is path[1].kind is SegmentKind.SEQUENCE:
        both = path[0].asns + path[1].asns
        if len(both) <= 255:
            return (AsSegment(SegmentKind.SEQUENCE, both), *path[2:])
    return path
