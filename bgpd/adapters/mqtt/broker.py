"""Tells an MQTT broker what happens (MQTT 5 or 3.1.1): retained states with a last will, and events.

Laws: telling never waits and costs a few dict operations; what waits is bounded, states by their number, events by EVENTS_MAX, the oldest
dropped and counted; a broker that is slow, wrong or away is retried for ever and slows nothing but its own messages. After a reconnection
every retained state is sent again, since the last will has replaced ours. The last events are such a state, too: a broker keeps no others.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import aiomqtt
import msgspec

from bgpd.adapters import clock
from bgpd.adapters.mqtt.options import Options
from bgpd.model.notice import Notice
from bgpd.model.telling import EventsMessage, EventView, PeerMessage, StatusMessage

EVENTS_MAX = 10_000
"""Events that wait for the broker: some 3 MB, and minutes of a bad day."""
BATCH_EVENTS = 100
"""Events of one message: some 20 KB."""
WINDOW_S = 0.05
"""States and events of so long go out together."""
SEND_LIMIT_S = 10.0
"""A message that the broker has not acknowledged by then: the connection is given up."""
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses between attempts to connect; the last one stays."""
STABLE_S = 60.0
"""A connection that lasted so long clears the back-off."""
RECENT_EVENTS = 50
"""Last events that the broker keeps, for whoever asks later: some 10 KB."""
RECENT_S = 1.0
"""They are sent again at most so often."""
QOS = 1


