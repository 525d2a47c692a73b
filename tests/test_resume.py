"""The same run, the same curve: training that is killed at any moment and gone on with."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient

from atheria import checkpoint
from atheria.config import UserError
from atheria.export import export
from atheria.stores import store_uri
from atheria.sync import sync
from atheria.train import train
from atheria.trainer import Trainer

from .conftest import SMALL, assert_same, heed_ctrl_c

pytestmark = pytest.mark.usefixtures("ready_store")

TINY = (*SMALL, "model=mlp", "trainer.checkpoint_every=1", "trainer.eval_every=3", "trainer.keep_best=2")
RARELY = ("trainer.eval_every=100", "trainer.checkpoint_every=10")
"""For long trainings: evaluations and checkpoints cost more than so small an episode."""

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
    "thermal adaptive pool": (
        "noise=thermal", "noise/curriculum=adaptive", "noise.curriculum.patience=1", *POOL,
    ),
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


def killed(overrides: Sequence[str], luck: random.Random) -> str:
    """The ID of a run whose process gets a kill -9, at a random moment after the run has begun."""
    process = process_of(*overrides)
    run_id = next(line.split()[1] for line in process.stdout if line.startswith("run "))
    time.sleep(luck.uniform(0, 1.5))
    process.kill()
    _, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err
    return run_id


def train_under_kills(overrides: Sequence[str], kills: int, luck: random.Random) -> str:
    """The ID of a run whose process was killed so many times before it was left alone."""
    run_ids = [killed(overrides, luck) for _ in range(kills)]
    run = train([*overrides, "trainer.resume=auto"])
    assert set(run_ids) == {run.run_id}
    return run.run_id


def curves(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every metric's steps and values; of what is logged at the end, the last: a longer run ended twice."""
    points = {key: client.get_metric_history(run_id, key) for key in client.get_run(run_id).data.metrics}
    curves = {key: [(m.step, m.value) for m in history] for key, history in points.items()}
    return {key: curve[-1:] if key.startswith("best/") else curve for key, curve in curves.items()}


def assert_equal_to_undisturbed(
    run_id: str,
    overrides: list[str],
    folder: Path | None = None,
    names: tuple[str, ...] = ("last", "best", "best-2"),
) -> None:
    """Metrics, weights, optimiser and all else, bit for bit."""
    undisturbed = train([*overrides, "output=undisturbed"])
    for output in ("outputs", "undisturbed"):  # a busy machine may have left something to it
        sync([f"output={output}", "reap=false"])
    client = MlflowClient(store_uri(None))
    assert client.get_run(run_id).info.status == "FINISHED"
    assert curves(client, run_id) == curves(client, undisturbed.run_id)
    for name in names:
        states = [
            checkpoint.load(place / f"checkpoints/{name}.pth")
            for place in (folder or Path("outputs/runs") / run_id, undisturbed.folder)
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
    run_id = train_under_kills(overrides, 1, random.Random(name))
    assert_equal_to_undisturbed(run_id, overrides)


def test_a_run_that_is_killed_before_its_first_checkpoint_begins_again_as_itself() -> None:
    overrides = [*TINY, "trainer.episodes=3"]
    run_ids = set()
    for _ in range(2):
        process = process_of(*overrides)
        run_ids.add(next(line.split()[1] for line in process.stdout if line.startswith("run ")))
        process.kill()
        process.wait()
        assert not list(Path("outputs/runs").glob("*/checkpoints/last.pth"))
    run = train([*overrides, "trainer.resume=auto"])
    assert run_ids == {run.run_id}
    assert_equal_to_undisturbed(run.run_id, overrides)


STEADY = (*TINY, "noise/curriculum=constant")
"""Settings under which a longer run begins as a shorter one."""
SHORT = (*STEADY, "trainer.episodes=6")


def outcome(overrides: tuple[str, ...], *more: str) -> subprocess.CompletedProcess[str]:
    process = process_of(*overrides, *more)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def under_way(overrides: tuple[str, ...]) -> tuple[subprocess.Popen[str], str]:
    """A training that has begun and will not end by itself, and its run's ID."""
    process = process_of(*overrides, "trainer.episodes=100000")
    for line in process.stdout:
        if line.startswith("run "):
            run_id = line.split()[1]
        if "untrained" in line:
            break
    return process, run_id


def ended_early(number: signal.Signals = signal.SIGTERM, overrides: tuple[str, ...] = STEADY) -> str:
    """A run that a signal has ended; its ID."""
    process, run_id = under_way(overrides)
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert f"to go on  the same command with trainer.resume={run_id}, or =auto" in out
    return run_id


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, "KILLED"), (signal.SIGTERM, "KILLED"), (signal.SIGUSR2, "SCHEDULED")],
)
def test_a_run_that_was_told_to_end_saves_and_goes_on_as_itself(number: signal.Signals, status: str) -> None:
    run_id = ended_early(number)
    client = MlflowClient(store_uri(None))
    assert client.get_run(run_id).info.status == status
    last = Path("outputs/runs") / run_id / "checkpoints/last.pth"
    episode = checkpoint.load(last)["episode"]
    assert [m.step for m in client.get_metric_history(run_id, "train/loss")] == list(range(1, episode + 1))
    run = train([*STEADY, f"trainer.episodes={episode + 2}", "trainer.resume=auto"])
    assert run.run_id == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.tags[
        f"atheria.resumed.{episode}"
    ] == "trainer.episodes: 100000 -> " + str(episode + 2)
    assert [m.step for m in client.get_metric_history(run_id, "train/loss")] == list(range(1, episode + 3))


