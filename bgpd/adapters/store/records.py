"""Stored values: Calico's JSON to and from our values (calico-formats.md).

Laws: what we read from an object we read strictly, so a value of the wrong kind is Malformed, naming key and place;
what we do not know of an object is kept when we rewrite it; fields that Calico omits when empty we omit too.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.keys import Malformed
from bgpd.core.ipam.allocate import BLOCKS_PER_NODE
from bgpd.core.ipam.block import Attribute, BlockRecord, HandleRecord, defects
from bgpd.core.ipam.reserve import Reservation
from bgpd.core.resource import decode
from bgpd.core.resource.bgp import BGPCONFIGURATION, BGPFILTER, BGPPEER
from bgpd.core.resource.check import Defect, findings
from bgpd.core.resource.kind import Kind
from bgpd.core.resource.nodes import FELIXCONFIGURATION
from bgpd.model.bgp import BgpConfiguration, BgpFilter, BgpPeer, Workload
from bgpd.model.felix import FelixConfiguration
from bgpd.model.node import Node
from bgpd.model.pool import Affinity, AffinityState, Block, Fallback, Mode, Pool, Use, parse_preference, preference_text
from bgpd.model.prefix import Address, Family, Prefix, parse_interface
from bgpd.model.wire import from_builtin, to_builtin

API_VERSION = "projectcalico.org/v3"
FALLBACK_ANNOTATION = "bgpd.io/fallback"
OUR_LABELS = "bgpd.io/labels"
"""Annotation of a Node: the names of the labels that its daemon has set."""
DEFAULT_USES = (Use.WORKLOAD, Use.TUNNEL)
DEFAULT_BLOCK_SIZE = {Family.IPV4: 26, Family.IPV6: 122}

T = TypeVar("T")


def vtep_mac(node: str) -> str:
    """Return the MAC address of a node's VXLAN device: ``66:`` and the first five bytes of SHA-1 of its name (calico.md 3.2)."""
    digest = hashlib.sha1(node.encode(), usedforsecurity=False).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x66" + digest[:5])


# ------------------------------------------------------------------ pools


class _PoolSpec(msgspec.Struct, rename="camel"):
    cidr: Prefix
    block_size: int | None = None
    vxlan_mode: str | None = None
    disabled: bool = False
    disable_bgp_export: bool = msgspec.field(default=False, name="disableBGPExport")
    assignment_mode: str | None = None
    ipip_mode: str | None = None
    node_selector: str | None = None
    namespace_selector: str | None = None
    allowed_uses: list[str] | None = None


class _Metadata(msgspec.Struct):
    annotations: dict[str, str] | None = None


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class _PoolStatus(msgspec.Struct):
    conditions: list[_Condition] | None = None

    def unallocatable(self) -> str:
        """Say why the pool is not allocatable. That it is disabled is its spec's to say, and changes with that."""
        return next(
            (
                one.message or one.reason or "no reason given"
                for one in self.conditions or ()
                if one.type == "Allocatable" and one.status == "False" and one.reason != "PoolDisabled"
            ),
            "",
        )


class _PoolResource(msgspec.Struct):
    spec: _PoolSpec
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    status: _PoolStatus | None = None


def pool_from(key: str, name: str, value: bytes) -> Pool:
    """Read an IPPool; raises Malformed."""
    resource = _decode(key, value, _PoolResource)
    spec = resource.spec
    family = spec.cidr.family
    size = spec.block_size or DEFAULT_BLOCK_SIZE[family]
    if not spec.cidr.length <= size <= family.bits:
        raise Malformed(key, f"block size {size} does not fit pool {spec.cidr}")
    fallback = (resource.metadata.annotations or {}).get(FALLBACK_ANNOTATION)
    return Pool(
        name=name,
        cidr=spec.cidr,
        block_size=size,
        vxlan_mode=_member(key, "vxlanMode", Mode, spec.vxlan_mode or Mode.NEVER),
        disabled=spec.disabled,
        automatic=(spec.assignment_mode or "Automatic") == "Automatic",
        disable_bgp_export=spec.disable_bgp_export,
        fallback=None if fallback is None else _preference(key, fallback),
        ipip_mode=_member(key, "ipipMode", Mode, spec.ipip_mode or Mode.NEVER),
        node_selector=spec.node_selector or "all()",
        namespace_selector=spec.namespace_selector or "",
        allowed_uses=tuple(Use(use) for use in spec.allowed_uses or DEFAULT_USES if use in list(Use)),
        unallocatable=resource.status.unallocatable() if resource.status else "",
    )


