"""MLflow's UI on the project's store."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from mlflow import MlflowClient

from .conftest import heed_ctrl_c
from .test_view import browser


@pytest.mark.slow
@pytest.mark.browser
def test_the_ui_opens_at_the_runs_and_says_what_is_measured(in_run_folder) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "atheria.ui", "open=false"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    try:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("stop"):
                break
        address = next(line.split()[1] for line in printed if line.startswith("open"))
        base, _, page_of_runs = address.partition("#")
        assert base.startswith("http://127.0.0.1:")
        assert page_of_runs.endswith("?workflowType=machine_learning")
        store = MlflowClient("sqlite:///outputs/mlflow.db")
        name = store.get_run(in_run_folder.run_id).info.run_name
        with browser(strict=False) as (page, _):
            page.goto(address)
            page.get_by_text(name).first.wait_for(timeout=60_000)
        note = store.get_experiment_by_name("atheria").tags
        assert "`eval/loss`" in note["mlflow.note.content"]
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    assert "stopped" in out
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(base, timeout=2)
