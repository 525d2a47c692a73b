"""MLflow's UI on the project's store."""

import contextlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from atheria.rollout import rollout

from .conftest import heed_ctrl_c
from .test_view import browser, until


@contextlib.contextmanager
def served() -> Iterator[str]:
    """MLflow's UI; yields the address of the runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "atheria.ui", "open=false"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    try:
        yield next(line.split()[1] for line in process.stdout if line.startswith("open"))
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    assert "stopped" in out


@pytest.mark.slow
@pytest.mark.browser
def test_the_ui_opens_at_the_runs_and_says_what_is_measured(in_run_folder) -> None:
    with served() as address:
        base, _, page_of_runs = address.partition("#")
        assert base.startswith("http://127.0.0.1:")
        assert page_of_runs.endswith("?workflowType=machine_learning")
        store = MlflowClient("sqlite:///outputs/mlflow.db")
        name = store.get_run(in_run_folder.run_id).info.run_name
        with browser(strict=False) as (page, _):
            page.goto(address)
            page.get_by_text(name).first.wait_for()
        note = store.get_experiment_by_name("atheria").tags
        assert "`eval/loss`" in note["mlflow.note.content"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(base, timeout=2)


PICTURES = "[...document.querySelectorAll('img')].filter(i => i.src.includes('images%2F') && i.naturalWidth)"


@pytest.mark.slow
@pytest.mark.browser
def test_pictures_films_and_the_report_are_seen_in_the_ui(in_run_folder) -> None:
    rolled = rollout([f"run_id={in_run_folder.run_id}", "steps=5", "film=mp4", "film_every=1"])
    with served() as address, browser(strict=False) as (page, _):
        runs, _, view = address.partition("?")

        def look(run_id: str, at: str) -> None:
            page.goto("about:blank")
            page.goto(f"{runs}/{run_id}/{at}?{view}")

        look(in_run_folder.run_id, "model-metrics")
        page.get_by_placeholder("Search metric charts").fill("rollout")
        page.get_by_role("slider").focus()
        for step in ("0", "2", "4"):
            until(page, f"document.querySelector('[role=slider]').ariaValueNow === '{step}'")
            until(page, f"{PICTURES}.some(i => i.src.includes('step%2B{step}%2B'))")
            page.keyboard.press("ArrowRight")

        look(in_run_folder.run_id, "artifacts/report.html")
        report = page.frame_locator("iframe")
        report.get_by_role("heading", name="The law at work").wait_for()
        assert report.locator("img").first.evaluate("i => i.complete && i.naturalWidth > 0")

        look(rolled.run_id, "artifacts/pictures/film.mp4")
        page.locator("video").wait_for()
        until(page, "document.querySelector('video').readyState >= 2")
        assert page.evaluate("document.querySelector('video').duration") == pytest.approx(6 / 20, abs=0.06)
