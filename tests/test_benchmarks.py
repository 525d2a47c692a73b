"""The benchmarks run; what they measure is in docs/."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_training_is_measured(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/training.py"
    subprocess.run([sys.executable, script, "--quick", "--docs", tmp_path], check=True, timeout=300)
    measured = json.loads((tmp_path / "training.json").read_text())
    page = (tmp_path / "training.md").read_text()
    assert f"torch {measured['torch']}" in page
    assert "these figures mean nothing" in page
    for law, numbers in measured["laws"].items():
        assert f"## {law}\n" in page
        agreement = numbers["agreement"]
        assert agreement["loss difference"] < 1e-4
        assert agreement["gradient_norm difference"] < 1e-4
        assert {"naive loop", "trainer"} <= set(numbers["without noise"]) & set(numbers["noise"])
    assert {"mlp", "deep_qca", "nca", "unet"} == set(measured["laws"])
    if sys.platform == "linux":
        assert measured["memory"]["checkpointed"]["loss"] == measured["memory"]["kept"]["loss"]


@pytest.mark.slow
def test_learning_is_measured_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    tiny = ["model.hidden_channels=4", "trainer.grid=8", "trainer.steps=2", "trainer.steps_min=1"]
    tiny += [f"trainer.{option}" for option in ("episodes=2", "pool=4", "eval_every=2", "eval_steps=2")]
    script = ROOT / "benchmarks/learning.py"
    command = [sys.executable, script, "--folder", tmp_path, "--docs", tmp_path, "--seeds", "2", *tiny]
    subprocess.run(command, check=True, timeout=600)
    measured = json.loads((tmp_path / "learning.json").read_text())
    assert [(r["arm"], r["seed"]) for r in measured["results"]] == [
        (arm, seed) for seed in (0, 1) for arm in ("v4", "v4 without noise", "v3")
    ]
    quiet = measured["results"][0]["untrained"]["quiet"]
    assert quiet["survival"] == pytest.approx(
        abs(0.8 - 0.99 ** (2 * 8)), abs=1e-2
    )  # decay alone, 4 x 2 steps
    assert "± " in (tmp_path / "learning.md").read_text()
    assert (tmp_path / "learning.png").stat().st_size > 10_000
    (tmp_path / "v3-1.json").unlink()
    again = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    assert "1/1  v3, seed 1" in again.stdout


@pytest.mark.slow
def test_tracking_is_measured_and_loses_nothing(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/tracking.py"
    subprocess.run([sys.executable, script, "--quick", "--docs", tmp_path], check=True, timeout=400)
    measured = json.loads((tmp_path / "tracking.json").read_text())
    assert measured["outages"]["every_point_once_in_order"]
    assert {"off", "off again", "sqlite", "server"} < set(measured["cost"]["smallest (mlp)"])
    assert "99th percentile" in (tmp_path / "tracking.md").read_text()


@pytest.mark.slow
def test_sweeps_are_measured_and_are_whole(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/sweeps.py"
    shutil.copyfile(ROOT / "docs/scaling.md", tmp_path / "scaling.md")
    small = ["--points", "4", "--rounds", "1", "--launchers", "local"]
    subprocess.run([sys.executable, script, *small, "--docs", tmp_path], check=True, timeout=600)
    measured = json.loads((tmp_path / "sweeps.json").read_text())
    for store in ("off", "sqlite", "server"):
        assert measured[f"local {store}"]["rows"] == [4]
        assert measured[f"local {store}"]["complete"] == [True]
    assert measured["again"].keys() == {"1", "4"}
    assert measured["local server"]["requests"][0] > 5
    page = (tmp_path / "scaling.md").read_text()
    assert "| local | an SQLite file |" in page
    assert "Not measured yet" not in page
    assert page.startswith("# Sweeps")
    assert page.endswith("than above.\n")