@pytest.mark.no_store
def test_a_finished_run_is_said_to_have_finished_and_can_be_made_longer() -> None:
    run = train([*SHORT, "trainer.resume=auto"])  # none found: starts fresh
    again = outcome(SHORT)
    assert again.returncode == 0
    assert f"run       {run.run_id} has these settings and has finished" in again.stdout
    assert "atheria.rollout" in again.stdout
    finished = train([*SHORT, "trainer.resume=auto", "output=outputs"])
    assert (finished.run_id, finished.law, finished.best) == (run.run_id, run.law, run.best)
    longer = train([*STEADY, "trainer.episodes=8", "trainer.resume=auto"])
    assert longer.run_id == run.run_id
    other_physics = ["physics.harmonic=0.1"]
    for other in (["seed=3"], other_physics):
        begun = train([*SHORT, *other, "trainer.resume=auto"])
        assert begun.run_id != run.run_id
    assert train([*SHORT, *other_physics, "trainer.resume=auto"]).run_id == begun.run_id


def test_it_goes_on_from_the_store_where_the_folder_is_gone() -> None:
    run_id = ended_early()
    Path("outputs/runs").rename("elsewhere")
    last = checkpoint.load(Path("elsewhere") / run_id / "checkpoints/last.pth")
    episodes = last["episode"] + 5
    run = train([*STEADY, f"trainer.episodes={episodes}", "trainer.resume=auto"])
    assert run.run_id == run_id
    assert_equal_to_undisturbed(run_id, [*STEADY, f"trainer.episodes={episodes}"])


