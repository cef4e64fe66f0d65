"""A lab's description: containerlab's ``*.clab.yml``, read into frozen values.

The same file stays valid for containerlab itself, so its keys and its rules are containerlab's (containerlab.dev/manual/topo-def-file
and /manual/nodes): environment variables are expanded first, settings merge from ``defaults`` over ``kinds`` and ``groups`` to the node,
relative bind sources are relative to the file. Laws: an unknown key is an error that names file, path and rule; what could not be
honoured without Docker and would change the lab (``network-mode``, kinds other than ``linux``, links to the host) is an error, what
only tells Docker how to run a container (``image-pull-policy``, ``cpu``, ``ports`` …) is accepted and has no effect.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
"""Lab and node names: they become host names, file names and names of network namespaces."""

INTERFACE = re.compile(r"[a-zA-Z0-9_.-]{1,15}")
"""IFNAMSIZ of linux/if.h is 16 with the closing zero."""

VARIABLE = re.compile(
    r"\$(?:\{(?P<braced>[A-Za-z_]\w*)(?:(?P<op>:?[-=])(?P<default>[^}]*))?\}|(?P<plain>[A-Za-z_]\w*))"
)

NOT_A_NODE = frozenset({"host", "mgmt-net", "macvlan", "dummy", "vxlan", "vxlan-stitch"})
"""Link endpoints that containerlab reserves and that reach outside the lab."""


class TopologyError(Exception):
    """The file cannot be run: exit 2, and say which file, where in it, and what rule it breaks."""

    def __init__(self, path: Path, where: str, rule: str) -> None:
        super().__init__(f"{path}: {where}: {rule}" if where else f"{path}: {rule}")
        self.path = path
        self.where = where
        self.rule = rule


class Bind(msgspec.Struct, frozen=True):
    """A file or directory of the host, shown in the node."""

    source: str
    target: str
    read_only: bool = False


class Node(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    image: str
    group: str = ""
    command: tuple[str, ...] = ()
    """``entrypoint`` and ``cmd`` together; empty: the image decides."""
    binds: tuple[Bind, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    exec: tuple[tuple[str, ...], ...] = ()
    """Commands to run in the node after its start, in order."""
    sysctls: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    startup_delay_s: int = 0

    @property
    def image_name(self) -> str:
        """The image without registry, folders and tag: ``frrouting/frr:v8.4.1`` is ``frr``."""
        return self.image.partition("@")[0].rpartition("/")[2].partition(":")[0]

    def label(self, key: str) -> str:
        """Value of a label; empty where the node has none."""
        return dict(self.labels).get(key, "")


class Endpoint(msgspec.Struct, frozen=True):
    node: str
    interface: str


class Link(msgspec.Struct, frozen=True):
    a: Endpoint
    b: Endpoint
    mtu_bytes: int = 1500


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    path: Path
    prefix: str = "clab"
    nodes: tuple[Node, ...]
    links: tuple[Link, ...] = ()

    def netns(self, node: str) -> str:
        """Name of the network namespace: the container's name in containerlab."""
        if self.prefix == "__lab-name":
            return f"{self.name}-{node}"
        return f"{self.prefix}-{self.name}-{node}" if self.prefix else node

    def node(self, name: str) -> Node:
        """Raise KeyError where the lab has no such node."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def links_of(self, name: str) -> tuple[tuple[str, Endpoint], ...]:
        """Each interface of a node, with the endpoint at the other end."""
        ends = [(link.a, link.b) for link in self.links] + [(link.b, link.a) for link in self.links]
        return tuple((here.interface, there) for here, there in ends if here.node == name)


Scalar = str | int | float | bool
T = TypeVar("T")


class _Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab", kw_only=True):
    """What containerlab allows under ``defaults``, a kind, a group and a node."""

    kind: str | None = None
    image: str | None = None
    group: str | None = None
    binds: list[str] = []
    env: dict[str, Scalar] = {}
    exec: list[str] = []
    cmd: str | None = None
    entrypoint: str | None = None
    sysctls: dict[str, Scalar] = {}
    labels: dict[str, Scalar] = {}
    startup_delay: int | None = None
    # Only Docker or other kinds need these: accepted, without effect.
    aliases: Any = None
    auto_remove: Any = None
    cap_add: Any = None
    certificate: Any = None
    components: Any = None
    config: Any = None
    cpu: Any = None
    cpu_set: Any = None
    devices: Any = None
    dns: Any = None
    enforce_startup_config: Any = None
    env_files: Any = None
    extras: Any = None
    healthcheck: Any = None
    image_pull_policy: Any = None
    license: Any = None
    memory: Any = None
    mgmt_ipv4: Any = None
    mgmt_ipv6: Any = None
    network_mode: str | None = None
    ports: Any = None
    position: Any = None
    publish: Any = None
    restart_policy: Any = None
    runtime: Any = None
    shm_size: Any = None
    stages: Any = None
    startup_config: Any = None
    suppress_startup_config: Any = None
    type: Any = None
    user: Any = None


class _Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node: str
    interface: str
    mac: Any = None


class _LinkOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoints: list[str | _Place]
    type: str = "veth"
    mtu: int = 1500
    vars: Any = None
    labels: Any = None


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nodes: dict[str, Any]
    links: list[Any] = []
    defaults: Any = None
    kinds: dict[str, Any] = {}
    groups: dict[str, Any] = {}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    topology: Any
    prefix: str = "clab"
    mgmt: Any = None
    settings: Any = None
    debug: Any = None


def load(path: Path, env: Mapping[str, str]) -> Topology:
    """Read a topology file, with the variables of *env*. Raises TopologyError: not there, not YAML, or against a rule."""
    path = path.absolute()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(path, "", f"cannot be read: {error}") from error
    try:
        raw = yaml.safe_load(expand(text, env))
    except yaml.YAMLError as error:
        raise TopologyError(path, "", f"is not YAML: {' '.join(str(error).split())}") from error
    return _Reader(path).topology(raw)


def expand(text: str, env: Mapping[str, str]) -> str:
    """Put in environment variables as containerlab does: ``$V``, ``${V}``, ``${V:-default}``, ``${V:=default}``, ``-`` and ``=`` alone.

    With the colon an empty value counts as unset. An unset variable without a default is left as it stands, for the shell in the node.
    """

    def value(match: re.Match[str]) -> str:
        found = env.get(match["braced"] or match["plain"])
        op: str = match["op"] or ""
        if found is None or (op.startswith(":") and not found):
            return match["default"] if op else match[0]
        return found

    return VARIABLE.sub(value, text)


class _Reader:
    """Reads one file. Owns its path, for the errors."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def topology(self, raw: Any) -> Topology:
        file = self.convert(raw, _File, "")
        self.named(file.name, "name")
        body = self.convert(file.topology, _Body, "topology")
        nodes = tuple(self.node(name, body, file) for name in body.nodes)
        links = tuple(self.link(number, link, body.nodes) for number, link in enumerate(body.links))
        self.once(links)
        return Topology(name=file.name, path=self.path, prefix=file.prefix, nodes=nodes, links=links)

    def node(self, name: str, body: _Body, file: _File) -> Node:
        where = f"topology.nodes.{name}"
        self.named(name, where)
        own = self.options(body.nodes[name], where)
        defaults = self.options(body.defaults, "topology.defaults")
        group_name = own.group or defaults.group or ""
        group = self.options(body.groups.get(group_name), f"topology.groups.{group_name}")
        kind = own.kind or group.kind or defaults.kind
        if kind != "linux":
            raise TopologyError(self.path, f"{where}.kind", f"must be linux to run without Docker, is {kind}")
        levels = (defaults, self.options(body.kinds.get(kind), f"topology.kinds.{kind}"), group, own)
        if any(level.network_mode for level in levels):
            raise TopologyError(self.path, f"{where}.network-mode", "cannot be honoured without Docker")
        image = last(level.image for level in levels)
        if not image:
            raise TopologyError(self.path, where, "needs an image")
        magic = {"__clabNodeName__": name, "__clabLabName__": file.name}
        commands = (last(level.entrypoint for level in levels), last(level.cmd for level in levels))
        return Node(
            name=name,
            image=image,
            group=group_name,
            command=tuple(word for text in commands if text for word in self.words(text, f"{where}.cmd", magic)),
            binds=self.binds([bind for level in levels for bind in level.binds], where, magic),
            env=merged(level.env for level in levels),
            exec=tuple(tuple(self.words(line, f"{where}.exec", magic)) for level in levels for line in level.exec),
            sysctls=merged(level.sysctls for level in levels),
            labels=merged(level.labels for level in levels),
            startup_delay_s=last(level.startup_delay for level in levels) or 0,
        )

    def options(self, raw: Any, where: str) -> _Options:
        return self.convert({} if raw is None else raw, _Options, where)

    def words(self, text: str, where: str, magic: Mapping[str, str]) -> list[str]:
        try:
            return shlex.split(replaced(text, magic))
        except ValueError as error:
            raise TopologyError(self.path, where, f"cannot be split into words ({error}): {text}") from error

    def binds(self, texts: list[str], where: str, magic: Mapping[str, str]) -> tuple[Bind, ...]:
        """Resolve; where two levels bind the same target, the level nearest to the node wins."""
        found: dict[str, Bind] = {}
        for text in texts:
            source, _, rest = replaced(text, magic).partition(":")
            target, _, mode = rest.partition(":")
            place = f"{where}.binds"
            if not source or not target.startswith("/") or set(mode.split(",")) - {"", "ro", "rw", "z", "Z"}:
                raise TopologyError(self.path, place, f"must be SOURCE:/TARGET or SOURCE:/TARGET:ro, is {text}")
            full = (self.path.parent / Path(source).expanduser()).resolve()
            if not full.exists():
                raise TopologyError(self.path, place, f"bind source does not exist: {full}")
            found[target] = Bind(source=str(full), target=target, read_only="ro" in mode.split(","))
        return tuple(found.values())

    def link(self, number: int, raw: Any, nodes: Mapping[str, Any]) -> Link:
        where = f"topology.links[{number}]"
        options = self.convert(raw, _LinkOptions, where)
        if options.type != "veth":
            raise TopologyError(self.path, f"{where}.type", f"must be veth to run without Docker, is {options.type}")
        if len(options.endpoints) != 2:
            raise TopologyError(
                self.path, f"{where}.endpoints", f"a link has two endpoints, not {len(options.endpoints)}"
            )
        first, second = (self.endpoint(text, where, nodes) for text in options.endpoints)
        return Link(first, second, options.mtu)

    def endpoint(self, raw: str | _Place, where: str, nodes: Mapping[str, Any]) -> Endpoint:
        node, _, interface = raw.partition(":") if isinstance(raw, str) else (raw.node, "", raw.interface)
        place = f"{where}.endpoints"
        if node in NOT_A_NODE and node not in nodes:
            raise TopologyError(self.path, place, f"cannot link to {node} without Docker")
        if node not in nodes:
            raise TopologyError(self.path, place, f"no node named {node!r} (must be NODE:INTERFACE, is {raw})")
        if not INTERFACE.fullmatch(interface):
            raise TopologyError(self.path, place, f"interface names have 1 to 15 letters, digits, '_', '.', '-': {raw}")
        return Endpoint(node, interface)

    def once(self, links: tuple[Link, ...]) -> None:
        seen: set[Endpoint] = set()
        for number, link in enumerate(links):
            for end in (link.a, link.b):
                if end in seen:
                    raise TopologyError(
                        self.path, f"topology.links[{number}]", f"{end.node}:{end.interface} is linked twice"
                    )
                seen.add(end)

    def named(self, name: str, where: str) -> None:
        if not NAME.fullmatch(name):
            raise TopologyError(self.path, where, f"a name has 1 to 63 letters, digits, '_', '.', '-': {name!r}")

    def convert(self, raw: Any, type_: type[T], where: str) -> T:
        try:
            return msgspec.convert(raw, type_)
        except msgspec.ValidationError as error:
            raise TopologyError(self.path, where, self.plain(str(error))) from error

    @staticmethod
    def plain(message: str) -> str:
        """Say msgspec's error in the words of the file: ``Object contains unknown field `x` - at `$.y` `` is ``y: unknown key x``."""
        text, _, place = message.partition(" - at ")
        text = text.replace("Object contains unknown field", "unknown key").replace(
            "Object missing required field", "needs the key"
        )
        place = place.strip("`").removeprefix("$").removeprefix(".")
        return f"{place}: {text.replace('`', '')}" if place else text.replace("`", "")


def last(values: Iterable[T | None]) -> T | None:
    """The value of the level nearest to the node."""
    return next((value for value in reversed(list(values)) if value is not None), None)


def merged(levels: Iterable[Mapping[str, Scalar]]) -> tuple[tuple[str, str], ...]:
    """Merge maps key by key, the level nearest to the node last; YAML's numbers and booleans become what a shell would write."""
    found: dict[str, Scalar] = {}
    for level in levels:
        found |= level
    return tuple((key, str(value).lower() if isinstance(value, bool) else str(value)) for key, value in found.items())


def replaced(text: str, magic: Mapping[str, str]) -> str:
    """Put in containerlab's magic variables."""
    for name, value in magic.items():
        text = text.replace(name, value)
    return text
