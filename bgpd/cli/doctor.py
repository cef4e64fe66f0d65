"""``bgpd doctor``: what a bug report needs, in one archive.

Laws: the archive is readable by its owner alone from its first byte on, and there is none where it could not be finished. Each part is
bounded, and one that cannot be had is named with the reason, so that a dead daemon or a missing tool costs that part alone. No secret
is in it, twice: values of keys that are named like one are left out of the configuration, and the contents of every secret file
that the configuration names are taken out of all parts.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import re
import socket as sockets
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import click
import msgspec

import bgpd
from bgpd.api import client, protocol
from bgpd.api.client import Client
from bgpd.cli.config import ENVIRONMENT
from bgpd.cli.options import Stop, asks
from bgpd.cli.render import show_json
from bgpd.config.load import DEFAULT_PATH

PART_LIMIT_BYTES: Final = 16 << 20
"""Of one part: what is beyond is cut off, and that is said."""
COMMAND_S: Final = 20.0
"""For each command."""
JOURNAL_LINES: Final = 5000
SECRET_LEAST_BYTES: Final = 4
"""A shorter secret is no word to look for: it would be found everywhere."""
SECRET_FILES_MAX: Final = 1000
SECRET_LIMIT_BYTES: Final = 65536
REMOVED: Final = "(removed)"

_API: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "status.json": (protocol.STATUS, {}),
    "peers.json": (protocol.PEERS, {}),
    "routes.json": (protocol.ROUTES, {}),
    "fib.json": (protocol.FIB, {}),
    "fib-diff.json": (protocol.FIB_DIFF, {}),
    "pools.json": (protocol.POOLS, {}),
    "events.json": (protocol.EVENTS, {}),
    "recording-state.jsonl": (protocol.RECORDING, {"what": "state"}),
    "recording-last.jsonl": (protocol.RECORDING, {"what": "last"}),
}
_COMMANDS: Final = {
    "kernel/links.json": "ip -j -d -s link show",
    "kernel/addresses.json": "ip -j address show",
    "kernel/routes-ipv4.json": "ip -j -4 route show table all",
    "kernel/routes-ipv6.json": "ip -j -6 route show table all",
    "kernel/nexthops.json": "ip -j nexthop show",
    "kernel/rules-ipv4.json": "ip -j -4 rule show",
    "kernel/rules-ipv6.json": "ip -j -6 rule show",
    "kernel/neighbours.json": "ip -j neighbour show",
    "kernel/fdb.json": "bridge -j fdb show",
    "kernel/sockets.txt": "ss -tanm",
    "kernel/sysctl.txt": "sysctl -e net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.rp_filter "
    "net.ipv4.fib_multipath_hash_policy net.ipv4.nexthop_compat_mode net.core.rmem_max",
    "journal.txt": f"journalctl --no-pager -o short-iso -n {JOURNAL_LINES} -u bgpd.service -u bgpd-speaker.service",
}
_NAMED = re.compile(
    r"""(?im)^(\s*[\w."'-]*(?:passw|secret|token|passphrase|private)[\w."'-]*\s*=\s*)(?!\s*\{)(?!.*_file).+$"""
)
_USER_INFO = re.compile(r"(?<=://)[^/\s\"'@]+@")


class MadeView(msgspec.Struct, frozen=True):
    """What was made."""

    archive: str
    size_bytes: int
    parts: tuple[str, ...]
    missing: dict[str, str]
    """Parts that could not be had, or not in whole, and why."""


@click.command()
@click.option(
    "-o",
    "--output",
    "archive",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The archive to make; else bgpd-doctor-HOST-TIME.tar.gz in this directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Say as JSON what was made.")
@asks
def doctor(*, archive: Path | None, as_json: bool, socket: Path) -> None:
    """Collect what a bug report needs into one archive (tar.gz, readable by you alone).

    The configuration without secrets; status, peers, routes, FIB and its differences, pools, the last events; the state as a recording,
    and the last events before it, as `bgpd run --record` writes them; links, addresses, routes, nexthops and rules of the
    kernel; versions; the end of the journal. It works without a daemon, too, and says what is missing then.
    Addresses, names and AS numbers of your network are in it.
    """
    path = archive or Path(f"bgpd-doctor-{sockets.gethostname()}-{time.strftime('%Y%m%dT%H%M%S')}.tar.gz")
    parts, missing = _collect(Client(socket))
    parts["missing.json"] = msgspec.json.format(msgspec.json.encode(missing))
    try:
        _write(path, parts)
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error.strerror}") from error
    view = MadeView(str(path), path.stat().st_size, tuple(sorted(parts)), missing)
    if as_json:
        show_json(view)
        return
    for name, reason in missing.items():
        click.echo(f"bgpd: {name}: {reason}", err=True)
    click.echo(f"{path}: {len(parts)} parts, {view.size_bytes} bytes")


def _collect(daemon: Client) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the parts by name, and why others are missing."""
    parts: dict[str, bytes] = {"versions.json": _versions()}
    missing: dict[str, str] = {}
    path = Path(os.environ.get(ENVIRONMENT) or DEFAULT_PATH)
    secrets: list[bytes] = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        missing["config.toml"] = f"{path} cannot be read: {error.strerror}"
    else:
        parts["config.toml"] = _USER_INFO.sub(
            f"{REMOVED}@", _NAMED.sub(lambda found: f'{found[1]}"{REMOVED}"', text)
        ).encode()
        secrets = list(_secrets(text))
    work: dict[str, Callable[[], bytes]] = {
        **{name: partial(daemon.raw, path, **query) for name, (path, query) in _API.items()},
        **{name: partial(_run, words) for name, words in _COMMANDS.items()},
    }
    for name, make in work.items():
        try:
            parts[name] = make()
        except (client.ApiError, protocol.Refused, OSError, subprocess.SubprocessError) as error:
            missing[name] = str(error)
    for name, octets in parts.items():
        if len(octets) > PART_LIMIT_BYTES:
            missing[name] = f"cut off after {PART_LIMIT_BYTES} of {len(octets)} bytes"
    return {name: _without(octets, secrets) for name, octets in parts.items()}, missing


def _without(octets: bytes, secrets: list[bytes]) -> bytes:
    """Take every secret out, then bound the part, at the end of a line where it has lines."""
    for secret in secrets:
        octets = octets.replace(secret, REMOVED.encode())
    if len(octets) <= PART_LIMIT_BYTES:
        return octets
    end = octets.rfind(b"\n", 0, PART_LIMIT_BYTES)
    return octets[: end + 1 if end >= 0 else PART_LIMIT_BYTES]


def _secrets(text: str) -> Iterator[bytes]:
    """Yield what is in the files that the configuration names as secret, in all forms that could be shown, the longest first."""
    found: set[bytes] = {unquote(one).encode() for pair in _USER_INFO.findall(text) for one in pair[:-1].split(":")}
    found |= {match.group(0).partition("=")[2].strip().strip("\"'").encode() for match in _NAMED.finditer(text)}
    for path in _secret_files(text):
        try:
            with path.open("rb") as file:
                found.add(file.read(SECRET_LIMIT_BYTES).strip())
        except OSError:
            continue
    found |= {json.dumps(one.decode(errors="replace"))[1:-1].encode() for one in found}
    yield from sorted((one for one in found if len(one) >= SECRET_LEAST_BYTES), key=len, reverse=True)


def _secret_files(text: str) -> Iterator[Path]:
    """Yield the files below the directory of secrets, and those that keys such as password_file and key name."""
    try:
        config = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        config = {}
    section = config.get("secrets")
    directory = section.get("directory") if isinstance(section, dict) else None
    below = Path(directory if isinstance(directory, str) else "/etc/bgpd/secrets")
    try:
        yield from [path for path in below.rglob("*") if path.is_file()][:SECRET_FILES_MAX]
    except OSError:
        return
    for values in config.values():
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, str) and (name == "key" or name.endswith("_file")):
                yield Path(value)


def _versions() -> bytes:
    """Describe the software and the host."""
    found = {
        "bgpd": bgpd.__version__,
        "python": sys.version,
        "kernel": platform.platform(),
        "machine": platform.machine(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **{one.metadata["Name"]: one.version for one in importlib.metadata.distributions()},
    }
    try:
        found["os"] = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        found["os"] = ""
    for name, words in (("iproute2", "ip -V"), ("systemd", "systemctl --version")):
        try:
            found[name] = _run(words).decode(errors="replace").splitlines()[0]
        except (OSError, subprocess.SubprocessError, IndexError):
            found[name] = "absent"
    return msgspec.json.format(msgspec.json.encode(found))


def _run(words: str) -> bytes:
    """Run a command that reads; raises OSError where there is none, SubprocessError where it fails and says nothing."""
    try:
        done = subprocess.run(words.split(), capture_output=True, timeout=COMMAND_S, check=False)
    except FileNotFoundError as error:
        raise OSError(f"there is no {words.split(maxsplit=1)[0]} on this host") from error
    if done.returncode and not done.stdout:
        reason = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise subprocess.SubprocessError(f"`{words}`: {reason}")
    return done.stdout


def _write(path: Path, parts: dict[str, bytes]) -> None:
    """Write the archive as a whole, for its owner alone; one that is there is not overwritten."""
    if path.exists():
        raise FileExistsError(17, "it exists already: name another file", str(path))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name in sorted(parts):
                member = tarfile.TarInfo(f"bgpd-doctor/{name}")
                member.size, member.mode, member.mtime = len(parts[name]), 0o600, int(time.time())
                tar.addfile(member, io.BytesIO(parts[name]))
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