def pool_bytes(pool: Pool, now: datetime) -> bytes:
    """Write a new IPPool, made at *now*."""
    annotations = (
        {} if pool.fallback is None else {"annotations": {FALLBACK_ANNOTATION: preference_text(pool.fallback)}}
    )
    spec: dict[str, object] = {
        "cidr": str(pool.cidr),
        "vxlanMode": pool.vxlan_mode.value,
        "ipipMode": pool.ipip_mode.value,
        "natOutgoing": False,
        "blockSize": pool.block_size,
        "nodeSelector": pool.node_selector,
        "allowedUses": list(pool.allowed_uses),
        "assignmentMode": "Automatic" if pool.automatic else "Manual",
    }
    if pool.namespace_selector:
        spec["namespaceSelector"] = pool.namespace_selector
    if pool.disabled:
        spec["disabled"] = True
    if pool.disable_bgp_export:
        spec["disableBGPExport"] = True
    metadata = {**_new_metadata(pool.name, now), **annotations}
    return _encode({"kind": "IPPool", "apiVersion": API_VERSION, "metadata": metadata, "spec": spec})


# ------------------------------------------------------------------ nodes


def node_from(key: str, name: str, value: bytes) -> Node:
    """Read a Node; raises Malformed."""
    try:
        return decode.node(name, _object(key, value))
    except ValueError as error:
        raise Malformed(key, str(error)) from error


def node_bytes(key: str, node: Node, stored: bytes | None, now: datetime) -> bytes:
    """Write what we know of a node into its stored resource, or into a new one made at *now*; raises Malformed for a stored non-object."""
    resource = _object(key, stored) if stored is not None else {}
    if stored is None:
        resource = {"kind": "Node", "apiVersion": API_VERSION, "metadata": _new_metadata(node.name, now), "spec": {}}
    spec = _child(key, resource, "spec")
    bgp = _child(key, spec, "bgp")
    _set(bgp, "asNumber", node.asn)
    _set(bgp, "ipv4Address", _interface_text(node.ipv4_address, node.ipv4_subnet))
    _set(bgp, "ipv6Address", _interface_text(node.ipv6_address, node.ipv6_subnet))
    _set(spec, "vxlanTunnelMACAddr", node.vtep_mac)
    _set(spec, "vxlanTunnelMACAddrV6", node.vtep_mac_v6)
    _label(key, resource, dict(node.labels))
    return _encode(resource)


def _label(key: str, resource: dict[str, Any], ours: dict[str, str]) -> None:
    """Set *ours* among a resource's labels, and remove those that we set before; the others belong to somebody else."""
    metadata = _child(key, resource, "metadata")
    annotations = metadata.get("annotations")
    before = annotations.get(OUR_LABELS, "") if isinstance(annotations, dict) else ""
    if not ours and not before:
        return
    labels, annotations = _child(key, metadata, "labels"), _child(key, metadata, "annotations")
    for name in str(before).split():
        labels.pop(name, None)
    labels |= ours
    annotations.pop(OUR_LABELS, None)
    if ours:
        annotations[OUR_LABELS] = " ".join(sorted(ours))
    for name in [name for name in ("labels", "annotations") if not metadata[name]]:
        del metadata[name]


# ------------------------------------------------------------------ BGP


def bgp_peer_from(key: str, name: str, value: bytes) -> BgpPeer:
    """Read a BGPPeer; raises Malformed for what ``bgpd apply`` would refuse."""
    return decode.bgp_peer(name, _judged(key, BGPPEER, name, value))


def bgp_configuration_from(key: str, name: str, value: bytes) -> BgpConfiguration:
    """Read a BGPConfiguration; raises Malformed for what ``bgpd apply`` would refuse."""
    return decode.bgp_configuration(name, _judged(key, BGPCONFIGURATION, name, value))


