"""``bgpd top``: sessions, the path of each remote node, rates and the last events, on one screen that renews itself.

Laws: it asks what other commands ask and changes nothing; whatever the size of the terminal, every line fits, and what is worst comes
first, so that what is left out is what is well; the terminal is as it was, whatever ends the command.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bgpd.api.client import Client, Unreachable
from bgpd.cli.line import fields_text
from bgpd.cli.options import Stop, asking, asks
from bgpd.cli.render import BAD, DIM, GOOD, WARN, age, is_terminal, printable, show_json
from bgpd.model.telling import EventView
from bgpd.model.view import NodeView, PeerView, StatusView

EVENTS_SHOWN = 200
"""Of the last ones, held to be shown."""
DEVICES = Path("/sys/class/net")
WORST = ("unreachable", "fallback", "waiting", "tunnel", "direct", "native", "")
PATH_STYLE = {"native": GOOD, "direct": GOOD, "tunnel": GOOD, "fallback": WARN, "unreachable": BAD, "waiting": WARN}
SORTS = ("path", "name", "since")
NAME_COLUMNS = 14
"""Of a name; longer ones are cut: 80 columns are few."""
EVENTS_MIN = 3
"""Lines of events that stay whatever else there is."""
KEYS_TEXT = "q quit   s sort   p pause   j/k scroll nodes"


class Snapshot(msgspec.Struct, kw_only=True):
    """What one look found; rates are since the look before."""

    at: float
    status: StatusView
    peers: list[PeerView]
    nodes: list[NodeView]
    events: list[EventView]
    routes_per_s: dict[str, float] = {}
    """By peer: how fast the number of its routes changes."""
    bits_per_s: dict[str, tuple[float, float]] = {}
    """By device of our paths: received, sent; those of this command's own namespace."""


class Watch:
    """Owns what was seen last, to work out rates."""

    def __init__(self, client: Client, devices: Path = DEVICES) -> None:
        self._client = client
        self._devices = devices
        self._events: list[EventView] = []
        self._life = 0.0
        self._routes: dict[str, int] = {}
        self._bytes: dict[str, tuple[int, int]] = {}
        self._at: float | None = None

    def look(self) -> Snapshot:
        """Ask the daemon; raises what the client raises."""
        status, peers, nodes = self._client.status(), self._client.peers(), self._client.nodes()
        if status.started != self._life:
            self._events, self._life = [], status.started
        self._events += self._client.events(self._events[-1].sequence if self._events else 0)
        del self._events[:-EVENTS_SHOWN]
        now = time.monotonic()
        elapsed_s = None if self._at is None else max(now - self._at, 0.001)
        routes = {peer.name: peer.received for peer in peers}
        octets = self._octets(nodes)
        found = Snapshot(at=time.time(), status=status, peers=peers, nodes=nodes, events=list(self._events))
        if elapsed_s is not None:
            found.routes_per_s = {
                name: (many - self._routes.get(name, many)) / elapsed_s for name, many in routes.items()
            }
            found.bits_per_s = {
                name: (8 * (rx - self._bytes[name][0]) / elapsed_s, 8 * (tx - self._bytes[name][1]) / elapsed_s)
                for name, (rx, tx) in octets.items()
                if name in self._bytes
            }
        self._at, self._routes, self._bytes = now, routes, octets
        return found

    def _octets(self, nodes: Sequence[NodeView]) -> dict[str, tuple[int, int]]:
        names = sorted({leg.rpartition(" ")[2] for node in nodes for leg in node.via})
        found = {}
        for name in names:
            try:
                rx, tx = ((self._devices / name / "statistics" / f"{way}_bytes").read_text() for way in ("rx", "tx"))
            except OSError:
                continue  # the device is not here: the daemon may live in another namespace
            found[name] = int(rx), int(tx)
        return found


# ------------------------------------------------------------------ the screen


