"""One run over several processes equals the same run in one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from atheria import checkpoint, laws
from atheria.config import UserError
from atheria.launch import Place, meeting, place
from atheria.ranks import Ranks, joined
from atheria.stores import store_uri
from atheria.train import train

from .conftest import SMALL, train_settings
from .test_resume import curves

pytestmark = pytest.mark.usefixtures("ready_store")

TWICE = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TORCHRUN = [*TWICE, "-m", "atheria.train"]

STEADY = (
    *SMALL, "model=mlp", "trainer.batch_size=4", "trainer.lr=0.01", "trainer.eval_every=10",
    "trainer.checkpoint_every=1000", "noise/curriculum=constant", "physics.fire_rate=0.5",
)  # fmt: skip
"""A longer run begins as a shorter one; weights move enough to be told apart."""
FP64 = (*STEADY, "trainer.precision=fp64", "trainer.episodes=20")
POOL = (
    "trainer.pool=6", "trainer.damage=1", "trainer.steps_min=1", "trainer.truncate=2",
    "noise/curriculum=adaptive", "noise.curriculum.patience=2",
)  # fmt: skip


def by_torchrun(*overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TORCHRUN, *overrides], capture_output=True, text=True, timeout=600, check=False)


def by_srun(*overrides: str) -> list[subprocess.CompletedProcess[str]]:
    """What srun starts, with the environment that it gives to two tasks of a step."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    slurm = {
        "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": str(port),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "atheria.train", *overrides],
            env={**os.environ, **slurm, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (1, 0)
    ]
    ends = [(process, *process.communicate(timeout=600)) for process in processes]
    return [subprocess.CompletedProcess(p.args, p.returncode, out, err) for p, out, err in reversed(ends)]


def only_run() -> str:
    """The ID of the only run in the store."""
    client = MlflowClient(store_uri(None))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    return run.info.run_id


def weights_of(run_id: str, output: str = "outputs") -> dict[str, torch.Tensor]:
    return checkpoint.load(Path(output) / "runs" / run_id / "checkpoints/last.pth")["model_state_dict"]


def difference(run_id: str, overrides: tuple[str, ...]) -> float:
    """The largest of weights and metrics to the same run in one process, relative to max(1, |x|)."""
    alone = train([*overrides, "output=alone"]).run_id
    client = MlflowClient(store_uri(None))
    ours, theirs = curves(client, run_id), curves(client, alone)
    assert ours.keys() == theirs.keys()
    assert [s for s, _ in ours["train/loss"]] == list(range(1, len(theirs["train/loss"]) + 1))
    pairs = []
    for key, curve in theirs.items():
        assert [step for step, _ in ours[key]] == [step for step, _ in curve], key
        pairs += [(a, b) for (_, a), (_, b) in zip(ours[key], curve, strict=True)]
    weights = weights_of(alone, "alone")
    for name, weight in weights_of(run_id).items():
        pairs += list(zip(weight.flatten().tolist(), weights[name].flatten().tolist(), strict=True))
    apart = max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
    print(f"largest difference to one process: {apart:.1e}")
    return apart


