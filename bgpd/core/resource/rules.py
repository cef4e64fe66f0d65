"""What single values of resources must be. A test returns the rule that a value breaks, or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from bgpd.core import selector
from bgpd.core.resource.schema import Fields, Shape, Tested, Text
from bgpd.model.prefix import Address, Family, Prefix, parse_interface

LINK_LOCAL: Final = (Prefix.parse("169.254.0.0/16"), Prefix.parse("fe80::/10"))
SELECTOR_LENGTH_MAX: Final = 1024
AS_MAX: Final = 0xFFFFFFFF
PRIORITY_MAX: Final = 2_147_483_646
"""Priorities are 1 to this (calico-formats.md): BIRD's preference is 2147483647 less the priority."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_LABEL_NAME = re.compile(r"[A-Za-z0-9_./-]{1,512}")
_GLOB = re.compile(r"[A-Za-z0-9_.*-]{1,15}")
_LINK = re.compile(r"[^\s/:%]{1,15}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Read Go's text form (``120s``, ``1h2m``, ``1.5h``, ``0``) into seconds; raises ValueError."""
    if text == "0":
        return 0.0
    at, seconds = 0, 0.0
    while at < len(text):
        part = _DURATION_PART.match(text, at)
        if part is None:
            break
        seconds += float(part[1]) * _SECONDS[part[2]]
        at = part.end()
    if not text or at < len(text):
        raise ValueError("must be a duration of zero or more such as 120s, 1h2m or 500ms")
    return seconds


def parse_asn(value: Any) -> int:
    """Read an AS number written as a number, as digits or dotted (RFC 5396); raises ValueError."""
    rule = f"must be an AS number: 1 to {AS_MAX}, or dotted such as 1.10"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(rule)  # noqa: TRY004 - one kind of error for the caller
    high, dot, low = str(value).partition(".")
    parts = (high, low) if dot else (high,)
    if not all(part.isascii() and part.isdecimal() and len(part) <= 10 for part in parts):
        raise ValueError(rule)
    if dot and (int(high) > 0xFFFF or int(low) > 0xFFFF):
        raise ValueError(rule)
    number = (int(high) << 16) + int(low) if dot else int(high)
    if not 1 <= number <= AS_MAX:
        raise ValueError(rule)  # 0 is forbidden by RFC 7607
    return number


def parse_peer_ip(text: str) -> tuple[Address, int | None, str]:
    """Read ``ip``, ``ip:port`` or ``[ip6]:port`` into address, port and link (``fe80::1%eth0``); raises ValueError."""
    host, port = text, None
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ValueError("must be an address, ADDRESS:PORT, or [ADDRESS]:PORT for IPv6")
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    host, percent, link = host.partition("%")
    if percent and not _LINK.fullmatch(link):
        raise ValueError(f"link {link!r} must be the name of a link, such as eth0")
    address = Address.parse(host)
    if port is None:
        return address, None, link
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65_535:
        raise ValueError(f"port {port!r} must be 1 to 65535")
    if text.startswith("[") and address.family is Family.IPV4:
        raise ValueError("must be written ADDRESS:PORT: brackets are for IPv6")
    return address, int(port), link


def parses(parse: Callable[[Any], object]) -> Callable[[Any], str]:
    """Make a test of a function that raises ValueError."""

    def test(value: Any) -> str:
        try:
            parse(value)
        except ValueError as error:
            return str(error)
        return ""

    return test


def _like(pattern: re.Pattern[str], rule: str) -> Callable[[Any], str]:
    return lambda value: "" if pattern.fullmatch(value) else rule


duration = parses(parse_duration)
asn = parses(parse_asn)
peer_ip = parses(parse_peer_ip)
selects = parses(selector.parse)
name = _like(_NAME, "must be of a-z, 0-9, '-' and '.', and begin and end with a letter or digit")
node_name = _like(_NODE_NAME, "must be of letters, digits, '-', '.' and '_', and begin and end with a letter or digit")
label_name = _like(_LABEL_NAME, "a label's name has 1 to 512 letters, digits, '-', '.', '_' and '/'")
interface_glob = _like(_GLOB, "must be 1 to 15 letters, digits, '_', '.', '-', and '*' for any number of any of them")
mac = _like(_MAC, "must be a MAC address such as 66:3e:ca:a4:db:65")


def address(family: Family | None = None) -> Callable[[Any], str]:
    """Make a test for an address, of *family* if given."""

    def parse(text: str) -> None:
        if _family(Address.parse(text).family, family):
            raise ValueError(f"must be an {family!s} address")

    return parses(parse)


def cidr(family: Family | None = None) -> Callable[[Any], str]:
    """Make a test for a prefix without host bits, of *family* if given."""

    def parse(text: str) -> None:
        if _family(Prefix.parse(text).family, family):
            raise ValueError(f"must be an {family!s} prefix")

    return parses(parse)


def interface(family: Family) -> Callable[[Any], str]:
    """Make a test for an interface's address with its subnet's length, ``192.0.2.17/24``."""

    def parse(text: str) -> None:
        if parse_interface(text)[0].family is not family:
            raise ValueError(f"must be an {family!s} address")

    return parses(parse)


def _family(found: Family, wanted: Family | None) -> bool:
    return wanted is not None and found is not wanted


def address_or_cidr(text: Any) -> str:
    return cidr()(text) if "/" in text else address()(text)


def parse_community(text: str) -> int | tuple[int, int, int]:
    """Read ``aa:nn`` (RFC 1997) or ``aa:nn:mm`` (RFC 8092); raises ValueError."""
    parts = text.split(":")
    most = {2: 0xFFFF, 3: 0xFFFFFFFF}.get(len(parts), -1)
    if not all(part.isascii() and part.isdecimal() and len(part) <= 10 and int(part) <= most for part in parts):
        raise ValueError("must be aa:nn with parts to 65535, or aa:nn:mm with parts to 4294967295")
    first, second, *rest = map(int, parts)
    return (first, second, rest[0]) if rest else first << 16 | second


community = parses(parse_community)


def regex(text: Any) -> str:
    try:
        re.compile(text)
    except re.error as error:
        return f"must be a regular expression: {error}"
    return ""


# ------------------------------------------------------------------ shapes used by several kinds

SELECTOR: Final[Shape] = Text(selects, most=SELECTOR_LENGTH_MAX)
AS_NUMBER: Final[Shape] = Tested(asn)
DURATION: Final[Shape] = Text(duration)
SECRET: Final[Shape] = Fields(
    {"secretKeyRef": Fields({"name": Text(name, most=253), "key": Text(most=253)}, required=("name", "key"))},
    required=("secretKeyRef",),
)


def given(spec: dict[str, Any], field: str) -> Any:
    """Return a field's value; None where it is absent in Go's eyes too (null, empty text, empty list, false, zero)."""
    return spec.get(field) or None
