"""``bgpd events``: what happened, from the daemon's own memory or from the broker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click
import msgspec

from bgpd.api import protocol
from bgpd.api.client import Client
from bgpd.cli.options import asking, asks, output
from bgpd.cli.render import WARN, Cell, Column, Styled, Table, show, show_json
from bgpd.model.notice import KINDS
from bgpd.model.telling import EventsMessage, EventView, PeerMessage, StatusMessage


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option("-n", "--last", type=click.IntRange(0), default=50, show_default=True, help="Begin with so many.")
@click.option("--kinds", is_flag=True, help="Show every event there is, and what it means.")
@click.option("--schema", is_flag=True, help="Write the JSON Schema of what a broker is told.")
@output()
@asks
def events(*, follow: bool, last: int, kinds: bool, schema: bool, socket: Path, output: str) -> None:
    """Show what happened to this node: sessions, blocks, paths, store, kernel."""
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


def line(event: EventView) -> str:
    """Write an event as one line: local time, level, name, fields."""
    at = datetime.fromtimestamp(event.at).astimezone().isoformat(" ", "milliseconds")
    fields = " ".join(f"{name}={_word(value)}" for name, value in event.fields.items())
    return f"{at}  {event.level:7}  {event.event:18}  {fields}".rstrip()


def _word(value: object) -> str:
    text = str(value)
    return f'"{text}"' if " " in text or not text else text


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
