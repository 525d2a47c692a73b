"""The benchmarks run; what they measure is in docs/."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_training_is_measured(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/training.py"
    subprocess.run([sys.executable, script, "--quick", "--docs", tmp_path], check=True, timeout=600)
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
    subprocess.run(command, check=True, timeout=1200)
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
    again = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
    assert "1/1  v3, seed 1" in again.stdout


@pytest.mark.slow
def test_tracking_is_measured_and_loses_nothing(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/tracking.py"
    subprocess.run([sys.executable, script, "--quick", "--docs", tmp_path], check=True, timeout=600)
    measured = json.loads((tmp_path / "tracking.json").read_text())
    assert measured["outages"]["every_point_once_in_order"]
    assert {"off", "off again", "sqlite", "server"} < set(measured["cost"]["smallest (mlp)"])
    assert "99th percentile" in (tmp_path / "tracking.md").read_text()


@pytest.mark.slow
def test_sweeps_are_measured_and_are_whole(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/sweeps.py"
    shutil.copyfile(ROOT / "docs/scaling.md", tmp_path / "scaling.md")
    small = ["--points", "2", "--rounds", "1", "--launchers", "local"]
    subprocess.run([sys.executable, script, *small, "--docs", tmp_path], check=True, timeout=1200)
    measured = json.loads((tmp_path / "sweeps.json").read_text())
    for store in ("off", "sqlite", "server"):
        assert measured[f"local {store}"]["rows"] == [2]
        assert measured[f"local {store}"]["complete"] == [True]
    assert measured["again"].keys() == {"1", "2"}
    assert measured["local server"]["requests"][0] > 5
    page = (tmp_path / "scaling.md").read_text()
    assert "| local | an SQLite file |" in page
    assert "Not measured yet" not in page
    assert page.startswith("# Sweeps")
    assert page.endswith("than above.\n")


@pytest.mark.slow
def test_rollouts_are_measured_and_are_the_same(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/rollout.py"
    small = ["--quick", "--rounds", "1", "--peers", "eager", "frozen"]
    where = ["--docs", tmp_path, "--name", "trial"]
    subprocess.run([sys.executable, script, *small, *where], check=True, timeout=1200)
    measured = json.loads((tmp_path / "trial.json").read_text())
    page = (tmp_path / "trial.md").read_text()
    assert "these figures mean nothing" in page
    assert "](trial_times.png)" in page
    assert f"The peak is {measured['peak']:.0f} GFLOP/s" in page
    assert {row["law"] for row in measured["rows"]} == {"mlp", "deep_qca", "deep_qca_eight", "nca", "unet"}
    for row in [*measured["rows"], *measured["others"]]:
        assert f"{row['law']}, {row['side']} x {row['side']}\n" in page
        timed = [numbers for numbers in row["contenders"].values() if "minimum_ms" in numbers]
        assert len(timed) >= 3
        assert all(numbers["same"] and numbers["minimum_ms"] > 0 for numbers in timed)
        assert row["fp32"]["fastest_peer"] in {"PyTorch eager", "TorchScript frozen"}
        assert row["fp32"]["speed_minimum"] > 0
        profile = row["contenders"]["Atheria"]["profile"]
        assert bool(profile) == (row["law"] != "snn_unet")
    assert "| nca | 16² | convolution 1x1, 64 -> 32 channels, elu | " in page
    assert "| deep_qca_eight | 16² | convolution 1x1, 16 -> 32 channels, elu | " in page
    for raced in [measured["sparse"]["scattered"], *measured["sparse"]["loop"].values()]:
        for numbers in raced.values():
            assert "left_out" in numbers or (numbers["error"] < 1e-5 and not numbers["cells_of_one_only"])
    assert "Python loop over cells" in measured["sparse"]["loop"]["20"]
    assert (tmp_path / "trial_times.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_devices_are_measured_and_compute_the_same(tmp_path: Path, device: str) -> None:
    script = ROOT / "benchmarks/device.py"
    small = ["--rounds", "1", "--sizes", "16", "--laws", "nca", "unet_convlstm", "--device", device]
    subprocess.run([sys.executable, script, *small, "--docs", tmp_path], check=True, timeout=1200)
    measured = json.loads((tmp_path / "device.json").read_text())
    assert [row["law"] for row in measured["rows"]] == ["nca", "unet_convlstm"]
    for row in measured["rows"]:
        assert f"## {row['law']}, 16 x 16\n" in (tmp_path / "device.md").read_text()
        assert all(numbers["same"] and numbers["minimum_ms"] > 0 for numbers in row["contenders"].values())


@pytest.mark.slow
def test_the_laws_of_scattered_cells_are_those_of_their_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    sparse = importlib.import_module("sparse")
    with np.load(sparse.WEIGHTS) as kept:
        committed = {name: kept[name] for name in kept.files}
    monkeypatch.setattr(sparse, "WEIGHTS", tmp_path / "laws.npz")
    sparse.write_weights()
    with np.load(tmp_path / "laws.npz") as made:
        assert made.files == [*committed]
        for name, array in committed.items():
            np.testing.assert_array_equal(made[name], array)
    cells = sparse.scattered(1000, 1024)
    monkeypatch.undo()
    assert set(sparse.occupancy(sparse.sparse_law("lives"), cells, [0, 50, 400]).values()) <= {
        *range(900, 1101)
    }
