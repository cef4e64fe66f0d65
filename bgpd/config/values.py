"""A configuration as a list of single values by path: to show where each comes from, and what differs between two.

Which of them the running daemon takes over at once, and which at its next start, is one table here: :data:`AT_START`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

import msgspec

from bgpd.config.kinds import section_of
from bgpd.config.schema import Config, KernelSection, Section
from bgpd.model.wire import to_builtin

ALL: Final = frozenset({"*"})
AT_START: Final[dict[str, frozenset[str]]] = {
    # who we are, for the store, for peers and for their sessions
    "node": frozenset({"name", "address", "address_ipv6", "asn", "router_id"}),
    "store": ALL,
    "pool": ALL,  # made at start, where the store holds none
    "fallback": frozenset({"vxlan_vni", "vxlan_port"}),  # of a device that carries traffic, the same on all nodes
    # how our routes are marked: those under the old mark have to go
    "kernel": frozenset(KernelSection.__struct_fields__) - {"compare_s"},
    "secrets": ALL,
    "speaker": ALL,  # a process that outlives the daemon
    "api": ALL,  # whoever asks for the reload asks there
    "state": ALL,
    "wireguard": ALL,  # the key's place, and its age
    "mtu": ALL,
    "log": frozenset({"format"}),
}
"""Keys, by section, whose change waits for the next start of the daemon, and why."""


class When(StrEnum):
    """When a changed value takes effect."""

    RELOAD = "reload"
    START = "start"


class Value(msgspec.Struct, frozen=True):
    """One value as JSON and TOML have it; None: not set."""

    path: str
    value: Any


class Change(msgspec.Struct, frozen=True):
    """One value that differs; None: not there, or not set."""

    path: str
    before: Any
    after: Any
    when: When


def when(path: str) -> When:
    """Say when a change at a path such as ``peer[tor1].port`` takes effect."""
    section, _, key = path.partition("[")[0].partition(".")
    keys = AT_START.get(section, frozenset())
    return When.START if keys is ALL or key.partition(".")[0] in keys else When.RELOAD


def values(config: Config) -> Iterator[Value]:
    """Yield every value of the schema, in its order; members of lists by number."""
    yield from _values("", config, by_name=False)


def changes(before: Config, after: Config) -> list[Change]:
    """Return what differs; peers and checks are told apart by their names, so that an order is no difference."""
    old = {one.path: one.value for one in _values("", before, by_name=True)}
    new = {one.path: one.value for one in _values("", after, by_name=True)}
    return [
        Change(path, old.get(path), new.get(path), when(path))
        for path in dict.fromkeys((*old, *new))
        if old.get(path) != new.get(path)
    ]


def merged(running: Config, wanted: Config) -> Config:
    """Return *wanted*, but for what waits for the next start: that is as in *running*."""
    kept: dict[str, Any] = {}
    for name, keys in AT_START.items():
        now = getattr(running, name)
        kept[name] = (
            now
            if keys is ALL
            else msgspec.structs.replace(getattr(wanted, name), **{key: getattr(now, key) for key in keys})
        )
    return msgspec.structs.replace(wanted, **kept)


def _values(path: str, section: Section, *, by_name: bool) -> Iterator[Value]:
    for field in msgspec.structs.fields(section):
        where = f"{path}.{field.name}" if path else field.name
        value = getattr(section, field.name)
        if isinstance(value, Section):
            yield from _values(where, value, by_name=by_name)
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            for index, item in enumerate(value):
                label = getattr(item, "name", index) if by_name else index
                yield from _values(f"{where}[{label}]", item, by_name=by_name)
        elif not (by_name and section_of(field.type)[1]):
            yield Value(where, msgspec.to_builtins(value, enc_hook=to_builtin))
