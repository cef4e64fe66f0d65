"""``bgpd config``: the checker is the loader, so what it finds good is what `bgpd run` starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from bgpd.adapters.secrets import Passwords
from bgpd.cli.options import BadInput, asks, output
from bgpd.cli.reload import asked, show_reload, written
from bgpd.cli.render import Cell, Column, Table, show, show_json
from bgpd.config.document import Document, Origin
from bgpd.config.error import ConfigError
from bgpd.config.load import DEFAULT_PATH, hidden, load_document
from bgpd.config.schema import Config, FallbackSection, LogLevel, PeerSection, StoreSection
from bgpd.config.values import When, values, when
from bgpd.model.pool import Pool, preference_text
from bgpd.model.wire import to_builtin

ENVIRONMENT = "BGPD_CONFIG"
"""Names the configuration file where the command line does not."""

F = TypeVar("F", bound=Callable[..., Any])


def configured(text: str) -> Callable[[F], F]:
    """Add ``--config`` to a command, whose function gets it as *path*; *text* says what the file is for."""
    return click.option(
        "--config",
        "path",
        type=click.Path(path_type=Path),
        envvar=ENVIRONMENT,
        default=DEFAULT_PATH,
        show_default=True,
        show_envvar=True,
        help=text,
    )


@click.group()
def config() -> None:
    """Check and show the configuration.

    A variable BGPD_SECTION_KEY takes the place of a key of the file (BGPD_LOG_LEVEL=debug); BGPD_PEER, BGPD_ANNOUNCE and BGPD_CHECK
    that of a whole list. Values are written as in the file, text with or without quotes.
    """


@config.command("show")
@click.argument("path", type=click.Path(path_type=Path), envvar=ENVIRONMENT, default=DEFAULT_PATH)
@output()
def show_values(path: Path, output: str) -> None:
    """Show every value of the configuration, and where it comes from.

    That is a line of the file at PATH, an environment variable, or the default. EFFECT says when a change of the value takes effect:
    by `bgpd reload`, or at the next start. What may be a secret is not shown; passwords are in files of their own anyway.
    """
    found, document = _loaded(path)
    rows = [(one.path, hidden(one.path, one.value), document.origin(one.path), when(one.path)) for one in values(found)]
    if output == "json":
        show_json({"path": str(path), "values": [_value(*row) for row in rows]})
        return
    columns = (Column("KEY"), Column("VALUE"), Column("FROM"), Column("EFFECT"))
    cells = [(key, written(value), _from(path, origin), effect.value) for key, value, origin, effect in rows]
    show(Table(columns, cells))


def _from(path: Path, origin: Origin) -> str:
    return origin.variable or (f"{path}:{origin.line}" if origin.line else "default")


def _value(path: str, value: Any, origin: Origin, effect: When) -> dict[str, Any]:
    kind = "environment" if origin.variable else "file" if origin.line else "default"
    return {
        "key": path,
        "value": value,
        "from": kind,
        "line": origin.line or None,
        "variable": origin.variable or None,
        "effect": effect.value,
    }


@config.command()
@click.argument("path", type=click.Path(path_type=Path), envvar=ENVIRONMENT, default=DEFAULT_PATH)
@click.option(
    "--against-running", is_flag=True, help="Show what `bgpd reload` would change in the running daemon, instead."
)
@output()
@asks
def check(path: Path, *, against_running: bool, socket: Path, output: str) -> None:
    """Check the configuration file at PATH (default: BGPD_CONFIG, else /etc/bgpd/bgpd.toml).

    Shows what `bgpd run` would start from it, or every defect with its place and its rule, with exit status 2. A password
    that cannot be read keeps its peer down and nothing else, so it is told, and the file is good.
    """
    found = read(path)
    if against_running:
        _against_running(path, socket, output)
    elif output == "json":
        show_json({"path": str(path), "config": msgspec.to_builtins(found, enc_hook=to_builtin)})
    else:
        show(f"{path} is good. What it says:\n", summary_table(found))
        if found.peer:
            show("", peers_table(found.peer))
    for reason in _held_down(found):
        click.echo(f"bgpd: {reason}", err=True)


def _against_running(path: Path, socket: Path, output: str) -> None:
    view = asked(socket, dry_run=True)
    if path.resolve() != Path(view.path).resolve():
        raise BadInput(f"the daemon reads {view.path}, not {path}: give that file, or start the daemon with this one")
    if output == "json":
        show_json(view)
    else:
        show_reload(view)


def _held_down(found: Config) -> Iterator[str]:
    """Yield why peers would stay down for want of their password, as it is now and for this user."""
    passwords = Passwords(Path(found.secrets.directory))
    for peer in found.peer:
        if peer.password is not None and (reason := passwords.unfit(peer.password.reference())):
            yield f"peer {peer.name} would stay down: {reason}"


def read(path: Path) -> Config:
    """Load a configuration; a bad one ends the command with all its defects."""
    return _loaded(path)[0]


def _loaded(path: Path) -> tuple[Config, Document]:
    try:
        return load_document(path, os.environ)
    except ConfigError as error:
        raise BadInput(str(error)) from error


def summary_table(found: Config) -> Table:
    """Lay out what holds for the whole node, as lines of a name and a value."""
    pool = found.default_pool()
    relax = "through any neighbor AS" if found.ecmp.multipath_relax else "through one neighbor AS"
    rows: list[tuple[Cell, Cell]] = [
        ("node", _node(found)),
        ("store", _store(found.store)),
        ("pool", "none is created" if pool is None else _pool(pool, found.fallback.kind)),
        ("peers", str(len(found.peer)) if found.peer else "none: nothing is announced or learned"),
        ("fallback", _fallback(found.fallback)),
        ("ecmp", f"up to {found.ecmp.limit} equal paths, {relax}"),
        (
            "start-up",
            f"removes nothing for up to {found.startup.peers_learned_ceiling_s:g} s, until all peers have spoken",
        ),
        ("speaker", f"ExaBGP in {found.speaker.mode} mode, in {found.speaker.runtime_dir}"),
        ("socket", found.api.socket),
        ("log", f"{_level(found.log.level)} and above, as {found.log.format}"),
    ]
    return Table((Column(""), Column("")), rows)


def _node(found: Config) -> str:
    node, method = found.node, found.address_method()
    labels = "".join(f", {name}={value}" for name, value in node.label_texts())
    if method is None:
        return f"{node.name}, AS {node.asn}, router id {found.router_id()}, reached at {node.address}{labels}"
    router_id = node.router_id if node.router_id is not None else "that address"
    return (
        f"{node.name}, AS {node.asn}, router id {router_id}, reached at an address found at start by {method}{labels}"
    )


def _store(section: StoreSection) -> str:
    known = {
        "user": f"as user {section.user}, password from {section.password_file}",
        "cert": f"with certificate {section.cert}, key {section.key}",
        "ca": f"trusting {section.ca}",
        "server_name": f"servers named {section.server_name}",
    }
    return "; ".join([section.url, *(text for name, text in known.items() if getattr(section, name))])


def _pool(pool: Pool, default: str) -> str:
    return (
        f"{pool.name} {pool.cidr}, blocks of /{pool.block_size}, VXLAN {pool.vxlan_mode}, "
        f"fallback {default if pool.fallback is None else preference_text(pool.fallback)}; created where the store has none"
    )


def _fallback(section: FallbackSection) -> str:
    back = f"back to native after {section.restore_after_s:g} to {section.restore_ceiling_s:g} s"
    return f"{section.kind}, VNI {section.vxlan_vni}, UDP port {section.vxlan_port}, {back}"


def peers_table(peers: tuple[PeerSection, ...]) -> Table:
    """Lay out the configured peers, one a row."""
    columns = (
        Column("NAME"),
        Column("ADDRESS"),
        Column("PORT", right=True),
        Column("AS", right=True),
        Column("LOCAL ADDRESS"),
        Column("FAMILIES"),
        Column("HOLD S", right=True),
        Column("RESTART S", right=True),
        Column("CONNECTION"),
    )
    return Table(columns, [_peer(peer) for peer in peers])


def _peer(peer: PeerSection) -> tuple[Cell, ...]:
    how = "passive" if peer.passive else "active"
    hops = f", multihop TTL {peer.multihop_ttl}" if peer.multihop_ttl else ""
    password = f", password {peer.password.name}/{peer.password.key}" if peer.password is not None else ""
    return (
        peer.name,
        str(peer.address),
        peer.port,
        peer.asn,
        str(peer.local_address),
        " ".join(peer.families),
        peer.hold_time_s,
        peer.graceful_restart_s,
        how + hops + password,
    )


def _level(level: LogLevel) -> str:
    return "info (or as BGPConfiguration says)" if level is LogLevel.AUTO else level.value
