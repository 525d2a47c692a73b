"""Training end to end, on the real configuration made small and a real store."""

import contextlib
import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize
from mlflow import MlflowClient
from PIL import Image

from atheria import checkpoint, exporting, initial_state
from atheria.artifact import Description, read_description
from atheria.cli import compose_config, to_settings
from atheria.config import TrackingConfig, UiConfig, UserError, ViewConfig
from atheria.evaluate import evaluate
from atheria.export import export
from atheria.fetch import find_law
from atheria.files import sha256
from atheria.files import short as shown_path
from atheria.jobs.train import TrainedRun
from atheria.laws import build
from atheria.physics import Dynamics
from atheria.promote import promote
from atheria.rollout import rollout
from atheria.stores import how_to_look, shown, store_uri
from atheria.sync import sync
from atheria.tracking import Store
from atheria.train import train
from atheria.trainer import Trainer

from .conftest import SMALL, heed_ctrl_c, put_store, train_settings

pytestmark = pytest.mark.usefixtures("ready_store")

SEED_KEYS = {"model_state_dict", "episode", "optimizer_state_dict"}
OWN_KEYS = {
    "config",
    "scheduler_state_dict",
    "curriculum_state",
    "pool",
    "rng",
    "run_id",
    "metrics",
    "schema",
}


def client_of(run: TrainedRun) -> MlflowClient:
    return MlflowClient(tracking_uri=run.tracking_uri)


def test_the_run_holds_what_was_promised(in_run_folder: TrainedRun) -> None:
    run = in_run_folder
    client = client_of(run)
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["trainer.episodes"] == "4"
    assert stored.data.params["model.name"] == "unet"
    assert stored.data.params["noise.curriculum.name"] == "linear"
    assert stored.data.tags["atheria.law.sha256"] == sha256(run.law)
    assert stored.data.tags["version.torch"] == torch.__version__
    artifacts = {
        f.path
        for folder in ("", "checkpoints", "law", "pictures")
        for f in client.list_artifacts(run.run_id, folder)
    }
    assert {
        "config.yaml", "checkpoints/best.pth", "checkpoints/last.pth", "checkpoints/best.pth.sha256",
        "law/law.pt", "law/atheria.json", "pictures/rollout.png",
    } <= artifacts  # fmt: skip


def test_metrics_have_every_step_once(in_run_folder: TrainedRun) -> None:
    run = in_run_folder
    client = client_of(run)

    def steps(key: str) -> list[int]:
        return [metric.step for metric in client.get_metric_history(run.run_id, key)]

    for term in ("loss", "survival", "symmetry", "complexity", "noise_level", "lr", "gradient_norm"):
        assert steps(f"train/{term}") == [1, 2, 3, 4]
    for name in ("loss", "survival", "energy", "occupancy", "ipr"):
        assert steps(f"eval/{name}") == [0, 2, 4]


def test_every_evaluation_leaves_a_picture_for_the_slider(in_run_folder: TrainedRun) -> None:
    client, run = MlflowClient(in_run_folder.tracking_uri), in_run_folder
    names = [file.path for file in client.list_artifacts(run.run_id, "images")]
    assert sorted(name.partition("+timestamp")[0] for name in names if name.endswith(".png")) == [
        "images/rollout+step+0",
        "images/rollout+step+2",
        "images/rollout+step+4",
    ]
    assert client.get_run(run.run_id).data.tags["mlflow.loggedImages"] == "True"
    logged = next(name for name in names if "+step+4+" in name and name.endswith(".png"))
    stored = Image.open(client.download_artifacts(run.run_id, logged))
    assert np.array_equal(stored, Image.open(run.folder / "images/rollout-4.png"))
    untrained = Image.open(run.folder / "images/rollout-0.png")
    assert not np.array_equal(stored, untrained)


