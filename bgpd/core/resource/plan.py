"""What a change of resources changes: field by field, and what nodes would do about it as far as resources tell.

Sessions are worked out as Calico does (calico.md 2.2, 2.5): a peer of a node stands before one by selector, and that
before a global one; the mesh joins all nodes that are no route reflectors. Configuration files of nodes may name further
peers; nothing is said about those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from bgpd.core import selector
from bgpd.core.resource.bgp import BGPCONFIGURATION, BGPFILTER, BGPPEER
from bgpd.core.resource.check import Known, Resource
from bgpd.core.resource.merge import effective
from bgpd.core.resource.nodes import NODE
from bgpd.core.resource.pools import FALLBACK_ANNOTATION, IPPOOL
from bgpd.core.resource.rules import parse_asn
from bgpd.model.pool import Block
from bgpd.model.prefix import Prefix

LINES_MAX: Final = 20
"""Lines of one sort of effect; a change of a whole cluster is told by number."""
MESH_NODES_MAX: Final = 300
"""Nodes up to which the mesh is told pair by pair: 90,000 sessions are worked out within a second."""
_VOLATILE: Final = frozenset({"resourceVersion", "uid", "creationTimestamp"})
_IDENTITY: Final = frozenset({"kind", "apiVersion", "metadata.name"})
"""Not told of a new resource, whose title says it."""
_RESETS: Final = ("peerIP", "localASNumber", "password", "sourceAddress", "ttlSecurity", "reachableBy")
"""Fields that are part of a session's configuration beyond both AS numbers: changing one ends the session. Timers and
the restart time are negotiated in OPEN, so they do as well."""
_TIMERS: Final = ("keepaliveTime", "maxRestartTime")
_ROUTES: Final = ("nextHopMode", "keepOriginalNextHop", "numAllowedLocalASNumbers")
"""Fields that change what a session carries, not the session."""


class World(msgspec.Struct, frozen=True):
    """Resources as they are or would be, and the blocks."""

    known: Known
    blocks: tuple[Block, ...] = ()

    def of(self, kind: str) -> dict[str, Resource]:
        return {name: resource for (one, name), resource in sorted(self.known.items()) if one == kind}


# ------------------------------------------------------------------ fields


def difference(before: Resource | None, after: Resource | None) -> list[str]:
    """Write what differs, a line for each field: ``+ path: value``, ``- path: value``, ``~ path: old -> new``."""
    old, new = dict(_leaves("", before or {})), dict(_leaves("", after or {}))
    lines = []
    for path in sorted((old.keys() | new.keys()) - _IDENTITY):
        if path not in old:
            lines.append(f"+ {path}: {_json(new[path])}")
        elif path not in new:
            lines.append(f"- {path}: {_json(old[path])}")
        elif old[path] != new[path]:
            lines.append(f"~ {path}: {_json(old[path])} -> {_json(new[path])}")
    return lines


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            if path != "metadata" or name not in _VOLATILE:
                yield from _leaves(f"{path}.{name}" if path else name, item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(f"{path}[{index}]", item)
    elif path:
        yield path, value


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# ------------------------------------------------------------------ effects


def effects(before: World, after: World) -> list[str]:
    """Say what nodes would do about the change from *before* to *after*, for people."""
    return [*_session_lines(before, after), *_pool_lines(before, after)]


def _session_lines(before: World, after: World) -> Iterator[str]:
    old, new = sessions(before), sessions(after)
    added, removed, reset, judged = [], [], [], []
    for pair in sorted(old.keys() | new.keys()):
        title = f"session of {pair[0]} with {pair[1]}"
        if pair not in old:
            added.append(f"{title}: would be added")
        elif pair not in new:
            removed.append(f"{title}: would be removed")
        elif changed := _changed(old[pair].identity, new[pair].identity):
            reset.append(f"{title}: would be reset ({', '.join(changed)})")
        elif changed := _changed(old[pair].routes, new[pair].routes):
            judged.append(f"{title}: would stay, its routes judged anew ({', '.join(changed)})")
    for lines in (removed, reset, added, judged):
        yield from _bounded(lines)
    yield from _large_mesh(before, after)


def _bounded(lines: list[str]) -> Iterator[str]:
    yield from lines[:LINES_MAX]
    if len(lines) > LINES_MAX:
        what = lines[0].partition(": ")[2].partition(" (")[0]
        yield f"… and {len(lines) - LINES_MAX} more that {what}"


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [name for name in new if old.get(name) != new[name]]


class Session(msgspec.Struct, frozen=True):
    identity: dict[str, Any]
    """What the session is made with; another value needs another session."""
    routes: dict[str, Any]
    """What its routes are judged by."""


def sessions(world: World) -> dict[tuple[str, str], Session]:
    """Return the sessions that resources ask for, by node and far end."""
    nodes = world.of(NODE.kind)
    found: dict[tuple[str, str], Session] = {}
    if _mesh(world) and len(nodes) <= MESH_NODES_MAX:
        members = [name for name, node in nodes.items() if not _bgp(node).get("routeReflectorClusterID")]
        for name in members:
            for other in members:
                if other != name:
                    found[name, f"node {other}"] = _session(world, name, {}, nodes[other])
    peers = sorted(world.of(BGPPEER.kind).values(), key=_precedence)
    for peer in peers:
        spec = _spec(peer)
        for name in _selected(spec.get("node"), spec.get("nodeSelector"), nodes):
            for end, far in _far_ends(spec, name, nodes):
                found[name, end] = _session(world, name, spec, far)
    return found


def _precedence(peer: Resource) -> int:
    spec = _spec(peer)
    return 2 if spec.get("node") else 1 if spec.get("nodeSelector") else 0


def _selected(node: str | None, text: str | None, nodes: Mapping[str, Resource]) -> list[str]:
    if node:
        return [node]
    return [name for name, resource in nodes.items() if _selects(text or "", resource)]


def _selects(text: str, resource: Resource) -> bool:
    try:
        chosen = selector.parse(text)
    except selector.SelectorError:
        return False
    return selector.matches(chosen, _metadata(resource).get("labels") or {})


def _far_ends(spec: Mapping[str, Any], name: str, nodes: Mapping[str, Resource]) -> list[tuple[str, Resource]]:
    if spec.get("peerIP"):
        return [(spec["peerIP"], {})]
    if spec.get("peerSelector"):
        others = _selected(None, spec["peerSelector"], nodes)
        return [(f"node {other}", nodes[other]) for other in others if other != name]
    return [("its local workloads", {})]


def _session(world: World, name: str, spec: Mapping[str, Any], other: Resource) -> Session:
    own = world.known.get((NODE.kind, name), {})
    filters = spec.get("filters") or []
    return Session(
        identity={
            "AS number of the peer": _asn(world, spec.get("asNumber"), other),
            "AS number of the node": _asn(world, spec.get("localASNumber"), own),
            "address of the node": [_bgp(own).get("ipv4Address"), _bgp(own).get("ipv6Address")],
            "address of the peer": [_bgp(other).get("ipv4Address"), _bgp(other).get("ipv6Address")],
            **{field: spec.get(field) or None for field in (*_RESETS, *_TIMERS)},
        },
        routes={
            **{field: spec.get(field) or None for field in _ROUTES},
            "filters": [[one, world.known.get((BGPFILTER.kind, one), {}).get("spec")] for one in filters],
        },
    )


def _asn(world: World, number: Any, node: Resource) -> int | None:
    configuration = world.known.get((BGPCONFIGURATION.kind, "default"), {})
    for one in (number, _bgp(node).get("asNumber"), effective(BGPCONFIGURATION, _spec(configuration)).get("asNumber")):
        if one:
            try:
                return parse_asn(one)
            except ValueError:
                return None
    return None


def _mesh(world: World) -> bool:
    configuration = world.known.get((BGPCONFIGURATION.kind, "default"), {})
    return bool(effective(BGPCONFIGURATION, _spec(configuration)).get("nodeToNodeMeshEnabled"))


def _large_mesh(before: World, after: World) -> Iterator[str]:
    count = len(after.of(NODE.kind))
    if count > MESH_NODES_MAX and _mesh(before) is not _mesh(after):
        yield f"the mesh of {count} nodes would be turned {'on' if _mesh(after) else 'off'}"


# ------------------------------------------------------------------ pools


def _pool_lines(before: World, after: World) -> Iterator[str]:
    old, new = before.of(IPPOOL.kind), after.of(IPPOOL.kind)
    for name in sorted(old.keys() | new.keys()):
        was, will = _pool(old.get(name)), _pool(new.get(name))
        cidr = _cidr(new.get(name) or old.get(name) or {})
        if was == will or cidr is None:
            continue
        blocks = sorted((one for one in after.blocks if cidr.covers(one.cidr)), key=lambda one: one.cidr)
        yield from _export_lines(name, was, will, blocks)
        yield from _path_lines(name, was, will, blocks)


def _pool(resource: Resource | None) -> dict[str, Any] | None:
    if resource is None:
        return None
    fallback = (_metadata(resource).get("annotations") or {}).get(FALLBACK_ANNOTATION)
    return effective(IPPOOL, _spec(resource)) | {FALLBACK_ANNOTATION: fallback}


def _export_lines(
    name: str, was: Mapping[str, Any] | None, will: Mapping[str, Any] | None, blocks: Iterable[Block]
) -> Iterator[str]:
    """A block is announced unless a pool that holds it forbids it."""
    owned = [block for block in blocks if block.node is not None]
    hidden = (bool((was or {}).get("disableBGPExport")), bool((will or {}).get("disableBGPExport")))
    if hidden[0] is not hidden[1]:
        verb = "withdrawn" if hidden[1] else "announced"
        yield from _bounded([f"{block.cidr} of {block.node}: would be {verb}" for block in owned])
        if not owned:
            yield (
                f"pool {name}: blocks would no longer be announced"
                if hidden[1]
                else f"pool {name}: blocks would be announced"
            )


def _path_lines(
    name: str, was: Mapping[str, Any] | None, will: Mapping[str, Any] | None, blocks: list[Block]
) -> Iterator[str]:
    extent = _extent(blocks)
    if will is None:
        yield f"pool {name}: would be gone; {extent} would belong to no pool"
        return
    if was is None:
        extra = f"; {extent} stand there already" if blocks else ""
        yield f"pool {name}: nodes could take blocks of {will['cidr']}{extra}"
        return
    for field in ("ipipMode", "vxlanMode", FALLBACK_ANNOTATION):
        if was.get(field) != will.get(field):
            change = f"{field} {_word(was.get(field))} -> {_word(will.get(field))}"
            yield f"pool {name}: {extent} would be reached anew ({change})"
    if was.get("disabled") is not will.get("disabled"):
        verb = "take no more blocks" if will.get("disabled") else "take blocks again"
        yield f"pool {name}: nodes would {verb}; {extent} stay as they are"
    for field in ("nodeSelector", "allowedUses", "assignmentMode", "namespaceSelector"):
        if was.get(field) != will.get(field):
            yield f"pool {name}: other blocks would be given by {field} {_json(will.get(field))}; {extent} stay as they are"


def _word(value: Any) -> str:
    return "(absent)" if value is None else str(value)


def _extent(blocks: list[Block]) -> str:
    if not blocks:
        return "its blocks (there is none yet)"
    used = sum(block.in_use for block in blocks)
    nodes = len({block.node for block in blocks if block.node is not None})
    return f"{len(blocks)} blocks of {nodes} nodes with {used} addresses in use"


# ------------------------------------------------------------------ parts of resources


def _spec(resource: Resource) -> dict[str, Any]:
    spec = resource.get("spec")
    return spec if isinstance(spec, dict) else {}


def _metadata(resource: Resource) -> dict[str, Any]:
    metadata = resource.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _bgp(node: Resource) -> dict[str, Any]:
    bgp = _spec(node).get("bgp")
    return bgp if isinstance(bgp, dict) else {}


def _cidr(pool: Resource) -> Prefix | None:
    try:
        return Prefix.parse(str(_spec(pool).get("cidr")))
    except ValueError:
        return None
