"""Reads what nodes tell a broker: what it retains of them, then what comes.

A broker does not say when the last retained message was sent; they come at once and together, so silence of QUIET_S is taken for the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from secrets import token_hex

import aiomqtt
import msgspec

from bgpd.adapters.mqtt.broker import client_of
from bgpd.adapters.mqtt.options import Options
from bgpd.model.telling import EventsMessage, PeerMessage, StatusMessage

QUIET_S = 0.5
"""Silence that ends the retained messages: some round trips to a distant broker."""
EVERY = "+"
"""In place of a node's name: all nodes of the cluster (MQTT's wildcard of one level)."""
QOS = 1
PAYLOAD_LIMIT_BYTES = 262_144
"""Of one message: the last fifty events, each with a reason of any length that BGP allows, have some 50 KB."""
QUEUE_LIMIT_MESSAGES = 10_000
"""Messages that came and were not yet read: a cluster of a thousand nodes with eight peers each; more are dropped."""

Message = StatusMessage | PeerMessage | EventsMessage


class Unreadable(Exception):  # noqa: N818 - named for what the caller is told
    """The broker cannot be read now; the message says why. Asking again may help."""


async def read(options: Options, node: str, *, follow: bool) -> AsyncIterator[tuple[str, Message]]:
    """Yield the messages about *node* (or EVERY) with the last part of their topic; ends with the retained ones unless *follow*.

    The last part is ``status``, ``recent``, ``events``, or the address of a peer. Raises Unreadable.
    """
    top = f"{options.prefix}/{options.cluster}/{node}"
    client = client_of(options, f"bgpd-events-{token_hex(4)}", unread_limit=QUEUE_LIMIT_MESSAGES)
    try:
        async with client:
            await client.subscribe(f"{top}/#", qos=QOS)
            messages = aiter(client.messages)
            while True:
                try:
                    async with asyncio.timeout(None if follow else QUIET_S):
                        message = await anext(messages)
                except (TimeoutError, StopAsyncIteration):
                    return
                found = decoded(str(message.topic), bytes(message.payload or b""))
                if found is not None:
                    yield str(message.topic).rsplit("/", 1)[-1], found
    except (aiomqtt.MqttError, OSError) as error:
        raise Unreadable(f"the broker {options.host}:{options.port} cannot be read: {error}") from error


def decoded(topic: str, payload: bytes) -> Message | None:
    """Return what a message says; None for one that is not of ours, is larger than ours can be, or says that a peer is gone."""
    last = topic.rsplit("/", 1)[-1]
    kinds: dict[str, type[Message]] = {"status": StatusMessage, "recent": EventsMessage, "events": EventsMessage}
    kind: type[Message] | None = PeerMessage if "/peers/" in topic else kinds.get(last)
    if kind is None or not payload or len(payload) > PAYLOAD_LIMIT_BYTES:
        return None
    try:
        found: Message = msgspec.json.decode(payload, type=kind)
    except msgspec.DecodeError:
        return None
    return found
