"""Columns of resources: calicoctl's, so that what people have read for years stands where it stood."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bgpd.adapters.store.resources import Stored
from bgpd.cli.render import Cell, Column, Table
from bgpd.core.resource.kind import Kind
from bgpd.core.resource.merge import effective

Effective = Mapping[str, Any]


class _Field(NamedTuple):
    title: str
    cell: Callable[[Effective], Cell]
    wide: bool = False
    """In the wide table only."""


def _text(value: Any) -> Cell:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case list():
            return ",".join(str(_text(item)) for item in value)
        case dict():
            return ",".join(f"{name}={_text(item)}" for name, item in value.items())
        case _:
            return str(value)


def _plain(title: str, *path: str, wide: bool = False) -> _Field:
    """Return a column that shows what stands at *path* below spec."""

    def cell(spec: Effective) -> Cell:
        value: Any = spec
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return _text(value)

    return _Field(title, cell, wide)


def _peer_ip(spec: Effective) -> Cell:
    if spec.get("peerIP"):
        return str(spec["peerIP"])
    return None if not spec.get("localWorkloadSelector") else f"workloads {spec['localWorkloadSelector']}"


def _peer_node(spec: Effective) -> Cell:
    if spec.get("nodeSelector") or spec.get("node"):
        return str(spec.get("node") or spec.get("nodeSelector"))
    return "all()"


def _rule_count(spec: Effective) -> Cell:
    names = ("exportV4", "importV4", "exportV6", "importV6")
    return ",".join(f"{name}={len(spec[name])}" for name in names if isinstance(spec.get(name), list))


_FIELDS: Final[dict[str, Sequence[_Field]]] = {
    "IPPool": (
        _plain("CIDR", "cidr"),
        _plain("NAT", "natOutgoing", wide=True),
        _plain("IPIPMODE", "ipipMode", wide=True),
        _plain("VXLANMODE", "vxlanMode", wide=True),
        _plain("DISABLED", "disabled", wide=True),
        _plain("DISABLEBGPEXPORT", "disableBGPExport", wide=True),
        _plain("SELECTOR", "nodeSelector"),
        _plain("ASSIGNMENTMODE", "assignmentMode", wide=True),
        _plain("BLOCKSIZE", "blockSize", wide=True),
        _plain("ALLOWEDUSES", "allowedUses", wide=True),
    ),
    "BGPPeer": (
        _Field("PEERIP", _peer_ip),
        _Field("NODE", _peer_node),
        _plain("ASN", "asNumber"),
        _plain("PEERSELECTOR", "peerSelector", wide=True),
        _plain("FILTERS", "filters", wide=True),
        _plain("NEXTHOP", "nextHopMode", wide=True),
    ),
    "BGPConfiguration": (
        _plain("LOGSEVERITY", "logSeverityScreen"),
        _plain("MESHENABLED", "nodeToNodeMeshEnabled"),
        _plain("ASNUMBER", "asNumber"),
        _plain("LISTENPORT", "listenPort", wide=True),
        _plain("COMMUNITIES", "communities", wide=True),
    ),
    "BGPFilter": (_Field("RULES", _rule_count),),
    "Node": (
        _plain("ASN", "bgp", "asNumber", wide=True),
        _plain("IPV4", "bgp", "ipv4Address", wide=True),
        _plain("IPV6", "bgp", "ipv6Address", wide=True),
        _plain("CLUSTERID", "bgp", "routeReflectorClusterID", wide=True),
    ),
    "IPReservation": (_plain("RESERVEDCIDRS", "reservedCIDRs"),),
    "IPAMConfiguration": (
        _plain("STRICTAFFINITY", "strictAffinity"),
        _plain("AUTOALLOCATEBLOCKS", "autoAllocateBlocks"),
        _plain("MAXBLOCKSPERHOST", "maxBlocksPerHost"),
        _plain("IPCOOLDOWNSECONDS", "ipCooldownSeconds", wide=True),
    ),
    "FelixConfiguration": (
        _plain("VXLANPORT", "vxlanPort", wide=True),
        _plain("VXLANVNI", "vxlanVNI", wide=True),
        _plain("WIREGUARD", "wireguardEnabled", wide=True),
    ),
}


def table(kind: Kind, items: Sequence[Stored], *, wide: bool) -> Table:
    """Lay out resources of a kind, one a row; absent fields show what they mean."""
    fields = [field for field in _FIELDS[kind.kind] if wide or not field.wide]
    columns = [Column("NAME"), *(Column(field.title) for field in fields)]
    rows: list[tuple[Cell, ...]] = []
    for item in items:
        spec = effective(kind, item.resource.get("spec") or {})
        rows.append((item.name, *(field.cell(spec) for field in fields)))
    return Table(columns, rows)
