"""Laws side by side: the right states, conditions, laws and figures, printed, drawn and logged."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from atheria import artifact, exporting, initial_state, laws
from atheria.comparison import Condition
from atheria.config import InitialStateConfig, PhysicsConfig, UserError
from atheria.evaluate import evaluate
from atheria.jobs.train import TrainedRun
from atheria.observables import compare, measure
from atheria.philox import Lattice
from atheria.physics import Dynamics
from atheria.responses import fresh_law, responses
from atheria.tables import as_text
from atheria.train import train
from atheria.trainer import Trainer

from .conftest import MODELS, PHYSICS, SMALL, make_law, origin_of, train_settings

QUICK = ["steps=6", "universes=2"]
PLAIN, NOISY = Condition((8, 8), "none", 0.0), Condition((8, 8), "seed", 0.05)
LARGER, LARGER_NOISY = Condition((16, 16), "none", 0.0), Condition((16, 16), "seed", 0.05)


@pytest.fixture(scope="module")
def evaluated(trained: TrainedRun):
    """The small run beside another law, evaluated from the folder of their store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained.folder.resolve().parents[2])
        other = train([*SMALL, "model=nca", "trainer.episodes=2", "seed=3"])
        return other, evaluate([f"run_id=[{trained.run_id},{other.run_id}]", *QUICK])


def test_each_law_is_rolled_out_in_each_condition(evaluated, in_run_folder: TrainedRun) -> None:
    other, result = evaluated
    assert [law.label.split()[1] for law in result.laws] == [in_run_folder.run_id[:8], other.run_id[:8]]
    assert [law.twin.label for law in result.laws] == ["untrained unet", "untrained nca"]
    for law in result.laws:
        assert list(law.curves) == [PLAIN, NOISY, LARGER, LARGER_NOISY]
        for condition, curves in law.curves.items():
            assert curves.steps.tolist() == [0, 1, 2, 3, 4, 5, 6]
            assert curves.values["energy"].shape == (7, 2)
            assert curves.frames[0].psi.shape == (4, *condition.grid)


def test_the_figures_are_those_of_the_law(evaluated, in_run_folder: TrainedRun) -> None:
    """Computed anew in Python, from the same states."""
    curves = evaluated[1].laws[0].curves[LARGER]
    state = artifact.as_checkpoint(in_run_folder.law)
    physics = PhysicsConfig(**state["config"]["physics"])
    law = laws.build(state["config"]["model"], physics.boundary).eval()
    law.load_state_dict(state["model_state_dict"])
    start = initial_state.make(
        InitialStateConfig("soup"), 2, Lattice(2, 16, 16, torch.device("cpu")), 1 << 61
    )
    assert np.array_equal(start[0], curves.frames[0].psi)
    dynamics = Dynamics(law, physics, 1 << 61)
    with torch.inference_mode():
        last = dynamics.rollout(dynamics.start(start), 6).psi
    expected = {**measure(last, torus=True), **compare(start, last)}
    for name in ("energy", "von_neumann_entropy", "fidelity", "radius_of_gyration", "symmetry_score"):
        assert curves.values[name][-1] == pytest.approx(expected[name].numpy(), rel=1e-4), name
    energy = curves.values["energy"]
    changes = np.abs(np.diff(energy, axis=0)) / energy[:-1]
    np.testing.assert_allclose(curves.values["step_drift"][1:], changes, rtol=1e-9)
    assert curves.values["step_drift"][0].tolist() == [0, 0]
    survival = (expected["energy"] / measure(start, torus=True)["energy"]).numpy()
    assert curves.values["survival"][-1] == pytest.approx(survival, rel=1e-5)


