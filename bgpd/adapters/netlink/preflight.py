"""Whether this host can carry what the daemon puts into its kernel: settings, kinds of links, and who else is at work.

Laws: nothing of the host is changed by looking: kinds of links are tried in a network namespace that goes with its thread. A finding says
what is the case, why it matters, and how to mend it.

Sources: Documentation/networking/ip-sysctl.rst; net/ipv4/nexthop.c; net/ipv4/fib_frontend.c.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import shutil
import threading
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from bgpd.adapters.netlink import encode, wireguard
from bgpd.adapters.netlink.encode import NexthopEntry, RouteEntry
from bgpd.adapters.netlink.options import KernelOptions
from bgpd.adapters.netlink.protocols import owner_of
from bgpd.adapters.netlink.socket import NetlinkSocket
from bgpd.model.forwarding import MAIN_TABLE, NEXTHOP_ID_FIRST, NEXTHOP_ID_LAST
from bgpd.model.prefix import Family, Prefix

SYSCTL: Final = Path("/proc/sys")
KINDS: Final = ("vxlan", "ipip", "wireguard")
"""Kinds of links that a pool may ask for."""
_CLONE_NEWNET: Final = 0x40000000
_BUFFER_BYTES: Final = 64 * 1024 * 1024
"""Buffer of notifications that the monitor asks for (socket.py: MONITOR_BUFFER_BYTES)."""


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, with a limit that the finding names."""
    ERROR = "error"
    """Packets are not forwarded, or routes cannot be kept."""


class Setting(msgspec.Struct, frozen=True):
    """A sysctl and the value that it is to have."""

    name: str
    value: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    subject: str
    level: Level
    text: str
    """What is the case, and why it matters."""
    mend: str = ""
    fix: Setting | None = None
    """What ``--fix`` sets."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What the host is to carry."""

    options: KernelOptions
    ipv6: bool
    """Some peer or pool is of IPv6."""
    tunnels: tuple[str, ...]
    """Of KINDS, those that are configured: without them it is an error."""
    pools: tuple[Prefix, ...]
    rule_priority: int = 0
    """Of the rules that the daemon makes for a table of its own; 0: none."""


async def look(demand: Demand) -> list[Finding]:
    """Return a finding for each subject, good ones too. Raises OSError if the kernel does not answer."""
    found = [_forwarding(Family.IPV4)]
    if demand.ipv6:
        found.append(_forwarding(Family.IPV6))
    found += [*_rp_filter(), _hash_policy(), _link_down(), _buffers()]
    found += await asyncio.to_thread(_kinds, demand.tunnels)
    found += await _kernel(demand)
    return found


def fix(findings: Sequence[Finding]) -> dict[Setting, str]:
    """Set the sysctls that findings ask for; returns each with an error, empty where it is set now."""
    done: dict[Setting, str] = {}
    for finding in findings:
        if finding.fix is None or finding.level is Level.OK:
            continue
        try:
            (SYSCTL / finding.fix.name.replace(".", "/")).write_text(finding.fix.value)
            done[finding.fix] = ""
        except OSError as error:
            done[finding.fix] = error.strerror or str(error)
    return done


# ------------------------------------------------------------------ settings


def _read(name: str) -> str | None:
    try:
        return (SYSCTL / name.replace(".", "/")).read_text().strip()
    except OSError:
        return None


def _setting(name: str, value: str, *, good: str, bad: str, level: Level = Level.ERROR) -> Finding:
    """Judge a sysctl that is to have one value."""
    now = _read(name)
    if now == value:
        return Finding(subject=name, level=Level.OK, text=f"{now}: {good}")
    if now is None:
        return Finding(
            subject=name, level=Level.WARNING, text="this kernel does not have it", mend="use a newer kernel"
        )
    return Finding(
        subject=name, level=level, text=f"{now}: {bad}", mend=f"sysctl -w {name}={value}", fix=Setting(name, value)
    )


def _forwarding(family: Family) -> Finding:
    name = "net.ipv4.ip_forward" if family is Family.IPV4 else "net.ipv6.conf.all.forwarding"
    return _setting(
        name, "1", good="packets are forwarded", bad="packets for others are dropped, workloads reach nothing"
    )


