"""A page in a headless Chromium, asked through its debugging port."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-component-update",
    "--disable-background-networking",
)  # fmt: skip


def chromium() -> str:
    """The browser; a test without one is skipped."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


@contextmanager
def opened(url: str, profile: Path) -> Iterator[Path]:
    """A browser that shows a page; its profile."""
    arguments = [chromium(), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", url]
    browser = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield profile
    finally:
        browser.kill()
        browser.wait()


def evaluate(profile: Path, *steps: tuple[str, str]) -> list[Any]:
    """What a page says: each step is an expression that acts, and one that is asked until it gives something."""
    return asyncio.run(_evaluate(pytest.importorskip("aiohttp"), profile, steps))


async def _evaluate(aiohttp: Any, profile: Path, steps: tuple[tuple[str, str], ...]) -> list[Any]:
    file = profile / "DevToolsActivePort"
    for _ in range(600):
        if file.exists() and file.read_text().count("\n"):
            break
        await asyncio.sleep(0.05)
    port = file.read_text().split("\n")[0]
    async with aiohttp.ClientSession() as session:
        tabs: list[Any] = []
        for _ in range(200):
            async with session.get(f"http://127.0.0.1:{port}/json") as reply:
                tabs = [tab for tab in await reply.json() if tab["type"] == "page" and tab["url"] != "about:blank"]
            if tabs:
                break
            await asyncio.sleep(0.05)
        async with session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            count = 0

            async def ask(expression: str) -> Any:
                nonlocal count
                count += 1
                parameters = {"expression": expression, "returnByValue": True, "awaitPromise": True}
                await socket.send_json({"id": count, "method": "Runtime.evaluate", "params": parameters})
                while (reply := await socket.receive_json()).get("id") != count:
                    pass
                return reply["result"]["result"].get("value")

            said = []
            for act, question in steps:
                for _ in range(600):
                    if await ask("document.readyState === 'complete' && location.href !== 'about:blank'"):
                        break
                    await asyncio.sleep(0.05)
                await ask(act)
                value = None
                for _ in range(600):
                    value = await ask(question)
                    if value:
                        break
                    await asyncio.sleep(0.05)
                said.append(value)
            return said