def test_a_picture_of_a_law_in_training_changes_nothing() -> None:
    trainers = []
    for looks in (False, True):
        torch.manual_seed(0)
        settings = train_settings()
        trainer = Trainer(build(settings.model, "torus"), settings, torch.device("cpu"))
        trainer.train_episode()
        if looks:
            steps = [step for step, _ in trainer.held_out_rollout(5)]
            assert steps == [0, 1, 2, 3, 4, 5]
        assert trainer.law.training
        trainer.train_episode()
        trainers.append(trainer)
    for one, other in zip(*(trainer.law.parameters() for trainer in trainers), strict=True):
        assert torch.equal(one, other)


def test_checkpoints_have_the_seeds_keys_and_ours(in_run_folder: TrainedRun) -> None:
    state = checkpoint.load(in_run_folder.folder / "checkpoints/last.pth")
    assert set(state) == SEED_KEYS | OWN_KEYS
    assert state["episode"] == 4
    assert state["run_id"] == in_run_folder.run_id
    law = build(state["config"]["model"], state["config"]["physics"]["boundary"])
    law.load_state_dict(state["model_state_dict"], strict=True)


def test_the_same_seed_trains_the_same_law_and_another_does_not() -> None:
    laws = [train([*SMALL, *extra]).law for extra in ((), (), ("seed=1",))]
    weights = [torch.jit.load(str(law)).state_dict()["outc.weight"] for law in laws]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def trainer_of(*overrides: str) -> Trainer:
    settings = train_settings(*overrides)
    torch.manual_seed(0)
    return Trainer(build(settings.model, settings.physics.boundary), settings, torch.device("cpu"))


def test_the_trainers_weigh_their_terms_as_defined() -> None:
    weights = {name: train_settings(f"trainer={name}").trainer.loss for name in ("v3", "v4")}
    assert weights["v3"] == {"displacement": 10.0, "variance": 1.0}
    assert weights["v4"] == {"survival": 10.0, "symmetry": 5.0, "complexity": 1.0}


def test_evaluation_is_on_states_that_training_never_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[torch.Tensor] = []
    make = initial_state.make

    def recorded(*arguments):
        drawn.append(make(*arguments))
        return drawn[-1]

    trainer = trainer_of("noise=none")
    monkeypatch.setattr(initial_state, "make", recorded)
    trainer.evaluate()
    held_out = drawn.pop()
    trainer.evaluate()
    assert torch.equal(held_out, drawn.pop())  # the same at every evaluation
    for _ in range(3):
        trainer.train_episode()
    universes = [universe for batch in drawn for universe in batch]
    assert len(universes) == 6
    everything = torch.stack([*universes, *held_out])
    assert len(everything.flatten(1).unique(dim=0)) == 6 + len(held_out)  # no two alike


def test_masks_and_noise_differ_between_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    step = Dynamics.step

    def recorded(self, state):
        used.append(state.step)
        return step(self, state)

    monkeypatch.setattr(Dynamics, "step", recorded)
    trainer = trainer_of()
    for _ in range(3):
        trainer.train_episode()
    assert used == list(range(9))


def test_gradients_are_clipped() -> None:
    """Plain gradient descent moves by no more than lr * clip."""
    trainer = trainer_of("trainer.clip=1e-3")
    trainer._optimizer = torch.optim.SGD(trainer.law.parameters(), lr=1.0)
    before = [p.detach().clone() for p in trainer.law.parameters()]
    metrics = trainer.train_episode()
    moved = sum((p - q).square().sum() for p, q in zip(trainer.law.parameters(), before, strict=True)).sqrt()
    assert metrics["train/gradient_norm"] > 1e-3
    assert moved.item() == pytest.approx(1e-3, rel=1e-2)


def test_the_learning_rate_falls_on_a_plateau() -> None:
    trainer = trainer_of("trainer.patience=1")
    for loss in (1.0, 1.0, 1.0):
        trainer.step_scheduler(loss)
    assert trainer.train_episode()["train/lr"] == pytest.approx(1e-5)


def test_bf16_keeps_the_field_in_float32() -> None:
    settings = train_settings("trainer.precision=bf16")
    trainer = Trainer(build(settings.model, "torus"), settings, torch.device("cpu"))
    trainer.train_episode()
    assert all(psi.dtype == torch.float32 for _, psi in trainer.held_out_rollout())


