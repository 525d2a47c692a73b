"""With a real ``mlflow server``, and what a person sees in its pages."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from atheria.fetch import law_of_run
from atheria.rollout import rollout
from atheria.train import train

from .conftest import SMALL, missing


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a real ``mlflow server`` with its own database and proxied artifacts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
         "--workers", "1", "--backend-store-uri", "sqlite:///server.db",
         "--artifacts-destination", "./server-artifacts"],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.25)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=20)


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
        timeout=120,
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
