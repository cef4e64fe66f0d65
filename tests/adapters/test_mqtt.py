"""What a real mosquitto is told: retained states, last will, events, and what happens while it is away."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiomqtt
import jsonschema
import msgspec
import pytest

from bgpd.adapters.mqtt.broker import EVENTS_MAX, RECENT_EVENTS, Broker
from bgpd.adapters.mqtt.options import Options
from bgpd.adapters.mqtt.reader import EVERY, Message, Unreadable, read
from bgpd.adapters.secrets import Password
from bgpd.adapters.systemd import Systemd
from bgpd.cli.events import message_schema
from bgpd.core.pipeline import Pipeline
from bgpd.daemon import loop
from bgpd.daemon.events import Events
from bgpd.daemon.record import Recorder
from bgpd.flow.inbox import Inbox
from bgpd.model.notice import KINDS, Notice
from bgpd.model.telling import EventsMessage, PeerMessage, StatusMessage
from tests.adapters.store.etcd_server import Certificates
from tests.core import world as w

pytestmark = pytest.mark.adapter

WAIT_S = 30.0
TOP = "bgpd/c/node1"
PEER = PeerMessage(
    cluster="c", node="node1", name="tor1", address="192.0.2.1", asn=65001, established=True, since=1.5, reason=""
)
SCHEMA = jsonschema.Draft202012Validator(message_schema())


class Mosquitto:
    """Owns a broker on a free port of the loopback, and its folder."""

    def __init__(self, folder: Path, *, secure: bool = False) -> None:
        self.folder = folder
        with sockets.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = int(one.getsockname()[1])
        lines = [f"listener {self.port} 127.0.0.1", "max_queued_messages 0", "user root"]
        if secure:
            self.certificates = Certificates(folder / "tls")
            tls = self.certificates.folder
            lines += [f"cafile {tls}/ca.crt", f"certfile {tls}/member.crt", f"keyfile {tls}/member.key"]
            subprocess.run(["mosquitto_passwd", "-b", "-c", str(folder / "users"), "bgpd", "right"], check=True)
            lines += [f"password_file {folder}/users", "allow_anonymous false"]
        else:
            lines.append("allow_anonymous true")
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
        assert program is not None
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                sockets.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(WAIT_S)
        self.process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    one = Mosquitto(tmp_path).start()
    yield one
    one.stop()


class Heard:
    """What a subscriber of everything got: the last message of each topic, and the events in order."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}
        self.events: list[dict[str, Any]] = []
        self.dropped = 0

    def take(self, message: aiomqtt.Message) -> None:
        payload = bytes(message.payload)  # type: ignore[arg-type]
        if payload:
            SCHEMA.validate(json.loads(payload))
        if str(message.topic).endswith("/events"):
            told = json.loads(payload)
            self.events += told["events"]
            self.dropped += told["dropped"]
        else:
            self.states[str(message.topic)] = payload

    def state(self, topic: str) -> dict[str, Any]:
        payload = self.states.get(f"{TOP}/{topic}", b"")
        return dict(json.loads(payload)) if payload else {}