def bgp_filter_from(key: str, name: str, value: bytes) -> BgpFilter:
    """Read a BGPFilter; raises Malformed for what ``bgpd apply`` would refuse."""
    return decode.bgp_filter(name, _judged(key, BGPFILTER, name, value))


class _WorkloadSpec(msgspec.Struct):
    node: str = ""
    networks: list[str] | None = msgspec.field(default=None, name="ipNetworks")


class _WorkloadMetadata(msgspec.Struct):
    labels: dict[str, str] | None = None


class _WorkloadResource(msgspec.Struct):
    metadata: _WorkloadMetadata = msgspec.field(default_factory=_WorkloadMetadata)
    spec: _WorkloadSpec = msgspec.field(default_factory=_WorkloadSpec)


def workload_from(key: str, name: str, value: bytes) -> tuple[str, Workload]:
    """Read a WorkloadEndpoint of Calico's and the node that it is on; raises Malformed."""
    stored = _decode(key, value, _WorkloadResource)
    try:
        addresses = tuple(parse_interface(one)[0] for one in stored.spec.networks or ())
    except ValueError as error:
        raise Malformed(key, f"ipNetworks: {error}") from error
    labels = tuple(sorted((stored.metadata.labels or {}).items()))
    return stored.spec.node, Workload(name=name, addresses=addresses, labels=labels)


def felix_configuration_from(key: str, name: str, value: bytes) -> FelixConfiguration:
    """Read a FelixConfiguration; raises Malformed for what ``bgpd apply`` would refuse."""
    return decode.felix_configuration(name, _judged(key, FELIXCONFIGURATION, name, value))


def _judged(key: str, kind: Kind, name: str, value: bytes) -> dict[str, Any]:
    """Judge a stored resource by the rules for documents (core/resource): what breaks one has no effect on a session."""
    resource = _object(key, value)
    defects = [Defect("", found.path, found.value, found.rule) for found in findings(kind, name, resource)]
    if defects:
        raise Malformed(key, "; ".join(str(one).removeprefix(": ") for one in defects))
    return resource


# ------------------------------------------------------------------ blocks, affinities, handles


class _Attribute(msgspec.Struct):
    handle_id: str | None = None
    secondary: dict[str, str] | None = None


class _Block(msgspec.Struct):
    cidr: Prefix
    allocations: list[int | None]
    unallocated: list[int]
    affinity: str | None = None
    affinity_claim_time: str | None = None
    attributes: list[_Attribute] | None = None
    sequence_number: int = msgspec.field(default=0, name="sequenceNumber")
    per_ordinal: dict[str, int] | None = msgspec.field(default=None, name="sequenceNumberForAllocation")
    deleted: bool = False
    host_affinity: str | None = msgspec.field(default=None, name="hostAffinity")


_BLOCK_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(_Block)) - {"hostAffinity"}
_ATTRIBUTE_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(_Attribute))


def block_from(key: str, cidr: Prefix, value: bytes) -> BlockRecord:
    """Read a block record; raises Malformed also for one whose invariants are broken, or that is about another CIDR than its key."""
    known = _decode(key, value, _Block)
    whole = _object(key, value)
    raw_attributes = whole.get("attributes") or []
    record = BlockRecord(
        cidr=known.cidr,
        affinity=known.affinity or (f"host:{known.host_affinity}" if known.host_affinity else None),
        affinity_claim_time=known.affinity_claim_time,
        allocations=tuple(known.allocations),
        unallocated=tuple(known.unallocated),
        attributes=tuple(
            Attribute(handle_id=one.handle_id, secondary=one.secondary or {}, extra=_rest(raw, _ATTRIBUTE_FIELDS))
            for one, raw in zip(known.attributes or [], raw_attributes, strict=True)
        ),
        sequence_number=known.sequence_number,
        sequence_number_for_allocation=known.per_ordinal or {},
        deleted=known.deleted,
        extra=_rest(whole, _BLOCK_FIELDS),
    )
    if record.cidr != cidr:
        raise Malformed(key, f"the value is about block {record.cidr}")
    if found := defects(record):
        raise Malformed(key, "; ".join(found))
    return record


