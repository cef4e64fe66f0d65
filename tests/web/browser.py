"""Chromium without a window, spoken to by the DevTools protocol over a pipe (so that it may live in another namespace)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

WAIT_S = 60.0
"""For what takes a second: a browser on a busy machine takes its time."""
PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
)
PICTURE_BYTES = 64 * 1024 * 1024
"""Longest message: a picture of a whole page."""
DESKTOP = (1280, 900)
TELEPHONE = (390, 844)


class Page:
    """Owns one tab: what it complained of, and the numbering of what it was asked."""

    def __init__(self, to_browser: int) -> None:
        self._to_browser = to_browser
        self._session: dict[str, str] = {}
        self._count = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []
        """Errors of scripts, refused resources, violations of the policy."""
        self.requested: list[str] = []
        """Every address that the page asked for."""

    async def open(self) -> None:
        """Make the tab."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        found = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": found["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.size(*DESKTOP)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser; raises RuntimeError with its refusal."""
        self._count += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._count] = future
        message = {"id": self._count, "method": method, "params": parameters, **self._session}
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        answer = await asyncio.wait_for(future, WAIT_S)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Take answers and events until the browser ends."""
        with suppress(asyncio.IncompleteReadError):
            while True:
                self._heard(json.loads((await reader.readuntil(b"\0"))[:-1]))

    def _heard(self, message: dict[str, Any]) -> None:
        if "id" in message:
            future = self._waiting.pop(message["id"])
            if not future.done():
                future.set_result(message)
            return
        method, told = message.get("method", ""), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])

    async def size(self, width: int, height: int, *, touch: bool = False) -> None:
        """Be a screen of so many points."""
        scale = 2 if touch else 1
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=touch
        )

    async def goto(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression; raises RuntimeError for one that throws."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until an expression holds, and return its value."""
        deadline = time.monotonic() + WAIT_S
        why = ""
        while True:
            try:
                if value := await self.evaluate(f"Boolean({expression})"):
                    return value
            except RuntimeError as error:
                why = str(error)
            assert time.monotonic() < deadline, f"not within {WAIT_S} s: {expression} {why} {self.complaints}"
            await asyncio.sleep(0.05)

    async def text(self, selector: str) -> str:
        """Return what a person reads in an element."""
        return str(await self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def picture(self, path: Path, *, tall: int) -> None:
        """Write the page, at most so many points of it from its top, as PNG."""
        await self.evaluate("document.fonts.ready.then(() => 1)")
        wide, whole = await self.evaluate("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": wide, "height": min(tall, whole), "scale": 1}
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))


def program() -> str:
    """Return where a Chromium is."""
    found = next((path for path in map(shutil.which, PROGRAMS) if path is not None), None)
    assert found is not None, "no Chromium: run containerlab/prepare test"
    return found


@asynccontextmanager
async def browsing(folder: Path, prefix: Sequence[str] = ()) -> AsyncIterator[Page]:
    """Start a browser, *prefix* before its command (a namespace), and give a tab of it."""
    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()
    # Chromium reads at descriptor 3 and writes at 4.
    shell = f'exec 3<&{from_us} 4>&{to_us}; exec "$@"'
    browser = (program(), *OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={folder}/profile", "about:blank")
    with (folder / "browser.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", shell, "browser", *prefix, *browser, pass_fds=(from_us, to_us), stdout=log, stderr=log
        )
    os.close(from_us)
    os.close(to_us)
    reader = asyncio.StreamReader(limit=PICTURE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_browser, "rb")
    )
    page = Page(to_browser)
    listening = asyncio.create_task(page.listen(reader))
    try:
        await page.open()
        yield page
    finally:
        with suppress(RuntimeError, OSError, TimeoutError):
            page._session = {}
            await page.call("Browser.close")
        os.close(to_browser)
        try:
            await asyncio.wait_for(process.wait(), WAIT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        transport.close()