def test_the_states_are_seen_neither_in_training_nor_in_choosing_a_checkpoint(
    evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = initial_state.make
    monkeypatch.setattr(initial_state, "make", lambda *args: seen.append(original(*args)) or seen[-1])
    settings = train_settings()
    trainer = Trainer(laws.build(settings.model, "torus"), settings, torch.device("cpu"))
    for _ in range(3):
        trainer.train_episode()
    trainer.evaluate()
    list(trainer.held_out_rollout())
    unseen = evaluated[1].laws[0].curves[PLAIN].frames[0].psi
    known = [psi for batch in seen for psi in batch.numpy() if psi.shape == unseen.shape]
    assert len(known) > 8
    assert not any(np.array_equal(psi, unseen) for psi in known)


def test_all_laws_begin_alike_and_noise_makes_a_difference(evaluated) -> None:
    one, other = evaluated[1].laws
    for condition in (PLAIN, LARGER_NOISY):
        first = [law.curves[condition].frames[0].psi for law in (one, other, one.twin)]
        assert np.array_equal(first[0], first[1])
        assert np.array_equal(first[0], first[2])
    assert np.array_equal(one.curves[PLAIN].frames[0].psi, one.curves[NOISY].frames[0].psi)
    assert not np.array_equal(one.curves[PLAIN].frames[-1].psi, one.curves[NOISY].frames[-1].psi)
    assert not np.array_equal(one.curves[PLAIN].frames[-1].psi, one.twin.curves[PLAIN].frames[-1].psi)


@pytest.mark.usefixtures("ready_store")
def test_the_untrained_law_is_the_one_that_training_began_with() -> None:
    run = train([*SMALL, "model=mlp", "trainer.episodes=1", "seed=9", "trainer.lr=1e-30"])
    state = artifact.as_checkpoint(run.law)
    untrained = fresh_law(state["config"])
    for name, weights in untrained.state_dict().items():
        assert torch.allclose(weights, state["model_state_dict"][name], rtol=1e-6, atol=1e-12), name


def test_every_run_gets_a_child_with_its_figures(evaluated, in_run_folder: TrainedRun) -> None:
    other, result = evaluated
    client = MlflowClient(in_run_folder.tracking_uri)
    for run_id, law, parent in zip(result.run_ids, result.laws, (in_run_folder, other), strict=True):
        child = client.get_run(run_id)
        assert child.data.tags["mlflow.parentRunId"] == parent.run_id
        assert child.data.tags["atheria.kind"] == "evaluation"
        assert child.info.status == "FINISHED"
        history = client.get_metric_history(run_id, "evaluation/16x16-noise/fidelity")
        expected = law.curves[LARGER_NOISY].values["fidelity"].mean(axis=1)
        assert [point.value for point in history] == pytest.approx(expected.tolist())
        assert [point.step for point in history] == [0, 1, 2, 3, 4, 5, 6]
        metrics = child.data.metrics
        assert metrics["evaluation/lyapunov_exponent"] == pytest.approx(law.responses["lyapunov_exponent"])
        untrained = law.twin.curves[PLAIN].values["survival"][-1].mean()
        assert metrics["evaluation/untrained/8x8/survival"] == pytest.approx(untrained)
        assert {file.path for file in client.list_artifacts(run_id, "pictures")} == {
            "pictures/evaluation-8x8.png",
            "pictures/evaluation-16x16.png",
            "pictures/laws.png",
        }
        assert [file.path for file in client.list_artifacts(run_id, "evaluation")] == [
            "evaluation/evaluation.csv"
        ]


def test_the_table_has_every_law_condition_and_figure(evaluated) -> None:
    _, result = evaluated
    rows = list(csv.DictReader((result.folder / "evaluation.csv").read_text().splitlines()))
    law = result.laws[1]
    (row,) = (
        row
        for row in rows
        if (row["law"], row["condition"], row["observable"]) == (law.label, "16 x 16, seed at 0.05", "purity")
    )
    last = law.curves[LARGER_NOISY].values["purity"][-1]
    assert float(row["mean"]) == pytest.approx(last.mean())
    assert float(row["standard_deviation"]) == pytest.approx(last.std())
    assert row["step"] == "6"
    assert {row["law"] for row in rows} == {one.label for law in result.laws for one in (law, law.twin)}
    assert Image.open(result.folder / "laws.png").height > 4 * 2 * 150


def test_a_table_is_set_in_columns() -> None:
    rows = [["loss", "a", "bcd"], ["", "1 ± 0.1", "2"]]
    assert as_text(rows) == "loss  a        bcd\n      1 ± 0.1  2"
    assert as_text(rows, figures=True) == "loss        a  bcd\n      1 ± 0.1    2"


def test_files_are_evaluated_and_not_logged(
    in_run_folder: TrainedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    law = str(in_run_folder.law)
    result = evaluate([f"law={law}", "noise=none", "grid=12", *QUICK])
    assert result.run_ids == []
    assert [condition.key for condition in result.laws[0].curves] == ["8x8", "12x12"]
    printed = capsys.readouterr().out
    assert "12 x 12, no noise, step 6" in printed
    assert "untrained unet" in printed
    assert "equivariance/translation" in printed
    with pytest.raises(UserError, match="`grid` must be positive multiples of the law's stride 4"):
        evaluate([f"law={law}", "grid=10", *QUICK])


def test_files_of_the_same_name_are_told_apart(exported) -> None:
    for folder, name in (("r1", "mlp"), ("r2", "nca")):
        Path(folder).mkdir()
        exported(name)[1].rename(f"{folder}/law.pt")
    both = evaluate(["law=[r1/law.pt,r2/law.pt]", "noise=none", *QUICK])
    one = evaluate(["law=[r2/law.pt]", "noise=none", *QUICK])
    assert [law.label for law in both.laws] == ["r1/law.pt", "r2/law.pt"]
    assert [law.label for law in one.laws] == ["law"]
    assert one.folder != both.folder
    rows = csv.DictReader((both.folder / "evaluation.csv").read_text().splitlines())
    assert {"r1/law.pt", "r2/law.pt"} < {row["law"] for row in rows}


def test_a_field_that_explodes_ends_early_and_is_said_so(
    exported, capsys: pytest.CaptureFixture[str]
) -> None:
    physics = PhysicsConfig(gamma=0.0, epsilon=0.0, normalise="none", fire_rate=1.0, boundary="torus")
    law, path = exported("nca", physics)
    with torch.no_grad():
        for parameter in law.parameters():
            parameter *= 1e3
    exporting.export_law(law, origin_of("nca", physics), path)
    result = evaluate([f"law={path}", "steps=60", "noise=none", "universes=1"])
    (curves, _) = result.laws[0].curves.values()
    assert curves.steps[-1] < 60
    assert np.isfinite(curves.values["energy"]).all()
    assert "until step" in capsys.readouterr().out


def test_responses_of_laws_that_are_known() -> None:
    """The quantum walk is linear and unitary; a pointwise law lets no damage spread."""
    for name in ("quantum_walk", "mlp"):
        config = {"model": MODELS[name], "physics": vars(PHYSICS)}
        got = responses(make_law(name), config, InitialStateConfig("soup"), (12, 12), seed=1)
        assert got["equivariance/translation"] < 1e-5
        if name == "quantum_walk":
            assert got["unitarity_error"] < 1e-5
            assert got["lyapunov_exponent"] == pytest.approx(0, abs=1e-5)
            assert got["equivariance/u1"] < 1e-5
            assert got["equivariance/d4"] > 0.1
            assert got["damage/speed"] == pytest.approx(1)
        else:
            assert got["equivariance/d4"] < 1e-5
            assert got["damage/fraction"] <= 1 / 144
            assert got["damage/speed"] == 0