def test_it_goes_on_from_a_store_that_has_no_best_checkpoint_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Trainer) -> dict[str, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train([*SHORT, "trainer.resume=auto"])
    (begun,) = Path("outputs/runs").iterdir()
    files = [file.path for file in MlflowClient(store_uri(None)).list_artifacts(begun.name, "checkpoints")]
    assert files == ["checkpoints/last.pth", "checkpoints/last.pth.sha256"]
    Path("outputs/runs").rename("elsewhere")
    run = train([*SHORT, "trainer.resume=auto"])
    assert run.run_id == begun.name
    assert_equal_to_undisturbed(run.run_id, [*SHORT])


def test_a_finished_run_whose_best_checkpoint_was_lost_says_what_is_missing_and_can_go_on() -> None:
    run = train([*SHORT, "trainer.resume=auto"])
    best = run.folder / "checkpoints/best.pth"
    best.unlink()
    assert train([*SHORT, "trainer.resume=auto"]).best == run.best  # the store has it
    assert best.is_file()
    for stored in Path("outputs/mlartifacts").rglob("best.pth"):
        stored.unlink()
    Path("outputs/runs").rename("elsewhere")
    is_missing = f"run '{run.run_id}' has finished, but its best checkpoint '.*best.pth' is not there, nor"
    for _ in range(2):  # without a folder, and with the one that was made
        with pytest.raises(UserError, match=is_missing):
            train([*SHORT, "trainer.resume=auto"])
    lost = f"run '{run.run_id}' has no artifact 'checkpoints/best.pth' in .* holds .*last.pth"
    with pytest.raises(UserError, match=lost) as refused:
        export([f"run_id={run.run_id}"])
    assert "export checkpoint=PATH output=law.pt" in str(refused.value)
    longer = train([*STEADY, "trainer.episodes=8", f"trainer.resume={run.run_id}"])
    assert longer.run_id == run.run_id
    assert (longer.folder / "checkpoints/best.pth").is_file()


def test_all_the_best_that_the_store_has_are_gone_on_with() -> None:
    run = train([*SHORT, "trainer.keep_best=3"])
    Path("outputs/runs").rename("elsewhere")
    train([*STEADY, "trainer.episodes=7", "trainer.keep_best=5", f"trainer.resume={run.run_id}"])
    kept = [checkpoint.load(path) for path in (run.folder / "checkpoints").glob("best*.pth")]
    assert sorted(state["episode"] for state in kept) == [0, 3, 6, 7]


def test_a_run_that_went_on_on_another_machine_goes_on_from_there() -> None:
    run_id = ended_early()
    episode = checkpoint.load(Path("outputs/runs") / run_id / "checkpoints/last.pth")["episode"]
    elsewhere = train([*STEADY, f"trainer.episodes={episode + 3}", "trainer.resume=auto", "output=elsewhere"])
    assert elsewhere.run_id == run_id
    back = [*STEADY, f"trainer.episodes={episode + 6}"]
    assert train([*back, "trainer.resume=auto"]).run_id == run_id
    client = MlflowClient(store_uri(None))
    steps = [m.step for m in client.get_metric_history(run_id, "train/loss")]
    assert steps == list(range(1, episode + 7))
    last, undisturbed = (
        checkpoint.load(folder / "checkpoints/last.pth")["model_state_dict"]
        for folder in (Path("outputs/runs") / run_id, train([*back, "output=undisturbed"]).folder)
    )
    assert_same(last, undisturbed)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(damage: str, capsys) -> None:
    run_id = ended_early()
    last = Path("outputs/runs") / run_id / "checkpoints/last.pth"
    content = bytearray(last.read_bytes())
    episode = checkpoint.load(last)["episode"]
    content[len(content) // 2] ^= 1
    last.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
    run = train([*STEADY, f"trainer.episodes={episode + 1}", "trainer.resume=auto"])
    printed = capsys.readouterr()
    assert f"warning: '{last.absolute()}'" in printed.err
    assert "trying an earlier one" in printed.err
    assert (
        f"resumed   at episode {episode - 1} from outputs/runs/{run_id}/checkpoints/previous.pth"
        in printed.out
    )
    assert run.run_id == run_id
    assert_equal_to_undisturbed(run_id, [*STEADY, f"trainer.episodes={episode + 1}"])


def test_a_run_and_a_checkpoint_can_be_named() -> None:
    run = train(SHORT)
    by_id = train([*STEADY, "trainer.episodes=9", f"trainer.resume={run.run_id}"])
    path = run.folder / "checkpoints/last.pth"
    by_path = train([*STEADY, "trainer.episodes=12", f"trainer.resume={path}"])
    assert run.run_id == by_id.run_id == by_path.run_id
    assert_equal_to_undisturbed(run.run_id, [*STEADY, "trainer.episodes=12"])


def test_a_checkpoint_of_an_unknown_run_begins_a_new_one() -> None:
    run = train([*SHORT, "tracking.uri=sqlite:///other.db", "output=other"])
    path = run.folder / "checkpoints/last.pth"
    new = train([*STEADY, "trainer.episodes=8", f"trainer.resume={path}"])
    assert new.run_id != run.run_id
    client = MlflowClient(store_uri(None))
    assert [m.step for m in client.get_metric_history(new.run_id, "train/loss")] == [7, 8]
    assert "last.pth" in client.get_run(new.run_id).data.tags["atheria.resumed_from"]


def test_a_changed_law_is_refused_with_what_differs_and_changed_settings_are_recorded() -> None:
    run = train(SHORT)
    with pytest.raises(UserError) as error:
        train([*SHORT, "model.hidden_channels=8", "physics.boundary=zeros", f"trainer.resume={run.run_id}"])
    assert "model.hidden_channels: 4 in the checkpoint, 8 now" in str(error.value)
    assert "physics.boundary: torus in the checkpoint, zeros now" in str(error.value)
    changed = ["trainer.episodes=8", "trainer.lr=0.01", "noise/curriculum=adaptive", "trainer.pool=4"]
    train([*STEADY, *changed, f"trainer.resume={run.run_id}"])
    client = MlflowClient(store_uri(None))
    tag = client.get_run(run.run_id).data.tags["atheria.resumed.6"]
    for change in ("trainer.lr: 0.0001 -> 0.01", "noise.curriculum.name: constant -> adaptive"):
        assert change in tag
    assert [m.value for m in client.get_metric_history(run.run_id, "train/lr")] == [1e-4] * 6 + [1e-2] * 2


@pytest.mark.parametrize("changed", [[], ["trainer.lr=0.01"]])
def test_a_cosine_schedule_that_is_made_longer_goes_down_to_the_end(changed: list[str]) -> None:
    cosine = [*STEADY, "trainer.scheduler=cosine"]
    run = train([*cosine, "trainer.episodes=6"])
    train([*cosine, *changed, "trainer.episodes=12", f"trainer.resume={run.run_id}"])
    longer = train([*cosine, *changed, "trainer.episodes=12", "output=other"])
    client = MlflowClient(store_uri(None))
    rates, expected = (
        [m.value for m in client.get_metric_history(run_id, "train/lr")][6:]
        for run_id in (run.run_id, longer.run_id)
    )
    assert rates == pytest.approx(expected, rel=1e-6)


def test_a_patience_that_was_changed_holds_and_evaluations_without_improvement_count_on() -> None:
    still = [*STEADY, "trainer.scheduler=plateau", "trainer.lr=1e-7", "trainer.eval_every=1"]
    run = train([*still, "trainer.episodes=4", "trainer.patience=10"])
    train([*still, "trainer.episodes=6", "trainer.patience=3", f"trainer.resume={run.run_id}"])
    client = MlflowClient(store_uri(None))
    assert client.get_run(run.run_id).data.tags["atheria.resumed.4"].endswith("trainer.patience: 10 -> 3")
    rates = [m.value for m in client.get_metric_history(run.run_id, "train/lr")]
    assert rates == pytest.approx([1e-7] * 5 + [1e-8])  # the first evaluation, and four that were no better


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("f00", "there is no run 'f00'"),
        ("no.pth", "there is no file 'no.pth'"),
        (
            "bare.pth",
            "holds weights, but not the state of a training; start with them: trainer.init_from=bare.pth",
        ),
    ],
)
def test_what_cannot_be_gone_on_with_is_said(named: str, message: str) -> None:
    train([*SHORT, "trainer.episodes=1"])
    checkpoint.save({"model_state_dict": {}, "episode": 1}, Path("bare.pth"))
    with pytest.raises(UserError, match=message):
        train([*SHORT, f"trainer.resume={named}"])


