"""The tunnel devices, by pyroute2: VXLAN (RFC 7348) in Calico's wire format (one VNI, one UDP port, learning off), IPIP (RFC 2003), and
WireGuard (wireguard.py).

Law: a device of our name that differs in what cannot be changed in place (kind, outer address, VNI, port, learning) is deleted and
made again; MTU and MAC are changed in place, so that the routes through it stay.

A device is unnumbered: it borrows its outer address as a /32. With no address at all the kernel's reverse path filter drops, even
in loose mode, what comes in by it while the route back is another (net/ipv4/fib_frontend.c: __fib_validate_source, ``no_addr``), and
that is just the state in which one end has left the tunnel and the other has not.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from bgpd.adapters.netlink import wireguard
from bgpd.adapters.netlink.encode import LinkEntry
from bgpd.adapters.netlink.wireguard import Configuration
from bgpd.adapters.secrets import Unfit
from bgpd.adapters.wireguard_keys import WireguardKeys
from bgpd.model.forwarding import (
    IPIP_DEVICE,
    WIREGUARD_DEVICE,
    DeviceValue,
    IpipDevice,
    VxlanDevice,
    WireguardDevice,
)
from bgpd.model.prefix import Address, Family

NOTHING = Address(0)
"""Outer address of a device that is not in our wire format."""


def value_of(link: LinkEntry, borrowed: Address | None, configuration: Configuration) -> DeviceValue:
    """Read a device of ours as a value to compare with the desired one; *borrowed* is its lowest IPv4 address.

    *configuration* is what a WireGuard device is set to. One that is not as its kind is to be (another kind, learning on, one remote
    end only) reads as VNI 0, without a key, or without an outer address; one that is down, or without its address, does not carry
    traffic in every state and reads as MTU 0.
    """
    local = NOTHING if link.local is None else link.local
    if link.name == WIREGUARD_DEVICE:
        ours = link.kind in {wireguard.NATIVE, wireguard.USERSPACE}
        return WireguardDevice(
            local=borrowed,
            public_key=configuration.public_key if ours else "",
            port=configuration.port,
            mtu_bytes=link.mtu_bytes if link.enabled else 0,
        )
    addressed = link.local is None or link.local.family is not Family.IPV4 or borrowed == link.local
    mtu_bytes = link.mtu_bytes if link.enabled and addressed else 0
    if link.name == IPIP_DEVICE:
        ours = link.kind == "ipip" and link.remote is None
        return IpipDevice(local=local if ours else NOTHING, mtu_bytes=mtu_bytes)
    ours = link.kind == "vxlan" and not link.learning
    return VxlanDevice(vni=link.vni if ours else 0, port=link.port, local=local, mac=link.mac, mtu_bytes=mtu_bytes)


async def ensure(
    name: str, wanted: VxlanDevice | IpipDevice, present: LinkEntry | None, borrowed: Address | None
) -> str | None:
    """Make the device *name* as *wanted*, or change *present* into it. Returns the reason if the kernel refuses."""
    try:
        async with AsyncIPRoute() as route:
            if present is not None and _is_other(value_of(present, borrowed, Configuration()), wanted):
                await route.link("del", index=present.index)
                present = None
            if present is None:
                await route.link("add", ifname=name, mtu=wanted.mtu_bytes, **_wire(wanted))
                (index,) = await route.link_lookup(ifname=name)
                await route.link("set", index=index, state="up")
            else:
                changes: dict[str, Any] = {"mtu": wanted.mtu_bytes, "state": "up"}
                if isinstance(wanted, VxlanDevice) and present.mac != wanted.mac:
                    changes["address"] = wanted.mac
                await route.link("set", index=present.index, **changes)
                index = present.index
            await _borrow_address(route, index, wanted.local)
    except NetlinkError as error:
        return reason(error)
    return None


async def ensure_wireguard(
    name: str, wanted: WireguardDevice, present: LinkEntry | None, borrowed: Address | None, keys: WireguardKeys
) -> str | None:
    """Make the WireGuard device *name* as *wanted*, or change *present* into it; returns the reason if that cannot be.

    All of it is changed in place, the key too: sessions with it end as soon as packets are to be sent, and what the old key encrypted is
    still taken. One of another kind is made anew, and so is one whose process answers no more.
    """
    try:
        private_key = keys.private(wanted.public_key)
        async with AsyncIPRoute() as route:
            if present is not None and not await wireguard.answers(present):
                await route.link("del", index=present.index)
                present = None
            link = await _make_wireguard(route, name) if present is None else present
            await wireguard.set_device(link, private_key, wanted.port)
            await route.link("set", index=link.index, mtu=wanted.mtu_bytes, state="up")
            if borrowed is not None and borrowed != wanted.local:
                await route.addr("del", index=link.index, address=str(borrowed), prefixlen=32)
            if wanted.local is not None:
                await _borrow_address(route, link.index, wanted.local)
    except NetlinkError as error:
        return reason(error)
    except (Unfit, wireguard.Refused) as why:
        return str(why)
    except OSError as error:
        return f"{wireguard.PROGRAM}: {error.strerror}"
    return None


async def _make_wireguard(route: AsyncIPRoute, name: str) -> LinkEntry:
    """Make the kernel's own device, or one of ``wireguard-go`` where the kernel does not know the kind; raises as ensure_wireguard."""
    kind = wireguard.NATIVE
    try:
        await route.link("add", ifname=name, kind=kind)
    except NetlinkError as error:
        if error.code not in {errno.EOPNOTSUPP, errno.ENODEV}:
            raise
        kind = wireguard.USERSPACE
        await wireguard.start(name)
    found = await route.link_lookup(ifname=name)
    if not found:
        raise wireguard.Refused(f"{wireguard.PROGRAM} has made no device {name}")
    return LinkEntry(found[0], name, up=False, settled=False, enabled=False, mtu_bytes=0, mac="", kind=kind)


async def _borrow_address(route: AsyncIPRoute, index: int, local: Address) -> None:
    if local.family is not Family.IPV4:
        return  # there is no reverse path filter of the kernel's for IPv6
    try:
        await route.addr("add", index=index, address=str(local), prefixlen=32)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


async def remove(index: int) -> str | None:
    """Remove a device; one that is gone is no error. Returns the reason if the kernel refuses."""
    try:
        async with AsyncIPRoute() as route:
            await route.link("del", index=index)
    except NetlinkError as error:
        return None if error.code == errno.ENODEV else reason(error)
    return None


def reason(error: NetlinkError) -> str:
    return f"{errno.errorcode.get(error.code, error.code)}: {os.strerror(error.code)}"


def _is_other(present: DeviceValue, wanted: VxlanDevice | IpipDevice) -> bool:
    """Tell whether they differ in what cannot be changed in place."""
    return _fixed(present) != _fixed(wanted)


def _fixed(device: DeviceValue) -> tuple[object, ...]:
    if isinstance(device, VxlanDevice):
        return device.vni, device.port, device.local
    return (device.local,)


def _wire(wanted: VxlanDevice | IpipDevice) -> dict[str, Any]:
    if isinstance(wanted, IpipDevice):
        return {"kind": "ipip", "ipip_local": str(wanted.local), "ipip_pmtudisc": 1}
    local = "vxlan_local6" if wanted.local.family is Family.IPV6 else "vxlan_local"
    return {
        "kind": "vxlan",
        "address": wanted.mac,
        "vxlan_id": wanted.vni,
        "vxlan_port": wanted.port,
        "vxlan_learning": 0,
        local: str(wanted.local),
    }