class Broker:
    """Owns what waits to be told, and the connection."""

    def __init__(self, options: Options, notice: Callable[[Notice], None]) -> None:
        self._options = options
        self._notice = notice
        self._states: dict[str, bytes] = {}
        """Every retained topic that is ours, and what it should hold; empty removes it."""
        self._waiting: dict[str, None] = {}
        self._events: deque[EventView] = deque()
        self._recent: deque[EventView] = deque(maxlen=RECENT_EVENTS)
        self._recent_sent = -RECENT_S
        self._recent_due: float | None = None
        """When the last events are to be sent again (monotonic seconds); None: they were."""
        self._dropped = 0
        """Since the last message of events that the broker took."""
        self.dropped = 0
        """In all."""
        self.connected = False
        self._wake = asyncio.Event()
        self._told_lost = False
        self._phase: str | None = None
        self.status("")

    # -------------------------------------------------------------- telling

    def status(self, phase: str) -> None:
        """Keep the daemon's status; *phase* as it is now."""
        if phase == self._phase:
            return
        self._phase = phase
        message = StatusMessage(
            cluster=self._options.cluster,
            node=self._options.node,
            state="online",
            phase=phase,
            at=clock.wall(clock.monotonic()),
        )
        self._state(self._options.topic("status"), msgspec.json.encode(message))

    def peer(self, address: str, message: PeerMessage | None) -> None:
        """Keep the state of a peer; None where it is configured no more."""
        self._state(self._options.topic("peers", address), msgspec.json.encode(message) if message is not None else b"")

    def event(self, event: EventView) -> None:
        """Send an event as soon as the broker takes it."""
        if len(self._events) >= EVENTS_MAX:
            self._events.popleft()
            self._dropped += 1
            self.dropped += 1
        self._events.append(event)
        self._recent.append(event)
        if self._recent_due is None:
            self._recent_due = self._recent_sent + RECENT_S
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Events that wait for the broker."""
        return len(self._events)

    def _state(self, topic: str, payload: bytes) -> None:
        if self._states.get(topic) != payload:
            self._states[topic] = payload
            self._waiting[topic] = None
            self._wake.set()

    # -------------------------------------------------------------- the connection

    async def run(self) -> None:
        """Keep the broker told until cancelled; then it hears that we are offline."""
        failures = 0
        while True:
            began = clock.monotonic()
            try:
                await self._session()
            except (aiomqtt.MqttError, OSError, TimeoutError) as error:
                self._lost(str(error) or f"no answer within {SEND_LIMIT_S:.0f} s")
            failures = 0 if clock.monotonic() - began > STABLE_S else failures + 1
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S)) - 1])

    async def _session(self) -> None:
        options = self._options
        offline = StatusMessage(cluster=options.cluster, node=options.node, state="offline")
        will = aiomqtt.Will(options.topic("status"), msgspec.json.encode(offline), qos=QOS, retain=True)
        client = client_of(options, f"bgpd-{options.cluster}-{options.node}", will)
        async with client:
            if self._told_lost:
                self._told_lost = False
                self._notice(Notice("mqtt.returned", {"host": options.host}))
            self._waiting = dict.fromkeys(self._states)
            self.connected = True
            try:
                await self._send_all(client)
            except asyncio.CancelledError:
                with suppress(aiomqtt.MqttError, TimeoutError):
                    await client.publish(will.topic, will.payload, qos=QOS, retain=True, timeout=1.0)
                raise
            finally:
                self.connected = False

    async def _send_all(self, client: aiomqtt.Client) -> None:
        """Send what waits, and then what comes, until the connection fails."""
        listening = asyncio.create_task(_listen(client))
        try:
            while not listening.done():
                while self._waiting:
                    await self._send_state(client, next(iter(self._waiting)))
                while self._events:
                    await self._send_events(client)
                self._wake.clear()
                if not (self._waiting or self._events):
                    woken = asyncio.create_task(self._wake.wait())
                    await asyncio.wait(
                        {listening, woken}, timeout=self._recent_wait_s(), return_when=asyncio.FIRST_COMPLETED
                    )
                    woken.cancel()
                await asyncio.sleep(WINDOW_S)
                self._keep_recent()
            listening.result()
            raise aiomqtt.MqttError("the broker closed the connection")
        finally:
            listening.cancel()

    def _recent_wait_s(self) -> float | None:
        return None if self._recent_due is None else max(0.0, self._recent_due - clock.monotonic())

    def _keep_recent(self) -> None:
        """Have the broker keep the last events, once they are due."""
        if self._recent_due is not None and clock.monotonic() >= self._recent_due:
            self._recent_due, self._recent_sent = None, clock.monotonic()
            options = self._options
            message = EventsMessage(cluster=options.cluster, node=options.node, events=tuple(self._recent))
            self._state(options.topic("recent"), msgspec.json.encode(message))

    async def _send_state(self, client: aiomqtt.Client, topic: str) -> None:
        del self._waiting[topic]
        payload = self._states[topic]
        await self._publish(client, topic, payload, retain=True)
        if not payload and not self._states[topic]:
            del self._states[topic]

    async def _send_events(self, client: aiomqtt.Client) -> None:
        """Send a batch; it leaves the queue only once the broker has it."""
        batch = tuple(self._events[index] for index in range(min(BATCH_EVENTS, len(self._events))))
        dropped = self._dropped
        message = EventsMessage(cluster=self._options.cluster, node=self._options.node, events=batch, dropped=dropped)
        await self._publish(client, self._options.topic("events"), msgspec.json.encode(message), retain=False)
        last = batch[-1].sequence
        while self._events and self._events[0].sequence <= last:
            self._events.popleft()
        self._dropped -= dropped

    async def _publish(self, client: aiomqtt.Client, topic: str, payload: bytes, *, retain: bool) -> None:
        try:
            await client.publish(topic, payload, qos=QOS, retain=retain, timeout=SEND_LIMIT_S)
        except (aiomqtt.MqttError, TimeoutError):
            if retain and topic in self._states:
                self._waiting[topic] = None
            raise

    def _lost(self, reason: str) -> None:
        """Tell of an outage once."""
        if not self._told_lost:
            self._told_lost = True
            where = f"{self._options.host}:{self._options.port}"
            self._notice(Notice("mqtt.lost", {"broker": where, "reason": reason}))


async def _listen(client: aiomqtt.Client) -> None:
    """Notice the end of the connection while nothing is sent: we subscribe to nothing, so nothing else comes."""
    async for _ in client.messages:
        pass


def client_of(
    options: Options, identifier: str, will: aiomqtt.Will | None = None, *, unread_limit: int = 1
) -> aiomqtt.Client:
    """Return a client of the broker, not connected yet; of messages that come and are not read it keeps *unread_limit*."""
    return aiomqtt.Client(
        options.host,
        options.port,
        identifier=identifier,
        protocol=aiomqtt.ProtocolVersion.V5 if options.version == "5" else aiomqtt.ProtocolVersion.V311,
        username=options.user or None,
        password=options.password.reveal().decode() if options.password is not None else None,
        tls_context=_tls(options),
        keepalive=options.keepalive_s,
        timeout=SEND_LIMIT_S,
        will=will,
        max_queued_incoming_messages=unread_limit,
    )


def _tls(options: Options) -> ssl.SSLContext | None:
    if not options.tls:
        return None
    context = ssl.create_default_context(cafile=str(options.ca) if options.ca is not None else None)
    if options.certificate is not None:
        context.load_cert_chain(options.certificate, options.key)
    return context