def test_a_run_that_goes_on_elsewhere_is_left_alone() -> None:
    process, live = under_way(STEADY)
    try:
        beside = train([*SHORT, "trainer.resume=auto"])
        assert beside.run_id != live
        with pytest.raises(UserError, match="is being logged by another process"):
            train([*SHORT, f"trainer.resume={live}"])
        sync(["reap=true"])
        assert MlflowClient(store_uri(None)).get_run(live).info.status == "RUNNING"
    finally:
        process.kill()
        process.wait()
    sync(["reap=true"])
    reaped = MlflowClient(store_uri(None)).get_run(live)
    assert reaped.info.status == "KILLED"
    assert "atheria.reaped" in reaped.data.tags


def test_a_run_that_fails_says_why_in_the_store() -> None:
    with pytest.raises(UserError, match="the loss is"):
        train([*SHORT, "trainer.lr=1e30"])
    client = MlflowClient(store_uri(None))
    (run,) = client.search_runs(["1"])
    assert run.info.status == "FAILED"
    assert "the loss is" in run.data.tags["atheria.error"]
    text = Path(client.download_artifacts(run.info.run_id, "error.txt")).read_text()
    assert "Traceback (most recent call last)" in text
    assert "_check_finite" in text


def test_a_disk_that_fills_costs_no_checkpoint_and_no_record(small_disk: Path) -> None:
    overrides = [*STEADY, "trainer.episodes=150", f"output={small_disk}"]
    process = process_of(*overrides)
    for line in process.stdout:
        if line.startswith("run "):
            folder = small_disk / "runs" / line.split()[1]
        if "episode 12/" in line:
            break
    last = folder / "checkpoints/last.pth"
    filler = small_disk / "filler"
    with contextlib.suppress(OSError):
        filler.write_bytes(bytes(1 << 21))
    for line in process.stdout:
        if "episode 60/" in line:
            break
    kept = checkpoint.load(last)["episode"]
    assert 11 <= kept < 60
    filler.unlink()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "the one before it stays, training goes on" in err
    assert "No space left on device" in err
    assert checkpoint.load(last)["episode"] == 150
    assert_equal_to_undisturbed(folder.name, [*STEADY, "trainer.episodes=150"], folder)


def test_settings_that_a_finished_run_does_not_take_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(SHORT)
    capsys.readouterr()
    again = train([*SHORT, f"trainer.resume={run.run_id}", "trainer.lr=0.5", "physics.gamma=0.25"])
    assert again.run_id == run.run_id
    said = capsys.readouterr().out
    episodes = checkpoint.load(run.folder / "checkpoints/last.pth")["episode"]
    assert (
        f"run       {run.run_id} has finished its {episodes} episodes; to go on, raise trainer.episodes"
        in said
    )
    assert "has these settings" not in said
    assert "          not taken: physics.gamma: 0.01 -> 0.25" in said
    assert "          not taken: trainer.lr: " in said
