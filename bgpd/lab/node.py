"""What a lab node is made of: its services, and the files and directories they expect, from its image's name.

Without Docker an image is a name. ``frr`` is Debian's FRR without watchfrr (a lab wants to see a daemon's end, not its
replacement), ``bird`` Debian's BIRD, ``bgpd`` this project's daemon; every other image is a bare namespace. ``cmd`` and
``entrypoint`` of the file win over the image, as in Docker.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from bgpd.lab.topology import Node, Topology

FRR = Path("/usr/lib/frr")
FRR_ALWAYS = ("zebra", "staticd")
"""Started whatever /etc/frr/daemons says, as FRR's own start script does."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Service(msgspec.Struct, frozen=True):
    """A process of a node."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Files that must exist before it starts."""
    once: bool = False
    """It ends by itself; its end with status 0 is success."""


class Furniture(msgspec.Struct, frozen=True):
    """What the init makes before the first service: directories (path, owner, mode) and files (path, text)."""

    services: tuple[Service, ...] = ()
    directories: tuple[tuple[str, str, int], ...] = ()
    files: tuple[tuple[str, str], ...] = ()


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the init of a node reads (bgpd/lab/init.py)."""

    hostname: str
    logs: str
    binds: tuple[tuple[str, str, bool], ...]
    keep: tuple[str, ...]
    """Paths that the services need, should they lie under what the node hides: this interpreter and this package."""
    sysctls: tuple[tuple[str, str], ...]
    env: tuple[tuple[str, str], ...]
    services: tuple[Service, ...]
    directories: tuple[tuple[str, str, int], ...]
    files: tuple[tuple[str, str], ...]


def orders(topology: Topology, node: Node, logs: Path, sources: dict[str, str]) -> Orders:
    """Everything the init of *node* must know. *sources* replaces bind sources (fresh directories for placeholders)."""
    furniture = furnish(node)
    return Orders(
        hostname=node.name,
        logs=str(logs),
        binds=tuple((sources.get(bind.source, bind.source), bind.target, bind.read_only) for bind in node.binds),
        keep=tuple(dict.fromkeys((sys.prefix, sys.base_prefix, str(Path(__file__).parents[2])))),
        sysctls=node.sysctls,
        env=(*environment(topology, node).items(),),
        services=furniture.services,
        directories=furniture.directories,
        files=furniture.files,
    )


def environment(topology: Topology, node: Node) -> dict[str, str]:
    """Environment of every process of the node: this project's commands come first in PATH."""
    own = {"PATH": f"{sys.prefix}/bin:{PATH}", "HOME": "/root", "LANG": "C.UTF-8", "CLAB_LABEL_CLAB_LAB": topology.name}
    return own | dict(node.env)


def furnish(node: Node) -> Furniture:
    """Choose by ``cmd``, else by image."""
    found = IMAGES[node.image_name](node) if node.image_name in IMAGES else Furniture()
    if node.command:
        service = Service(name=Path(node.command[0]).name, command=node.command)
        return Furniture((service,), found.directories, found.files)
    return found


def frr(node: Node) -> Furniture:
    settings = daemons(node)
    names = [*FRR_ALWAYS, *(key for key, value in settings.items() if value == "yes" and (FRR / key).exists())]
    names = list(dict.fromkeys(names))
    profile = ("-F", settings["frr_profile"]) if settings.get("frr_profile") else ()
    routers = tuple(
        Service(
            name=name,
            command=(str(FRR / name), "--log", "stdout", *profile, *shlex.split(settings.get(f"{name}_options", ""))),
            needs=() if name == "zebra" else ("/run/frr/zserv.api",),
        )
        for name in names
    )
    sockets = tuple(f"/run/frr/{name}.vty" for name in names)
    configure = Service(name="vtysh", command=("vtysh", "-b"), needs=sockets, once=True)
    return Furniture(
        services=(*routers, configure),
        directories=(("/run/frr", "frr", 0o755), ("/var/log/frr", "frr", 0o755), ("/etc/frr", "frr", 0o755)),
        files=()
        if bound(node, "/etc/frr/vtysh.conf")
        else (("/etc/frr/vtysh.conf", "service integrated-vtysh-config\n"),),
    )


def bird(_: Node) -> Furniture:
    return Furniture((Service(name="bird", command=("bird", "-f")),), directories=(("/run/bird", "", 0o755),))


def bgpd(_: Node) -> Furniture:
    directories = (("/etc/bgpd", "", 0o755), ("/run/bgpd", "", 0o755), ("/var/lib/bgpd", "", 0o755))
    return Furniture((Service(name="bgpd", command=("bgpd", "run")),), directories=directories)


IMAGES = {"frr": frr, "bird": bird, "bgpd": bgpd}

PROGRAMS = {
    "frr": (str(FRR / "zebra"), str(FRR / "bgpd"), "vtysh"),
    "bird": ("bird", "birdc"),
    "bgpd": ("bgpd", "exabgp"),
}
"""What an image runs, to be looked for before anything is started."""

PACKAGES = {"zebra": "frr", "bgpd": "frr", "vtysh": "frr", "bird": "bird2", "birdc": "bird2"}


def missing(nodes: tuple[Node, ...]) -> list[str]:
    """Say what is not installed, each with the command that installs it."""
    path = f"{sys.prefix}/bin:{PATH}"
    wanted = ["ip", "unshare", "nsenter"]
    wanted += [program for node in nodes if not node.command for program in PROGRAMS.get(node.image_name, ())]
    absent = [program for program in dict.fromkeys(wanted) if shutil.which(program, path=path) is None]
    return [f"{program} is not installed ({remedy(program)})" for program in absent]


def remedy(program: str) -> str:
    if program in {"bgpd", "exabgp"}:
        return f"install this project into {sys.prefix}: pip install -e ."
    tools = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}
    return f"apt-get install {tools.get(program) or PACKAGES[Path(program).name]}"


def daemons(node: Node) -> dict[str, str]:
    """Read the node's /etc/frr/daemons: shell assignments, comments. Without the file nothing is set."""
    place = bound(node, "/etc/frr/daemons") or Path("/etc/frr/daemons")
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = [line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#")]
    return {key.strip(): " ".join(shlex.split(value, comments=True)) for key, _, value in pairs}


def bound(node: Node, target: str) -> Path | None:
    """The host's file behind a path of the node, if a bind shows one there."""
    for bind in node.binds:
        if bind.target == target:
            return Path(bind.source)
        if target.startswith(f"{bind.target.rstrip('/')}/"):
            inside = Path(bind.source) / target[len(bind.target.rstrip("/")) + 1 :]
            return inside if inside.exists() else None
    return None


def encoded(what: Orders) -> bytes:
    """The orders as the init reads them."""
    builtin: Any = msgspec.to_builtins(what)
    return msgspec.json.encode(builtin)
