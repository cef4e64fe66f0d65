"""The web page in Chromium: what a person sees of fixed answers, on a desk and on a telephone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tests.api.fake import NODES, PEERS, FakeViews
from tests.api.test_metrics import free_port
from tests.api.test_page import page
from tests.web.browser import DESKTOP, TELEPHONE, Page, browsing

pytestmark = [pytest.mark.adapter, pytest.mark.timeout(300)]

SCREENS = {"desktop": DESKTOP, "telephone": TELEPHONE, "narrow": (320, 640)}
DRAWN = "document.querySelectorAll('#map .tile').length > 3 && document.querySelectorAll('#routes tbody tr').length > 0"


@asynccontextmanager
async def looking(folder: Path, views: FakeViews | None = None) -> AsyncIterator[Page]:
    async with page(folder, views) as url, browsing(folder) as tab:
        await tab.goto(url)
        await tab.until(DRAWN)
        yield tab


def looked(folder: Path, body: Callable[[Page], Awaitable[None]], views: FakeViews | None = None) -> None:
    async def main() -> None:
        async with looking(folder, views) as tab:
            await body(tab)
            assert [] == tab.complaints
            assert all(url.startswith(("http://127.0.0.1:", "about:")) for url in tab.requested), tab.requested

    asyncio.run(main())


def test_all_of_it_is_shown(tmp_path: Path) -> None:
    """Sessions, nodes with native and tunnel, routers and their sessions on the map, pools, routes, events."""

    async def body(tab: Page) -> None:
        assert "node1" in await tab.text("header")
        cards = await tab.text("#cards")
        assert "1 of 2" in cards
        assert "1 by fallback" in cards
        assert 2 == await tab.evaluate("document.querySelectorAll('#map [data-session]').length")
        assert "line warn" == await tab.evaluate(
            "document.querySelector('#map [data-path=node3]').getAttribute('class')"
        )
        assert "line good" == await tab.evaluate(
            "document.querySelector('#map [data-path=node2]').getAttribute('class')"
        )
        assert "fallback tunnel" in await tab.text("#nodes")
        assert "4200000002" in await tab.text("#peers")
        assert "10.42.0.0/16" in await tab.text("#pools")
        assert "failed: EINVAL" in await tab.text("#routes")
        await tab.until("document.querySelectorAll('#events li').length === 2")
        assert "peer.lost" in (await tab.text("#events")).splitlines()[1]

    looked(tmp_path, body)


def test_foreign_text_is_only_text(tmp_path: Path) -> None:
    """What a neighbor or the store wrote is shown as it is, and makes no element."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    views = FakeViews()
    views.peers_held = [msgspec.structs.replace(PEERS[1], name=evil, reason=evil)]

    async def body(tab: Page) -> None:
        await tab.until("document.querySelector('#peers').innerText.includes('onerror')")
        assert 0 == await tab.evaluate("document.querySelectorAll('main img, main script, main b').length")
        assert evil in await tab.text("#peers")
        assert "<b>here</b>" in await tab.text("#nodes")

    looked(tmp_path, body, views)


def test_the_search_answers_as_explain_does(tmp_path: Path) -> None:
    """An address gives a sentence, every step and the last changes; nonsense gives the reason; a node leads to its address."""

    async def ask(tab: Page, text: str) -> None:
        await tab.evaluate(f"document.querySelector('#query').value = '{text}'; 1")
        await tab.evaluate("document.querySelector('#explain').requestSubmit(); 1")

    async def body(tab: Page) -> None:
        await ask(tab, "10.42.0.65")
        await tab.until("document.querySelectorAll('#answer .steps li').length === 3")
        answer = await tab.text("#answer")
        assert "is reached natively over two uplinks" in answer
        assert "fallback: no session has a path" in answer
        await tab.evaluate("document.querySelector('#nodes .link').click()")
        await tab.until("document.querySelector('#query').value === '10.0.0.2'")
        complaints = len(tab.complaints)
        await ask(tab, "nonsense")
        await tab.until("document.querySelector('#answer').innerText.includes('neither an address nor a prefix')")
        del tab.complaints[complaints:]  # the browser notes the status 400, too

    looked(tmp_path, body)


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_is_wider_than_the_screen(tmp_path: Path, screen: str) -> None:
    """On each width the page scrolls downwards only, and no text of the map leaves its tile."""

    async def body(tab: Page) -> None:
        await tab.size(*SCREENS[screen], touch=screen != "desktop")
        await tab.until(f"Math.abs(innerWidth - {SCREENS[screen][0]}) < 2")
        await tab.until("document.querySelector('#map svg').viewBox.baseVal.width <= innerWidth")
        assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), await tab.evaluate(WIDEST)
        assert [] == await tab.evaluate(OVERFLOWING)

    looked(tmp_path, body)


WIDEST = """[...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.tagName + '.' + one.className).slice(0, 5).join(' ')"""
OVERFLOWING = """[...document.querySelectorAll('#map .tile')].filter((tile) => {
    const box = tile.querySelector('rect').getBoundingClientRect();
    return [...tile.querySelectorAll('text')].some((text) => text.getBoundingClientRect().right > box.right);
  }).map((tile) => tile.getAttribute('aria-label'))"""