def test_training_makes_the_default_objective_smaller() -> None:
    run = train(
        [*SMALL, "trainer.episodes=40", "trainer.eval_every=10", "trainer.steps=8", "trainer.lr=1e-3"]
    )
    assert run.best["eval/loss"] < run.untrained["eval/loss"] - 0.1


def test_a_diverged_loss_fails_the_run_and_says_what_to_do() -> None:
    np.save("huge.npy", np.full((2, 4, 8, 8), 1e30, np.float32))
    with pytest.raises(UserError, match="the loss is .* at episode 1; lower `trainer.lr`"):
        train([*SMALL, "initial_state=file", "initial_state.path=huge.npy"])
    run = MlflowClient(store_uri(None)).search_runs(["1"])[0]
    assert run.info.status == "FAILED"


def train_process(*overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "atheria.train", *SMALL, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


@pytest.mark.no_store
def test_the_command_is_plain_without_a_terminal_and_says_what_to_type_next() -> None:
    process = train_process()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "\r" not in out + err
    assert err == ""
    run_id = re.search(r"^run +([0-9a-f]{32})", out, re.MULTILINE)[1]
    assert f"python -m atheria.rollout run_id={run_id} steps=1000" in out
    assert f"python -m atheria.view run_id={run_id} grid=128" in out
    assert "python -m atheria.ui tracking.experiment=atheria" in out
    assert sorted(p.name for p in Path("outputs").iterdir()) == ["mlartifacts", "mlflow.db", "runs"]
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["outputs"]


@pytest.mark.no_store
@pytest.mark.parametrize("mode", ["online", "offline", "off"])
def test_what_is_said_to_type_next_finds_the_run(
    mode: str, empty_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_store(empty_store, Path("my store/runs.db"))
    store, output = "tracking.uri='sqlite:///my store/runs.db'", "output='my output'"
    run = train([*SMALL, "model=mlp", "trainer.episodes=1", f"tracking.mode='{mode}'", store, output])

    def next_overrides() -> dict[str, list[str]]:
        """The overrides of the commands printed last, by command."""
        lines = capsys.readouterr().out.rpartition("\nnext\n")[2].splitlines()
        return {words[2].removeprefix("atheria."): words[3:] for words in map(shlex.split, lines)}

    commands = next_overrides()
    assert (
        set(commands)
        == {"rollout", "view", "evaluate"}
        | {
            "online": {"ui"},
            "offline": {"sync", "ui"},
            "off": set(),
        }[mode]
    )
    quick = [*commands["rollout"][:1], "steps=2", "grid=8", *commands["rollout"][3:]]
    assert rollout(quick).folder.is_relative_to(Path("my output").absolute())
    looked = next_overrides()["ui"] if mode == "online" else None
    evaluation = evaluate([*commands["evaluate"], "steps=2", "noise=none", "universes=1"])
    assert evaluation.folder.is_relative_to(Path("my output").absolute())
    viewed = to_settings(ViewConfig, compose_config("view", commands["view"]))
    find_law(viewed.run_id, viewed.law, None, viewed.tracking.uri)
    if mode == "offline":
        assert sync(commands["sync"]) == 0
    if mode != "off":
        assert looked in (None, commands["ui"])
        tracking = to_settings(UiConfig, compose_config("ui", commands["ui"])).tracking
        assert Store(store_uri(tracking.uri), create=False).runs("", experiment=tracking.experiment)
        capsys.readouterr()
        export([f"run_id={run.run_id}", store, "output=again.pt"])
        rollout([*next_overrides()["rollout"], "steps=2", output])
        promote([f"run_id={run.run_id}", "alias=champion", store])
        rollout([*next_overrides()["rollout"], "steps=2", output])
    assert not Path("outputs").exists()


@pytest.mark.no_store
def test_ctrl_c_while_a_command_imports_ends_it_in_a_line() -> None:
    """Hydra is the first of its imports that takes long; here, one that is interrupted."""
    Path("hydra.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    process = train_process()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_as_killed(number: signal.Signals) -> None:
    process = train_process("trainer.episodes=100000", "trainer.eval_every=100000")
    for line in process.stdout:
        if "untrained" in line:
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in err
    run = MlflowClient(store_uri(None)).search_runs(["1"])[0]
    assert run.info.status == "KILLED"


def test_a_run_saves_and_ends_where_its_terminal_is_closed() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    endless = ["trainer.episodes=100000", "trainer.eval_every=100000", "trainer.checkpoint_every=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "atheria.train", *SMALL, *endless],
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=own_terminal,
    )  # fmt: skip
    os.close(theirs)
    printed = b""
    while not re.search(rb" [1-9]\d*/100000 ", printed):
        printed += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(timeout=600) == 130
    run = MlflowClient(store_uri(None)).search_runs(["1"])[0]
    assert run.info.status == "KILLED"
    saved = checkpoint.load(Path("outputs/runs") / run.info.run_id / "checkpoints/last.pth")
    assert saved["episode"] >= 1


@pytest.mark.no_store
def test_trainings_started_together_on_a_fresh_store_all_run() -> None:
    processes = [train_process("model=mlp", f"seed={seed}") for seed in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    assert len(MlflowClient(store_uri(None)).search_runs(["1"])) == 3


def test_an_interrupted_run_keeps_its_checkpoints_on_the_store_and_can_be_exported() -> None:
    process = train_process("trainer.episodes=100000", "trainer.eval_every=2", "trainer.checkpoint_every=2")
    for line in process.stdout:
        if "episode 2/" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    run = MlflowClient(store_uri(None)).search_runs(["1"])[0]
    path = export([f"run_id={run.info.run_id}"])
    assert read_description(path).run_id == run.info.run_id


def test_credentials_of_a_store_stay_secret(in_run_folder: TrainedRun, capsys) -> None:
    assert shown("http://ada:secret@host:5000/x") == "http://***@host:5000/x"
    for uri in ("http://ada:secret@host:5000", "postgresql://ada:secret@host/x"):
        for mode in ("online", "offline"):
            look = how_to_look(TrackingConfig(mode, uri, "atheria", None), "outputs")
            assert "secret" not in " ".join(look)
    for file in (in_run_folder.folder / "config.yaml", in_run_folder.folder / "checkpoints/best.pth"):
        assert b"tracking" not in file.read_bytes()


@pytest.mark.no_store
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["output=file"], "`output` must be a folder that can be written to, got 'file'"),
        (["tracking.uri=sqlite:////dev/full"], "the tracking store sqlite:////dev/full cannot be used"),
        (
            ["tracking.uri=postgresql://ada:secret@localhost/x"],
            "the tracking store postgresql://***@localhost/x ",
        ),
        (
            ["tracking.uri=foo"],
            "`tracking.uri` must be sqlite:///PATH, postgresql://... or http://HOST:PORT, got",
        ),
        (["tracking.uri=sqlite:a.db"], "http://HOST:PORT, got 'sqlite:a.db'"),
        (["trainer.threads=100000"], "`trainer.threads` must be 1 to "),
        (["model.d_state=1", "noise=bit_flip"], "needs `model.d_state` of at least 2"),
        (["trainer=v3", "noise.level=0.3"], "`noise.level` needs a channel"),
    ],
)
def test_what_cannot_work_is_said_at_once(overrides: list[str], message: str) -> None:
    Path("file").touch()
    with pytest.raises(UserError) as error:
        train([*SMALL, *overrides])
    assert message in str(error.value)
    assert "secret" not in str(error.value)
    assert not Path("outputs").exists()


def test_a_deleted_experiment_says_how_to_bring_it_back() -> None:
    run = train([*SMALL, "model=mlp", "trainer.episodes=1"])
    client_of(run).delete_experiment("1")
    with pytest.raises(UserError, match="mlflow experiments restore --experiment-id 1"):
        train([*SMALL, "model=mlp", "trainer.episodes=1"])


def test_it_trains_inside_an_application_that_uses_hydra_itself() -> None:
    with initialize(version_base="1.3", config_path=None):
        train([*SMALL, "model=mlp", "trainer.episodes=1"])
        assert compose(overrides=["+mine=1"]).mine == 1


def test_a_law_that_did_not_improve_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    run = train([*SMALL, "model=mlp", "trainer=v3", "trainer.episodes=1", "trainer.lr=10"])
    assert run.best is run.untrained
    assert "no evaluation beat the untrained law" in capsys.readouterr().out


def test_a_terminal_sees_a_bar_with_the_loss_its_terms_and_the_noise() -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "atheria.train", *SMALL],
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    process.wait(timeout=600)
    assert process.returncode == 0
    for part in (b"episode", b"loss=", b"survival=", b"symmetry=", b"complexity=", b"noise="):
        assert part in shown


