"""What the viewer costs the engine, and how many frames a page gets.

    python benchmarks/viewer.py [--quick] [--docs DIR]

A viewer serves 256 x 256 cells of an `mlp` of 4 components at full rate; the engine's steps a second are
counted with no page, with a page that reads frames but draws nothing, with one that asks for frames and never
reads, with fifty that read, and with one in headless Chromium, which shares the cores with the engine. In
turns, several rounds. Writes DIR/viewer.json and the figures in DIR/viewer.md. --quick tries everything for
a moment.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from first_run import processor

ROOT = Path(__file__).parents[1]
BROWSER = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox"]}
SIDE = 256
Numbers = dict[str, Any]


@contextmanager
def serving(overrides: list[str], folder: Path | None = None) -> Iterator[str]:
    """The address of a viewer in a process of its own, in a folder."""
    command = [sys.executable, "-m", "atheria.view", "open=false", "tracking=off", *overrides]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout is not None
    try:
        address = ""
        for line in process.stdout:
            if line.startswith("open"):
                address = line.split()[1]
            if line.startswith("stop"):
                break
        time.sleep(0.5)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


class Line:
    """A page's connection, without the page."""

    def __init__(self, address: str) -> None:
        from websockets.asyncio.client import connect

        base, _, token = address.partition("/?token=")
        self._connect = connect(
            f"{base.replace('http', 'ws')}/live?token={token}", origin=base, max_size=None, max_queue=1
        )

    async def __aenter__(self) -> "Line":
        self._socket = await self._connect.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._connect.__aexit__(*error)

    async def ask(self, count: int = 1) -> None:
        await self._socket.send(json.dumps({"do": "frames", "count": count}))

    async def frame(self) -> int:
        """The step of the next frame."""
        while True:
            message = await self._socket.recv()
            if isinstance(message, bytes):
                length = int.from_bytes(message[:4], "little")
                return int(json.loads(message[4 : 4 + length])["step"])

    async def read(self, seconds: float) -> int:
        """Reads frames as they come; returns how many."""
        await self.ask(2)
        end, frames = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            await self.frame()
            frames += 1
            await self.ask()
        return frames


async def measured(
    address: str, seconds: float, beside: Callable[[float], Awaitable[Any]]
) -> tuple[float, Any]:
    """Steps a second while something goes on, of which the result is returned too."""
    first, began = await present(address)
    result = await beside(seconds)
    last, ended = await present(address)
    return (last - first) / (ended - began), result


async def present(address: str) -> tuple[int, float]:
    """The step now, and the time."""
    async with Line(address) as line:
        await line.ask(2)
        await line.frame()  # may be an old one
        return await line.frame(), time.monotonic()


