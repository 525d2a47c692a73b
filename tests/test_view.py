"""The viewer: its engine thread, who gets in, what pages may do, and the page in a real browser."""

import asyncio
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from atheria.cli import compose_config, to_settings
from atheria.config import ViewConfig
from atheria.promote import promote
from atheria.viewer.commands import LONGEST_MESSAGE, Look, MalformedError, read
from atheria.viewer.history import MOST_POINTS, SHOWN, History
from atheria.viewer.palettes import tables
from atheria.viewer.pictures import Camera, Moment
from atheria.viewer.server import MOST_CLIENTS, Server
from atheria.viewer.session import Session
from atheria.viewer.universe import disks

from .conftest import PHYSICS, heed_ctrl_c, missing

CHROMIUM = shutil.which("chromium")


class Viewer:
    """A server in a thread."""

    def __init__(self, overrides: list[str], patience: float = 10.0) -> None:
        settings = to_settings(ViewConfig, compose_config("view", ["open=false", *overrides]))
        self.session = Session(settings)
        self.server = Server(self.session, settings.port, patience)
        self.address = self.server.address
        self.base, _, self.token = self.address.partition("/?token=")
        self.live = self.base.replace("http", "ws") + "/live"
        self._thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> "Viewer":
        self._thread.start()
        for _ in range(4000):
            if self.server._server.started:
                return self
            time.sleep(0.02)
        raise AssertionError("the server does not start")

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def connect(self, **changes) -> connect:
        options = {"origin": self.base, "max_size": None, **changes}
        return connect(f"{self.live}?token={self.token}", **options)

    @property
    def steps(self) -> int:
        return self.session.simulation.steps_done


@pytest.fixture
def viewer(exported: Callable) -> Iterator[Viewer]:
    _, path = exported("mlp", replace(PHYSICS, normalise="cell"))
    with Viewer([f"law={path}", "tracking=off", "speed=null"], patience=2.0) as started:
        yield started


class Page:
    """What a page does, without one."""

    def __init__(self, socket) -> None:
        self.socket = socket

    async def tell(self, **command) -> None:
        await self.socket.send(json.dumps(command))

    async def text(self, kind: str, matches: Callable[[dict], bool] = lambda _: True) -> dict:
        while True:
            message = await received(self.socket)
            if isinstance(message, str):
                told = json.loads(message)
                if told["type"] == kind and matches(told):
                    return told

    async def frame(self, matches: Callable[[dict], bool] = lambda _: True) -> tuple[dict, list[np.ndarray]]:
        """The next frame that matches; asks for as many as it takes."""
        end = time.monotonic() + 300
        await self.tell(do="frames")
        while time.monotonic() < end:
            message = await received(self.socket)
            if isinstance(message, bytes):
                header, planes = unpacked(message)
                if matches(header):
                    return header, planes
                await self.tell(do="frames")
        raise AssertionError(f"no such frame; the last one: {header}")


async def received(socket) -> str | bytes:
    return await asyncio.wait_for(socket.recv(), 120)


async def closing(socket):
    """The code and the reason that a connection is closed with."""
    try:
        while True:
            await received(socket)
    except ConnectionClosed as closed:
        return closed.rcvd


def unpacked(message: bytes) -> tuple[dict, list[np.ndarray]]:
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    planes = np.frombuffer(message, np.uint8, offset=4 + length).reshape(-1, *header["shape"])
    return header, [*planes]


def get(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, dict(answer.headers.items()), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers.items()), error.read().decode()


# ---- who gets in


def test_the_token_opens_the_page_and_the_cookie_keeps_it_open(viewer: Viewer) -> None:
    status, headers, page = get(viewer.address)
    assert status == 200
    assert "<title>Atheria</title>" in page
    headers = {name.lower(): value for name, value in headers.items()}
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"
    kept = cookie.partition(";")[0]
    for file in ("main.js", "style.css", "icon.svg"):
        assert get(f"{viewer.base}/{file}", Cookie=kept)[0] == 200
    assert get(f"{viewer.base}/docs", Cookie=kept)[0] == 404


