"""Which store a URL names. Backends are listed here, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from bgpd.adapters.secrets import unfit_file, unfit_secret
from bgpd.adapters.store.base import Store
from bgpd.adapters.store.etcd import EtcdStore
from bgpd.adapters.store.etcd_link import EtcdOptions, is_loopback
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.sqlite import SqliteStore

_MEMBER = re.compile(r"(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_FORMS = "write sqlite:///absolute/path, etcds://HOST:PORT,HOST:PORT (TLS), etcd://HOST:PORT or memory://"


class Access(msgspec.Struct, frozen=True):
    """How to be let in to an etcd cluster; the fields are those of EtcdOptions. Empty: not used."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    user: str = ""
    password_file: str = ""


NO_ACCESS = Access()


def open_store(url: str, access: Access = NO_ACCESS, *, create: bool = True) -> Store:
    """Open ``sqlite:///absolute/path``, ``memory://`` (this process only, empty), ``etcd://HOST:PORT,…`` or ``etcds://…``
    (the same with TLS); raises ValueError with the reason for anything else.

    A file that does not exist is made only with *create*. Nothing is read yet: a store that cannot be reached raises
    Transient at its first use.
    """
    scheme, rest = _scheme(url), url.partition("://")[2]
    if scheme == "sqlite":
        if not rest.startswith("/") or len(rest) < 2 or rest.endswith("/"):
            raise ValueError(f"{without_password(url)!r} names no file: write sqlite:///absolute/path")
        return SqliteStore(Path(rest), create=create)
    if scheme == "memory" and url == "memory://":
        return MemoryStore()
    if scheme in {"etcd", "etcds"}:
        return EtcdStore(_etcd_options(url, access))
    raise ValueError(f"{without_password(url)!r} is not a store: {_FORMS}")


def access_defects(url: str, access: Access) -> list[tuple[str, str]]:
    """Say what is wrong with *access* for the store of a good *url*: the name of a field and what holds instead."""
    given = {name: getattr(access, name) for name in access.__struct_fields__ if getattr(access, name)}
    scheme = _scheme(url)
    if scheme not in {"etcd", "etcds"}:
        return [(name, "is for a store of etcd; the URL names another") for name in given]
    defects: list[tuple[str, str]] = []
    if scheme == "etcd":
        defects += [
            (name, "is for TLS: write etcds:// in the URL")
            for name in ("ca", "cert", "key", "server_name")
            if name in given
        ]
        if "user" in given and not all(map(is_loopback, _members(url))):
            defects.append(("user", "a password goes through TLS only (etcds://), or to this machine itself"))
    for one, other in (("cert", "key"), ("key", "cert"), ("user", "password_file"), ("password_file", "user")):
        if one in given and other not in given:
            defects.append((one, f"is of use only together with {other}"))
    judged = {name for name, _ in defects}
    for name, unfit in (
        ("ca", unfit_file),
        ("cert", unfit_file),
        ("key", unfit_secret),
        ("password_file", unfit_secret),
    ):
        if name in given and name not in judged and (reason := unfit(Path(given[name]))):
            defects.append((name, reason))
    return defects


def without_password(text: str) -> str:
    """Return a text, such as a URL, with what stands before its last "@" left out: it may be a password."""
    return re.sub(r"//\S*@", "//…@", text)


def _scheme(url: str) -> str:
    """Return what stands before ``://``. urllib's splitter is no help: it refuses lists with an IPv6 member, by version of Python."""
    return url.partition("://")[0]


def _etcd_options(url: str, access: Access) -> EtcdOptions:
    return EtcdOptions(_members(url), tls=_scheme(url) == "etcds", **msgspec.structs.asdict(access))


def _members(url: str) -> tuple[str, ...]:
    """Return each ``host:port`` of an etcd URL; raises ValueError."""
    scheme, _, rest = url.partition("://")
    example = f"{scheme}://HOST:PORT,HOST:PORT"
    if "@" in rest:
        raise ValueError(
            f"a URL of etcd names no user or password: they are store.user and store.password_file; {example}"
        )
    members = tuple(rest.removesuffix("/").split(","))
    for member in members:
        match = _MEMBER.fullmatch(member)
        if match is None or not 1 <= int(match["port"]) <= 65_535:
            raise ValueError(f"{url!r} names no members: {member!r} is not HOST:PORT; write {example}")
    if len(set(members)) != len(members):
        raise ValueError(f"{url!r} must name each member once")
    return members
