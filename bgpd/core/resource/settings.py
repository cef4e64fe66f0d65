"""What a changed BGPConfiguration means for nodes beside their sessions: service ranges, links, the log, what has no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bgpd.core.resource.decode import LOG_LEVELS

Spec = Mapping[str, Any]

_RANGES = ("serviceLoadBalancerIPs", "serviceExternalIPs", "serviceClusterIPs")


def lines(before: Mapping[str, Spec], after: Mapping[str, Spec]) -> Iterator[str]:
    """Yield what changes from the specs *before* to those *after*, by name of the BGPConfiguration."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, {}), after.get(name, {})
        who = f"node {name.removeprefix('node.')}" if name.startswith("node.") else "every node"
        yield from _ranges(who, old, new)
        yield from _plain(who, old, new)


def _ranges(who: str, old: Spec, new: Spec) -> Iterator[str]:
    was, will = _announced(old), _announced(new)
    for cidr in sorted(was ^ will):
        yield f"{cidr}: would be {'announced' if cidr in will else 'withdrawn'} by {who}"


def _announced(spec: Spec) -> set[str]:
    """Return the ranges that go out as a whole; without aggregation only single addresses of LoadBalancer ranges do."""
    found = {str(one.get("cidr")) for field in _RANGES[1:] for one in spec.get(field) or ()}
    balancer = {str(one.get("cidr")) for one in spec.get(_RANGES[0]) or ()}
    if spec.get("serviceLoadBalancerAggregation") == "Disabled":
        balancer = {cidr for cidr in balancer if cidr.endswith(("/32", "/128"))}
    return found | balancer


def _plain(who: str, old: Spec, new: Spec) -> Iterator[str]:
    def changed(field: str) -> bool:
        return old.get(field) != new.get(field)

    if changed("ignoredInterfaces"):
        links = ", ".join(new.get("ignoredInterfaces") or ()) or "none"
        yield f"{who}: next hops would be resolved anew; links whose connected routes do not count: {links}"
    if changed("logSeverityScreen"):
        level = LOG_LEVELS.get(str(new.get("logSeverityScreen")), "info")
        yield f"{who}: would log from {level} on, where its file says no level"
    if changed("programClusterRoutes") and new.get("programClusterRoutes"):
        yield "programClusterRoutes has no effect here: bgpd itself programs every route of the cluster, and no other program does"