@pytest.mark.parametrize("path", ["/", "/?token=wrong", "/main.js", "/?token=", "/?token=%FF"])
def test_without_the_token_nothing_opens(viewer: Viewer, path: str) -> None:
    status, headers, text = get(viewer.base + path, Cookie="atheria-view-1=x; broken")
    assert status == 403
    assert "python -m atheria.view" in text
    assert viewer.token not in text + str(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
    ids=str,
)
def test_foreign_hosts_and_origins_are_refused_even_with_the_token(viewer: Viewer, headers: dict) -> None:
    assert get(viewer.address, **headers)[0] == 403


def test_localhost_is_this_machine_too(viewer: Viewer) -> None:
    port = viewer.base.rpartition(":")[2]
    assert get(viewer.address, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    "options",
    [{"origin": "http://evil.example"}, {"origin": None}, {"host": "evil.example"}],
    ids=str,
)
def test_a_socket_from_elsewhere_is_refused(viewer: Viewer, options: dict) -> None:
    port = int(viewer.base.rpartition(":")[2])
    name = options.pop("host", "127.0.0.1")
    options = {"origin": viewer.base, "host": "127.0.0.1", "port": port, **options}

    async def work() -> None:
        with pytest.raises(InvalidStatus, match="403"):
            async with connect(f"ws://{name}:{port}/live?token={viewer.token}", **options):
                pass
        with pytest.raises(InvalidStatus, match="403"):
            async with connect(f"{viewer.live}?token=wrong", origin=viewer.base):
                pass

    asyncio.run(work())


