"""Sweeps as a user types them, on the local pool and on Ray; those on SLURM are in test_cluster.py."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import optuna
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from atheria import journal
from atheria.config import UserError
from atheria.jobs import sweep as sweeping
from atheria.stores import store_uri
from atheria.sweeps import space
from atheria.sync import sync

from .conftest import heed_ctrl_c
from .test_resume import RARELY, TINY, assert_equal_to_undisturbed, curves

pytestmark = pytest.mark.usefixtures("ready_store")

LONG = (*TINY, *RARELY, "trainer.episodes=1000")


def begin(*overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "atheria.train", "-m", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == code, printed
    return printed


def swept(*overrides: str, code: int = 0) -> str:
    return end(begin(*overrides), code)


def runs(name: str) -> dict[str, Run]:
    """A sweep's run, as '', and its children by name."""
    client = MlflowClient(store_uri(None))
    everything = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(everything, f"tags.`atheria.sweep` = '{name}'")
    (parent,) = (run for run in found if run.data.tags["atheria.kind"] == "sweep")
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(found) - 1
    named = {"": parent, **{run.info.run_name: run for run in children}}
    assert len(named) == len(found)
    return named


def statuses(name: str) -> dict[str, str]:
    return {child: run.info.status for child, run in runs(name).items()}


def table(name: str) -> list[dict[str, str]]:
    with Path(f"outputs/sweeps/{name}/summary.csv").open() as file:
        return list(csv.DictReader(file))


def trained_past(name: str, episode: int) -> None:
    """Returns when some point of a sweep has been saved after an episode."""
    for _ in range(6000):
        for point in Path(f"outputs/sweeps/{name}/points").glob("*/run.json"):
            folder = Path(json.loads(point.read_text())["folder"])
            last = journal.LastSteps.of(folder).steps.get("train/loss", 0)
            if last >= episode and (folder / "checkpoints/last.pth").exists():
                return
        time.sleep(0.1)
    raise AssertionError("it does not train")


