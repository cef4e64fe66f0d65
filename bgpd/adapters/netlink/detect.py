"""Which address of this host other nodes reach it by (Calico: IP_AUTODETECTION_METHOD), read once at start.

Laws: only IPv4 addresses that are up and of global use are candidates; links are looked at in the order of their index, so that
the same host finds the same address each time. Links made by container runtimes and by us are no candidates unless named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from bgpd.adapters.netlink import encode
from bgpd.adapters.netlink.encode import AddressEntry, LinkEntry
from bgpd.adapters.netlink.socket import NetlinkSocket
from bgpd.model.node import AddressMethod, FindBy
from bgpd.model.prefix import Address, Family, Prefix

PASSED_OVER = re.compile(
    r"lo|docker.*|cbr.*|dummy.*|virbr.*|lxcbr.*|veth.*|cali.*|tunl.*|flannel.*|kube-ipvs.*|cni.*|br-.*|.*\.bgpd"
)
"""Names of links that ``first-found`` does not look at (Calico's default list, Docker's bridges, our own devices)."""


class NotFound(Exception):  # noqa: N818 - the answer, for the operator to mend
    """No address of this host fits the method."""


async def detect(method: AddressMethod) -> tuple[Address, Prefix]:
    """Find the node's address and the subnet of its link; raises NotFound naming what there is."""
    links, addresses = await _read()
    held = [(links[entry.index], entry) for entry in addresses if entry.index in links]
    candidates = [(link, entry) for link, entry in held if link.enabled and _is_candidate(entry)]
    candidates.sort(key=lambda pair: pair[0].index)
    if method.by is FindBy.CAN_REACH:
        source = await _source_towards(Address.parse(method.arguments[0]))
        fitting: Iterable[tuple[LinkEntry, AddressEntry]] = (pair for pair in candidates if pair[1].address == source)
    else:
        fitting = (pair for pair in candidates if _fits(method, *pair))
    found = next(iter(fitting), None)
    if found is None:
        have = ", ".join(f"{entry.address}/{entry.subnet.length} on {link.name}" for link, entry in candidates)
        raise NotFound(f"no address of this host fits {method}; it has {have or 'no IPv4 address beyond loopback'}")
    return found[1].address, found[1].subnet


async def vrf_table(name: str) -> int:
    """Return the routing table of a VRF device; raises NotFound naming the VRFs that there are."""
    links, _ = await _read()
    found = {link.name: link.table for link in links.values() if link.table}
    if name not in found:
        raise NotFound(f"there is no VRF device {name!r}; this host has {', '.join(sorted(found)) or 'none'}")
    return found[name]


def _fits(method: AddressMethod, link: LinkEntry, entry: AddressEntry) -> bool:
    if method.by is FindBy.INTERFACE:
        return any(re.fullmatch(pattern, link.name) for pattern in method.arguments)
    if method.by is FindBy.CIDR:
        return any(Prefix.parse(cidr).holds(entry.address) for cidr in method.arguments)
    return link.up and not PASSED_OVER.fullmatch(link.name)


def _is_candidate(entry: AddressEntry) -> bool:
    address = entry.address
    return entry.usable and address.family is Family.IPV4 and address >> 24 != 127 and not address.is_link_local


async def _read() -> tuple[dict[int, LinkEntry], list[AddressEntry]]:
    socket = NetlinkSocket()
    try:
        links = await socket.dump(encode.dump_links(), lambda _, data, start, end: encode.decode_link(data, start, end))
        addresses = await socket.dump(
            encode.dump_addresses(), lambda _, data, start, end: encode.decode_address(data, start, end)
        )
    finally:
        socket.close()
    return {link.index: link for link in links}, addresses


async def _source_towards(destination: Address) -> Address | None:
    """Return the address that the kernel would send from; None where no route leads there."""
    try:
        async with AsyncIPRoute() as route:
            answer = tuple(await route.route("get", dst=str(destination)))
    except NetlinkError:
        return None
    source = answer[0].get_attr("RTA_PREFSRC") if answer else None
    return Address.parse(source) if source else None