# ---- what pages may do


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ("{", 1008, "JSON"),
        ('{"do": "fly"}', 1008, "fly"),
        ('{"do": "step", "steps": 0}', 1008, "greater than or equal to 1"),
        ('{"do": "step", "more": 1}', 1008, "more"),
        ('{"do": "frames", "count": 1000000}', 1008, "less than or equal"),
        (b"\x00\x01", 1003, "text"),
        ("x" * (LONGEST_MESSAGE + 1), 1009, ""),
        ("[" * 5000, 1008, "JSON"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_command_closes_that_page_alone(
    viewer: Viewer, message: str | bytes, code: int, reason: str
) -> None:
    async def work() -> None:
        async with viewer.connect() as good, viewer.connect() as bad:
            await bad.send(message)
            closed = await closing(bad)
            assert closed.code == code
            assert reason in closed.reason
            assert (await Page(good).frame())[1]

    asyncio.run(work())


def test_a_page_plays_paints_erases_and_is_told(viewer: Viewer) -> None:
    async def work() -> None:
        async with viewer.connect() as socket:
            page = Page(socket)
            hello = await page.text("hello")
            assert {name: len(table) for name, table in hello["palettes"].items()} == dict.fromkeys(
                ("density", "phase", "component", "change"), 1024
            )
            assert "phase_flip" in hello["noises"]
            universe = await page.text("universe")
            assert (universe["law"], universe["grid"], universe["d_state"]) == ("mlp", [16, 16], 4)
            await page.frame(lambda header: header["step"] > 20)  # the first page makes it play
            await page.tell(do="play", on=False)
            await page.text("status", lambda status: not status["playing"])
            before = viewer.session.simulation.call(lambda engine: engine.step_count).result(10)
            await page.tell(do="step", steps=7)
            await page.frame(lambda header: header["step"] == before + 7)
            assert viewer.steps == before + 7

            await page.tell(do="reset", kind="zeros", seed=3, grid=[8, 12])
            header, (plane,) = await page.frame(lambda header: header["grid"] == [8, 12])
            assert header["step"] == 0
            assert (plane == 0).all()
            await page.tell(do="paint", points=[[11, 7]], radius=1, norm=2.0, phase=0.5)
            header, (plane,) = await page.frame(lambda header: header["brightest"] > 1)
            lit = {(int(x), int(y)) for y, x in np.argwhere(plane)}
            assert lit == {(11, 7), (10, 7), (0, 7), (11, 6), (11, 0), (10, 6), (0, 6), (10, 0), (0, 0)}
            assert header["observed"]["energy"] == pytest.approx(4.0 * len(lit), rel=1e-5)
            await page.tell(do="look", view="phase")
            _, (phase, bright) = await page.frame(lambda header: header["view"] == "phase")
            assert bright[7, 11] == 255
            assert phase[7, 11] == round(128 + 0.5 * 256 / (2 * np.pi))
            await page.tell(do="erase", points=[[11, 7]], radius=2)
            header, (_, bright) = await page.frame(lambda header: header["observed"]["energy"] == 0)
            assert (bright == 0).all()

    asyncio.run(work())


def test_noise_changes_what_happens_and_faults_are_told(viewer: Viewer) -> None:
    async def work() -> None:
        async with viewer.connect() as socket:
            page = Page(socket)
            await page.tell(do="noise", name="thermal", level=0.5)
            noise = (await page.text("universe", lambda told: told["number"] > 0))["noise"]
            assert noise == {"name": "thermal", "level": 0.5}
            await page.tell(do="noise", name="gravity", level=0.5)
            assert "must be one of none" in (await page.text("fault"))["text"]
            await page.tell(do="law", choice="run:nothing")
            assert "there is no store" in (await page.text("fault"))["text"]
            await page.tell(do="law", choice="/etc/passwd")
            assert "there is no law '/etc/passwd'" in (await page.text("fault"))["text"]
            await page.tell(do="reset", grid=[60000, 60000])
            assert "`grid` must have at most" in (await page.text("fault"))["text"]
            before = viewer.steps
            await page.frame(lambda header: header["step"] > before)

    asyncio.run(work())


def test_a_law_that_does_not_suit_the_grid_is_told_and_the_rest_goes_on(exported: Callable) -> None:
    _, path = exported("unet")
    with Viewer([f"law={path}", "tracking=off"]) as viewer:

        async def work() -> None:
            async with viewer.connect() as socket:
                page = Page(socket)
                await page.tell(do="reset", grid=[10, 10])
                assert "multiples of the law's stride 4" in (await page.text("fault"))["text"]
                await page.frame(lambda header: header["step"] > 2 and header["grid"] == [16, 16])

        asyncio.run(work())


def test_a_field_that_blows_up_pauses_and_says_so(exported: Callable) -> None:
    _, path = exported("mlp")
    with Viewer([f"law={path}", "tracking=off"]) as viewer:
        asyncio.run(blow_up(viewer))


async def blow_up(viewer: Viewer) -> None:
    async with viewer.connect() as socket:
        page = Page(socket)
        await page.frame()
        huge = np.full((1, 8, 16, 16), 3e38, np.float32)
        viewer.session.simulation.call(lambda engine: engine.set_state(huge)).result(10)
        fault = (await page.text("status", lambda status: status["fault"] is not None))["fault"]
        assert "stopped being finite" in fault
        await page.frame()
        await page.tell(do="reset", kind="zeros")
        assert (await page.text("status", lambda status: status["fault"] is None))["playing"] is False


def test_laws_of_the_registry_and_of_runs_are_offered_and_chosen(in_run_folder) -> None:
    promote([f"run_id={in_run_folder.run_id}", "alias=champion"])
    with Viewer([f"run_id={in_run_folder.run_id}", "speed=null"]) as viewer:

        async def work() -> None:
            async with viewer.connect() as socket:
                page = Page(socket)
                await page.tell(do="laws")
                listed = {law["choice"]: law["group"] for law in (await page.text("laws"))["laws"]}
                assert listed["law:atheria@champion"] == "registry"
                assert listed[f"run:{in_run_folder.run_id}"] == "runs, newest first"
                await page.frame(lambda header: header["step"] > 10)
                await page.tell(do="law", choice="law:atheria@champion")
                chosen = await page.text("universe", lambda told: told["choice"] == "law:atheria@champion")
                assert chosen["law"] == "unet"
                await page.frame(lambda header: header["step"] > 0)

        asyncio.run(work())


def test_many_pages_at_once_and_not_more(viewer: Viewer) -> None:
    async def work() -> None:
        sockets = [await viewer.connect().__aenter__() for _ in range(MOST_CLIENTS)]
        before = viewer.steps
        await asyncio.gather(*(Page(socket).frame() for socket in sockets[:50]))
        async with viewer.connect() as last:
            closed = await closing(last)
            assert closed.code == 1013
            assert "close one" in closed.reason
        assert viewer.steps > before
        await asyncio.gather(*(socket.close() for socket in sockets))
        await asyncio.wait_for(let_in(), 60)

    async def let_in() -> None:
        while True:  # a closed socket has its answer before the server has forgotten the page
            async with viewer.connect() as socket:
                with suppress(ConnectionClosed):
                    await Page(socket).frame()
                    return

    asyncio.run(work())


def test_a_page_that_does_not_read_is_dropped_and_holds_nothing_up(exported: Callable) -> None:
    _, path = exported("mlp", replace(PHYSICS, normalise="cell"))
    overrides = [f"law={path}", "tracking=off", "speed=null", "grid=256"]
    with Viewer(overrides, patience=1.0) as viewer:

        async def work() -> None:
            async with viewer.connect() as good:
                page = Page(good)
                await page.frame()
                port = int(viewer.base.rpartition(":")[2])
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(handshake(viewer))
                await reader.readuntil(b"\r\n\r\n")
                writer.transport.pause_reading()
                resident, before = resident_bytes(), viewer.steps
                deadline = time.monotonic() + 40
                with pytest.raises((ConnectionError, OSError)):  # noqa: PT012
                    while time.monotonic() < deadline:  # asks for frames, and reads none of them
                        for _ in range(50):
                            writer.write(masked(b'{"do":"frames","count":4}'))
                        await writer.drain()
                        await asyncio.sleep(0.05)
                        await page.frame()
                assert time.monotonic() < deadline
                assert viewer.steps > before
                assert resident_bytes() - resident < 200e6
                after = viewer.steps
                await page.frame(lambda header: header["step"] > after)
                writer.transport.abort()

        asyncio.run(work())


def test_a_page_that_asks_for_no_frames_costs_none(viewer: Viewer) -> None:
    async def work() -> None:
        async with viewer.connect() as socket:
            page = Page(socket)
            await page.frame()
            number = viewer.session.simulation.moment.number
            before = viewer.steps
            while viewer.steps < before + 200:
                await asyncio.sleep(0.01)
            assert viewer.session.simulation.moment.number <= number + 1

    asyncio.run(work())


def handshake(viewer: Viewer) -> bytes:
    host = viewer.base.removeprefix("http://")
    return (
        f"GET /live?token={viewer.token} HTTP/1.1\r\nHost: {host}\r\nOrigin: {viewer.base}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n\r\n"
    ).encode()


def masked(text: bytes) -> bytes:
    """A text frame as a client sends it, under the mask 0."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ---- parts


@pytest.mark.parametrize("message", ["", "null", "[]", '{"do": "paint", "points": [], "radius": 1}'])
def test_messages_that_are_no_command(message: str) -> None:
    with pytest.raises(MalformedError):
        read(message)


def test_pictures_show_what_they_say() -> None:
    psi = np.zeros((4, 8, 8), np.float32)
    psi[0, 1, 2], psi[3, 4, 5] = -3.0, 1.5
    moment = Moment(0, 5, psi, {}, 0.0)

    def picture(**look) -> tuple[dict, list[np.ndarray]]:
        return unpacked(Camera(Look(do="look", **look)).take(moment))

    header, (plane,) = picture(view="density")
    assert plane[1, 2] == 255
    assert np.count_nonzero(plane) == 2
    assert header["brightest"] == pytest.approx(3, rel=0.6)
    _, (plane,) = picture(view="component", component=0)
    assert (plane[1, 2], plane[0, 0], plane[4, 5]) == (0, 128, 128)
    _, (plane,) = picture(view="component", component=1, part="im")
    assert plane[4, 5] == 255
    _, (phase, _) = picture(view="phase")
    assert (phase[1, 2], phase[4, 5]) == (0, 192)  # -pi, which is pi, and pi/2
    camera = Camera(Look(do="look", view="change"))
    camera.take(moment)
    later = psi.copy()
    later[0, 7, 7] = 1.0
    _, (plane,) = unpacked(camera.take(Moment(1, 6, later, {}, 0.0)))
    assert np.argwhere(plane).tolist() == [[7, 7]]


def test_a_law_of_another_d_state_is_another_universe() -> None:
    camera = Camera(Look(do="look", view="change"))
    for number, channels in enumerate((4, 8, 4)):
        moment = Moment(number, 0, np.full((channels, 8, 8), number, np.float32), {}, 0.0)
        _, (plane,) = unpacked(camera.take(moment))
        assert not plane.any()  # nothing has changed since it began


def test_numbers_whose_squares_are_too_large_are_shown() -> None:
    psi = np.zeros((4, 8, 8), np.float32)
    psi[:, 1, 2] = -3e38
    for view in ("density", "phase", "change", "component"):
        message = Camera(Look(do="look", view=view)).take(Moment(0, 5, psi, {"energy": np.inf}, 0.0))
        header, planes = unpacked(message)
        assert np.isfinite(header["brightest"])
        assert header["observed"] == {"energy": None}
        assert view == "change" or len({*map(int, planes[-1].ravel())}) == 2


def test_brushes_wrap_on_a_torus_and_are_cut_off_elsewhere() -> None:
    assert {*map(tuple, disks([(0, 0)], 0, (4, 6), True).tolist())} == {(0, 0)}
    around = {*map(tuple, disks([(0, 0)], 1, (4, 6), True).tolist())}
    assert (5, 3) in around
    assert len(around) == 9
    assert {*map(tuple, disks([(0, 0)], 1, (4, 6), False).tolist())} == {(0, 0), (1, 0), (0, 1), (1, 1)}
    assert len(disks([(-9, -9)], 1, (4, 6), False)) == 0


def test_a_history_stays_bounded_and_whole() -> None:
    history = History()
    for step in range(10_000):
        history.add(step, dict.fromkeys(SHOWN, float(step)))
    steps = [point["step"] for point in history.points]
    assert len(steps) <= MOST_POINTS
    assert steps[0] == 0
    assert steps[-1] > 9900
    assert np.diff(steps).max() < 100


def test_palettes_rise_in_lightness() -> None:
    for name in ("density", "change"):
        lightness = tables()[name].astype(float) @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(lightness) > -1.5).all()
        assert lightness[0] < 10
    signed = tables()["component"].astype(int)
    assert signed[[127, 128]].max() < 8
    assert np.abs(signed[0] - signed[-1]).max() > 80


# ---- the command


def test_the_command_says_where_and_ends_by_ctrl_c(exported: Callable) -> None:
    _, path = exported("mlp")
    process = subprocess.Popen(
        [sys.executable, "-m", "atheria.view", f"law={path}", "tracking=off", "open=false"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    printed = []
    for line in process.stdout:
        printed.append(line)
        if line.startswith("stop"):
            break
    address = next(line.split()[1] for line in printed if line.startswith("open"))
    for _ in range(1000):
        try:
            assert get(address)[0] == 200
            break
        except urllib.error.URLError:
            time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "stopped   after" in out
    assert err == ""


def test_a_port_that_is_taken_is_refused(viewer: Viewer, exported: Callable) -> None:
    _, path = exported("mlp")
    port = viewer.base.rpartition(":")[2]
    result = subprocess.run(
        [sys.executable, "-m", "atheria.view", f"law={path}", "tracking=off", "open=false", f"port={port}"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert f"atheria.view: `port` {port} of 127.0.0.1 cannot be had" in result.stderr
    assert "Traceback" not in result.stderr


# ---- the page


@contextmanager
def browser(width: int = 1366, height: int = 768, strict: bool = True, webgl: bool = False):
    """A page of Chromium's, and what it has logged: nothing, where that is asked for."""
    if CHROMIUM is None:
        missing("browser", "no chromium")
    from playwright.sync_api import sync_playwright

    emulated = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    args = ["--no-sandbox", *(emulated if webgl else [])]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        page = chromium.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
        page.set_default_timeout(120_000)
        logged: list[str] = []
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        try:
            yield page, logged
        finally:
            chromium.close()
    assert not strict or logged == []


def until(page, condition: str) -> None:
    """Waits for a condition in the page, whose policy forbids it to evaluate one itself."""
    for _ in range(4000):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not so: {condition}; {page.evaluate('JSON.stringify(document.body.dataset)')}")


@pytest.mark.browser
@pytest.mark.parametrize(("renderer", "name"), [("webgl", "WebGL2"), ("2d", "2D canvas")])
def test_the_page_plays_by_mouse_and_keyboard(viewer: Viewer, renderer: str, name: str) -> None:
    with browser(webgl=renderer == "webgl") as (page, _):
        page.goto(f"{viewer.address}&renderer={renderer}")
        until(page, "Number(document.body.dataset.step) > 20")
        until(page, "Number(document.body.dataset.drawn) > 5")
        assert page.evaluate("document.body.dataset.renderer") == name
        assert "token" not in page.url
        page.keyboard.press("Space")
        page.wait_for_selector('#play[aria-label="Play"]')
        viewer.session.simulation.call(lambda engine: engine.reset("zeros", 0, (16, 16)), True).result(10)
        until(page, "document.body.dataset.step === '0'")
        page.keyboard.press(".")
        until(page, "document.body.dataset.step === '1'")
        page.locator("#step").click()
        until(page, "document.body.dataset.step === '2'")

        def energy() -> float:
            return viewer.session.simulation.call(lambda engine: engine.observables()[0]["energy"]).result(10)

        page.locator("#kind").select_option("zeros")
        page.locator("#start").click()
        until(page, "document.body.dataset.step === '0'")
        assert energy() == 0
        page.locator("#field").focus()
        page.keyboard.press("b")
        assert page.locator('[data-tool="paint"]').get_attribute("aria-pressed") == "true"
        box = page.locator("#field").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 60, y + 40, steps=4)
        page.mouse.up()
        page.wait_for_timeout(500)
        painted = energy()
        assert painted > 20
        page.locator('[data-tool="erase"]').click()
        page.mouse.click(x, y)
        page.wait_for_timeout(500)
        erased = energy()
        assert erased < painted
        page.keyboard.press("b")
        page.locator("#field").focus()
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        assert energy() > erased

        for key, view in (("2", "phase"), ("v", "component"), ("4", "change"), ("1", "density")):
            page.keyboard.press(key)
            until(page, f"document.body.dataset.view === '{view}'")
            assert page.locator(f'[data-view="{view}"][role]').get_attribute("aria-checked") == "true"
        page.locator('[data-view="phase"][role]').click()
        until(page, "document.body.dataset.view === 'phase'")
        page.locator("#noise").select_option("thermal")
        page.keyboard.press("Tab")
        page.locator("#noise-on").click()
        page.wait_for_selector('#noise-on[aria-pressed="true"]')
        assert viewer.session.universe.noise.name == "thermal"
        page.locator("#field").focus()
        page.keyboard.press("n")
        page.wait_for_selector('#noise-on[aria-pressed="false"]')
        page.keyboard.press("m")
        page.wait_for_selector('#full[aria-pressed="false"]')
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        page.keyboard.press("Escape")
        page.locator("#grid").fill("24")
        page.locator("#start").click()
        until(page, "document.getElementById('facts').textContent.includes('24 \u00d7 24')")
        page.locator("#field").focus()
        page.keyboard.press("Space")
        page.wait_for_selector('#play[aria-label="Pause"]')
        page.keyboard.press("o")
        before = int(page.evaluate("document.body.dataset.drawn"))
        until(page, f"Number(document.body.dataset.drawn) > {before + 20}")
        with page.expect_download(timeout=120_000) as download:
            page.keyboard.press("o")
        with av.open(str(download.value.path())) as film:
            assert "webm" in film.format.name
            assert len(list(film.decode(video=0))) > 5
        with page.expect_download(timeout=120_000) as download:
            page.locator("#picture").click()
        assert Path(download.value.path()).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.browser
def test_the_page_fits_a_phone_and_comes_back(viewer: Viewer) -> None:
    with browser(390, 844) as (page, _):
        page.goto(viewer.address)
        until(page, "Number(document.body.dataset.step) > 20")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        unnamed = page.evaluate(
            """[...document.querySelectorAll("button, select, input")].filter((control) =>
                 !control.ariaLabel && !control.textContent.trim() && !control.labels?.length).length"""
        )
        assert unnamed == 0
        step = int(page.evaluate("document.body.dataset.step"))
        page.reload()
        until(page, f"Number(document.body.dataset.step) > {step}")
