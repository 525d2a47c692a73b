"""The report of a run: whole, self-contained, true, and legible."""

import base64
import io
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from atheria import chart, history, journal
from atheria.chart import Line
from atheria.history import Curve, History
from atheria.jobs.train import REPORT_FRAMES, TrainedRun
from atheria.report import FILE_NAME
from atheria.train import train

from .conftest import SMALL, missing


@pytest.fixture
def text(in_run_folder: TrainedRun) -> str:
    return (in_run_folder.folder / FILE_NAME).read_text()


def pictures(text: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/(?:png|gif);base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


def test_it_is_on_the_run_and_fetches_nothing(in_run_folder: TrainedRun, text: str) -> None:
    client = MlflowClient(in_run_folder.tracking_uri)
    stored = client.download_artifacts(in_run_folder.run_id, FILE_NAME)
    assert Path(stored).read_text() == text
    files = {file.path for file in client.list_artifacts(in_run_folder.run_id, "pictures")}
    assert files == {"pictures/rollout.png", "pictures/film.gif"}
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]{1,40})""", text)
    assert addresses
    assert all(address.startswith("data:image/") for address in addresses)
    assert "@import" not in text
    assert "<script" not in text


def test_its_tags_are_balanced(text: str) -> None:
    class Balanced(HTMLParser):
        open_tags: list[str]

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img"):
                self.open_tags.append(tag)

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_endtag(self, tag):
            assert self.open_tags.pop() == tag

    parser = Balanced()
    parser.open_tags = []
    parser.feed(text)
    assert parser.open_tags == []


def test_it_says_what_the_run_was_and_brought(in_run_folder: TrainedRun, text: str) -> None:
    run = in_run_folder
    row = f"<td>loss</td><td>{run.untrained['eval/loss']:.4g}</td><td>{run.best['eval/loss']:.4g}</td>"
    assert row in text
    assert f"<td>fidelity</td><td>{run.untrained['eval/fidelity']:.4g}</td>" in text
    assert run.run_id in text
    assert "hidden_channels: 4" in text
    assert f"python -m atheria.evaluate run_id={run.run_id}" in text
    assert "python -m atheria.ui tracking.experiment=atheria" in text
    for heading in ("terms of the loss, weighted", "noise level", "neighbour coherence", "learning rate"):
        assert f"<h3>{heading}</h3>" in text


def test_its_pictures_are_those_of_the_run(in_run_folder: TrainedRun, text: str) -> None:
    film, trained, untrained = pictures(text)
    assert film.n_frames == min(REPORT_FRAMES, 4 * 3 + 1)
    assert np.array_equal(trained, Image.open(in_run_folder.folder / "pictures/rollout.png"))
    assert np.array_equal(untrained, Image.open(in_run_folder.folder / "images/rollout-0.png"))


@pytest.mark.usefixtures("ready_store")
def test_a_run_that_is_not_tracked_or_goes_on_has_its_curves_too() -> None:
    off = train([*SMALL, "model=mlp", "tracking=off"])
    text = (off.folder / FILE_NAME).read_text()
    assert "<h3>loss</h3>" in text
    assert f"python -m atheria.evaluate law=outputs/runs/{off.run_id}/law/law.pt" in text
    assert len(pictures(text)) == 2
    options = [*SMALL, "model=mlp", "trainer.resume=auto", "noise/curriculum=constant"]
    train(options)
    longer = train([*options, "trainer.episodes=6"])
    curve = History.of(longer.folder).curves["train/loss"]
    assert curve.steps.tolist() == [1, 2, 3, 4, 5, 6]
    text = (longer.folder / FILE_NAME).read_text()
    drawn = re.search(r'<h3>loss</h3><svg.*?class="line" stroke="#0072b2" d="M([^"]+)"', text)
    assert drawn[1].count("L") == 5


@pytest.mark.usefixtures("ready_store")
def test_what_a_name_holds_is_no_html() -> None:
    run = train([*SMALL, "model=mlp", "trainer.episodes=1", "tracking.run_name='<b>&'"])
    assert "<h1>&lt;b&gt;&amp;</h1>" in (run.folder / FILE_NAME).read_text()


def test_points_are_where_their_values_are() -> None:
    drawn = chart.chart([Line("a", [0, 10, 20], [1.0, 3.0, math.nan]), Line("b", [5], [2.0])], "step")
    first = re.search(r'class="line" stroke="#0072b2" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', drawn)
    x0, y0, x1, y1 = (float(group) for group in first.groups())
    assert (x0, x1) == (50, 400 - 12)
    assert y0 > y1  # up is more
    other = re.search(r'stroke="#d55e00" d="M([\d.]+) ([\d.]+)"', drawn)
    assert float(other[1]) == pytest.approx((x0 + x1) / 2)
    assert float(other[2]) == pytest.approx((y0 + y1) / 2)
    assert "nan" not in drawn
    assert chart.chart([Line("a", [1], [math.nan])], "step") == ""
    assert chart.chart([Line("a", [1], [0.0])], "step", logarithmic=True) == ""


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8]), (0, 60, [0, 20, 40, 60]), (-3, 7, [-2, 0, 2, 4, 6]), (5, 5, [5])],
)
def test_ticks_are_round_and_few(low: float, high: float, expected: list[float]) -> None:
    assert chart.ticks(low, high, 5) == pytest.approx(expected)


def test_ticks_of_logarithms_are_round_numbers() -> None:
    assert [round(10**value, 6) for value in chart.decades(-4.3, -3.7, 5)] == [1e-4]
    assert [10**value for value in chart.decades(0, 1, 5)] == pytest.approx([1, 2, 5, 10])
    assert len(chart.decades(-12, 12, 5)) <= 5


def test_a_long_curve_is_thinned_and_keeps_its_shape() -> None:
    curve = Curve()
    for step in range(100_000):
        curve.add(step, step**2)
    assert len(curve.steps) <= history.MOST_POINTS
    assert curve.steps[0] == 0
    assert curve.steps[-1] > 99_000
    assert set(np.diff(curve.steps)) == {32}
    assert all(value == step**2 for step, value in zip(curve.steps, curve.values, strict=True))


def test_a_history_is_that_of_the_journal(tmp_path: Path) -> None:
    held = journal.Journal(tmp_path)
    for step in (1, 2):
        held.append(journal.Metrics({"a": 2.0 * step}, step, 0))
    held.append(journal.Tags({"a": "b"}))
    held.close()
    curve = History.of(tmp_path).curves["a"]
    assert (curve.steps.tolist(), curve.values.tolist()) == ([1, 2], [2.0, 4.0])


@pytest.mark.browser
@pytest.mark.parametrize("width", [1000, 500])
def test_a_browser_shows_all_of_it_and_nothing_sticks_out(
    in_run_folder: TrainedRun, width: int, tmp_path: Path
) -> None:
    """A phone's 500 pixels: the page itself does not scroll sideways, and its pictures are drawn."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        missing("browser", "no Chromium")
    page = tmp_path / "page.html"
    probe = (
        "<script>window.onload = () => { document.title = [document.documentElement.scrollWidth,"
        " innerWidth, [...document.images].every(i => i.complete && i.naturalWidth > 100),"
        " document.querySelectorAll('svg').length].join(' '); }</script></body>"
    )
    page.write_text((in_run_folder.folder / FILE_NAME).read_text().replace("</body>", probe))
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
         f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    reach, inner, drawn, charts = re.search(r"<title>(.*?)</title>", shown.stdout)[1].split()
    assert int(reach) <= int(inner)
    assert drawn == "true"
    assert int(charts) > 15
