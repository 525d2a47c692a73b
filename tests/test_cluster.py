"""Sweeps on a real SLURM: preempted, killed, failing, and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from atheria import checkpoint
from atheria.stores import store_uri
from atheria.sweeps.launchers import make_launcher
from atheria.sweeps.plan import plan
from atheria.train import train

from .cluster import Slurm
from .conftest import heed_ctrl_c, missing
from .test_resume import RARELY, TINY, assert_equal_to_undisturbed, curves

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ON_SLURM = (
    "hydra/launcher=slurm", "hydra.launcher.cores=1", "hydra.launcher.memory_gb=1",
    "hydra.launcher.notice_seconds=10", "hydra.launcher.minutes=30",
)  # fmt: skip
LONG = (
    *TINY, *RARELY, "trainer.episodes=2500",
    "noise/curriculum=adaptive", "trainer.pool=4", "trainer.damage=1",
)  # fmt: skip
"""Long enough to be interrupted."""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    if not Slurm.programs():
        missing("cluster", "SLURM is not installed")
    running = Slurm(cores=4)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def environment(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in slurm.environment.items():
        monkeypatch.setenv(key, value)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As a job of one core has: the order of sums depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def begin(*overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "atheria.train", "-m", *ON_SLURM, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == code, printed
    return printed


def runs() -> dict[str, Run]:
    """The sweep's run, as '', and its children by name."""
    client = MlflowClient(store_uri(None))
    experiment = client.get_experiment_by_name("atheria")
    found = client.search_runs([experiment.experiment_id])
    parents = [run for run in found if run.data.tags["atheria.kind"] == "sweep"]
    assert len(parents) == 1
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    named = {run.info.run_name: run for run in children}
    assert len(named) == len(children)
    return {"": parents[0], **named}


def wait_until(condition: Callable[[], object], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)


def trains_past(sweep: str, episode: int) -> Callable[[], bool]:
    """Whether the only point of a sweep has been saved after an episode."""

    def condition() -> bool:
        for started in Path("outputs/sweeps").glob(f"{sweep}/points/*/run.json"):
            last = Path(json.loads(started.read_text())["folder"]) / "checkpoints/last.pth"
            return last.exists() and checkpoint.load(last)["episode"] >= episode
        return False

    return condition


def jobs_of(slurm: Slurm, sweep: str) -> list[str]:
    """All jobs that were ever queued for a sweep."""
    return slurm.run(
        "sacct", "--noheader", "--allocations", "--format=JobID", f"--name=atheria-{sweep}"
    ).split()


def test_a_sweep_runs_and_the_same_command_runs_what_is_left(slurm: Slurm) -> None:
    grid = [*TINY, "trainer=v3,v4", "seed=0,1,2", "sweep.name=grid"]
    printed = end(begin(*grid))
    before = runs()
    assert {run.info.status for run in before.values()} == {"FINISHED"}
    assert len(before) == 7
    assert len(jobs_of(slurm, "grid")) == 6
    for run in [before["trainer=v3 seed=1"], before["trainer=v4 seed=2"]]:
        assert run.info.run_id in printed
        overrides = [*TINY, *run.info.run_name.split(" ")]
        assert_equal_to_undisturbed(run.info.run_id, overrides)
    more = [*TINY, "trainer=v3,v4", "seed=0,1,2,3", "sweep.name=grid"]
    end(begin(*more))
    again = runs()
    assert len(again) == 9
    assert {name: again[name].info.run_id for name in before} == {
        name: run.info.run_id for name, run in before.items()
    }
    assert len(jobs_of(slurm, "grid")) == 8
    for name, run in before.items():
        if name:
            assert again[name].info.end_time == run.info.end_time  # it was not touched


def test_a_preempted_job_is_queued_again_and_ends_as_if_it_had_not_been(slurm: Slurm) -> None:
    sweep = begin(*LONG, "seed=3", "sweep.name=preempted", "hydra.launcher.memory_gb=60")
    wait_until(trains_past("preempted", 20))
    slurm.run("sbatch", "--partition=high", "--mem=60G", "--wrap=sleep 600",
              "--output=/dev/null", "--job-name=urgent")  # fmt: skip
    wait_until(lambda: any(job.name == "urgent" and job.state == "RUNNING" for job in slurm.queue()))
    (job,) = (job for job in slurm.queue() if job.name == "atheria-preempted")
    assert job.state == "PENDING"
    child = next(run for name, run in runs().items() if name)
    assert child.info.status == "SCHEDULED"
    slurm.run("scancel", "--name=urgent")
    slurm.start_soon(job.id)
    end(sweep)
    child = next(run for name, run in runs().items() if name)
    assert any(tag.startswith("atheria.resumed.") for tag in child.data.tags)
    assert jobs_of(slurm, "preempted") == [job.id]
    assert_equal_to_undisturbed(child.info.run_id, [*LONG, "seed=3"])