def law_to_start_with() -> None:
    """A law of fresh weights that no run begins with by itself."""
    settings = train_settings(*FP64)
    torch.manual_seed(99)
    law = laws.build(settings.model, settings.physics.boundary)
    torch.nn.init.normal_(law.net[-1].weight, std=0.1)
    checkpoint.save({"model_state_dict": law.state_dict()}, Path("start.pth"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [("noise/curriculum=linear",), POOL], ids=["curriculum", "pool"])
def test_two_processes_equal_one(options: tuple[str, ...]) -> None:
    law_to_start_with()
    overrides = (*FP64, *options, "trainer.init_from=start.pth")
    ended = by_torchrun(*overrides)
    assert ended.returncode == 0, ended.stderr
    for line in ("run  ", "training  ", "starting with all weights of start.pth", "episode 0/20", "law  "):
        assert ended.stdout.count(line) == 1
    assert "in 2 processes" in ended.stdout
    run_id = only_run()
    assert {weight.dtype for weight in weights_of(run_id).values()} == {torch.float64}
    assert difference(run_id, overrides) < 1e-9
    if options == POOL:
        levels = [level for _, level in curves(MlflowClient(store_uri(None)), run_id)["train/noise_level"]]
        assert max(levels) > 0, "the curriculum has never moved"


@pytest.mark.slow
@pytest.mark.no_store
def test_in_single_precision_they_differ_by_rounding() -> None:
    overrides = (*STEADY, "trainer.episodes=20")
    first, other = by_srun(*overrides)
    assert (first.returncode, other.returncode) == (0, 0), first.stderr + other.stderr
    assert other.stdout == ""
    assert difference(only_run(), overrides) < 1e-3


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_two() -> None:
    begun = train([*FP64, *POOL, "trainer.episodes=10"])
    ended = by_torchrun(*FP64, *POOL, "trainer.resume=auto")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("resumed   at episode 10") == 1
    assert only_run() == begun.run_id
    assert difference(begun.run_id, (*FP64, *POOL)) < 1e-9
    again = by_torchrun(*FP64, *POOL, "trainer.resume=auto")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("has these settings and has finished") == 1


def rank_of(pid: int) -> int:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return int(next(entry.partition(b"=")[2] for entry in variables if entry.startswith(b"RANK=")))


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_at_the_same_episode() -> None:
    launcher = subprocess.Popen(
        [*TORCHRUN, *FP64, "trainer.episodes=100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in launcher.stdout:
        if "untrained" in line:
            break
    time.sleep(0.5)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    (other,) = [int(pid) for pid in children if rank_of(int(pid)) == 1]
    os.kill(other, signal.SIGTERM)
    out, err = launcher.communicate(timeout=600)
    assert launcher.returncode == 1, err
    assert "exitcode  : 130" in err
    assert "Connection" not in err
    run_id = only_run()
    client = MlflowClient(store_uri(None))
    assert client.get_run(run_id).info.status == "KILLED"
    episode = int(re.search(r"^saved +episode (\d+)$", out, re.MULTILINE)[1])
    assert [m.step for m in client.get_metric_history(run_id, "train/loss")] == list(range(1, episode + 1))
    overrides = (*FP64, f"trainer.episodes={episode + 5}")
    assert train([*overrides, f"trainer.resume={run_id}"]).run_id == run_id
    undisturbed = train([*overrides, "output=alone"]).run_id
    weights = weights_of(undisturbed, "alone")
    for name, weight in weights_of(run_id).items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-9, atol=1e-9)


def test_a_loss_that_diverges_in_one_process_ends_all() -> None:
    """Of four universes, the last one is too large for float32."""
    psi = np.ones((4, 4, 8, 8), dtype=np.float32)
    psi[3] = 1e30
    np.save("psi.npy", psi)
    ended = by_torchrun(*STEADY, "initial_state=file", "initial_state.path=psi.npy", "physics.normalise=none")
    assert ended.returncode == 1
    assert ended.stderr.count("the loss is nan at episode 1; lower `trainer.lr`") == 1
    assert "Connection" not in ended.stderr
    assert MlflowClient(store_uri(None)).get_run(only_run()).info.status == "FAILED"


@pytest.mark.no_store
def test_a_batch_that_cannot_be_split_is_refused_once() -> None:
    ended = by_torchrun(*STEADY, "trainer.batch_size=3")
    message = "`trainer.batch_size` must be a multiple of the 2 processes that train the run, got 3; as "
    assert ended.stderr.count(f"atheria.train: {message}trainer.batch_size=4\n") == 1
    assert "exitcode  : 2" in ended.stderr
    assert ended.stdout == ""
    assert not Path("outputs").exists()


def test_processes_of_different_settings_are_no_run() -> None:
    """As when srun starts a training that gives each task a seed of its own."""
    code = (
        "import os, sys; from atheria.train import train\n"
        "try: train([*sys.argv[1:], 'seed=' + os.environ['RANK']])\n"
        "except ValueError as error: sys.stdout.write(f'{error}\\n')"
    )
    Path("seeds.py").write_text(code)
    ended = subprocess.run([*TWICE, "seeds.py", *STEADY], capture_output=True, text=True, timeout=600)
    assert ended.stdout.count("processes of one run were given different settings") == 2, ended.stderr


SRUN = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Place(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Place(3, 4, 1)),
        (SRUN, Place(5, 8, 1)),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, Place(0, 1, 0)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, Place(0, 1, 0)),  # a batch script
        ({**SRUN, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, Place(0, 2, 0)),  # torchrun under srun
    ],
)
def test_a_process_knows_its_place(environment: dict[str, str], expected: Place) -> None:
    assert place(environment) == expected


def test_the_processes_of_torchrun_meet_where_it_says() -> None:
    torchrun = {"MASTER_ADDR": "a", "MASTER_PORT": "29500"}
    assert meeting(torchrun) == ("a", 29500, False, "0")
    hosted = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert meeting({**torchrun, **hosted}) == ("a", 29500, True, "2")
    with pytest.raises(UserError, match="MASTER_ADDR and MASTER_PORT must say"):
        meeting({})


def test_the_tasks_of_a_step_meet_on_its_first_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = {"SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "0", "SLURM_JOB_NODELIST": "gpu[07-09],cpu1"}
    step = {**slurm, "SLURM_STEP_NODELIST": "gpu9,cpu1"}
    host, port, is_hosted, _ = meeting(step)
    assert (host, is_hosted) == ("gpu9", False)
    assert 10_000 <= port < 30_000
    assert meeting({**step, "SLURM_STEP_ID": "1"}).port != port
    assert meeting({**step, "MASTER_ADDR": "b", "MASTER_PORT": "1"})[:2] == ("b", 1)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="name it: MASTER_ADDR="):
        meeting(slurm)
    program = tmp_path / "scontrol"
    program.write_text('#!/bin/sh\n[ "$*" = "show hostnames gpu[07-09],cpu1" ] && echo gpu07 && echo gpu08\n')
    program.chmod(0o755)
    assert meeting(slurm).host == "gpu07"


def test_one_process_is_told_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as alone:
        assert not torch.distributed.is_initialized()
        assert alone.is_first
        assert alone.share(4) == (0, 4)
        assert alone.mean({"loss": 0.1}) == {"loss": 0.1}
        assert alone.from_first(lambda: 3) == alone.together(lambda: 3) == alone.highest(3) == 3
        tensor = torch.ones(2)
        assert alone.gather(tensor) is tensor
    assert [Ranks(Place(rank, 3)).share(6) for rank in range(3)] == [(0, 2), (2, 2), (4, 2)]