@pytest.fixture
def one_thread():
    """As a job of one core has: the order of sums depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_sweep_is_one_run_with_its_children(one_thread) -> None:
    printed = swept(*TINY, "trainer=v3,v4", "seed=0,1,2", "sweep.name=whole")
    found = runs("whole")
    assert statuses("whole") == dict.fromkeys(
        ["", *(f"trainer={trainer} seed={seed}" for trainer in ("v3", "v4") for seed in (0, 1, 2))],
        "FINISHED",
    )
    parent = found[""]
    assert parent.info.run_name == "whole"
    assert parent.data.params == {"grid.trainer": "v3, v4", "grid.seed": "0, 1, 2"}
    assert parent.data.metrics["sweep/finished"] == parent.data.metrics["sweep/points"] == 6
    for run in [found["trainer=v3 seed=1"], found["trainer=v4 seed=2"]]:
        assert_equal_to_undisturbed(run.info.run_id, [*TINY, *run.info.run_name.split(" ")])

    rows = table("whole")
    losses = {f"trainer={row['trainer']} seed={row['seed']}": float(row["eval/loss"]) for row in rows}
    assert losses == {name: run.data.metrics["best/loss"] for name, run in found.items() if name}
    assert [row["run_id"] for row in rows] == [
        found[name].info.run_id for name in sorted(losses, key=lambda name: losses[name])
    ]
    best = min(losses, key=lambda name: losses[name])
    assert parent.data.tags["atheria.best_run"] == found[best].info.run_id
    assert parent.data.metrics["sweep/best"] == losses[best]
    assert f"best      {best}  eval/loss {losses[best]:.4g}" in printed
    assert f"python -m atheria.rollout run_id={found[best].info.run_id}" in printed
    assert found[best].info.run_id in parent.data.tags["mlflow.note.content"]

    client = MlflowClient(store_uri(None))
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"sweep.yaml", "summary.csv", "parallel_coordinates.png", "results.png"}
    for name in ("parallel_coordinates.png", "results.png"):
        picture = matplotlib.image.imread(f"outputs/sweeps/whole/{name}")
        assert picture[..., :3].std() > 0.02


def test_the_same_command_goes_on_and_a_point_is_known_by_its_settings() -> None:
    printed = swept(*TINY, "seed=0,1")  # its name is made of its settings
    name = next(line.split()[1].rstrip(":") for line in printed.splitlines() if line.startswith("sweep "))
    before = runs(name)
    assert name.startswith("seed-")
    again = swept(*TINY, "seed=0,1", "hydra.launcher.parallel=1")
    assert again.count("\ndone      ") == 2
    assert {child: run.info for child, run in runs(name).items() if child} == {
        child: run.info for child, run in before.items() if child
    }
    more = swept(*TINY, "seed=1,2,0", f"sweep.name={name}")
    assert more.count("\ndone      ") == 2
    after = runs(name)
    assert after.keys() == {"", "seed=0", "seed=1", "seed=2"}
    assert after["seed=0"].info.run_id == before["seed=0"].info.run_id
    assert after[""].info.run_id == before[""].info.run_id
    assert after[""].data.metrics["sweep/points"] == 3
    swept(*TINY, "seed=0,1", "trainer.episodes=5", f"sweep.name={name}")
    found = [row["run_id"] for row in table(name)]
    assert len(found) == len(set(found)) == 5  # longer trainings are other points


def test_a_second_ctrl_c_ends_the_jobs_of_a_sweep_as_kill_9_does() -> None:
    process = begin(*LONG, "trainer.episodes=100000", "seed=0,1", "sweep.name=at_once")
    trained_past("at_once", 5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed = end(process, code=130)
    assert "leaked" not in printed, printed
    ended = statuses("at_once")
    assert ended.pop("") == "KILLED"
    assert set(ended.values()) == {"RUNNING"}, "they have saved"


def test_an_interrupted_sweep_saves_and_its_points_go_on_bit_for_bit(one_thread) -> None:
    grid = [*LONG, "seed=0,1,2,3", "sweep.name=cut", "hydra.launcher.parallel=2"]
    process = begin(*grid)
    trained_past("cut", 5)
    process.send_signal(signal.SIGINT)
    printed = end(process, code=130)
    assert "telling the jobs that run to save and end" in printed
    assert "Traceback" not in printed
    cut = statuses("cut")
    assert cut.pop("") == "KILLED"
    assert set(cut.values()) == {"KILLED"}
    assert len(cut) == 2
    before = runs("cut")
    swept(*grid)
    after = runs("cut")
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert len(after) == 5
    for name in cut:
        assert after[name].info.run_id == before[name].info.run_id
        assert any(tag.startswith("atheria.resumed.") for tag in after[name].data.tags)
        assert_equal_to_undisturbed(after[name].info.run_id, [*LONG, name])


def test_jobs_end_when_their_sweep_is_killed_and_the_next_command_goes_on() -> None:
    grid = [*LONG, "seed=0,1", "sweep.name=orphans", "hydra.launcher.parallel=2"]
    process = begin(*grid)
    trained_past("orphans", 5)
    process.kill()
    process.wait()
    assert statuses("orphans")[""] == "RUNNING"
    swept(*grid)  # which may have to wait for them
    found = runs("orphans")
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert len(found) == 3
    for run in found.values():
        if run.info.run_name != "orphans":
            steps = [step for step, _ in curves(MlflowClient(store_uri(None)), run.info.run_id)["train/loss"]]
            assert steps == list(range(1, 1001))


def test_a_failed_point_is_seen_and_takes_nothing_down() -> None:
    grid = [
        *LONG,
        "trainer.pool=8,2",
        "trainer.batch_size=2,4",
        "sweep.name=bad",
        "hydra.launcher.parallel=4",
    ]
    process = begin(*grid)
    trained_past("bad", 5)
    victim = started("bad", {"trainer.pool": "8", "trainer.batch_size": "2"})
    run_id = json.loads(victim.read_text())["run_id"]
    mark = MlflowClient(store_uri(None)).get_run(run_id).data.tags["atheria.process"]
    os.kill(int(mark.split()[3]), signal.SIGKILL)
    printed = end(process, code=1)
    assert statuses("bad") == {
        "": "FAILED",
        "trainer.pool=8 trainer.batch_size=2": "FAILED",
        "trainer.pool=8 trainer.batch_size=4": "FINISHED",
        "trainer.pool=2 trainer.batch_size=2": "FINISHED",
        "trainer.pool=2 trainer.batch_size=4": "FAILED",  # the command line's check sees one value at a time
    }
    found = runs("bad")
    errors = {
        name: run.data.tags["atheria.error"] for name, run in found.items() if run.info.status == "FAILED"
    }
    assert errors["trainer.pool=8 trainer.batch_size=2"] == "its process was ended by SIGKILL"
    assert "must be 0 or at least `trainer.batch_size` 4" in errors["trainer.pool=2 trainer.batch_size=4"]
    assert errors[""] == "FailedSweepError: of 4 points, 2 FAILED; the same command goes on with them"
    assert "failed    trainer.pool=8 trainer.batch_size=2: its process was ended by SIGKILL\n" in printed
    logs = [Path(line.strip()) for line in printed.splitlines() if line.strip().endswith("/log.txt")]
    assert len(logs) == 2
    assert any("must be 0 or at least" in log.read_text() for log in logs)
    assert sum(row["status"] == "FAILED" and row["error"] != "" for row in table("bad")) == 2

    swept(*grid, code=1)
    after = statuses("bad")
    assert after["trainer.pool=8 trainer.batch_size=2"] == "FINISHED"
    assert runs("bad")["trainer.pool=8 trainer.batch_size=2"].info.run_id == run_id


def started(name: str, varied: dict[str, str]) -> Path:
    """Where the run of a point is noted, once it has begun."""
    for _ in range(3000):
        for path in Path(f"outputs/sweeps/{name}/points").glob("*/run.json"):
            if json.loads((path.parent / "point.json").read_text())["varied"] == varied:
                return path
        time.sleep(0.1)
    raise AssertionError("it does not begin")


@pytest.mark.no_store
def test_jobs_at_once_on_a_fresh_store_lose_nothing() -> None:
    grid = [
        *TINY,
        "trainer.episodes=300",
        "trainer.eval_every=10",
        "seed=0,1,2,3",
        "hydra.launcher.parallel=4",
        "sweep.name=fresh",
    ]
    printed = swept(*grid)
    assert "lock" not in printed
    assert "warning" not in printed
    found = runs("fresh")
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    client = MlflowClient(store_uri(None))
    for name, run in found.items():
        if name:
            curve = curves(client, run.info.run_id)
            assert [step for step, _ in curve["train/loss"]] == list(range(1, 301))
            assert [step for step, _ in curve["eval/loss"]] == list(range(0, 301, 10))
    for log in Path("outputs/sweeps/fresh/points").glob("*/log.txt"):
        assert "lock" not in log.read_text()
        assert "warning" not in log.read_text()


@pytest.mark.slow
def test_64_points_are_all_in_the_table() -> None:
    values = ",".join(str(seed) for seed in range(32))
    swept(*TINY, "trainer=v3,v4", f"seed={values}", "sweep.name=many")
    rows = table("many")
    assert {(row["trainer"], row["seed"]) for row in rows} == {
        (trainer, str(seed)) for trainer in ("v3", "v4") for seed in range(32)
    }
    found = runs("many")
    assert len(found) == 65
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert {row["run_id"] for row in rows} == {run.info.run_id for name, run in found.items() if name}
    losses = [float(row["eval/loss"]) for row in rows]
    assert losses == sorted(losses)


def test_ray_and_the_local_pool_agree() -> None:
    grid = [*TINY, "trainer=v3,v4", "seed=0,1,2"]
    swept(*grid, "sweep.name=local")
    swept(*grid, "sweep.name=ray", "hydra/launcher=ray")
    local, ray = runs("local"), runs("ray")
    assert {run.info.status for run in ray.values()} == {"FINISHED"}
    assert local.keys() == ray.keys()
    client = MlflowClient(store_uri(None))
    for name in local:
        if name:
            assert curves(client, local[name].info.run_id) == curves(client, ray[name].info.run_id)


def test_a_job_of_rays_that_is_killed_takes_nothing_down() -> None:
    grid = [*LONG, "seed=0,1", "sweep.name=shot", "hydra/launcher=ray"]
    process = begin(*grid)
    path = started("shot", {"seed": "0"})
    run_id = json.loads(path.read_text())["run_id"]
    mark = MlflowClient(store_uri(None)).get_run(run_id).data.tags["atheria.process"]
    os.kill(int(mark.split()[3]), signal.SIGKILL)
    printed = end(process, code=1)
    assert statuses("shot") == {"": "FAILED", "seed=0": "FAILED", "seed=1": "FINISHED"}
    assert "failed    seed=0: Ray: " in printed
    swept(*grid)
    assert statuses("shot") == {"": "FINISHED", "seed=0": "FINISHED", "seed=1": "FINISHED"}
    assert runs("shot")["seed=0"].info.run_id == run_id


ENDED_AT_THE_START = """
import os, signal, time
from atheria import journal, tracking
create_run, write_delivered = tracking.Store.create_run, journal.write_delivered
def end(number):
    os.kill(os.getpid(), number)
    time.sleep(1)
