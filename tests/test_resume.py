"""The same run, the same curve: training that is killed at any moment and gone on with."""

import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from atheria import checkpoint, endings
from atheria.config import UserError
from atheria.journal import is_held
from atheria.jobs.train import TrainedRun
from atheria.stores import store_uri
from atheria.sync import sync
from atheria.train import train

from .conftest import SMALL, heed_ctrl_c

TINY = (*SMALL, "model=mlp", "trainer.checkpoint_every=1", "trainer.eval_every=3", "trainer.keep_best=2")

POOL = ("trainer.pool=4", "trainer.damage=1", "trainer.steps_min=1")
CONFIGURATIONS = {
    "v3": ("trainer=v3",),
    "v3 pool": ("trainer=v3", *POOL, "physics.fire_rate=0.5"),
    "seed linear": ("noise=seed", "noise/curriculum=linear"),
    "dephasing cosine": ("noise=dephasing", "noise/curriculum=cosine", "trainer.scheduler=cosine"),
    "phase_flip steps pool": ("noise=phase_flip", "noise/curriculum=steps", *POOL),
    "bit_flip adaptive": ("noise=bit_flip", "noise/curriculum=adaptive", "noise.curriculum.patience=1"),
    "sign_flip constant memory pool": (
        "noise=sign_flip", "noise/curriculum=constant", "model=unet_convlstm", *POOL,
    ),
    "depolarising truncated": ("noise=depolarising", "trainer.truncate=1"),
    "amplitude_damping phases": (
        "noise=amplitude_damping", "trainer.phases=[{episodes: 3, grid: 4, steps: 2, noise: 0.5}]",
    ),
    "thermal adaptive pool": ("noise=thermal", "noise/curriculum=adaptive", "noise.curriculum.patience=1", *POOL),
    "mixed spikes": ("noise=mixed", "model=snn_unet"),
    "none unet": ("noise=none", "noise.level=0", "model=unet"),
}  # fmt: skip
"""Both trainers, every noise channel and curriculum, with and without a pool, laws with memory and spikes."""


def process_of(*overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "atheria.train", *overrides, "trainer.resume=auto"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


def train_under_kills(overrides: list[str], kills: int, luck: random.Random) -> str:
    """Trains with so many kill -9, each at a random moment after the run has begun; returns its ID."""
    run_ids = set()
    while True:
        process = process_of(*overrides)
        lines = []
        timer = threading.Timer(3600, process.kill)
        for line in process.stdout:
            lines.append(line)
            if line.startswith("run ") and kills > 0:
                kills -= 1
                timer = threading.Timer(luck.uniform(0, 1.5), process.kill)
                timer.start()
        process.wait()
        timer.cancel()
        run_ids |= set(re.findall(r"^run +([0-9a-f]{32})", "".join(lines), re.MULTILINE))
        if process.returncode == 0:
            assert len(run_ids) == 1
            return run_ids.pop()
        assert process.returncode == -signal.SIGKILL, process.stderr.read()


def assert_same(a, b, at: str = "") -> None:
    """Bit for bit, at every depth."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), at
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for key in a:
            assert_same(a[key], b[key], f"{at}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), at
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{at}[{index}]")
    else:
        assert a == b or (a != a and b != b), (at, a, b)


def curves(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, float]]]:
    keys = client.get_run(run_id).data.metrics
    return {key: [(m.step, m.value) for m in client.get_metric_history(run_id, key)] for key in keys}


def assert_equal_to_undisturbed(run_id: str, overrides: list[str]) -> None:
    undisturbed = train([*overrides, "output=undisturbed"])
    client = MlflowClient(store_uri(None))
    assert client.get_run(run_id).info.status == "FINISHED"
    assert_same(curves(client, run_id), curves(client, undisturbed.run_id))
    for name in ("last", "best", "best-2"):
        states = [
            checkpoint.load(folder / f"checkpoints/{name}.pth")
            for folder in (Path("outputs/runs") / run_id, undisturbed.folder)
        ]
        for state in states:
            del state["run_id"], state["config"]
        assert_same(*states)


@pytest.mark.slow
def test_a_run_that_is_killed_at_20_random_moments_equals_one_that_is_not() -> None:
    overrides = [*TINY, *CONFIGURATIONS["thermal adaptive pool"], "trainer.episodes=400"]
    run_id = train_under_kills(overrides, 20, random.Random(0))
    assert_equal_to_undisturbed(run_id, overrides)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration_goes_on_bit_for_bit(name: str) -> None:
    overrides = [*TINY, *CONFIGURATIONS[name], "trainer.episodes=30"]
    run_id = train_under_kills(overrides, 2, random.Random(name))
    assert_equal_to_undisturbed(run_id, overrides)
