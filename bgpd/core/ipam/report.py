"""The report of a check, as programs read it and ``bgpd ipam release --from-report`` takes it (calico.md 1.7).

Names follow calicoctl's report where it has them. What is to be released is named with all that makes a late release
harmless: an address with its handle and the sequence number of its allocation, a handle with its revision.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bgpd.core.ipam.census import Census
from bgpd.core.ipam.check import Allocation, Findings, Kind, Problem, Verdict

VERSION = "1"


class ReportedAddress(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An allocated address."""

    ip: str
    handle: str | None
    sequence_number: int | None
    block: str
    node: str | None
    in_use: bool
    """True also where it could not be judged."""
    judgement: str
    owners: tuple[str, ...] = ()


class ReportedHandle(msgspec.Struct, frozen=True):
    """A handle that no block mentions."""

    id: str
    revision: int


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    version: str
    cluster_guid: str = msgspec.field(default="", name="clusterGUID")
    revision: int = 0
    """Of the store, as of which everything was read."""
    datastore_locked: bool = False
    counts: dict[str, int] = {}
    problems: tuple[Problem, ...] = ()
    allocations: dict[str, tuple[ReportedAddress, ...]] = {}
    """By address: those not in use, or all of them if asked for."""
    leaked_handles: tuple[ReportedHandle, ...] = ()


class Leak(msgspec.Struct, frozen=True, order=True):
    """An address to be released, if that is still its allocation."""

    ip: str
    handle: str
    sequence: int


class Leaks(msgspec.Struct, frozen=True):
    """What several reports agree on."""

    addresses: tuple[Leak, ...]
    handles: tuple[tuple[str, int], ...]


def report(census: Census, findings: Findings, *, every: bool = False) -> Report:
    """Write findings as a report; *every*: with the addresses that are in use, too."""
    allocations: dict[str, list[ReportedAddress]] = {}
    for one in findings.allocations:
        if every or one.verdict is Verdict.UNUSED:
            allocations.setdefault(str(one.holding.address), []).append(_address(one))
    return Report(
        version=VERSION,
        cluster_guid=census.cluster_guid,
        revision=census.revision,
        datastore_locked=census.locked,
        counts=counts(census, findings),
        problems=findings.problems,
        allocations={address: tuple(found) for address, found in allocations.items()},
        leaked_handles=tuple(ReportedHandle(*one) for one in findings.leaked_handles),
    )


def counts(census: Census, findings: Findings) -> dict[str, int]:
    """Count what was looked at, and the problems of each kind."""
    verdicts = [one.verdict for one in findings.allocations]
    return {
        "pools": len(census.pools),
        "blocks": len(census.blocks),
        "affinities": len(census.affinities),
        "handles": len(census.handles),
        "nodes": sum(node.resource for node in census.nodes.values()),
        "allocations": len(verdicts),
        "in-use": verdicts.count(Verdict.USED),
        "not-judged": verdicts.count(Verdict.UNKNOWN),
        "problems": len(findings.problems),
    } | {kind.value: sum(one.kind is kind for one in findings.problems) for kind in Kind}


def _address(one: Allocation) -> ReportedAddress:
    held = one.holding
    owner = held.allocated_to
    return ReportedAddress(
        ip=str(held.address),
        handle=held.handle,
        sequence_number=held.sequence,
        block=str(held.block),
        node=held.node,
        in_use=one.verdict is not Verdict.UNUSED,
        judgement=one.why,
        owners=(owner,) if owner else (),
    )


def agreed(reports: Sequence[Report]) -> Leaks:
    """Return what all *reports* say is not in use: the same address with the same handle and sequence number.

    An address without either cannot be released safely, and is left out.
    """
    addresses = [
        {
            Leak(one.ip, one.handle, one.sequence_number)
            for found in each.allocations.values()
            for one in found
            if not one.in_use and one.handle is not None and one.sequence_number is not None
        }
        for each in reports
    ]
    handles = [{(one.id, one.revision) for one in each.leaked_handles} for each in reports]
    return Leaks(tuple(sorted(set.intersection(*addresses))), tuple(sorted(set.intersection(*handles))))