def created(store, identity):
    run_id = create_run(store, identity)
    if identity.name == "seed=0":
        end(signal.SIGKILL)
    if identity.name == "seed=1":
        end(signal.SIGTERM)
    return run_id
def written(folder, delivered):
    write_delivered(folder, delivered)
    if journal.identity(folder).name == "seed=2":
        end(signal.SIGKILL)
tracking.Store.create_run, journal.write_delivered = created, written
"""
"""Run first by every process of a sweep: jobs end where the store alone, or just a folder, has their run."""


def test_jobs_that_are_ended_as_soon_as_their_runs_are_there_go_on_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ENDED_AT_THE_START)
    grid = [*TINY, "trainer.episodes=3", "seed=0,1,2", "sweep.name=brief"]
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        swept(*grid, code=1)
    begun = runs("brief")
    assert begun.keys() == {"", "seed=0", "seed=1", "seed=2"}
    swept(*grid)
    sync(["reap=false"])
    found = runs("brief")
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert {name: run.info.run_id for name, run in found.items()} == {
        name: run.info.run_id for name, run in begun.items()
    }
    assert [found[f"seed={seed}"].data.params["seed"] for seed in range(3)] == ["0", "1", "2"]


SEARCH = (
    *TINY, "trainer.episodes=200", "trainer.eval_every=20", "seed=3",
    "hydra/sweeper=optuna", "hydra.sweeper.startup=2",
    "trainer.lr=tag(log,interval(1e-4,1e-1))", "model.hidden_channels=int(interval(2,6))", "trainer=v3,v4",
    "sweep.name=search",
)  # fmt: skip


def study() -> optuna.Study:
    storage = JournalStorage(JournalFileBackend("outputs/sweeps/search/optuna.journal"))
    return optuna.load_study(study_name="search", storage=storage)


@pytest.mark.parametrize("launcher", ["local", "ray"])
def test_a_search_that_was_stopped_is_continued(launcher: str) -> None:
    on = [f"hydra/launcher={launcher}", "hydra.launcher.parallel=2"]
    process = begin(*SEARCH, *on, "hydra.sweeper.trials=100")
    while len([t for t in trials() if t.state.is_finished()]) < 3:
        time.sleep(0.2)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    end(process, code=130)
    before = trials()
    finished = [trial for trial in before if trial.state.is_finished()]
    unfinished = [trial for trial in before if not trial.state.is_finished()]
    most = len(before) + 2
    swept(*SEARCH, *on, f"hydra.sweeper.trials={most}")
    after = trials()
    assert len(after) == most
    assert all(trial.state.is_finished() for trial in after)
    for trial in finished:
        assert after[trial.number] == trial
    for trial in unfinished:  # one that was being drawn is drawn to the end
        assert after[trial.number].params.items() >= trial.params.items()
    assert len({str(trial.params) for trial in after}) == most  # going on, it draws other numbers
    for trial in after:
        assert 1e-4 <= trial.params["trainer.lr"] <= 1e-1
        assert 2 <= trial.params["model.hidden_channels"] <= 6

    sync(["reap=false"])  # a busy machine may have left something to it
    found = runs("search")
    rows = table("search")
    assert len(rows) == most
    assert len({row["run_id"] for row in rows}) == most
    pruned = [row for row in rows if row["status"] == "PRUNED"]
    assert len(pruned) == sum(t.state == optuna.trial.TrialState.PRUNED for t in after)
    client = MlflowClient(store_uri(None))
    for row in pruned:
        run = client.get_run(row["run_id"])
        episode = int(run.data.tags["atheria.pruned"].removeprefix("at episode "))
        assert run.info.status == "KILLED"
        assert max(step for step, _ in curves(client, row["run_id"])["train/loss"]) == episode < 200
    best = study().best_trial
    assert found[""].data.metrics["sweep/best"] == best.value
    assert found[""].info.status == "FINISHED"


CTRL_C_AT_A_RELEASE = """
import os, runpy, signal, sys
unlink, releases, last = os.unlink, 0, int(sys.argv.pop(1))
def interrupted(path, **options):
    global releases
    unlink(path, **options)
    if ".lock" in str(path):
        releases += 1
        if releases == last:
            os.kill(os.getpid(), signal.SIGINT)
