"""With a real ``mlflow server``, and what a person sees in its pages."""

import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from atheria.fetch import law_of_run
from atheria.rollout import rollout
from atheria.train import train

from .conftest import SMALL, missing, put_store
from .servers import MlflowServer


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[str]:
    """The address of a real ``mlflow server``."""
    put_store(empty_store, tmp_path / "server.db")
    running = MlflowServer(tmp_path)
    try:
        running.start()
        yield running.address
    finally:
        running.kill()


@pytest.mark.slow
def test_train_and_roll_out_through_a_server(server: str) -> None:
    run = train([*SMALL, f"tracking.uri={server}"])
    assert run.tracking_uri == server
    assert not Path("outputs/mlflow.db").exists()
    shutil.rmtree("outputs")
    result = rollout([f"run_id={run.run_id}", f"tracking.uri={server}", "steps=5"])
    client = MlflowClient(server)
    assert client.get_run(result.run_id).data.tags["mlflow.parentRunId"] == run.run_id
    url = f"{server}/get-artifact?run_id={run.run_id}&path=law/law.pt"
    with urllib.request.urlopen(url, timeout=10) as response:
        assert response.read() == law_of_run(run.run_id, server).read_bytes()


def page(address: str, tmp_path: Path) -> str:
    """The document that a headless Chromium has built after the page's scripts ran."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        missing("browser", "chromium is not installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--virtual-time-budget=20000", f"--user-data-dir={tmp_path}/profile"]  # fmt: skip
    shown = subprocess.run(
        [str(chromium), *flags, "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return shown.stdout


@pytest.mark.slow
@pytest.mark.browser
def test_the_run_and_its_picture_stand_in_the_ui(server: str, tmp_path: Path) -> None:
    run = train([*SMALL, f"tracking.uri={server}"])
    at = f"{server}/#/experiments/1/runs/{run.run_id}"
    overview = page(f"{at}?workflowType=machine_learning", tmp_path)
    assert "unet-v4-seed0" in overview
    assert "eval/loss" in overview
    assert "Finished" in overview
    picture = page(f"{at}/artifacts/pictures/rollout.png?workflowType=machine_learning", tmp_path)
    assert "pictures/rollout.png" in picture
    assert "blob:http" in picture  # the browser has loaded it