NAMELESS = """[...document.querySelectorAll('button, input, select, a, [role=button], [tabindex]')].filter((one) =>
    !(one.getAttribute('aria-label') || one.labels?.length || one.innerText?.trim())).map((one) => one.outerHTML.slice(0, 80))"""
CONTRAST = """(() => {
  const channel = (v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const found = parse(getComputedStyle(one).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const one of document.querySelectorAll('main *, footer *, header .pill')) {
    const written = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!written || one.closest('svg') || one.closest(':disabled') || !one.offsetParent) continue;
    const a = light(parse(getComputedStyle(one).color)), b = light(ground(one));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(`${one.className || one.tagName} ${ratio.toFixed(2)}`);
  }
  return [...new Set(bad)];
})()"""


def test_whoever_cannot_see_colours_can_use_it(tmp_path: Path) -> None:
    """Every control has a name, tables have headings, and text has a contrast of 4.5 or more (WCAG 2.2, 1.4.3), light and dark."""

    async def body(tab: Page) -> None:
        assert [] == await tab.evaluate(NAMELESS)
        assert 0 == await tab.evaluate("document.querySelectorAll('table:not(:has(caption)), th:not([scope])').length")
        before = await tab.evaluate("document.documentElement.dataset.theme")
        assert [] == await tab.evaluate(CONTRAST)
        await tab.evaluate("document.querySelector('#theme').click()")
        assert before != await tab.evaluate("document.documentElement.dataset.theme")
        assert [] == await tab.evaluate(CONTRAST)

    looked(tmp_path, body)


def test_a_daemon_that_restarts_is_followed_again(tmp_path: Path) -> None:
    """While no daemon answers, the page says so; when one does again, it goes on by itself, and shows what changed meanwhile."""

    async def main() -> None:
        port, views = free_port(), FakeViews()
        async with browsing(tmp_path) as tab:
            async with page(tmp_path, views, port) as url:
                await tab.goto(url)
                await tab.until(DRAWN)
                await tab.until("document.querySelector('#live').innerText === 'live'")
            await tab.until("document.querySelector('#live').innerText.startsWith('no connection')")
            views.peers_held = [msgspec.structs.replace(PEERS[0], name="tor-new")]
            async with page(tmp_path, views, port):
                await tab.until("document.querySelector('#live').innerText === 'live'")
                await tab.until("document.querySelector('#peers').innerText.includes('tor-new')")
                assert 1 == await tab.evaluate("performance.getEntriesByType('navigation').length")

    asyncio.run(main())


def test_a_mesh_has_no_routers_between(tmp_path: Path) -> None:
    """Sessions with other nodes are no routers; a native path that goes by none of the routers is drawn to the node itself."""
    views = FakeViews()
    views.peers_held = [msgspec.structs.replace(PEERS[0], name="mesh-node2", address="10.0.0.2", kind="mesh")]
    views.nodes_held = [NODES[0], msgspec.structs.replace(NODES[1], via=("192.0.2.9 dev eth1",)), *NODES[2:]]

    async def body(tab: Page) -> None:
        await tab.until("document.querySelector('#map [data-path=node2].good')")
        assert 0 == await tab.evaluate("document.querySelectorAll('#map [data-session]').length")
        assert "1 more sessions are in the table of peers" in await tab.text("#map-note")

    looked(tmp_path, body, views)


def test_two_thousand_nodes_are_not_too_many(tmp_path: Path) -> None:
    """The map draws the worst first and says how many more there are; the table shows a part, and all on demand."""
    views = FakeViews()
    views.nodes_held = [NODES[0]] + [
        msgspec.structs.replace(NODES[1], name=f"n{number:04}", path="native" if number % 500 else "unreachable")
        for number in range(2000)
    ]

    async def body(tab: Page) -> None:
        await tab.until("document.querySelectorAll('#map .tile').length === 243")
        assert 4 + 1 == await tab.evaluate("document.querySelectorAll('#map .tile.bad').length")  # and a router
        assert "1760 more nodes" in await tab.text("#map-note")
        assert 100 == await tab.evaluate("document.querySelectorAll('#nodes tbody tr').length")
        await tab.evaluate("document.querySelector('#nodes > p button').click()")
        await tab.until("document.querySelectorAll('#nodes tbody tr').length === 2000")

    looked(tmp_path, body, views)


def test_a_peer_opens_and_closes(tmp_path: Path) -> None:
    """A click on a peer shows its details, a second one hides them; the map's tile does the same."""

    async def body(tab: Page) -> None:
        await tab.evaluate("document.querySelector('#peers .link').click()")
        await tab.until("document.querySelector('#peers .detail-row')")
        assert "Router id" in await tab.text("#peers .detail-row")
        await tab.evaluate("document.querySelector('#peers .link').click()")
        await tab.until("!document.querySelector('#peers .detail-row')")
        tiles = "[...document.querySelectorAll('#map .tile')]"
        await tab.evaluate(
            f"{tiles}.find((one) => one.textContent.includes('tor2')).dispatchEvent(new MouseEvent('click'))"
        )
        await tab.until("document.querySelector('#peers .detail-row')")

    looked(tmp_path, body)