os.unlink = interrupted
runpy.run_module("atheria.train", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("release", [1, 5])
def test_a_search_that_is_stopped_while_it_unlocks_its_storage_ends_and_leaves_no_lock(release: int) -> None:
    options = [*SEARCH, "hydra.sweeper.trials=2", "trainer.episodes=10"]
    process = subprocess.run(
        [sys.executable, "-c", CTRL_C_AT_A_RELEASE, str(release), "-m", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert process.returncode == 130, process.stdout
    assert "Traceback" not in process.stdout
    assert not list(Path("outputs/sweeps/search").glob("optuna.journal.*"))
    swept(*options)
    assert [trial.state.is_finished() for trial in trials()] == [True, True]


def trials() -> list[optuna.trial.FrozenTrial]:
    try:
        return study().trials
    except (KeyError, FileNotFoundError):
        return []


def test_a_trial_that_was_half_drawn_is_drawn_to_the_end() -> None:
    swept(*SEARCH, "hydra.sweeper.trials=1")
    study().ask()
    study().ask({"trainer.lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)})
    begun = trials()
    swept(*SEARCH, "hydra.sweeper.trials=3")
    after = trials()
    assert len(after) == 3
    assert after[2].params["trainer.lr"] == begun[2].params["trainer.lr"]
    for trial in after:
        assert trial.state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        assert trial.params.keys() == {"trainer", "trainer.lr", "model.hidden_channels"}


def test_a_search_ends_what_is_hopeless() -> None:
    """Learning rates that do nothing are ended once others have learnt."""
    swept(*TINY, "trainer.episodes=60", "hydra/sweeper=optuna", "hydra.sweeper.startup=1", "seed=3",
          "hydra.sweeper.trials=8", "hydra.sweeper.sampler=random", "hydra.launcher.parallel=1",
          "trainer.lr=tag(log,interval(1e-9,1e-1))", "sweep.name=search")  # fmt: skip
    done = {trial.params["trainer.lr"]: trial.state.name for trial in trials()}
    assert set(done.values()) == {"COMPLETE", "PRUNED"}
    assert trials()[0].state.name == "COMPLETE"


@pytest.mark.no_store
@pytest.mark.parametrize("mode", ["off", "offline"])
def test_a_sweep_needs_no_store(mode: str) -> None:
    printed = swept(*TINY, "seed=0,1", "sweep.name=alone", f"tracking={mode}")
    assert [row["status"] for row in table("alone")] == ["FINISHED", "FINISHED"]
    assert "python -m atheria.rollout" in printed
    swept(*TINY, "seed=0,1,2", "sweep.name=alone", f"tracking={mode}")
    assert len(table("alone")) == 3
    if mode == "offline":
        sync([])
        assert statuses("alone") == dict.fromkeys(["", "seed=0", "seed=1", "seed=2"], "FINISHED")


def test_what_to_type_next_works_as_printed_with_an_output_folder_of_ones_own() -> None:
    printed = swept(*TINY, "seed=0,1", "output=else where", "sweep.name=there")
    rollout, ui = (line.strip() for line in printed.partition("\nnext\n")[2].splitlines())
    rolled = subprocess.run(
        [sys.executable, *shlex.split(rollout)[1:], "steps=2"], capture_output=True, text=True, timeout=120
    )
    assert rolled.returncode == 0, rolled.stderr
    assert list(Path("else where/rollouts").rglob("field.npz"))
    assert not Path("outputs/rollouts").exists()
    asked = subprocess.run(
        [sys.executable, *shlex.split(ui)[1:], "--cfg", "job"], capture_output=True, text=True, timeout=120
    )
    assert asked.returncode == 0, asked.stderr


def test_it_goes_on_elsewhere_from_what_the_store_has() -> None:
    swept(*TINY, "seed=0,1", "sweep.name=moved")
    before = runs("moved")
    Path("outputs/sweeps").rename("gone")
    Path("outputs/runs").rename("gone/runs")
    swept(*TINY, "seed=0,1,2", "sweep.name=moved")
    after = runs("moved")
    assert after.keys() == {"", "seed=0", "seed=1", "seed=2"}
    for name in before:
        assert after[name].info.run_id == before[name].info.run_id
    assert [row["status"] for row in table("moved")] == ["FINISHED"] * 3


def test_a_run_that_was_deleted_is_trained_again() -> None:
    swept(*TINY, "seed=0,1", "sweep.name=less")
    client = MlflowClient(store_uri(None))
    first = runs("less")["seed=0"].info.run_id
    client.delete_run(first)
    swept(*TINY, "seed=0,1", "sweep.name=less")
    after = runs("less")
    assert after.keys() == {"", "seed=0", "seed=1"}
    assert after["seed=0"].info.run_id != first


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.lr=interval(1e-4,1e-2)"], "`trainer.lr` is swept over an interval, which needs a search"),
        (["tracking=local,off"], "`tracking` is the same for all runs of a sweep; give one value"),
        (["hydra/launcher=local,ray"], "`hydra/launcher` is the same for all runs of a sweep"),
        (["hydra/launcher=basic"], "`hydra/launcher` must be one of local, slurm, ray"),
        (["hydra.launcher.cores=0"], "`hydra.launcher.cores` must be greater than or equal to 1, got 0"),
        (["hydra.launcher.partition=x"], "`hydra.launcher.partition` is not a key of Hydra's"),
        (["hydra/launcher=slurm"], "needs SLURM's commands (sbatch, srun), which are not here"),
        (
            ["hydra/launcher=ray", "hydra.launcher.address=127.0.0.1:1"],
            "Ray cannot be reached at '127.0.0.1:1'",
        ),
        (["sweep.name=a/b"], "`sweep.name` must match pattern"),
        (["sweep.metric=loss"], "`sweep.metric` must match pattern"),
        (["trainer.resume=auto"], "`trainer.resume` is for one run"),
        (["hydra.launcher.gpus=3"], "`hydra.launcher.gpus` must be at most the"),
        (["hydra/sweeper=optuna", "trainer.lr=interval(2,1)"], "an interval goes from less to more"),
        (["hydra/sweeper=optuna", "hydra.sweeper.storage=nosuch://x", "seed=0,1"], "`hydra.sweeper.storage`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_in_one_message(
    overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    process = begin(*TINY, *overrides)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode in (1, 2), printed
    assert message in printed
    assert "Traceback" not in printed


def test_a_sweep_of_another_store_is_not_mixed_in() -> None:
    swept(*TINY, "seed=0", "sweep.name=mine")
    printed = swept(*TINY, "seed=0", "sweep.name=mine", "tracking.experiment=other", code=1)
    assert "`sweep.name`: the sweep 'mine' is in experiment 'atheria'" in printed


def test_a_metric_that_does_not_exist_is_said_before_a_search_goes_on() -> None:
    printed = swept(*TINY, "hydra/sweeper=optuna", "seed=0,1", "sweep.metric=eval/los", code=1)
    assert "`sweep.metric`" in printed
    assert "eval/loss" in printed
    assert "Traceback" not in printed


def test_what_a_command_line_sweeps_over() -> None:
    taken = space.read(
        ["trainer=v3,v4", "hydra/launcher=slurm", "hydra.launcher.cores=2", "seed=range(0,6,2)", "model=mlp",
         "trainer.lr=tag(log,interval(1e-4,1e-2))", "trainer.grid=[8,8],[16,16]"],
        {"seed": "1,2", "trainer.steps": "4,8"},
    )  # fmt: skip
    assert taken.ours == ["hydra/launcher=slurm", "hydra.launcher.cores=2"]
    assert taken.fixed == ["model=mlp"]
    axes = {axis.key: axis for axis in taken.axes}
    assert axes["trainer.steps"].values == ("4", "8")
    assert axes["trainer.grid"].values == ("[8,8]", "[16,16]")
    assert (axes["seed"].values, axes["seed"].low, axes["seed"].high) == (("0", "2", "4"), 0, 4)
    assert axes["trainer.lr"].is_log
    assert axes["trainer.lr"].is_interval
    with pytest.raises(UserError, match="needs a search"):
        taken.grid()
    grid = space.read(["b=1,2", "a=3,4"]).grid()
    assert grid == [{"b": b, "a": a} for b in "12" for a in "34"]


def test_from_a_notebook(capsys) -> None:
    report = sweeping.run([*TINY, "seed=0,1", "sweep.name=called"])
    assert [row.status for row in report.rows] == ["FINISHED", "FINISHED"]
    assert report.best is not None