def test_a_disk_that_is_full_at_the_end_costs_the_export_alone(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*SMALL, "model=mlp", f"output={small_disk}"]
    filler = small_disk / "filler"

    def export_without_room(*arguments) -> Description:
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(1 << 21))
        return exporting.export_law(*arguments)

    monkeypatch.setattr("atheria.jobs.train.export_law", export_without_room)
    with pytest.raises(UserError) as error:
        train(options)
    monkeypatch.undo()
    monkeypatch.chdir(small_disk.parent)
    (run,) = MlflowClient(store_uri(None)).search_runs(["1"])
    run_id, best = run.info.run_id, small_disk / f"runs/{run.info.run_id}/checkpoints/best.pth"
    assert run.info.status == "FAILED"
    assert "No space left on device" in str(error.value)
    assert f"trainer.resume={run_id}" in str(error.value)
    assert f"python -m atheria.export checkpoint={shown_path(best)} output=law.pt" in str(error.value)
    filler.unlink()
    assert read_description(export([f"checkpoint={best}", "output=law.pt"])).law == "mlp"
    again = train([*options, f"trainer.resume={run_id}"])
    assert again.run_id == run_id
    assert again.law.is_file()


def test_a_disk_that_is_full_from_the_first_episode_on_says_how_to_go_on(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*SMALL, "model=mlp", "trainer.lr=0.01", f"output={small_disk}"]
    filler = small_disk / "filler"
    train_episode = Trainer.train_episode

    def without_room(trainer: Trainer) -> dict[str, float]:
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(1 << 21))
        return train_episode(trainer)

    monkeypatch.setattr(Trainer, "train_episode", without_room)
    with pytest.raises(UserError, match=r"No space left on device[^\0]*trainer.resume=\w+"):
        train(options)
    monkeypatch.setattr(Trainer, "train_episode", train_episode)
    (run,) = MlflowClient(store_uri(None)).search_runs(["1"])
    assert run.info.status == "FAILED"
    assert "No space left on device" in run.data.tags["atheria.error"]
    filler.unlink()
    again = train([*options, f"trainer.resume={run.info.run_id}"])
    assert again.run_id == run.info.run_id
    assert again.best["eval/loss"] < again.untrained["eval/loss"]


@pytest.mark.no_store
def test_a_store_in_a_read_only_folder_is_refused(small_disk: Path, empty_store: Path) -> None:
    """Though its file can be written: SQLite makes its journal beside it."""
    put_store(empty_store, Path("writable.db"))
    store = small_disk / "mlflow.db"
    store.touch()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    subprocess.run(["mount", "--bind", "writable.db", store], check=True)
    try:
        store.write_bytes(store.read_bytes())
        with pytest.raises(UserError, match=r"mlflow.db cannot be written to: .*small' is read-only; choose"):
            train([*SMALL, f"tracking.uri=sqlite:///{store}"])
    finally:
        subprocess.run(["umount", store], check=True)


@pytest.mark.no_store
def test_a_store_on_a_read_only_disk_is_refused(small_disk: Path, empty_store: Path) -> None:
    put_store(empty_store, small_disk / "mlflow.db")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for file in ("mlflow.db", "new.db", "further/new.db"):
        with pytest.raises(UserError, match=rf"{file} cannot be written to.*; choose another: tracking.uri="):
            train([*SMALL, "model=mlp", f"tracking.uri=sqlite:///{small_disk}/{file}"])
    assert not Path("outputs").exists()