class Screen:
    """Lays a snapshot out for so many columns and lines."""

    def __init__(self) -> None:
        self.sort = SORTS[0]
        self.paused = False
        self.scrolled = 0

    def press(self, key: str) -> bool:
        """Take a key; returns whether to go on."""
        if key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        elif key == "p":
            self.paused = not self.paused
        elif key in {"j", "k"}:
            self.scrolled = max(0, self.scrolled + (1 if key == "j" else -1))
        return key not in {"q", "\x03", "\x04"}

    def lines(self, found: Snapshot, columns: int, height: int) -> list[Text]:
        """Return exactly *height* lines of at most *columns* cells."""
        head = [_header(found), _counts(found), *_rates(found, columns)]
        room = max(0, height - len(head) - 4 - EVENTS_MIN)  # three titles and the keys
        peers, nodes = sorted(found.peers, key=lambda one: one.state == "Established"), self._sorted(found.nodes)
        peers_room = min(len(peers), max(2, room // 3, room - len(nodes)))
        nodes_room = max(0, min(len(nodes), room - peers_room))
        self.scrolled = min(self.scrolled, max(0, len(nodes) - nodes_room))
        shown = nodes[self.scrolled : self.scrolled + nodes_room]
        out = [
            *head,
            _title("SESSIONS", len(peers), peers_room, _PEER_TITLES),
            *(_peer(one, found) for one in peers[:peers_room]),
            _title("NODES", len(nodes), nodes_room, f"{_NODE_TITLES} (nodes by {self.sort})"),
            *(_node(one, found.at) for one in shown),
            Text("EVENTS", style="bold"),
        ]
        left = max(0, height - len(out) - 1)
        out += [_event(one) for one in reversed(found.events[-left:])] if left else []
        out = out[: height - 1] + [Text("")] * (height - 1 - len(out))
        out.append(Text(f"{KEYS_TEXT}{'   PAUSED' if self.paused else ''}", style=DIM))
        for line in out:
            line.truncate(columns, overflow="ellipsis")
        return out

    def _sorted(self, nodes: Sequence[NodeView]) -> list[NodeView]:
        others = [node for node in nodes if not node.own]
        if self.sort == "name":
            return sorted(others, key=lambda node: node.name)
        if self.sort == "since":
            return sorted(others, key=lambda node: (-(node.since or 0.0), node.name))
        rank = {path: number for number, path in enumerate(WORST)}
        return sorted(others, key=lambda node: (rank.get(node.path, len(rank)), node.name))


def _header(found: Snapshot) -> Text:
    status = found.status
    phase = status.phase.name + (f": {', '.join(status.phase.waiting_for)}" if status.phase.waiting_for else "")
    parts = [
        (f"bgpd {printable(status.node)}", "bold"),
        (f" AS{status.asn}  ", ""),
        (printable(phase), GOOD if status.phase.name == "ready" else WARN),
        ("  store ", DIM),
        (printable(status.store), GOOD if status.store == "synced" else BAD),
        ("  ExaBGP ", DIM),
        (printable(status.speaker), GOOD if status.speaker == "attached" else BAD),
        (f"  up {age(status.started, found.at)}", DIM),
        (f"  {time.strftime('%H:%M:%S', time.localtime(found.at))}", DIM),
    ]
    return Text.assemble(*parts)


def _counts(found: Snapshot) -> Text:
    status = found.status
    others = [node for node in found.nodes if not node.own]
    counts = {path: sum(node.path == path for node in others) for path in WORST if path}
    down = status.peers_configured - status.peers_established
    parts = [
        ("sessions ", DIM),
        (f"{status.peers_established}/{status.peers_configured}", WARN if down else GOOD),
        ("  nodes ", DIM),
        (f"{len(others)}", ""),
        *((f" {path} {many}", PATH_STYLE[path]) for path, many in counts.items() if many),
        ("  routes ", DIM),
        (f"{status.routes_desired}", ""),
        (f" failed {status.routes_failed}", BAD) if status.routes_failed else ("", ""),
        ("  drained", WARN) if status.drain is not None else ("", ""),
    ]
    return Text.assemble(*parts)


def _rates(found: Snapshot, columns: int) -> list[Text]:
    """Return one line of devices, busiest first, or none."""
    busiest = sorted(found.bits_per_s.items(), key=lambda item: -sum(item[1]))
    texts = [f"{name} in {_bits(rx)} out {_bits(tx)}" for name, (rx, tx) in busiest]
    while texts and len("   ".join(texts)) > columns - 6:
        texts.pop()
    return [Text.assemble(("rates ", DIM), "   ".join(texts))] if texts else []


def _bits(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}bit/s"
    return f"{value:.0f} bit/s"


_PEER_TITLES = f"{'AS':<12} {'STATE':<11} {'SINCE':>9} {'RECV':>7} {'ACCEPT':>7} {'SENT':>6} {'RECV/S':>7}"
_NODE_TITLES = f"{'PATH':<12} {'SINCE':>9}  {'BY':<14}  WHY"


def _title(text: str, there: int, shown: int, columns: str) -> Text:
    part = f"{text} {shown}/{there}" if shown < there else text
    return Text(f"{part:<{NAME_COLUMNS}} {columns}", style="bold")


def _peer(peer: PeerView, found: Snapshot) -> Text:
    up = peer.state == "Established"
    rate = found.routes_per_s.get(peer.name, 0.0)
    tail = f" {age(peer.since, found.at):>9} {peer.received:>7} {peer.accepted:>7} {peer.announced:>6} {rate:>+7.0f}"
    style = GOOD if up else BAD
    parts = [
        (f"{printable(peer.name):<{NAME_COLUMNS}.{NAME_COLUMNS}} AS{peer.asn:<10} ", ""),
        (f"{printable(peer.state):<11.11}", style),
        (tail if up else f" {printable(peer.reason)}", "" if up else WARN),
    ]
    return Text.assemble(*parts)


def _node(node: NodeView, now: float) -> Text:
    by = ", ".join(f"{leg.rpartition(' ')[2]}" for leg in node.via)
    return Text.assemble(
        f"{printable(node.name):<{NAME_COLUMNS}.{NAME_COLUMNS}} ",
        (f"{printable(node.path or 'no block'):<12}", PATH_STYLE.get(node.path, DIM)),
        f" {age(node.since, now):>9}  {printable(by):<14}  ",
        (printable(node.reason), DIM),
        ("" if node.alive else " (keeps no lease)", WARN),
    )


def _event(event: EventView) -> Text:
    at = time.strftime("%H:%M:%S", time.localtime(event.at))
    return Text.assemble(
        (f"{at} ", DIM),
        (f"{printable(event.event):<18} ", GOOD if event.level == "info" else WARN),
        printable(fields_text(event)),
    )


# ------------------------------------------------------------------ the command


@click.command()
@click.option(
    "-i",
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Write one look and end; two looks so long apart, for rates.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="With --once: how.")
@asks
def top(*, interval: float, once: bool, output: str, socket: Path) -> None:
    """Show sessions, the path of each remote node, rates and the last events, and renew it.

    Keys: q ends, s sorts the nodes by path (worst first), name or last change, p pauses, j and k scroll the nodes. It fits
    into 80 columns and 24 lines. RATES are of this host's devices that paths use.
    """
    if not once and (output == "json" or not is_terminal() or not sys.stdin.isatty()):
        raise Stop("standard input and output are no terminal: use --once, which JSON needs, too")
    with asking(socket) as client:
        watch = Watch(client)
        found = watch.look()
        if not once:
            _live(watch, found, interval)
            return
        time.sleep(interval)
        found = watch.look()
    if output == "json":
        show_json(found)
        return
    console = Console(highlight=False)
    height = 4 + len(found.peers) + len(found.nodes) + EVENTS_SHOWN
    text = [line for line in Screen().lines(found, max(console.width, 80), height)[:-1] if line.plain]
    click.echo("\n".join(line.plain.rstrip() for line in text))


def _live(watch: Watch, found: Snapshot, interval: float) -> None:
    """Show what *watch* finds until a key ends it. An absent daemon is said, and waited for."""
    screen, console, trouble = Screen(), Console(highlight=False), ""
    with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + interval
        while True:
            lines = screen.lines(found, console.width, console.height)
            if trouble:
                lines[0] = Text(trouble, style=BAD)
                lines[0].truncate(console.width, overflow="ellipsis")
            live.update(Group(*lines), refresh=True)
            key = keys(max(0.0, due - time.monotonic()))
            if key is not None and not screen.press(key):
                return
            if time.monotonic() >= due:
                due = time.monotonic() + interval
                if not screen.paused:
                    try:
                        found, trouble = watch.look(), ""
                    except Unreachable as failure:
                        trouble = printable(str(failure))


class _Keys:
    """Waits for a key so many seconds; None: there was none. An end of the terminal is as q."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, seconds: float) -> str | None:
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return None
        return os.read(self._descriptor, 1).decode(errors="replace") or "q"


@contextmanager
def _keys() -> Iterator[_Keys]:
    """Have keys at once and unseen; the terminal is as it was afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
