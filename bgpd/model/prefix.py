"""Addresses and prefixes as packed integers.

Theory of operation: the decision process and the FIB hold hundreds of thousands of prefixes in dicts, so both values are
``int`` subclasses: hashing, equality and ordering are the interpreter's own (0.1 us a look-up), and no object hangs below.
An IPv6 value carries bit 128, so IPv4 sorts before IPv6 and ``0.0.0.0`` differs from ``::``. A prefix is the address of its
network shifted left by 8, plus its length: within a family, prefixes sort by network and then by length.

A link-local IPv6 address may carry the name of its link (``fe80::1%eth0``, RFC 4007 section 11) in the bits from 129 on: two links with the
same address beyond them have two neighbors. Only identities of neighbors have one; what is on the wire and in the kernel is :attr:`plain`.
"""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import Final

_V6: Final = 1 << 128
_V6_MASK: Final = _V6 - 1
_LINK_SHIFT: Final = 129
_PLAIN_MASK: Final = (1 << _LINK_SHIFT) - 1
LINK_BYTES: Final = 15
"""Longest name of a link (IFNAMSIZ of linux/if.h less the closing zero)."""


class Family(IntEnum):
    """Address family; the value is the IP version."""

    IPV4 = 4
    IPV6 = 6

    @property
    def bits(self) -> int:
        """Width of an address of this family, in bits."""
        return 32 if self is Family.IPV4 else 128

    def __str__(self) -> str:
        return "ipv4" if self is Family.IPV4 else "ipv6"


class Address(int):
    """An IPv4 or IPv6 address."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``192.0.2.1``, ``2001:db8::1`` or ``fe80::1%eth0``; raises ValueError with the reason for anything else."""
        text, percent, link = text.partition("%")
        parsed = ipaddress.ip_address(text)
        address = cls(int(parsed) | _V6) if parsed.version == 6 else cls(int(parsed))
        if not percent:
            return address
        if not link or len(link.encode()) > LINK_BYTES or address.on(link) == address:
            raise ValueError(
                f"{text}%{link}: a link of at most {LINK_BYTES} bytes stands behind a link-local IPv6 address only"
            )
        return address.on(link)

    @classmethod
    def from_packed(cls, data: bytes) -> Address:
        """Read 4 or 16 bytes in network order; raises ValueError for any other length."""
        if len(data) == 4:
            return cls(int.from_bytes(data, "big"))
        if len(data) == 16:
            return cls(int.from_bytes(data, "big") | _V6)
        raise ValueError(f"an address has 4 or 16 bytes, not {len(data)}")

    @property
    def family(self) -> Family:
        return Family.IPV6 if self & _V6 else Family.IPV4

    @property
    def packed(self) -> bytes:
        """4 or 16 bytes in network order."""
        return (self & _V6_MASK).to_bytes(16, "big") if self & _V6 else int(self).to_bytes(4, "big")

    def on(self, link: str) -> Address:
        """Return the neighbor with this address on *link*, if that says more: it does of a link-local IPv6 address."""
        if not link or not self & _V6 or not self.is_link_local:
            return self
        return Address(self.plain | int.from_bytes(link.encode(), "big") << _LINK_SHIFT)

    @property
    def plain(self) -> Address:
        """The address without its link."""
        return Address(self & _PLAIN_MASK) if self >> _LINK_SHIFT else self

    @property
    def link(self) -> str:
        """The link that it is said to be on; empty if none is."""
        name = self >> _LINK_SHIFT
        return name.to_bytes(LINK_BYTES, "big").lstrip(b"\0").decode() if name else ""

    @property
    def is_link_local(self) -> bool:
        """Whether the address is in 169.254.0.0/16 or fe80::/10."""
        return (self & _V6_MASK) >> 118 == 0x3FA if self & _V6 else self >> 16 == 0xA9FE

    def __str__(self) -> str:
        if self & _V6:
            text = str(ipaddress.IPv6Address(self & _V6_MASK))
            return f"{text}%{self.link}" if self >> _LINK_SHIFT else text
        return f"{self >> 24}.{self >> 16 & 255}.{self >> 8 & 255}.{self & 255}"

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"


class Prefix(int):
    """An IPv4 or IPv6 prefix; bits right of its length are always zero."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read ``192.0.2.0/24``; raises ValueError with the reason, also for host bits right of the length."""
        head, slash, tail = text.partition("/")
        address = Address.parse(head)
        if address >> _LINK_SHIFT:
            raise ValueError(f"{text!r} names a link: a prefix has none")
        if not slash or not tail.isascii() or not tail.isdecimal():
            raise ValueError(f"{text!r} has no prefix length: write ADDRESS/LENGTH")
        prefix = cls.of(address, int(tail))
        if prefix.network != address:
            raise ValueError(f"{text!r} has bits set right of its length: the prefix is {prefix}")
        return prefix

    @classmethod
    def of(cls, address: Address, length: int) -> Prefix:
        """Return the prefix of *length* bits that holds *address*; raises ValueError for a length out of range."""
        bits = 128 if address & _V6 else 32
        if not 0 <= length <= bits:
            raise ValueError(f"prefix length {length} is not in 0..{bits}")
        host = bits - length
        return cls(address >> host << host + 8 | length)

    @property
    def length(self) -> int:
        return self & 255

    @property
    def network(self) -> Address:
        return Address(self >> 8)

    @property
    def family(self) -> Family:
        return Family.IPV6 if self >> 8 & _V6 else Family.IPV4

    @property
    def is_host(self) -> bool:
        """Whether it holds a single address (/32 or /128)."""
        return self & 255 == (128 if self >> 8 & _V6 else 32)

    @property
    def size(self) -> int:
        """Number of addresses."""
        return 1 << self.family.bits - self.length

    def address(self, ordinal: int) -> Address:
        """Return the address at *ordinal*, counted from the network; raises IndexError beyond the last one."""
        if not 0 <= ordinal < self.size:
            raise IndexError(f"{self} has no address number {ordinal}")
        return Address((self >> 8) + ordinal)

    def holds(self, address: Address) -> bool:
        """Whether *address* lies within."""
        network = self >> 8
        host = (128 if network & _V6 else 32) - (self & 255)
        return address >> host == network >> host

    def covers(self, other: Prefix) -> bool:
        """Whether *other* is this prefix or a more specific one."""
        return self & 255 <= other & 255 and self.holds(Address(other >> 8))

    def __str__(self) -> str:
        return f"{Address(self >> 8)}/{self & 255}"

    def __repr__(self) -> str:
        return f"Prefix({str(self)!r})"


def parse_interface(text: str) -> tuple[Address, Prefix]:
    """Read an interface address such as ``192.0.2.17/24`` into the address and the prefix of its link.

    Raises ValueError with the reason. An address without a length is a host address (/32 or /128).
    """
    head, slash, tail = text.partition("/")
    address = Address.parse(head)
    if not slash:
        return address, Prefix.of(address, address.family.bits)
    if not tail.isascii() or not tail.isdecimal():
        raise ValueError(f"{text!r} has no prefix length: write ADDRESS/LENGTH")
    return address, Prefix.of(address, int(tail))
