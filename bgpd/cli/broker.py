"""``bgpd events --node``: what a broker knows of nodes. Apart from the other events, whose command need not load a client of MQTT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import click
import msgspec

from bgpd.adapters.mqtt.options import Options
from bgpd.adapters.mqtt.reader import EVERY, Message, Unreadable, read
from bgpd.adapters.secrets import Passwords, Unfit
from bgpd.cli.line import line
from bgpd.cli.options import BadInput, NoDaemon
from bgpd.config.error import ConfigError
from bgpd.config.load import load
from bgpd.model.telling import EventsMessage, PeerMessage, StatusMessage


def broker_of(path: Path) -> tuple[str, Options | None]:
    """Return the node's own name, and how to reach the broker of its configuration; raises BadInput."""
    try:
        config = load(path)
        return config.node.name, config.mqtt.options(config.node.name, Passwords(Path(config.secrets.directory)))
    except ConfigError as error:
        raise BadInput(f"the broker is named in the configuration: {error}") from error
    except Unfit as error:
        raise BadInput(f"mqtt: {error}") from error


def show_broker(options: Options, node: str | None, *, follow: bool, last: int, output: str) -> None:
    """Write what the broker knows of *node*, or of all; with *follow* go on with what comes. Raises NoDaemon."""
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(_show(read(options, node or EVERY, follow=follow), last=last, output=output))
    except Unreadable as error:
        raise NoDaemon(str(error)) from error


async def _show(messages: AsyncIterator[tuple[str, Message]], *, last: int, output: str) -> None:
    async for topic, message in messages:
        if output == "json":
            click.echo(msgspec.json.encode({"topic": topic, "message": message}).decode())
            continue
        for text in lines(message, last if topic == "recent" else None):
            click.echo(f"{message.node}  {text}")


def lines(message: Message, last: int | None) -> list[str]:
    """Write a message for people; of events at most the *last* ones."""
    match message:
        case StatusMessage():
            at = f" since {_time(message.at)}" if message.at is not None else ""
            return [f"{message.state}{f', phase {message.phase}' if message.phase else ''}{at}"]
        case PeerMessage():
            state = "established" if message.established else f"down: {message.reason or 'never up'}"
            since = f" since {_time(message.since)}" if message.since is not None else ""
            return [f"peer {message.name} {message.address} AS{message.asn} {state}{since}"]
        case EventsMessage():
            gap = [f"({message.dropped} events were dropped)"] if message.dropped else []
            events = message.events if last is None else message.events[len(message.events) - last :] if last else ()
            return gap + [line(event) for event in events]


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
