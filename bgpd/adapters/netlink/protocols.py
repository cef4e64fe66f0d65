"""Who a route's protocol number says that it is of (include/uapi/linux/rtnetlink.h: RTPROT_; Calico's Felix from its defaults)."""

from __future__ import annotations

from typing import Final

PROTOCOLS: Final = {
    1: "ICMP redirects",
    2: "the kernel",
    3: "ip at boot (no protocol said)",
    4: "static configuration",
    8: "GateD",
    9: "router advertisements",
    10: "MRT",
    11: "FRR's zebra",
    12: "BIRD",
    13: "DECnet",
    14: "XORP",
    15: "NetSukuku",
    16: "DHCP",
    17: "mrouted",
    18: "keepalived",
    42: "babeld",
    80: "Calico's Felix",
    99: "Open/R",
    186: "FRR's BGP",
    187: "FRR's IS-IS",
    188: "FRR's OSPF",
    189: "FRR's RIP",
    192: "FRR's EIGRP",
}
"""Protocol numbers that another program marks its routes with."""


def owner_of(protocol: int) -> str:
    """Name a protocol number for people."""
    return PROTOCOLS.get(protocol, f"protocol {protocol}")