def _rp_filter() -> list[Finding]:
    """Strict reverse path filtering drops what comes in by another path than it would go out: with ECMP and with a fallback's two ends."""
    strict = [
        path.parent.name
        for path in sorted((SYSCTL / "net/ipv4/conf").glob("*/rp_filter"))
        if path.read_text().strip() == "1" and path.parent.name != "default"
    ]
    subject = "net.ipv4.conf.*.rp_filter"
    if not strict:
        return [Finding(subject=subject, level=Level.OK, text="no interface filters strictly")]
    return [
        Finding(
            subject=f"net.ipv4.conf.{name}.rp_filter",
            level=Level.ERROR,
            text="1 (strict): drops packets that come in by another way than the way back, as with ECMP and fallback tunnels",
            mend=f"sysctl -w net.ipv4.conf.{name}.rp_filter=2 (loose)",
            fix=Setting(f"net.ipv4.conf.{name}.rp_filter", "2"),
        )
        for name in strict
    ]


def _hash_policy() -> Finding:
    name = "net.ipv4.fib_multipath_hash_policy"
    bad = "the path is chosen by addresses alone, so that two busy hosts share one path"
    return _setting(name, "1", good="paths are chosen by addresses and ports", bad=bad, level=Level.WARNING)


def _link_down() -> Finding:
    name = "net.ipv4.conf.all.ignore_routes_with_linkdown"
    bad = "routes of others over a link without carrier are used on, until they are removed"
    return _setting(name, "1", good="routes over a link without carrier are not used", bad=bad, level=Level.WARNING)


def _buffers() -> Finding:
    """CAP_NET_ADMIN sets a buffer beyond rmem_max; without it the monitor loses notifications, and reads again."""
    name = "net.core.rmem_max"
    now = int(_read(name) or 0)
    if os.geteuid() == 0 or now >= _BUFFER_BYTES:
        return Finding(
            subject=name, level=Level.OK, text=f"{now}: the monitor may have its {_BUFFER_BYTES >> 20} MB anyway"
        )
    return Finding(
        subject=name,
        level=Level.WARNING,
        text=f"{now}: a burst of route changes overflows the monitor's buffer, and all is read again",
        mend=f"give the daemon CAP_NET_ADMIN, or sysctl -w {name}={_BUFFER_BYTES}",
        fix=Setting(name, str(_BUFFER_BYTES)),
    )


# ------------------------------------------------------------------ kinds of links


def _kinds(demanded: Sequence[str]) -> list[Finding]:
    """Try each kind in a network namespace of a thread's own, which goes with it."""
    found: list[Finding] = []

    def inside() -> None:
        library = ctypes.CDLL(None, use_errno=True)
        if library.unshare(_CLONE_NEWNET):
            text = f"cannot be tried: {os.strerror(ctypes.get_errno())}"
            found.append(Finding(subject="kinds of links", level=Level.WARNING, text=text, mend="become root"))
        else:
            found.extend(asyncio.run(_try_kind(kind, demanded=kind in demanded)) for kind in KINDS)

    thread = threading.Thread(target=inside, name="kinds of links")
    thread.start()
    thread.join()
    return found


async def _try_kind(kind: str, *, demanded: bool) -> Finding:
    socket = NetlinkSocket()
    try:
        refused = await socket.transact([encode.make_link("probe", kind)])
    finally:
        socket.close()
    subject = f"{kind} links"
    refusal = refused.get(0)
    if refusal is None or refusal.errno not in {errno.EOPNOTSUPP, errno.ENODEV}:
        return Finding(subject=subject, level=Level.OK, text="the kernel has them")
    if kind == wireguard.NATIVE and shutil.which(wireguard.PROGRAM):
        text = f"the kernel has none: {wireguard.PROGRAM} takes its place, at a fraction of the speed"
        return Finding(subject=subject, level=Level.WARNING, text=text, mend="modprobe wireguard")
    return Finding(
        subject=subject,
        level=Level.ERROR if demanded else Level.WARNING,
        text=f"the kernel has none: what is to go through them is unreachable{'' if demanded else ' (nothing is so far)'}",
        mend=f"modprobe {kind}, or a kernel that has it; for a container, on its host",
    )


# ------------------------------------------------------------------ the kernel's tables


async def _kernel(demand: Demand) -> list[Finding]:
    socket = NetlinkSocket()
    try:
        nexthops = await _nexthops(socket)
        routes: list[RouteEntry] = []
        for family in Family:
            routes += await socket.dump(
                encode.dump_routes(family), lambda _, data, start, end: encode.decode_route(data, start, end)
            )
        table = await _table(socket, demand)
    finally:
        socket.close()
    ids = set() if nexthops is None else {entry.id for entry in nexthops if _ours(entry, demand.options.protocol)}
    return [
        *_objects(nexthops),
        _same_mark(nexthops or [], routes, demand.options.protocol, ids),
        _same_prefixes(routes, demand),
        *table,
    ]


