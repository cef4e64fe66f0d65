"""What a change of resources changes: field by field, and what nodes would do about it as far as resources tell.

Sessions are worked out by the same code as in the daemons (core/peering). Configuration files of nodes may name further
peers, or ask for the mesh; nothing is said about those.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from bgpd.core.peering import world as peering
from bgpd.core.peering.resolve import Sessions, nodes_by_address
from bgpd.core.peering.session import held
from bgpd.core.resource import decode, settings
from bgpd.core.resource.bgp import BGPCONFIGURATION, BGPFILTER, BGPPEER
from bgpd.core.resource.check import Known, Resource
from bgpd.core.resource.merge import effective
from bgpd.core.resource.nodes import NODE
from bgpd.core.resource.pools import FALLBACK_ANNOTATION, IPPOOL
from bgpd.model.bgp import BgpFilter
from bgpd.model.node import Node
from bgpd.model.peer import Peer
from bgpd.model.pool import Block
from bgpd.model.prefix import Address, Prefix

LINES_MAX: Final = 20
"""Lines of one sort of effect; a change of a whole cluster is told by number."""
MESH_NODES_MAX: Final = 300
"""Nodes up to which the mesh is told pair by pair: 90,000 sessions are worked out within a second."""
_VOLATILE: Final = frozenset({"resourceVersion", "uid", "creationTimestamp"})
_IDENTITY: Final = frozenset({"kind", "apiVersion", "metadata.name"})
"""Not told of a new resource, whose title says it."""
RESETS: Final = {
    "asn": "AS number of the peer",
    "local_asn": "AS number of the node",
    "local_address": "address of the node",
    "port": "port of the peer",
    "listen_port": "port of the node",
    "hold_time_s": "hold time",
    "graceful_restart_s": "restart time",
    "families": "address families",
    "passive": "which side connects",
    "ttl_security": "ttlSecurity",
    "password": "password",
    "interface": "link",
    "add_path_receive": "add-path",
    "extended_next_hop": "extended next hop",
    "role": "role",
    "role_strict": "strictness of the role",
}
"""Fields of a Peer that a session is made with, in words: another value needs another session."""
_ROUTES: Final = {
    "filters": "filters",
    "next_hop_mode": "nextHopMode",
    "allowed_own_asns": "numAllowedLocalASNumbers",
    "reflector_cluster": "cluster id",
    "max_prefix": "max-prefix",
    "bfd": "BFD",
}
"""Fields of its policy: they change what a session carries, not the session."""


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
    specs = [{name: _spec(one) for name, one in world.of(BGPCONFIGURATION.kind).items()} for world in (before, after)]
    return [
        *_session_lines(before, after),
        *settings.lines(*specs),
        *_workload_lines(before, after),
        *_pool_lines(before, after),
    ]


def _session_lines(before: World, after: World) -> Iterator[str]:
    old, new = sessions(before), sessions(after)
    added, removed, reset, judged = [], [], [], []
    for pair in sorted(old.keys() | new.keys()):
        title = f"session of {pair[0]} with {pair[1]}"
        was, will = old.get(pair), new.get(pair)
        if will is None:
            removed.append(f"{title}: would be removed")
        elif will.peer.policy.hold_reason and (was is None or was.peer.policy != will.peer.policy):
            removed.append(f"{title}: would be held ({will.peer.policy.hold_reason})")
        elif was is None or was.peer.policy.hold_reason:
            added.append(f"{title}: would be {'added' if was is None else 'made'}")
        elif changed := changed_words(was.peer, will.peer, RESETS):
            reset.append(f"{title}: would be reset ({', '.join(changed)})")
        elif changed := _judged(was, will):
            judged.append(f"{title}: would stay, its routes judged anew ({', '.join(changed)})")
    for lines in (removed, reset, added, judged):
        yield from _bounded(lines)
    yield from _large_mesh(before, after)


def _workload_lines(before: World, after: World) -> Iterator[str]:
    """Sessions with workloads are known by their selector only: which workloads there are is not part of a plan."""
    old, new = before.of(BGPPEER.kind), after.of(BGPPEER.kind)
    for name in sorted(old.keys() | new.keys()):
        was, will = (_spec(side.get(name) or {}) for side in (old, new))
        if was != will and (will.get("localWorkloadSelector") or was.get("localWorkloadSelector")):
            selector = will.get("localWorkloadSelector")
            yield (
                f"BGPPeer {name}: each node that it is for would have a session with each of its workloads that match {selector}"
                if selector
                else f"BGPPeer {name}: sessions with workloads that match {was['localWorkloadSelector']} would be removed"
            )


def _bounded(lines: list[str]) -> Iterator[str]:
    yield from lines[:LINES_MAX]
    if len(lines) > LINES_MAX:
        what = lines[0].partition(": ")[2].partition(" (")[0]
        yield f"… and {len(lines) - LINES_MAX} more that {what}"


def changed_words(old: msgspec.Struct, new: msgspec.Struct, words: Mapping[str, str]) -> list[str]:
    return [word for field, word in words.items() if getattr(old, field) != getattr(new, field)]


def _judged(old: Session, new: Session) -> list[str]:
    changed = changed_words(old.peer.policy, new.peer.policy, _ROUTES)
    if old.filters != new.filters and "filters" not in changed:
        changed.append("filters")
    return changed


class Session(msgspec.Struct, frozen=True):
    """A session that a node would have, and the filters that it names."""

    peer: Peer
    filters: tuple[BgpFilter | None, ...]


def sessions(world: World) -> dict[tuple[str, str], Session]:
    """Return the sessions that resources ask for, by node and far end, as the daemons work them out (core/peering)."""
    found: dict[tuple[str, str], Session] = {}
    read = _peering(world)
    if len(read.nodes) > MESH_NODES_MAX:
        read.mesh = False  # told as a whole
    filters = {name: decode.bgp_filter(name, one) for name, one in world.of(BGPFILTER.kind).items()}
    at = nodes_by_address(read.nodes.values())
    for name, node in read.nodes.items():
        read.me = node
        each = Sessions(read, at)
        each.everything_changed()
        each.settle(sys.maxsize)
        for address in each.touched():
            won = each.winner(address)
            if won is not None:
                peer = held(won[0], filters)
                found[name, _end(read, at, peer)] = Session(
                    peer, tuple(filters.get(one) for one in peer.policy.filters)
                )
    return found


def _peering(world: World) -> peering.World:
    """Read what sessions are worked out from; a Node that cannot be read has no sessions."""
    nodes: dict[str, Node] = {}
    for name, resource in world.of(NODE.kind).items():
        with suppress(ValueError):
            nodes[name] = decode.node(name, resource)
    return peering.World(
        nodes=nodes,
        peers={name: decode.bgp_peer(name, one) for name, one in world.of(BGPPEER.kind).items()},
        configurations={
            name: decode.bgp_configuration(name, one) for name, one in world.of(BGPCONFIGURATION.kind).items()
        },
    )


def _end(world: peering.World, at: Mapping[Address, set[str]], peer: Peer) -> str:
    """Name the far end: a node, or an address."""
    names = at.get(peer.address)
    if not names:
        return str(peer.address)
    node = world.nodes[min(names)]
    return f"node {node.name}" if node.ipv4_address in (None, peer.address) else f"node {node.name} over IPv6"


def _large_mesh(before: World, after: World) -> Iterator[str]:
    count = len(after.of(NODE.kind))
    was, will = _peering(before).has_mesh, _peering(after).has_mesh
    if count > MESH_NODES_MAX and was is not will:
        yield f"the mesh of {count} nodes would be turned {'on' if will else 'off'}"


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


def _cidr(pool: Resource) -> Prefix | None:
    try:
        return Prefix.parse(str(_spec(pool).get("cidr")))
    except ValueError:
        return None