def test_one_is_killed_one_raises_and_the_others_finish(slurm: Slurm) -> None:
    grid = [*TINY, *RARELY, "trainer.lr=1e-4,1e30,1e-3", "sweep.name=bad"]
    sweep = begin(*grid, "trainer.episodes=2000,2001")
    wait_until(lambda: len(list(Path("outputs/sweeps/bad/points").glob("*/run.json"))) >= 3)
    victim = next(
        point for point in Path("outputs/sweeps/bad/points").iterdir()
        if json.loads((point / "point.json").read_text())["varied"] == {
            "trainer.lr": "0.0001", "trainer.episodes": "2000",
        }
    )  # fmt: skip
    wait_until((victim / "run.json").exists)
    run_id = json.loads((victim / "run.json").read_text())["run_id"]
    tag = MlflowClient(store_uri(None)).get_run(run_id).data.tags["atheria.process"]
    os.kill(int(tag.split()[3]), signal.SIGKILL)
    printed = end(sweep, code=1)
    found = runs()
    status = {name: run.info.status for name, run in found.items()}
    assert status == {
        "": "FAILED",
        "trainer.lr=0.0001 trainer.episodes=2000": "FAILED",
        "trainer.lr=0.0001 trainer.episodes=2001": "FINISHED",
        "trainer.lr=1e+30 trainer.episodes=2000": "FAILED",
        "trainer.lr=1e+30 trainer.episodes=2001": "FAILED",
        "trainer.lr=0.001 trainer.episodes=2000": "FINISHED",
        "trainer.lr=0.001 trainer.episodes=2001": "FINISHED",
    }
    assert "of 6 points, 3 FAILED; the same command goes on with them" in printed
    for name, run in found.items():
        if name and run.info.status == "FAILED":
            assert f"failed    {name}: " in printed
            error = run.data.tags["atheria.error"]
            assert ("FAILED" if run.info.run_id == run_id else "the loss is nan") in error
    table = Path("outputs/sweeps/bad/summary.csv").read_text()
    assert table.count(",FINISHED,") == 3
    assert table.count(",FAILED,") == 3

    printed = end(begin(*grid, "trainer.episodes=2000,2001"), code=1)
    again = runs()
    assert again.keys() == found.keys()
    assert again["trainer.lr=0.0001 trainer.episodes=2000"].info.status == "FINISHED"
    assert again["trainer.lr=0.0001 trainer.episodes=2000"].info.run_id == run_id
    assert "of 6 points, 2 FAILED;" in printed
    client = MlflowClient(store_uri(None))
    losses = [step for step, _ in curves(client, run_id)["train/loss"]]
    assert losses == list(range(1, 2001))


def test_jobs_outlive_the_command_and_the_next_one_takes_them_up(slurm: Slurm) -> None:
    sweep = begin(*LONG, "seed=1,2", "sweep.name=detached")
    wait_until(trains_past("detached", 1))
    sweep.send_signal(signal.SIGINT)
    printed = end(sweep, code=130)
    assert "2 jobs stay in the queue" in printed
    assert "scancel --name=atheria-detached" in printed
    assert runs()[""].info.status == "SCHEDULED"
    end(begin(*LONG, "seed=1,2", "sweep.name=detached"))
    assert len(jobs_of(slurm, "detached")) == 2
    assert {run.info.status for run in runs().values()} == {"FINISHED"}


def test_a_cancelled_job_is_not_queued_again(slurm: Slurm) -> None:
    sweep = begin(*LONG, "sweep.name=cancelled")
    wait_until(trains_past("cancelled", 10))
    slurm.run("scancel", "--name=atheria-cancelled")
    printed = end(sweep, code=1)
    assert "of 1 points, 1 KILLED; the same command goes on with them" in printed
    wait_until(lambda: not slurm.queue())  # its node is busy for a while with what the job leaves behind
    assert {run.info.status for name, run in runs().items() if name} == {"KILLED"}


def test_the_processes_of_a_job_train_one_run(slurm: Slurm) -> None:
    overrides = [*TINY, "trainer.batch_size=4", "trainer.precision=fp64", "trainer.episodes=20"]
    end(begin(*overrides, "hydra.launcher.processes=2", "sweep.name=several"))
    found = runs()
    assert found.keys() == {"", "several"}
    assert found["several"].info.status == "FINISHED"
    alone = train([*overrides, "output=alone"])
    run_id = found["several"].info.run_id
    together, apart = (
        checkpoint.load(folder / "checkpoints/last.pth")["model_state_dict"]
        for folder in (Path("outputs/runs") / run_id, alone.folder)
    )
    for key, value in apart.items():
        torch.testing.assert_close(together[key], value, rtol=1e-9, atol=1e-9)


def test_a_queue_that_gives_no_answer_is_asked_again(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atheria.sweeps.slurm._TIMEOUT", 1.0)
    monkeypatch.setattr("atheria.sweeps.slurm._BETWEEN_LISTS", 0.0)
    sweep = plan([*ON_SLURM, "sweep.name=unanswered"])
    launcher = make_launcher(sweep.launcher, str(sweep.folder))
    job = slurm.run("sbatch", "--parsable", "--job-name=atheria-unanswered", "--wrap=sleep 600").strip()
    wait_until(lambda: job in launcher._queue())
    with slurm.silent():
        assert launcher._queue() == {job}
    slurm.run("scancel", job)
    wait_until(lambda: not launcher._queue())


def test_what_slurm_refuses_is_said() -> None:
    printed = end(begin(*TINY, "seed=0,1", "hydra.launcher.partition=nowhere"), code=1)
    assert "invalid partition specified: nowhere" in printed
    assert "Traceback" not in printed