def block_bytes(record: BlockRecord) -> bytes:
    return _encode(
        {
            "cidr": str(record.cidr),
            "affinity": record.affinity,
            "affinity_claim_time": record.affinity_claim_time,
            "allocations": record.allocations,
            "unallocated": record.unallocated,
            "attributes": [
                {"handle_id": one.handle_id, "secondary": one.secondary, **one.extra}
                if one.handle_id is not None or one.secondary
                else dict(one.extra)
                for one in record.attributes
            ],
            "sequenceNumber": record.sequence_number,
            "sequenceNumberForAllocation": record.sequence_number_for_allocation,
            "deleted": record.deleted,
            **record.extra,
        }
    )


def block_view(record: BlockRecord) -> Block:
    """Return what decisions need of a block."""
    return Block(cidr=record.cidr, node=record.node, in_use=record.in_use, borrowed=_borrowed(record))


def _borrowed(record: BlockRecord) -> tuple[tuple[Address, str], ...]:
    """Return the addresses that others than the block's node hold (Calico's NonAffineAllocations); none of a virtual owner's block."""
    if record.affinity is not None and record.node is None:
        return ()
    elsewhere = {
        slot: node
        for slot, one in enumerate(record.attributes)
        if (node := one.secondary.get("node", "")) and node != record.node
    }
    if not elsewhere:
        return ()
    slots = enumerate(record.allocations)
    return tuple((record.cidr.address(at), elsewhere[slot]) for at, slot in slots if slot in elsewhere)


class _Affinity(msgspec.Struct):
    state: str | None = None


def affinity_from(key: str, node: str, cidr: Prefix, value: bytes) -> Affinity:
    """Read an affinity; an empty value or state is confirmed (calico.md 1.3). Raises Malformed."""
    state = _decode(key, value, _Affinity).state if value.strip() else None
    return Affinity(cidr=cidr, node=node, state=_member(key, "state", AffinityState, state or AffinityState.CONFIRMED))


def affinity_bytes(key: str, state: AffinityState, stored: bytes | None) -> bytes:
    """Write an affinity's state; raises Malformed for a stored non-object."""
    whole = _object(key, stored) if stored and stored.strip() else {"deleted": False}
    return _encode({"state": state.value} | {name: value for name, value in whole.items() if name != "state"})


class _Handle(msgspec.Struct):
    block: dict[str, int] | None = None
    deleted: bool = False


def handle_from(key: str, handle_id: str, value: bytes) -> HandleRecord:
    """Read a handle; raises Malformed."""
    known = _decode(key, value, _Handle)
    extra = _rest(_object(key, value), frozenset({"block", "deleted"}))
    return HandleRecord(handle_id=handle_id, block=known.block or {}, deleted=known.deleted, extra=extra)


def handle_bytes(record: HandleRecord) -> bytes:
    return _encode({"block": record.block, "deleted": record.deleted, **record.extra})


# ------------------------------------------------------------------ configuration, liveness


class IpamConfig(msgspec.Struct, frozen=True):
    """IPAM settings of the cluster; absent means the defaults, which reading never stores."""

    auto_allocate_blocks: bool = True
    max_blocks_per_host: int = msgspec.field(default=0, name="maxBlocksPerHost")
    strict_affinity: bool = False
    cooldown_s: int = 0
    """How long a released address rests before it is free."""

    @property
    def may_borrow(self) -> bool:
        """Whether nodes may use addresses of others' blocks."""
        return self.auto_allocate_blocks and not self.strict_affinity

    @property
    def limit(self) -> int:
        """Blocks that one node may hold."""
        return self.max_blocks_per_host or BLOCKS_PER_NODE


class _StoredIpamConfig(msgspec.Struct):
    """As stored: a field is omitted when it is zero, so ``auto_allocate_blocks`` absent in an object means false."""

    auto_allocate_blocks: bool = False
    max_blocks_per_host: int = msgspec.field(default=0, name="maxBlocksPerHost")
    strict_affinity: bool = False
    cooldown_s: int = msgspec.field(default=0, name="ipCooldownSeconds")


