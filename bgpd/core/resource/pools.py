"""IPPool, IPReservation and IPAMConfiguration (calico.md 1.1, 1.3; calico-formats.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from bgpd.core.resource import rules
from bgpd.core.resource.kind import ONLY_DEFAULT, Kind, Spec
from bgpd.core.resource.rules import given
from bgpd.core.resource.schema import Choice, Fields, Flag, ListOf, Number, Text, Whatever
from bgpd.core.selector import Everything, Global, parse
from bgpd.model.pool import parse_preference
from bgpd.model.prefix import Family, Prefix

MODES: Final = ("Never", "Always", "CrossSubnet")
FALLBACK_ANNOTATION: Final = "bgpd.io/fallback"
_BLOCK_SIZES: Final = {Family.IPV4: (20, 32, 26), Family.IPV6: (116, 128, 122)}
"""Smallest and largest length of a block, and the default."""

Broken = Iterator[tuple[str, str]]


def _range(spec: Spec) -> Broken:
    cidr = Prefix.parse(spec["cidr"])
    if any(net.covers(cidr) or cidr.covers(net) for net in rules.LINK_LOCAL):
        yield "cidr", "must not overlap the link-local ranges 169.254.0.0/16 and fe80::/10"
    low, high, default = _BLOCK_SIZES[cidr.family]
    size = given(spec, "blockSize") or default
    if not low <= size <= high:
        yield "blockSize", f"must be {low} to {high} for an {cidr.family!s} pool"
    elif size < cidr.length and not given(spec, "disabled"):
        yield "blockSize", f"a block (/{size}) must not be larger than its pool {cidr}, unless the pool is disabled"


def _encapsulation(spec: Spec) -> Broken:
    ipip, vxlan = (spec.get(name) or "Never" for name in ("ipipMode", "vxlanMode"))
    if ipip != "Never" and Prefix.parse(spec["cidr"]).family is Family.IPV6:
        yield "ipipMode", "must be Never for an IPv6 pool: IPIP carries IPv4"
    if ipip != "Never" and vxlan != "Never":
        yield "vxlanMode", f"must be Never where ipipMode is {ipip}: a pool has one encapsulation"


def _uses(spec: Spec) -> Broken:
    uses = given(spec, "allowedUses") or ["Workload", "Tunnel"]
    if given(spec, "namespaceSelector") and "Tunnel" in uses:
        yield "namespaceSelector", "must be empty where allowedUses has Tunnel: a tunnel's address has no namespace"
    if "LoadBalancer" not in uses:
        return
    if len(uses) > 1:
        yield "allowedUses", "LoadBalancer excludes Workload and Tunnel"
    for name in ("ipipMode", "vxlanMode"):
        if (spec.get(name) or "Never") != "Never":
            yield name, "must be Never for a pool of LoadBalancer addresses"
    if given(spec, "disableBGPExport"):
        yield "disableBGPExport", "must be false for a pool of LoadBalancer addresses"
    if not isinstance(parse(spec.get("nodeSelector") or ""), Everything | Global):
        yield "nodeSelector", "must be all() for a pool of LoadBalancer addresses"


def _pool_defaults(spec: Spec) -> Spec:
    v6 = ":" in str(spec.get("cidr"))
    return {
        "blockSize": _BLOCK_SIZES[Family.IPV6 if v6 else Family.IPV4][2],
        "ipipMode": "Never",
        "vxlanMode": "Never",
        "natOutgoing": False,
        "disabled": False,
        "disableBGPExport": False,
        "nodeSelector": "all()",
        "allowedUses": ["Workload", "Tunnel"],
        "assignmentMode": "Automatic",
    }


def _fallback(text: str) -> str:
    try:
        parse_preference(text)
    except ValueError as error:
        return f"must be None, or kinds in order of preference such as 'IPIP, VXLAN': {error}"
    return ""


IPPOOL: Final = Kind(
    kind="IPPool",
    plural="ippools",
    short=("ipp", "ipps", "pool", "pools"),
    spec=Fields(
        {
            "cidr": Text(rules.cidr()),
            "blockSize": Number(0, 128),
            "ipipMode": Choice(MODES),
            "vxlanMode": Choice(MODES),
            "natOutgoing": Flag(),
            "disabled": Flag(),
            "disableBGPExport": Flag(),
            "nodeSelector": rules.SELECTOR,
            "namespaceSelector": rules.SELECTOR,
            "allowedUses": ListOf(Choice(("Workload", "Tunnel", "LoadBalancer")), unique=True),
            "assignmentMode": Choice(("Automatic", "Manual")),
        },
        required=("cidr",),
        rules=(_range, _encapsulation, _uses),
    ),
    status=Fields({"conditions": ListOf(Whatever())}),
    annotation_tests={FALLBACK_ANNOTATION: _fallback},
    immutable=("cidr", "blockSize"),
    defaults=_pool_defaults,
    stored_defaults=("blockSize", "ipipMode", "vxlanMode", "nodeSelector", "allowedUses", "assignmentMode"),
)

IPRESERVATION: Final = Kind(
    kind="IPReservation",
    plural="ipreservations",
    short=("ipr", "iprs", "reservation", "reservations"),
    spec=Fields({"reservedCIDRs": ListOf(Text(rules.address_or_cidr))}),
)

COOLDOWN_MAX_S: Final = 1200


def _ipam(spec: Spec) -> Broken:
    strict = bool(spec.get("strictAffinity"))
    if not strict and spec.get("autoAllocateBlocks") is False:
        yield "autoAllocateBlocks", "must be true where strictAffinity is false: no node could get an address"
    if given(spec, "maxBlocksPerHost") and not strict:
        yield "maxBlocksPerHost", "needs strictAffinity: without it a node would borrow beyond its limit"


IPAM_STORED: Final = {
    "strictAffinity": "strict_affinity",
    "autoAllocateBlocks": "auto_allocate_blocks",
    "maxBlocksPerHost": "maxBlocksPerHost",
    "kubeVirtVMAddressPersistence": "kubeVirtVMAddressPersistence",
    "ipCooldownSeconds": "ipCooldownSeconds",
}
"""Field of the resource, and its name in the stored configuration."""
_IPAM_ZERO: Final[dict[str, Any]] = {"strictAffinity": False, "autoAllocateBlocks": False, "maxBlocksPerHost": 0}
"""Fields that the view always shows; absent in the stored object they are zero."""


def ipam_spec(stored: dict[str, Any]) -> Spec:
    """Read the stored IPAM configuration as the spec of an IPAMConfiguration; unknown fields keep their names."""
    names = {theirs: ours for ours, theirs in IPAM_STORED.items()}
    return _IPAM_ZERO | {names.get(name, name): value for name, value in stored.items()}


def ipam_stored(spec: Spec) -> dict[str, Any]:
    """Write the spec of an IPAMConfiguration as the stored configuration: known fields are omitted when zero."""
    return {
        IPAM_STORED.get(name, name): value
        for name, value in spec.items()
        if name not in IPAM_STORED or value not in (None, False, 0, "")
    }


IPAMCONFIGURATION: Final = Kind(
    kind="IPAMConfiguration",
    plural="ipamconfigurations",
    short=("ipamconfig", "ipamconfigs"),
    spec=Fields(
        {
            "strictAffinity": Flag(),
            "autoAllocateBlocks": Flag(),
            "maxBlocksPerHost": Number(0, 1_000_000),
            "kubeVirtVMAddressPersistence": Choice(("Enabled", "Disabled")),
            "ipCooldownSeconds": Number(0, COOLDOWN_MAX_S),
        },
        rules=(_ipam,),
    ),
    name_test=ONLY_DEFAULT,
    defaults=lambda _: {"strictAffinity": False, "autoAllocateBlocks": True, "maxBlocksPerHost": 0},
    stored_defaults=("strictAffinity", "autoAllocateBlocks", "maxBlocksPerHost"),
    view=True,
)
