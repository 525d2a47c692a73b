"""Rollouts by run ID and by file; the run's artifact fetched, verified and cached."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from atheria_core import Engine
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from atheria import checkpoint, laws, progress
from atheria.config import PhysicsConfig, UserError
from atheria.engine import from_run
from atheria.export import export
from atheria.exporting import export_law
from atheria.fetch import law_of_run
from atheria.files import cache_folder, sha256
from atheria.jobs.train import TrainedRun
from atheria.observables import compare, measure
from atheria.physics import Dynamics
from atheria.rollout import rollout
from atheria.stores import store_uri
from atheria.tracking import LAW_DIGEST_TAG
from atheria.train import train
from atheria.watch import computed_by, engine_line

from .conftest import SMALL, heed_ctrl_c, make_law, origin_of


def test_the_engine_of_a_run_computes_what_its_checkpoint_computes(in_run_folder: TrainedRun) -> None:
    engine = from_run(in_run_folder.run_id)
    state = checkpoint.load(in_run_folder.folder / "checkpoints/best.pth")
    physics = PhysicsConfig(**state["config"]["physics"])
    law = laws.build(state["config"]["model"], physics.boundary).eval()
    law.load_state_dict(state["model_state_dict"])
    dynamics = Dynamics(law, physics, seed=0)
    with torch.inference_mode():
        expected = dynamics.rollout(dynamics.start(torch.from_numpy(engine.state())), 20).psi
    engine.step_native(20)
    np.testing.assert_allclose(engine.state(), expected, atol=1e-5)


def test_a_rollout_is_written_and_logged_as_a_child(in_run_folder: TrainedRun) -> None:
    run = in_run_folder
    result = rollout(
        [f"run_id={run.run_id}", "steps=7", "grid=[8,12]", "universes=2", "observe_every=3", "seed=4"]
    )
    assert result.steps.tolist() == [0, 3, 6, 7]
    assert result.psi.shape == (2, 4, 8, 12)
    by_hand = from_run(run.run_id)
    by_hand.reset("soup", 4, (8, 12), 2)
    by_hand.step_native(7)
    assert np.array_equal(result.psi, by_hand.state())
    with np.load(result.folder / "field.npz", allow_pickle=False) as field:
        assert np.array_equal(field["psi"], result.psi)
        assert np.array_equal(field["observable_energy"], result.observables["energy"])
        assert field["measured_steps"].tolist() == [frame.step for frame in result.frames]
        assert np.array_equal(field["measured_fidelity"], result.measured["fidelity"])
    assert Image.open(result.folder / "strip.png").width > 500
    client = MlflowClient(run.tracking_uri)
    child = client.get_run(result.run_id)
    assert child.data.params["law_sha256"] == sha256(run.law)
    assert child.data.params["grid"] == "[8, 12]"
    assert child.data.params["initial_state.kind"] == "soup"
    assert child.data.params["physics.gamma"] == "0.01"
    assert child.data.tags["mlflow.parentRunId"] == run.run_id
    assert child.info.experiment_id == client.get_run(run.run_id).info.experiment_id
    assert child.info.status == "FINISHED"
    history = client.get_metric_history(result.run_id, "rollout/energy")
    assert [m.step for m in history] == [0, 3, 6, 7]
    assert history[-1].value == pytest.approx(result.observables["energy"][-1].mean())
    measured = client.get_metric_history(result.run_id, "rollout/von_neumann_entropy")
    assert [m.step for m in measured] == [frame.step for frame in result.frames]
    assert measured[-1].value == pytest.approx(result.measured["von_neumann_entropy"][-1].mean())
    assert {f.path for f in client.list_artifacts(result.run_id, "pictures")} == {"pictures/strip.png"}


def test_off_a_terminal_it_is_said_how_far_a_long_rollout_is(
    in_run_folder: TrainedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    rollout([f"law={in_run_folder.law}", "steps=3", "observe_every=1"])
    said = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if " s left" in line]
    assert said == ["step 1/3", "step 2/3", "step 3/3"]


def test_what_only_python_measures(in_run_folder: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [f"law={in_run_folder.law}", "steps=5", "frames=2", "universes=5", "grid=[8,12]"]
    result = rollout(options)
    assert not set(result.measured) & set(result.observables)
    start, last = (torch.from_numpy(frame.psi[None]) for frame in result.frames)
    first_universe = {**compare(start, last), **measure(last, torus=True)}
    assert set(result.measured) == set(first_universe) - set(result.observables) | {"step_drift"}
    assert {values.shape for values in result.measured.values()} == {(2, 5)}
    for name in set(first_universe) - set(result.observables):
        values = result.measured[name]
        assert values[1, 0] == pytest.approx(first_universe[name].item()), name
    assert result.measured["fidelity"][0].tolist() == pytest.approx([1] * 5)
    monkeypatch.setattr("atheria.measuring.CELLS_MEASURED_TOGETHER", 200)  # two universes
    in_turn = rollout(options).measured
    for name, values in in_turn.items():
        assert np.allclose(values, result.measured[name], atol=1e-12), name


@pytest.mark.parametrize("noise", [[], ["noise=thermal", "noise.level=0.3"]], ids=["quiet", "noise"])
def test_the_drift_of_a_step_is_reported_beside_that_from_the_start(
    in_run_folder: TrainedRun, noise: list[str]
) -> None:
    options = [f"law={in_run_folder.law}", "steps=40", "frames=3", "universes=2", *noise]
    result = rollout([*options, "observe_every=1"])
    energy, shown = result.observables["energy"], [frame.step for frame in result.frames]
    assert shown == [0, 20, 40]
    changes = np.abs(np.diff(energy, axis=0)) / energy[:-1]
    np.testing.assert_allclose(result.measured["step_drift"][1:], changes[[19, 39]], rtol=1e-9)
    assert result.measured["step_drift"][0].tolist() == [0, 0]
    assert (result.measured["norm_drift"][1:] > 2 * result.measured["step_drift"][1:]).all()
    seldom = rollout([*options, "observe_every=7"])  # not at the frame in the middle
    assert np.array_equal(seldom.measured["step_drift"], result.measured["step_drift"])


def test_options_reach_the_engine(in_run_folder: TrainedRun, capsys: pytest.CaptureFixture[str]) -> None:
    law = f"law={in_run_folder.law}"
    plain = rollout([law, "steps=3"])
    assert plain.run_id is None
    assert plain.psi.shape == (1, 4, 8, 8)  # the training grid
    for option in ("physics.gamma=0.5", "noise=phase_flip", "initial_state=gaussian", "seed=1"):
        assert not np.array_equal(rollout([law, "steps=3", option]).psi, plain.psi)
    printed = capsys.readouterr().out
    assert "compiled on cpu" in printed
    assert "position_entropy" in printed
    rollout([law, "steps=3", "backend=torchscript"])
    assert "torchscript on cpu" in capsys.readouterr().out


def test_threads_are_named_where_they_compute() -> None:
    info = {"backend": "torchscript", "device": "cuda:0", "threads": 2, "precision": "fp32"}
    assert engine_line(info) == "torchscript on cuda:0"
    assert "threads" not in computed_by(info)
    on_cpu = {**info, "backend": "compiled", "device": "cpu"}
    assert engine_line(on_cpu) == "compiled on cpu, 2 threads"
    assert computed_by(on_cpu) == on_cpu


def test_no_rollout_overwrites_another(in_run_folder: TrainedRun) -> None:
    law = f"law={in_run_folder.law}"
    options = [
        [],
        ["physics.gamma=0.5"],
        ["noise=seed"],
        ["initial_state=zeros"],
        ["universes=2"],
        ["seed=1"],
    ]
    folders = {rollout([law, "steps=2", *option]).folder for option in options}
    assert len(folders) == len(options)


def test_a_rollout_goes_on_bit_for_bit(in_run_folder: TrainedRun, capsys: pytest.CaptureFixture[str]) -> None:
    law = [f"law={in_run_folder.law}", "physics.fire_rate=0.5"]
    start = ["grid=[8,12]", "universes=2", "seed=3", "noise=phase_flip", "noise.level=0.1"]
    whole = rollout([*law, *start, "steps=9", "frames=4"])
    begun = rollout([*law, *start, "steps=6"])
    last = [*law, f"resume={begun.folder / 'universe.npz'}", "steps=3", "observe_every=2", "frames=2"]
    rest = rollout(last)
    assert np.array_equal(rest.psi, whole.psi)
    assert rest.steps.tolist() == [6, 8, 9]
    assert [frame.step for frame in rest.frames] == [6, 9]
    assert np.array_equal(rest.frames[0].psi, begun.psi[0])
    assert np.array_equal(rest.observables["energy"][-1], whole.observables["energy"][-1])
    assert np.array_equal(rest.measured["step_drift"][-1], whole.measured["step_drift"][-1])
    assert (rest.measured["step_drift"][0] == 0).all()
    assert "universe.npz, at step 6" in capsys.readouterr().out
    engine = Engine()
    engine.load_model(in_run_folder.law)
    engine.restore(rest.universe)
    assert engine.step_count == 9
    again = rollout(last)  # of another universe it would lie elsewhere
    assert again.folder == rest.folder
    assert rollout([*last[:2], f"resume={rest.folder / 'universe.npz'}", *last[3:]]).folder != rest.folder


def test_a_rollout_goes_on_from_its_folder_and_says_what_changes(
    in_run_folder: TrainedRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    law = f"law={in_run_folder.law}"
    begun = rollout([law, "steps=2", "noise=phase_flip", "noise.level=0.1", "seed=3"])
    rest = rollout([law, "steps=1", f"resume={begun.folder}"])
    printed = capsys.readouterr()
    assert "universe.npz, at step 2; seed 3, noise phase_flip at 0.1" in printed.out
    assert "that universe" not in printed.err
    assert json.loads((rest.folder / "rollout.json").read_text())["noise"] == {
        "name": "phase_flip",
        "level": 0.1,
    }
    other = tmp_path / "other.pt"
    export(["model=mlp", "model.d_state=2", "model.hidden_channels=4", f"output={other}"])
    rollout([f"law={other}", "steps=1", f"resume={begun.folder}", "physics.gamma=0.5"])
    said = capsys.readouterr().err
    assert (
        "until step 2 that universe was of law unet, gamma 0.01; it goes on with law mlp, gamma 0.5" in said
    )
    for damaged in ("{", "[]", '{"law": "mlp"}'):
        (begun.folder / "rollout.json").write_text(damaged)
        with pytest.raises(UserError, match="rollout.json' is not what a rollout wrote: .*; remove it"):
            rollout([law, f"resume={begun.folder}"])
    (begun.folder / "rollout.json").unlink()
    with pytest.raises(UserError, match="got its field; give '.*universe.npz'"):
        rollout([law, f"resume={begun.folder / 'field.npz'}"])
    for given in ("seed=0", "universes=1"):
        name = given.partition("=")[0]
        with pytest.raises(UserError, match=f"`{name}` is that of the universe which `resume` goes on with"):
            rollout([law, f"resume={begun.folder}", given])


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_rollout_leaves_all_that_it_has(in_run_folder: TrainedRun, ended_by: int) -> None:
    law = f"law={in_run_folder.law}"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "atheria.rollout",
            law,
            "steps=100000000",
            "observe_every=1000",
            "film=gif",
            "film_every=1000000",
        ],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("engine"):
        pass
    time.sleep(1)
    process.send_signal(ended_by)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    step = int(re.search(r"stopped   interrupted at step (\d+)", printed)[1])
    folder = Path(re.search(r"universe  (.*)/universe.npz, which", printed)[1])
    assert {"field.npz", "strip.png", "film.gif", "rollout.json"} <= {file.name for file in folder.iterdir()}
    said = json.loads((folder / "rollout.json").read_text())
    assert (said["last_step"], said["stopped"]) == (step, f"interrupted at step {step}")
    assert folder.name.endswith(f"-step{step}")  # where no finished rollout lies
    rest = rollout([law, f"resume={folder}", "steps=5"])
    whole = rollout([law, f"steps={step + 5}", "observe_every=1000000"])
    assert np.array_equal(rest.psi, whole.psi)


def test_an_interrupted_rollout_is_logged_as_killed(
    in_run_folder: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("atheria.progress.Progress.advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rollout([f"run_id={in_run_folder.run_id}", "steps=3", "seed=9"])
    client = MlflowClient(in_run_folder.tracking_uri)
    (run,) = client.search_runs(["1"], "attributes.run_name LIKE 'rollout-3-%-seed9'")
    assert run.info.status == "KILLED"
    assert "rollout/field.npz" in {file.path for file in client.list_artifacts(run.info.run_id, "rollout")}


def test_a_rollout_ends_where_nothing_happens_any_more(in_run_folder: TrainedRun, tmp_path: Path) -> None:
    law = [f"law={in_run_folder.law}", "grid=8", "observe_every=7", "frames=3"]
    fading = rollout([*law, "steps=1000", "stop=extinction", "physics.gamma=0.9", "physics.epsilon=1"])
    assert fading.stopped == f"extinct at step {fading.steps[-1]}"
    assert 0 < fading.steps[-1] < 1000
    assert fading.observables["occupancy"][-1] == 0 < fading.observables["occupancy"][-2]
    on_a_mark = rollout(
        [
            *law,
            "steps=50",
            "stop=extinction",
            "physics.gamma=0.9",
            "physics.epsilon=1",
            "observe_every=50",
            "film=gif",
            "film_every=1",
        ]
    )
    assert on_a_mark.stopped == fading.stopped
    assert on_a_mark.steps.tolist() == [0, fading.steps[-1]]
    assert on_a_mark.observables["occupancy"][-1] == 0
    assert on_a_mark.frames[-1].step == fading.steps[-1]
    with pytest.raises(UserError, match="`stop` fixed_point needs a step without chance"):
        rollout([*law, "stop=fixed_point", "physics.fire_rate=0.5"])
    still = rollout(
        [*law, "steps=1000", "stop=[extinction,fixed_point]", "initial_state=zeros", "universes=2"]
    )
    assert (still.stopped, still.steps.tolist()) == ("extinct at step 0", [0])
    silent = make_law("mlp")
    for parameter in silent.parameters():
        torch.nn.init.zeros_(parameter)
    export_law(silent, origin_of("mlp"), tmp_path / "silent.pt")
    fixed = rollout([f"law={tmp_path}/silent.pt", "stop=fixed_point", "steps=50"])
    assert (fixed.stopped, fixed.steps.tolist()) == ("a fixed point at step 1", [0, 1])


def test_a_rollout_that_goes_on_is_logged_from_there_on(in_run_folder: TrainedRun) -> None:
    run = [f"run_id={in_run_folder.run_id}", "steps=2", "observe_every=1"]
    begun = rollout([*run, "seed=7"])
    rest = rollout([*run, f"resume={begun.folder / 'universe.npz'}"])
    client = MlflowClient(in_run_folder.tracking_uri)
    history = client.get_metric_history(rest.run_id, "rollout/energy")
    assert [metric.step for metric in history] == [2, 3, 4]
    logged = client.get_run(rest.run_id)
    assert logged.info.run_name == "rollout-2-8x8-seed7"
    assert logged.data.params["first_step"] == "2"


def test_a_field_from_a_file(in_run_folder: TrainedRun, tmp_path: Path) -> None:
    psi = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    np.save(tmp_path / "start.npy", psi)
    result = rollout(
        [
            f"law={in_run_folder.law}",
            "steps=1",
            "initial_state=file",
            f"initial_state.path={tmp_path}/start.npy",
        ]
    )
    assert np.array_equal(result.frames[0].psi, psi[0])


def test_a_field_that_explodes_leaves_what_was_there(in_run_folder: TrainedRun, tmp_path: Path) -> None:
    np.save(tmp_path / "huge.npy", np.full((1, 4, 8, 8), 3e19, np.float32))
    result = rollout(
        [
            f"law={in_run_folder.law}",
            "steps=5",
            "physics.normalise=cell",  # whose energy is beyond float32
            "initial_state=file",
            f"initial_state.path={tmp_path}/huge.npy",
        ]
    )
    assert "stopped being finite at step 1" in result.stopped
    assert result.steps.tolist() == [0]
    assert (result.folder / "field.npz").is_file()


def test_the_law_is_fetched_once_and_verified(in_run_folder: TrainedRun) -> None:
    run = in_run_folder
    cached = law_of_run(run.run_id)
    assert cached.is_relative_to(cache_folder())
    assert sha256(cached) == sha256(run.law)
    first = cached.stat().st_mtime_ns
    assert law_of_run(run.run_id) == cached
    assert cached.stat().st_mtime_ns == first
    cached.write_bytes(b"damaged in the cache")
    assert sha256(law_of_run(run.run_id)) == sha256(run.law)


@pytest.fixture
def own_run(ready_store: None) -> TrainedRun:
    """A run of this test alone, whose store may be damaged."""
    return train([*SMALL, "model=mlp", "trainer.episodes=1"])


def test_a_law_that_was_changed_on_the_store_is_refused(own_run: TrainedRun) -> None:
    stored = next(Path("outputs/mlartifacts").rglob("law/law.pt"))
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    store = "sqlite:///outputs/mlflow.db"
    anew = f"export it anew: python -m atheria.export run_id={own_run.run_id} tracking.uri={store}"
    with pytest.raises(UserError, match=rf"was changed after its export: its digest is [^\0]*{anew}"):
        Engine.from_run(own_run.run_id, store)
    assert not list(cache_folder().rglob("*.pt"))


def test_runs_that_cannot_be_rolled_out(own_run: TrainedRun) -> None:
    with pytest.raises(UserError, match="there is no run 'f00' in sqlite:///outputs/mlflow.db"):
        from_run("f00")
    with pytest.raises(UserError, match="there is no store"):
        Engine.from_run(own_run.run_id, "sqlite:///elsewhere.db")
    assert not Path("elsewhere.db").exists()
    with pytest.raises(
        UserError, match=f"there is no run '{own_run.run_id[:7]}' .*; did you mean {own_run.run_id}"
    ):
        from_run(own_run.run_id[:7])
    client = MlflowClient(store_uri(None))
    bare = client.create_run("1")
    with pytest.raises(
        UserError, match="has no exported law .*; export it: python -m atheria.export run_id="
    ):
        from_run(bare.info.run_id)
    child = rollout([f"run_id={own_run.run_id}", "steps=1"])
    with pytest.raises(UserError, match=f"it is a child of the run that has one: run_id={own_run.run_id}"):
        from_run(child.run_id)
    client.set_tag(bare.info.run_id, LAW_DIGEST_TAG, "0" * 64)
    lost = r"has no artifact 'law/law.pt' in .*, where 'law' holds nothing[^\0]*export it anew: python -m"
    with pytest.raises(UserError, match=lost):
        from_run(bare.info.run_id)
    client.set_tag(bare.info.run_id, LAW_DIGEST_TAG, "../../etc/passwd")
    with pytest.raises(UserError, match="has no exported law"):
        from_run(bare.info.run_id)
    with pytest.raises(ValueError, match="the law has `d_state`=2, the engine was made with 8"):
        from_run(own_run.run_id, d_state=8)
    client.delete_run(own_run.run_id)
    with pytest.raises(
        UserError, match=f"was deleted; bring it back: mlflow runs restore --run-id {own_run.run_id}"
    ):
        from_run(own_run.run_id)


def test_a_rollout_that_does_not_fit_says_so_and_logs_nothing(in_run_folder: TrainedRun) -> None:
    client = MlflowClient(in_run_folder.tracking_uri)
    before = len(client.search_runs(["1"]))
    for options, message in (
        (["grid=10"], "`grid` must be positive multiples of the law's stride 4, got 10 x 10"),
        (["noise=seed", "noise.level=3"], "`noise.level` must be less than or equal to 1"),
        (["noise.level=0.5"], "`noise.level` needs a channel"),
        (["physics.boundary=zeros"], "`physics.boundary` is baked into the law as 'torus'"),
        (["device=tpu"], "`device` must be cpu"),
        (
            ["resume=gone.npz"],
            "`resume` must be the universe.npz of a rollout, or its folder, got 'gone.npz', where",
        ),
        (["resume=gone.npz", "grid=16"], "`grid` is that of the universe which `resume` goes on with"),
        (["resume=gone.npz", "noise=seed"], "`noise` is that of the universe"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            rollout([f"run_id={in_run_folder.run_id}", "steps=2", *options])
    assert len(client.search_runs(["1"])) == before


@pytest.mark.parametrize("output", [[], ["output=another-name.pt"]])
def test_a_run_exports_anew(own_run: TrainedRun, output: list[str]) -> None:
    path = export([f"run_id={own_run.run_id}", "physics.gamma=0.25", *output])
    run = MlflowClient(store_uri(None)).get_run(own_run.run_id)
    assert run.data.tags[LAW_DIGEST_TAG] == sha256(path)
    assert from_run(own_run.run_id).info()["gamma"] == 0.25


def failed_since(client: MlflowClient, before: set[str]) -> list[Run]:
    """The runs that there were not before; all of them have failed, and say why."""
    new = [run for run in client.search_runs(["1"]) if run.info.run_id not in before]
    for run in new:
        assert run.info.status == "FAILED"
        assert "output=" in run.data.tags["atheria.error"]
    return new


def test_a_rollout_that_the_disk_has_no_room_for_is_printed_and_said_to_have_failed(
    in_run_folder: TrainedRun, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(in_run_folder.tracking_uri)
    before = {run.info.run_id for run in client.search_runs(["1"])}
    for name in (f"run_id={in_run_folder.run_id}", f"law={in_run_folder.law}"):
        with pytest.raises(UserError, match=rf"{small_disk}/.* No space left on device; .* output="):
            rollout([name, "steps=2", "grid=512", f"output={small_disk}"])
        assert "position_entropy" in capsys.readouterr().out
    assert len(failed_since(client, before)) == 1


@pytest.mark.parametrize("pages", [0, 2, 3, 4, 5, 6])
def test_a_rollout_onto_a_full_disk_has_failed_in_the_store(
    in_run_folder: TrainedRun, small_disk: Path, pages: int
) -> None:
    client = MlflowClient(in_run_folder.tracking_uri)
    before = {run.info.run_id for run in client.search_runs(["1"])}
    disk = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes((disk.f_bavail - pages) * disk.f_frsize))
    with pytest.raises(UserError, match=rf"{small_disk}/.* No space left on device; .* output="):
        rollout([f"run_id={in_run_folder.run_id}", "steps=2", f"output={small_disk}"])
    assert len(failed_since(client, before)) == 1


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_film_that_the_disk_has_no_room_for_costs_the_film_alone(
    in_run_folder: TrainedRun, small_disk: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"run_id={in_run_folder.run_id}", "steps=100", "grid=64", f"film={kind}", "film_every=1"]
    options += ["view=phase", "noise=depolarising", "noise.level=0.5"]
    roomy = rollout(options)
    film = roomy.film.stat().st_size
    others = sum((roomy.folder / name).stat().st_size for name in ("field.npz", "strip.png"))
    disk = os.statvfs(small_disk)
    filled = disk.f_bavail * disk.f_frsize - others - film // 2
    (small_disk / "filler").write_bytes(bytes(max(filled, 0)))
    result = rollout([*options, f"output={small_disk}"])
    assert result.film is None
    assert result.steps[-1] == 100
    assert {file.name for file in result.folder.iterdir()} >= {"field.npz", "strip.png"}
    assert not [*result.folder.glob("*film*"), *result.folder.glob(".*")]
    assert "the film could not be written to" in capsys.readouterr().err
