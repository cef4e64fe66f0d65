"""``bgpd events``: what happened, from the daemon's own memory or from the broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from bgpd.api import protocol
from bgpd.api.client import Client
from bgpd.cli.lazy import Place, load
from bgpd.cli.line import line
from bgpd.cli.options import BadInput, asking, asks, output
from bgpd.cli.render import WARN, Cell, Column, Styled, Table, show, show_json
from bgpd.model.notice import KINDS
from bgpd.model.telling import EventsMessage, EventView, PeerMessage, StatusMessage

_BROKER = Place("bgpd.cli.broker", "broker_of", "")
_SHOW = Place("bgpd.cli.broker", "show_broker", "")


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option("-n", "--last", type=click.IntRange(0), default=50, show_default=True, help="Begin with so many.")
@click.option("--kinds", is_flag=True, help="Show every event there is, and what it means.")
@click.option("--schema", is_flag=True, help="Write the JSON Schema of what a broker is told.")
@click.option("--node", metavar="NAME", help="What the broker knows of this node, also of one that is gone.")
@click.option("--all-nodes", is_flag=True, help="What the broker knows of all nodes of the cluster.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="BGPD_CONFIG",
    default=Path("/etc/bgpd/bgpd.toml"),
    show_default=True,
    show_envvar=True,
    help="The configuration that names the broker.",
)
@output()
@asks
def events(
    *,
    follow: bool,
    last: int,
    kinds: bool,
    schema: bool,
    node: str | None,
    all_nodes: bool,
    config: Path,
    socket: Path,
    output: str,
) -> None:
    """Show what happened: sessions, blocks, paths, store, kernel.

    Without --node it is this node's, from the memory of its daemon. With it, the broker of `[mqtt]` is asked: the node's status, its
    peers and its last 50 events, which the broker keeps, and with --follow what comes. Where no broker is configured, this node's own
    daemon answers for it.
    """
    if (node is not None or all_nodes) and _from_broker(
        config, node, all_nodes=all_nodes, follow=follow, last=last, output=output
    ):
        return
    if schema:
        click.echo(msgspec.json.format(msgspec.json.encode(message_schema()), indent=2).decode())
    elif kinds:
        _show_kinds(output)
    elif follow:
        with asking(socket) as client:
            for event in _following(client, last):
                click.echo(msgspec.json.encode(event).decode() if output == "json" else line(event))
    else:
        with asking(socket) as client:
            found = client.events()[-last:] if last else []
        if output == "json":
            show_json(found)
        else:
            for event in found:
                click.echo(line(event))


def _from_broker(config: Path, node: str | None, *, all_nodes: bool, follow: bool, last: int, output: str) -> bool:
    """Show what the broker knows; returns False where there is none, and this node's own daemon knows. Raises BadInput."""
    if node is not None and all_nodes:
        raise BadInput("--node and --all-nodes exclude each other")
    if node is not None and (not node or set("+#/") & set(node)):
        raise BadInput(f"{node!r} is no node's name: + # and / have a meaning in MQTT; --all-nodes shows all")
    own, broker = load(_BROKER)(config)
    if broker is not None:
        load(_SHOW)(broker, node, follow=follow, last=last, output=output)
        return True
    if node != own:
        raise BadInput(f"{config} names no broker ([mqtt] host): without one, only {own} itself can be shown, here")
    return False


def _following(client: Client, last: int) -> Iterator[EventView]:
    found = client.events()
    yield from found[-last:] if last else []
    after = found[-1].sequence if found else 0
    while True:
        for event in client.events(after, protocol.EVENTS_WAIT_LIMIT_S):
            after = event.sequence
            yield event


def _show_kinds(output: str) -> None:
    if output == "json":
        show_json({name: {"text": kind.text, "good": kind.good} for name, kind in KINDS.items()})
        return
    rows: list[tuple[Cell, ...]] = [
        (name, "info" if kind.good else Styled("warning", WARN), kind.text) for name, kind in KINDS.items()
    ]
    show(Table((Column("EVENT"), Column("LEVEL"), Column("MEANING")), rows))


def message_schema() -> dict[str, object]:
    """Return the JSON Schema of the three messages: config/mqtt/messages.schema.json."""
    kinds = (EventsMessage, StatusMessage, PeerMessage)
    _, definitions = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    definitions["EventView"]["properties"]["event"] = {"enum": list(KINDS)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What bgpd tells an MQTT broker",
        "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": definitions,
    }
