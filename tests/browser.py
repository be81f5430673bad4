"""Pages in a headless Chromium: what they show, what changes when someone uses them, and what they complain about.

The client is choreographer, which kaleido brings along for PNGs. Without it, or without Chromium, tests are skipped.
"""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from refusal_utils.plotting.saving import chrome

SECONDS = 20


class Page:
    """A page of one tab. `complaints`: errors on its console; `requests`: addresses outside the disk that it asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tab: Any) -> None:
        self._loop, self._tab = loop, tab
        self.complaints, self.requests = list[str](), list[str]()
        for event in ("Runtime.exceptionThrown", "Log.entryAdded", "Network.requestWillBeSent"):
            tab.subscribe(event, self._note)
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.send(f"{domain}.enable")

    async def _note(self, event: dict) -> None:
        params, what = event["params"], event["method"]
        if what == "Network.requestWillBeSent":
            address = params["request"]["url"]
            self.requests += [address] * (not address.startswith(("file:", "data:", "blob:", "about:")))
        elif what == "Runtime.exceptionThrown" or params["entry"]["level"] == "error":
            self.complaints.append(json.dumps(params)[:500])

    def send(self, command: str, **params: Any) -> dict:
        answer = asyncio.wait_for(self._tab.send_command(command, params), SECONDS)
        return self._loop.run_until_complete(answer).get("result", {})

    def open(self, path: Path, *, dark: bool = False, width: int = 1280, height: int = 900) -> "Page":
        """The page at `path`, after everything in it was loaded."""
        self.complaints.clear()
        self.requests.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._loop.run_until_complete(asyncio.wait_for(self._load(path), SECONDS))
        return self

    async def _load(self, path: Path) -> None:
        loaded = self._tab.subscribe_once("Page.loadEventFired")
        await self._tab.send_command("Page.navigate", {"url": path.resolve().as_uri()})
        await loaded

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript; raises what the page raises."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def use(self, selector: str, value: object) -> None:
        """Set a menu, slider or box, as a person would: its listeners are told."""
        self.run(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            f" node.type === 'checkbox' ? node.checked = {json.dumps(value)} : node.value = {json.dumps(value)};"
            " for (const what of ['input', 'change']) node.dispatchEvent(new Event(what, {bubbles: true})); })()"
        )

    def press(self, key: str, code: int) -> None:
        """Press a key in the element that has the focus."""
        for what in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=what, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path, *, whole: bool = True) -> Path:
        """A PNG of the page, or of what fits the window."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path


@contextmanager
def open_browser() -> Iterator[Page]:
    """An empty page in a Chromium of its own; the test is skipped where there is none."""
    choreographer = pytest.importorskip("choreographer", reason="browser tests need choreographer (kaleido)")
    if chrome() is None:
        pytest.skip("browser tests need Chromium: apt-get install chromium, or set BROWSER_PATH")
    loop = asyncio.new_event_loop()
    browser = choreographer.Browser(path=chrome(), headless=True)
    loop.run_until_complete(asyncio.wait_for(browser.open(), SECONDS))
    try:
        yield Page(loop, loop.run_until_complete(browser.create_tab("about:blank")))
    finally:
        loop.run_until_complete(asyncio.wait_for(browser.close(), SECONDS))
        loop.close()


def reads_forward(page: Page, words: str) -> bool:
    """Whether each place where `words` can be seen shows its letters from left to right; at least one must."""
    found = page.run(
        f"""(() => {{
      const words = {json.dumps(words)}, found = [];
      const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      for (let node = walk.nextNode(); node; node = walk.nextNode()) {{
        const at = node.textContent.indexOf(words);
        if (at < 0 || node.parentElement.closest('script, style')) continue;
        const [first, second] = [0, 1].map(step => {{
          const letter = document.createRange();
          letter.setStart(node, at + step);
          letter.setEnd(node, at + step + 1);
          return letter.getBoundingClientRect().left;
        }});
        found.push(first < second);
      }}
      return found;
    }})()"""
    )
    assert found, words
    return all(found)
