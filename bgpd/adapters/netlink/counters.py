"""What the kernel counts of packets: by member of a nexthop group, and by device.

Nexthop counters came with Linux 6.9 (``NHA_OP_FLAGS``, include/uapi/linux/nexthop.h) and count where a packet had a choice: a group of
one member has none. An older kernel ignores the question or refuses it; both give no counters.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Final

import msgspec

from bgpd.adapters.netlink import encode
from bgpd.adapters.netlink.socket import NetlinkSocket

_NHA_ID: Final = 1
_NHA_OP_FLAGS: Final = 14
_NHA_GROUP_STATS: Final = 15
_DUMP_STATS: Final = 1
_ENTRY: Final = 1
_ENTRY_ID: Final = 1
_ENTRY_PACKETS: Final = 2
_NESTED: Final = 0x3FFF
"""Type of an attribute without its flags."""
_HEADER: Final = struct.Struct("=HH")
_U32: Final = struct.Struct("=I")
_NHM_BYTES: Final = 8
DEVICES: Final = Path("/proc/thread-self/net/dev")
"""Of the network namespace of the calling thread."""
DEVICES_LIMIT_BYTES: Final = 1 << 20
"""Some 8000 links."""


class DeviceCount(msgspec.Struct, frozen=True):
    """Of a device since it was made."""

    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int
    errors: int
    """Errors and drops, both directions."""


async def of_groups() -> dict[int, dict[int, int]]:
    """Return packets by group id and member id; empty where the kernel does not count. O(nexthop objects)."""
    wire = NetlinkSocket()
    request = encode.dump_nexthops() + _HEADER.pack(8, _NHA_OP_FLAGS) + _U32.pack(_DUMP_STATS)
    request = _U32.pack(len(request)) + request[4:]
    try:
        found = await wire.dump(request, lambda _, data, start, end: _decode(data, start + _NHM_BYTES, end))
    except OSError:
        return {}
    finally:
        wire.close()
    return dict(found)


def of_devices() -> dict[str, DeviceCount]:
    """Return the counters of every device. Raises OSError where /proc cannot be read."""
    with DEVICES.open("rb") as file:
        lines = file.read(DEVICES_LIMIT_BYTES).decode(errors="replace").splitlines()[2:]
    found = {}
    for name, _, rest in (line.partition(":") for line in lines):
        row = [int(word) for word in rest.split()]
        if len(row) >= 16:
            found[name.strip()] = DeviceCount(row[1], row[0], row[9], row[8], row[2] + row[3] + row[10] + row[11])
    return found


def _decode(data: bytes, start: int, end: int) -> tuple[int, dict[int, int]] | None:
    found = _attributes(data[start:end])
    if _NHA_ID not in found or _NHA_GROUP_STATS not in found:
        return None
    packets: dict[int, int] = {}
    for kind, entry in _nested(found[_NHA_GROUP_STATS]):
        member = _attributes(entry)
        if kind == _ENTRY and _ENTRY_ID in member and _ENTRY_PACKETS in member:
            packets[_U32.unpack(member[_ENTRY_ID])[0]] = int.from_bytes(member[_ENTRY_PACKETS], sys.byteorder)
    return _U32.unpack(found[_NHA_ID])[0], packets


def _nested(data: bytes) -> list[tuple[int, bytes]]:
    found, offset = [], 0
    while offset + 4 <= len(data):
        length, kind = _HEADER.unpack_from(data, offset)
        if length < 4:
            break
        found.append((kind & _NESTED, data[offset + 4 : offset + length]))
        offset += length + 3 & ~3
    return found


def _attributes(data: bytes) -> dict[int, bytes]:
    return dict(_nested(data))