async def _nexthops(socket: NetlinkSocket) -> list[NexthopEntry] | None:
    """Return all nexthop objects; None where the kernel knows none."""
    try:
        return await socket.dump(
            encode.dump_nexthops(), lambda _, data, start, end: encode.decode_nexthop(data, start, end)
        )
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EINVAL}:
            return None
        raise


async def _table(socket: NetlinkSocket, demand: Demand) -> list[Finding]:
    """Say whether a rule leads to a table of our own; nothing where ours are in the main table, or in a VRF's."""
    table = demand.options.table
    if table in {MAIN_TABLE, demand.options.resolve_table}:
        return []
    found: list[Finding] = []
    for family in Family if demand.ipv6 else (Family.IPV4,):
        rules = await socket.dump(
            encode.dump_rules(family), lambda _, data, start, end: encode.decode_rule(data, start, end)
        )
        leading = [rule.priority for rule in rules if rule.table == table]
        subject = f"rules of {family}"
        if leading or demand.rule_priority:
            whose = f"a rule of priority {min(leading)}" if leading else "the daemon will make a rule that"
            found.append(Finding(subject=subject, level=Level.OK, text=f"{whose} leads to table {table}"))
            continue
        text = f"none leads to table {table} (kernel.table): no packet takes our routes"
        mend = f"kernel.rule_priority = 1000 in bgpd.toml, or ip -{family.value} rule add priority 1000 table {table}"
        found.append(Finding(subject=subject, level=Level.ERROR, text=text, mend=mend))
    return found


def _objects(nexthops: list[NexthopEntry] | None) -> list[Finding]:
    if nexthops is None:
        return [
            Finding(
                subject="nexthop objects",
                level=Level.WARNING,
                text="the kernel has none (Linux 5.3): a failover writes every route of a node anew, not one group",
                mend="use a newer kernel",
            )
        ]
    compat = _setting(
        "net.ipv4.nexthop_compat_mode",
        "0",
        good="a failover of a group is one message to whoever listens",
        bad="a failover of a group repeats every route of it to whoever listens to routes; forwarding is the same. With 0, "
        "listeners must know nexthop objects (`ip route` shows `nhid`)",
        level=Level.WARNING,
    )
    return [Finding(subject="nexthop objects", level=Level.OK, text="the kernel has them"), compat]


def _ours(entry: NexthopEntry, protocol: int) -> bool:
    return entry.protocol == protocol and NEXTHOP_ID_FIRST <= entry.id <= NEXTHOP_ID_LAST


def _same_mark(nexthops: Sequence[NexthopEntry], routes: Sequence[RouteEntry], protocol: int, ids: set[int]) -> Finding:
    """Find what has our protocol number and cannot be ours: by nexthops out of our range, or hops of no object beside objects."""
    subject = f"protocol number {protocol}"
    stray = [entry.id for entry in nexthops if entry.protocol == protocol and entry.id not in ids]
    other = [
        route for route in routes if route.protocol == protocol and route.nexthop_id and route.nexthop_id not in ids
    ]
    if not stray and not other:
        return Finding(subject=subject, level=Level.OK, text="nobody else marks routes with it")
    example = f"route {other[0].prefix}" if other else f"nexthop {stray[0]}"
    return Finding(
        subject=subject,
        level=Level.ERROR,
        text=f"another marks {len(other)} routes and {len(stray)} nexthops with it (such as {example}): we would remove them",
        mend="give one of the two another number: kernel.protocol in bgpd.toml",
    )


def _same_prefixes(routes: Sequence[RouteEntry], demand: Demand) -> Finding:
    """Find routes of other daemons inside our pools: two owners of one prefix."""
    kernel_made = {1, 2, 3}  # redirects, the kernel, ip at boot: single addresses and links
    inside = [
        route
        for route in routes
        if route.protocol not in {*kernel_made, demand.options.protocol} and _within(route.prefix, demand.pools)
    ]
    if not inside:
        return Finding(subject="other routing daemons", level=Level.OK, text="none has routes inside our pools")
    who = Counter(owner_of(route.protocol) for route in inside)
    named = ", ".join(f"{owner} ({count})" for owner, count in who.most_common())
    return Finding(
        subject="other routing daemons",
        level=Level.ERROR,
        text=f"{named} has routes inside our pools, such as {inside[0].prefix}: where both want a prefix, ours is refused",
        mend="let only one of them export these prefixes to the kernel (BIRD: `export none` in protocol kernel; FRR: `no ip protocol`), "
        "or stop it",
    )


def _within(prefix: Prefix, pools: Sequence[Prefix]) -> bool:
    return any(pool.covers(prefix) for pool in pools)