async def nothing(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def race(address: str, seconds: float, rounds: int) -> Numbers:
    """Steps and frames a second of each situation, one number a round."""
    steps: dict[str, list[float]] = {}
    frames: dict[str, list[float]] = {}

    async def reading(seconds: float, pages: int) -> float:
        lines = [Line(address) for _ in range(pages)]
        for line in lines:
            await line.__aenter__()
        counts = await asyncio.gather(*(line.read(seconds) for line in lines))
        for line in lines:
            await line.__aexit__(None, None, None)
        return sum(counts) / pages / seconds

    async def stalled(seconds: float) -> None:
        base, _, token = address.partition("/?token=")
        host = base.removeprefix("http://")
        _, writer = await asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]))
        writer.write(
            f"GET /live?token={token} HTTP/1.1\r\nHost: {host}\r\nOrigin: {base}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n\r\n".encode()
        )
        writer.transport.pause_reading()
        end = time.monotonic() + seconds
        text = b'{"do":"frames","count":4}'
        while time.monotonic() < end and not writer.is_closing():
            writer.write(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
            await asyncio.sleep(0.05)
        writer.transport.abort()

    async def chromium(seconds: float) -> float:
        from playwright.async_api import async_playwright

        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(**BROWSER)
            page = await browser.new_page(viewport={"width": 1366, "height": 768})
            await page.goto(address)
            while not await page.evaluate("Number(document.body.dataset.drawn ?? 0)"):
                await asyncio.sleep(0.1)
            before, began = await page.evaluate("Number(document.body.dataset.drawn)"), time.monotonic()
            await asyncio.sleep(seconds)
            after = await page.evaluate("Number(document.body.dataset.drawn)")
            elapsed = time.monotonic() - began
            frames.setdefault("renderer", []).append(await page.evaluate("document.body.dataset.renderer"))
            await browser.close()
            return (after - before) / elapsed

    situations: dict[str, Callable[[float], Awaitable[Any]]] = {
        "no page": nothing,
        "a page that reads": lambda s: reading(s, 1),
        "a page that never reads": stalled,
        "fifty pages that read": lambda s: reading(s, 50),
        "no page again": nothing,
    }
    if BROWSER["executable_path"]:
        situations["a page in Chromium"] = chromium
    for _ in range(rounds):
        for name, beside in situations.items():
            rate, seen = await measured(address, seconds, beside)
            steps.setdefault(name, []).append(round(rate, 1))
            if seen is not None:
                frames.setdefault(name, []).append(round(seen, 1))
            await asyncio.sleep(0.3)
    return {"steps": steps, "frames": frames}


def block(result: Numbers) -> str:
    """What docs/viewer.md says of the figures."""
    rows = "\n".join(
        f"| {name} | {median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f}) | "
        f"{median(result['frames'][name]):.0f} |"
        if name in result["frames"]
        else f"| {name} | {median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f}) | |"
        for name, rates in result["steps"].items()
    )
    quick = " Tried for a moment: these figures mean nothing." if result["quick"] else ""
    return (
        "<!-- viewer: written by benchmarks/viewer.py -->\n"
        f"An `mlp` of 4 components on {SIDE} x {SIDE} cells, at full rate, with:\n\n"
        "| | steps/s (least to most) | frames/s a page |\n|---|---|---|\n"
        f"{rows}\n\n"
        f"{result['cores']} cores of an {result['processor']}, load {result['load']:.1f} at the start, torch "
        f"{result['torch']}, {result['chromium']} (software rendering, {result['renderer']}), "
        f"{result['date']}. "
        f"Medians of {result['rounds']} rounds of {result['seconds']:.0f} s in turns.{quick}\n"
        "<!-- /viewer -->"
    )


def quote(result: Numbers, page: Path) -> None:
    """Puts the figures into the page."""
    text = page.read_text()
    before, rest = text.split("<!-- viewer", 1)
    page.write_text(before + block(result) + rest.split("<!-- /viewer -->", 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    seconds, rounds = (1.0, 1) if options.quick else (5.0, options.rounds)
    load = os.getloadavg()[0]
    import torch

    from atheria.export import export

    with tempfile.TemporaryDirectory() as scratch:
        law = Path(scratch) / "law.pt"
        export(["model=mlp", "model.d_state=4", f"output={law}"])
        with serving([f"law={law}", f"grid={SIDE}", "speed=null"]) as address:
            raced = asyncio.run(race(address, seconds, rounds))
    version = [BROWSER["executable_path"] or "true", "--version"]
    chromium = subprocess.run(version, capture_output=True, text=True, check=False).stdout
    renderers = raced["frames"].pop("renderer", ["none"])
    result = {
        **raced,
        "quick": options.quick,
        "rounds": rounds,
        "seconds": seconds,
        "renderer": renderers[0],
        "chromium": (re.findall(r"Chromium [\d.]+", chromium) or ["no Chromium"])[0],
        "cores": os.cpu_count(),
        "processor": processor(),
        "load": load,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    (options.docs / "viewer.json").write_text(json.dumps(result, indent=1) + "\n")
    quote(result, options.docs / "viewer.md")
    print(block(result))


if __name__ == "__main__":
    main()
