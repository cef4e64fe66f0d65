"""The web page of a daemon in the two-tor lab, in a browser that lives on its node: routers die, and the page shows it by itself."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.lab import run
from bgpd.lab.state import LabState
from tests.web.browser import DESKTOP, TELEPHONE, Page, browsing

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

NAME = f"web-{os.getpid()}"
TWO_TOR = Path(__file__).parents[2] / "containerlab" / "two-tor"
URL = "http://127.0.0.1:9180/"
PICTURES = os.environ.get("WEB_PICTURES")
"""Folder for pictures of the page, desktop and telephone, as README shows them; none by default."""

PICTURE_TALL = {"desktop": 2400, "telephone": 1640}
"""Points of the page from its top."""
FALLEN = "[...document.querySelectorAll('#map .line.warn')].length"
NATIVE = "[...document.querySelectorAll('#map [data-path].good')].length"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabState]:
    """The two-tor lab under a name of this run, with BIRD, whose node1 serves the page."""
    folder = tmp_path / "lab"
    shutil.copytree(TWO_TOR, folder)
    file = folder / "two-tor.clab.yml"
    file.write_text(file.read_text().replace("name: two-tor", f"name: {NAME}"))
    node1 = folder / "node1.toml"
    node1.write_text(node1.read_text() + "\n[web]\nport = 9180\n")
    made = run.up(file, {**os.environ, "TOR_IMAGE": "bird"}, lambda _: None)
    try:
        yield made
    finally:
        run.down(NAME, lambda _: None)


async def sessions(order: str) -> None:
    """Have both routers ``disable`` or ``enable`` their session with node1."""
    for router in ("tor1", "tor2"):
        await asyncio.to_thread(run.inside, run.find(router, NAME), ("birdc", order, "node1"))


async def shown(tab: Page) -> None:
    """Take the pictures of README, where they are asked for."""
    if PICTURES is None:
        return
    for screen, size in (("desktop", DESKTOP), ("telephone", TELEPHONE)):
        await tab.size(*size, touch=screen == "telephone")
        await tab.until(f"document.querySelector('#map svg').viewBox.baseVal.width < {size[0]}")
        await asyncio.sleep(0.5)  # the map is drawn anew; a picture may be early, a proof is not made of it
        await tab.picture(Path(PICTURES) / f"web-{screen}.png", tall=PICTURE_TALL[screen])
    await tab.size(*DESKTOP)


def test_a_fallback_is_followed_live(lab: LabState, tmp_path: Path) -> None:
    """Both routers end their sessions: map, cards, tables, events and the answer of the search become the tunnel's, and native again."""

    async def main() -> None:
        async with browsing(tmp_path, ("ip", "netns", "exec", run.find("node1", NAME).netns)) as tab:
            await tab.goto(URL)
            await tab.until(f"{NATIVE} === 4 && {FALLEN} === 0")
            assert "2 of 2" in await tab.text("#cards")
            loads = await tab.evaluate("performance.getEntriesByType('navigation').length")

            await sessions("disable")
            await tab.until(f"{FALLEN} === 2 && {NATIVE} === 0")
            await tab.until("document.querySelector('#cards').innerText.includes('2 by fallback')")
            await tab.until("document.querySelector('#cards').innerText.includes('0 of 2')")
            await tab.until("document.querySelector('#nodes').innerText.includes('vxlan.bgpd')")
            await tab.until("document.querySelector('#events').innerText.includes('path.changed')")
            assert "peer.lost" in await tab.text("#events")
            await shown(tab)
            blocks = await asyncio.to_thread(run.inside, run.find("w2", NAME), ("hostname", "-I"))
            address = blocks.stdout.split()[0]
            await tab.evaluate(f"document.querySelector('#query').value = '{address}'; 1")
            await tab.evaluate("document.querySelector('#explain').requestSubmit(); 1")
            await tab.until("document.querySelector('#answer').innerText.includes('has fallen back')")

            await sessions("enable")
            await tab.until(f"{NATIVE} === 4 && {FALLEN} === 0")
            await tab.until("document.querySelector('#cards').innerText.includes('none by fallback')")
            assert loads == await tab.evaluate("performance.getEntriesByType('navigation').length")
            assert [] == tab.complaints

    asyncio.run(main())


def test_every_route_is_on_a_page(lab: LabState, tmp_path: Path) -> None:
    """The pages of routes of a real daemon have each route of ``bgpd routes`` once, in order, and filters narrow them."""

    async def main() -> None:
        one = run.find("node1", NAME)
        async with browsing(tmp_path, ("ip", "netns", "exec", one.netns)) as tab:
            await tab.goto(URL)
            await tab.until(f"{NATIVE} === 4")
            routes = await tab.evaluate("fetch('v1/routes').then((answer) => answer.json())")
            first = await tab.evaluate("fetch('v1/route-page?limit=2').then((answer) => answer.json())")
            rest = await tab.evaluate(f"fetch('v1/route-page?after={first['next']}').then((answer) => answer.json())")
            assert [route["prefix"] for route in routes] == [row["prefix"] for row in (*first["rows"], *rest["rows"])]
            assert (len(routes), None) == (first["total"], rest["next"])
            native = await tab.evaluate("fetch('v1/route-page?kind=native&within=10.65.0.0/16').then((a) => a.json())")
            assert {"node2", "node3"} == {row["node"] for row in native["rows"]}
            inside = native["rows"][0]["prefix"].partition("/")[0]
            found = await tab.evaluate(f"fetch('v1/route-page?within={inside}').then((a) => a.json())")
            assert [native["rows"][0]["prefix"]] == [row["prefix"] for row in found["rows"]]

    asyncio.run(main())