def ipam_config_from(value: bytes | None) -> IpamConfig:
    """Read the IPAM configuration; None: there is none. Raises Malformed."""
    if value is None:
        return IpamConfig()
    stored = _decode(keys.IPAM_CONFIG, value, _StoredIpamConfig)
    return IpamConfig(
        stored.auto_allocate_blocks, stored.max_blocks_per_host, stored.strict_affinity, stored.cooldown_s
    )


class _ReservationSpec(msgspec.Struct):
    cidrs: list[str] | None = msgspec.field(default=None, name="reservedCIDRs")


class _ReservationResource(msgspec.Struct):
    spec: _ReservationSpec = msgspec.field(default_factory=_ReservationSpec)


def reservation_from(key: str, name: str, value: bytes) -> Reservation:
    """Read an IPReservation, whose entries are CIDRs or addresses; raises Malformed."""
    texts = _decode(key, value, _ReservationResource).spec.cidrs or []
    try:
        return Reservation(name, tuple(_cidr_or_address(text) for text in texts))
    except ValueError as error:
        raise Malformed(key, f"reservedCIDRs: {error}") from error


def _cidr_or_address(text: str) -> Prefix:
    """Read what Calico masks when it reads it: host bits are no error here."""
    address, network = parse_interface(text)
    return network if "/" in text else Prefix.of(address, address.family.bits)


class _ClusterSpec(msgspec.Struct):
    ready: bool | None = msgspec.field(default=None, name="datastoreReady")


class _ClusterResource(msgspec.Struct):
    spec: _ClusterSpec = msgspec.field(default_factory=_ClusterSpec)


def datastore_ready(value: bytes | None) -> bool:
    """Whether IPAM may write: not while ClusterInformation says ``datastoreReady: false`` (a migration). Raises Malformed."""
    return value is None or _decode(keys.CLUSTER_INFORMATION, value, _ClusterResource).spec.ready is not False


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a node's leased key: which process holds the name."""

    pid: int
    started: int
    """Start time of the process in clock ticks since boot (/proc/PID/stat field 22): a pid alone is used again."""
    boot_id: str
    host: str
    since: float
    """Seconds since the epoch."""


def alive_from(key: str, value: bytes) -> Alive:
    """Read a liveness record; raises Malformed."""
    return _decode(key, value, Alive)


def alive_bytes(record: Alive) -> bytes:
    return msgspec.json.encode(record)


# ------------------------------------------------------------------ parts


def _decode(key: str, value: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(value, type=kind, dec_hook=from_builtin)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(key, str(error)) from error


def _object(key: str, value: bytes) -> dict[str, Any]:
    return _decode(key, value, dict[str, Any])


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=to_builtin)


def _rest(whole: Mapping[str, object], known: frozenset[str]) -> dict[str, object]:
    return {name: value for name, value in whole.items() if name not in known}


def _child(key: str, parent: dict[str, Any], name: str) -> dict[str, Any]:
    child = parent.get(name)
    if child is None:
        child = parent[name] = {}
    if not isinstance(child, dict):
        raise Malformed(key, f"{name} is not an object")
    return child


def _set(parent: dict[str, Any], name: str, value: object) -> None:
    """Set a field; None leaves what is stored, since somebody else may keep it."""
    if value is not None:
        parent[name] = value


def _new_metadata(name: str, now: datetime) -> dict[str, object]:
    created = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": created}


def _preference(key: str, text: str) -> tuple[Fallback, ...]:
    try:
        return parse_preference(text)
    except ValueError as error:
        raise Malformed(key, f"{FALLBACK_ANNOTATION}: {error}") from error


Choice = TypeVar("Choice", Mode, AffinityState)


def _member(key: str, field: str, kind: type[Choice], value: str) -> Choice:
    try:
        return kind(value)
    except ValueError as error:
        raise Malformed(key, f"{field} {value!r} is none of {', '.join(kind)}") from error


def _interface_text(address: Address | None, subnet: Prefix | None) -> str | None:
    if address is None:
        return None
    return f"{address}/{subnet.length if subnet is not None else address.family.bits}"