@asynccontextmanager
async def listening(port: int, **options: Any) -> AsyncIterator[Heard]:
    heard = Heard()
    async with aiomqtt.Client("127.0.0.1", port, **options) as client:
        await client.subscribe("bgpd/#", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                heard.take(message)

        task = asyncio.create_task(listen())
        yield heard
        task.cancel()


@asynccontextmanager
async def telling(options: Options) -> AsyncIterator[tuple[Broker, list[Notice]]]:
    notices: list[Notice] = []
    one = Broker(options, notices.append)
    task = asyncio.create_task(one.run())
    yield one, notices
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def options(port: int, **more: Any) -> Options:
    return Options(host="127.0.0.1", port=port, cluster="c", node="node1", **more)


async def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_states_are_retained_and_an_end_in_order_says_offline(broker: Mosquitto, version: Any) -> None:
    """Whoever subscribes later gets the status and each peer; a peer that went is removed; the end is told."""

    async def main() -> None:
        async with telling(options(broker.port, version=version)) as (one, _):
            one.status("ready")
            one.peer("192.0.2.1", PEER)
            one.peer("192.0.2.2", msgspec.structs.replace(PEER, address="192.0.2.2"))
            async with listening(broker.port) as heard:
                await until(lambda: heard.state("status").get("phase") == "ready", "status")
                await until(lambda: heard.state("peers/192.0.2.2"), "peers")
                assert msgspec.to_builtins(PEER) == heard.state("peers/192.0.2.1")
                one.peer("192.0.2.2", None)
                await until(lambda: heard.states[f"{TOP}/peers/192.0.2.2"] == b"", "removal")
        async with listening(broker.port) as later:
            await until(lambda: later.state("status").get("state") == "offline", "offline")
            await until(lambda: later.state("peers/192.0.2.1"), "the other peer")
            assert f"{TOP}/peers/192.0.2.2" not in later.states

    asyncio.run(main())


def test_a_killed_daemon_is_told_of_by_its_last_will(broker: Mosquitto) -> None:
    """After kill -9 the broker itself says offline."""
    program = (
        "import asyncio\n"
        "from bgpd.adapters.mqtt.broker import Broker\n"
        "from bgpd.adapters.mqtt.options import Options\n"
        f"one = Broker(Options(host='127.0.0.1', port={broker.port}, cluster='c', node='node1'), print)\n"
        "asyncio.run(one.run())\n"
    )

    async def main(process: subprocess.Popen[bytes]) -> None:
        async with listening(broker.port) as heard:
            await until(lambda: heard.state("status").get("state") == "online", "online")
            process.send_signal(signal.SIGKILL)
            await until(lambda: heard.state("status").get("state") == "offline", "offline")

    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            asyncio.run(main(process))
        finally:
            process.kill()


def test_every_kind_of_event_arrives_as_the_schema_says(broker: Mosquitto) -> None:
    """An event for each notice there is, in order and numbered; the subscriber checks each message by the schema."""

    async def main() -> None:
        events = Events()
        async with listening(broker.port) as heard, telling(options(broker.port)) as (one, _):
            for name in KINDS:
                one.event(events.tell(Notice(name, {"peer": "192.0.2.1", "n": 1, "x": 1.5, "yes": True, "none": None})))
            await until(lambda: len(heard.events) == len(KINDS), "all events")
            assert [*KINDS] == [event["event"] for event in heard.events]
            assert [*range(1, len(KINDS) + 1)] == [event["sequence"] for event in heard.events]

    asyncio.run(main())


def test_a_burst_arrives_whole_and_telling_waits_for_nobody(broker: Mosquitto) -> None:
    """10,000 events at once: telling them awaits nothing, and all arrive in order."""

    async def main() -> None:
        events = Events()
        async with listening(broker.port) as heard, telling(options(broker.port)) as (one, _):
            await until(lambda: heard.state("status"), "connected")
            for number in range(EVENTS_MAX):
                one.event(events.tell(Notice("path.changed", {"prefix": str(number)})))
            assert [] == heard.events  # nothing else ran meanwhile
            await until(lambda: len(heard.events) >= EVENTS_MAX, "all events")
            assert [*range(1, EVENTS_MAX + 1)] == [event["sequence"] for event in heard.events]
            assert 0 == heard.dropped

    asyncio.run(main())


def test_a_broker_that_comes_late_and_goes_is_caught_up_with(broker: Mosquitto) -> None:
    """Events wait within their bound, the oldest dropped and counted; states are sent again; an outage is told of once."""

    async def main() -> None:
        events = Events()
        broker.stop()
        async with telling(options(broker.port)) as (one, notices):
            for number in range(EVENTS_MAX + 5):
                one.event(events.tell(Notice("path.changed", {"prefix": str(number)})))
            one.peer("192.0.2.1", PEER)
            await until(lambda: len(notices) == 1, "the outage is told")
            broker.start()
            async with listening(broker.port) as heard:
                await until(lambda: heard.state("peers/192.0.2.1") and len(heard.events) == EVENTS_MAX, "caught up")
                assert (6, 5) == (heard.events[0]["sequence"], heard.dropped)
            broker.stop()
            await until(lambda: notices[-1].name == "mqtt.lost", "the next outage")
            broker.start()
            async with listening(broker.port) as later:
                await until(lambda: later.state("peers/192.0.2.1"), "states, again")
            broker.stop()
            await until(lambda: len(notices) == 5, "the last outage")
            assert ["mqtt.lost", "mqtt.returned", "mqtt.lost", "mqtt.returned", "mqtt.lost"] == [
                n.name for n in notices
            ]

    asyncio.run(main())


def test_tls_and_password(tmp_path: Path) -> None:
    """With TLS the broker must be whom the authority signed, and it must know us; a wrong password is told of."""
    broker = Mosquitto(tmp_path, secure=True).start()
    ca = broker.certificates.ca

    async def main() -> None:
        right = options(broker.port, tls=True, ca=ca, user="bgpd", password=Password(b"right"))
        async with telling(right) as (one, notices):
            one.status("ready")
            parameters = aiomqtt.TLSParameters(ca_certs=str(ca))
            async with listening(broker.port, username="bgpd", password="right", tls_params=parameters) as heard:
                await until(lambda: heard.state("status").get("phase") == "ready", "status")
            assert [] == notices
        wrong = msgspec.structs.replace(right, password=Password(b"wrong"))
        async with telling(wrong) as (_, notices):
            await until(lambda: notices, "told")
            assert "mqtt.lost" == notices[0].name
            assert "wrong" not in str(notices[0].fields)

    try:
        asyncio.run(main())
    finally:
        broker.stop()


def test_the_published_schema_is_that_of_the_code() -> None:
    """config/mqtt/messages.schema.json is what ``bgpd events --schema`` writes."""
    published = Path(__file__).parents[2] / "config" / "mqtt" / "messages.schema.json"
    assert json.loads(published.read_text()) == message_schema()


def test_the_last_events_are_kept_by_the_broker(broker: Mosquitto) -> None:
    """Whoever asks later gets the last RECENT_EVENTS, also of a node that is gone."""

    async def main() -> list[tuple[str, Message]]:
        events = Events()
        async with telling(options(broker.port)) as (one, _), listening(broker.port) as heard:
            one.peer("192.0.2.1", PEER)
            for number in range(RECENT_EVENTS + 10):
                one.event(events.tell(Notice("path.changed", {"prefix": str(number)})))
            await until(lambda: heard.state("recent").get("events", [{}])[-1].get("sequence") == 60, "kept")
        return [found async for found in read(options(broker.port), "node1", follow=False)]

    found = dict(asyncio.run(main()))
    assert {"status", "192.0.2.1", "recent"} == set(found)
    assert PEER == found["192.0.2.1"]
    status, recent = found["status"], found["recent"]
    assert isinstance(status, StatusMessage)
    assert isinstance(recent, EventsMessage)
    assert "offline" == status.state
    assert [*range(11, 61)] == [event.sequence for event in recent.events]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_reader_follows_one_node_or_all(broker: Mosquitto, version: Any) -> None:
    """With the name of a node nothing of another comes; with EVERY all of it does, as it happens."""

    async def follow(node: str, count: int) -> list[str]:
        found: list[str] = []
        async for topic, message in read(options(broker.port, version=version), node, follow=True):
            if topic == "events" and isinstance(message, EventsMessage):
                found += [message.node] * len(message.events)
            if len(found) >= count:
                break
        return found

    async def main() -> None:
        readers = [asyncio.create_task(follow(*one)) for one in (("node2", 3), (EVERY, 6))]
        other = msgspec.structs.replace(options(broker.port, version=version), node="node2")
        async with telling(options(broker.port, version=version)) as (one, _), telling(other) as (two, _):
            events = Events()
            while not all(reader.done() for reader in readers):
                one.event(events.tell(Notice("peer.lost")))
                two.event(events.tell(Notice("peer.lost")))
                await asyncio.sleep(0.05)
        first, both = [await reader for reader in readers]
        assert {"node2"} == set(first)
        assert {"node1", "node2"} == set(both)

    asyncio.run(asyncio.wait_for(main(), WAIT_S))


def test_a_broker_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Reading fails with the broker's address."""
    port = Mosquitto(tmp_path).port

    async def main() -> None:
        async for _ in read(options(port), "node1", follow=False):
            pass

    with pytest.raises(Unreadable, match=f"127.0.0.1:{port}"):
        asyncio.run(main())


def test_a_burst_of_notices_delays_no_route(broker: Mosquitto) -> None:
    """While 10,000 notices go to the broker, routes that a peer sends are decided within a turn of the loop, as without a broker."""

    async def main(told: Broker | None) -> int:
        events, pipeline, inbox = Events(), w.feed(Pipeline(), w.whole()), Inbox()
        decided: list[tuple[float, float]] = []

        def notice(one: Notice) -> None:
            event = events.tell(one)
            if told is not None:
                told.event(event)

        core = asyncio.create_task(
            loop.run(
                pipeline,
                inbox,
                Recorder(None),
                notice,
                lambda: None,
                settled=lambda took, since: decided.append((took, since)),
                watchdog=Systemd({}, os.getpid()),
            )
        )
        for number in range(EVENTS_MAX):
            notice(Notice("path.changed", {"prefix": str(number)}))
        turns = 0
        await inbox.put(w.learned(w.TOR1, w.P("198.51.100.0/24")))
        while w.P("198.51.100.0/24") not in pipeline.state.selections:
            turns += 1
            await asyncio.sleep(0)
        core.cancel()
        await asyncio.gather(core, return_exceptions=True)
        return turns

    async def both() -> tuple[int, int]:
        async with telling(options(broker.port)) as (one, _), listening(broker.port) as heard:
            await until(lambda: heard.state("status"), "connected")
            turns = await main(one)
            await until(lambda: len(heard.events) >= EVENTS_MAX, "all events")
        return turns, await main(None)

    with_broker, without = asyncio.run(both())
    assert with_broker <= without + 1
