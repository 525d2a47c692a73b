"""Rollouts of unbounded universes: the command, its files, its film, and what it measures."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from atheria_core import Engine
from mlflow import MlflowClient
from PIL import Image

from atheria import observables, scattered
from atheria.config import PhysicsConfig, UserError
from atheria.rolling import Rollout
from atheria.rollout import rollout
from atheria.scattered import Box, Cells
from atheria.train import train

from .conftest import SMALL

SIDE, MATTER = 48, 8
STEPS = 9
PHYSICS = PhysicsConfig(gamma=0.05, epsilon=0.0, normalise="none", fire_rate=0.7, boundary="torus")


@pytest.fixture
def law(exported: Callable) -> str:
    """The override that names a law that spreads matter by a cell a step."""
    _, path = exported("nca", PHYSICS)
    return f"law={path}"


def amid_a_grid(universes: int, seed: int = 0) -> np.ndarray:
    """Scattered matter, far enough from the edge for STEPS steps."""
    rng = np.random.default_rng(seed)
    psi = np.zeros((universes, 4, SIDE, SIDE), np.float32)
    place = slice((SIDE - MATTER) // 2, (SIDE + MATTER) // 2)
    psi[:, :, place, place] = rng.normal(size=(universes, 4, MATTER, MATTER)) * (
        rng.random((universes, 1, MATTER, MATTER)) < 0.3
    )
    return psi


def on_grid(cells: Cells, side: int = SIDE) -> np.ndarray:
    return scattered.draw(cells, Box(0, 0, side, side), 1)


@pytest.mark.parametrize("noise", [[], ["noise=depolarising", "noise.level=0.3"]], ids=["quiet", "noise"])
def test_unbounded_is_a_grid_that_is_large_enough(law: str, tmp_path: Path, noise: list[str]) -> None:
    psi = amid_a_grid(2)
    np.save(tmp_path / "start.npy", psi)
    options = [law, f"steps={STEPS}", "universes=2", "seed=11", "observe_every=4", "frames=2", *noise]
    options += ["initial_state=file", f"initial_state.path={tmp_path}/start.npy"]
    dense, free = rollout([*options, f"grid={SIDE}"]), rollout([*options, "grid=unbounded"])
    assert free.psi is None
    for universe, cells in enumerate(free.cells):
        occupied = (dense.psi[universe] != 0).any(axis=0)
        assert sorted(map(tuple, cells.coordinates)) == sorted((x, y) for y, x in np.argwhere(occupied))
        np.testing.assert_allclose(on_grid(cells), dense.psi[universe], atol=1e-5)
    assert np.ptp(free.cells[0].coordinates) > MATTER  # it has spread
    assert free.steps.tolist() == dense.steps.tolist()
    for name in ("energy", "position_entropy", "ipr"):
        np.testing.assert_allclose(free.observables[name], dense.observables[name], rtol=1e-4)
    np.testing.assert_allclose(free.observables["occupancy"], dense.observables["occupancy"] * SIDE**2)
    # What only Python measures is of the same fields as what the engine does.
    drift = np.abs(dense.observables["energy"] / dense.observables["energy"][0] - 1)
    np.testing.assert_allclose(dense.measured["norm_drift"], drift[[0, -1]], rtol=1e-4, atol=1e-6)
    assert set(dense.measured) - set(free.measured) == {
        "symmetry_score",
        "zlib_complexity",
        "lmc_complexity",
        "spectral_entropy",
    }
    for name, values in free.measured.items():
        np.testing.assert_allclose(values, dense.measured[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_it_starts_from_is_drawn_on_its_extent(law: str) -> None:
    options = [law, "steps=2", "frames=2", "seed=5", "initial_state=soup", "universes=2"]
    small = rollout([*options, "grid=12"])
    free = rollout([*options, "grid=unbounded", "extent=12"])
    np.testing.assert_allclose(free.observables["energy"][0], small.observables["energy"][0])
    by_hand = Engine()
    by_hand.load_model(law.removeprefix("law="))
    by_hand.reset("soup", 5, None, 2, extent=(12, 12))
    by_hand.step_native(2)
    for universe, cells in enumerate(free.cells):
        coordinates, amplitudes = by_hand.cells(universe)
        assert np.array_equal(cells.coordinates, coordinates)
        assert np.array_equal(cells.amplitudes, amplitudes)
    unasked = rollout([*options, "grid=unbounded"]).observables["energy"][0]
    np.testing.assert_allclose(unasked, rollout(options).observables["energy"][0])  # of the training grid


def test_the_film_holds_all_matter(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = rollout([law, f"steps={STEPS}", "grid=unbounded", "extent=[20,30]", "initial_state=soup"])
    last = result.frames[-1]
    assert last.psi.shape[1:] == (20 + 2 * STEPS, 30 + 2 * STEPS)
    assert {frame.psi.shape for frame in result.frames} == {last.psi.shape}
    assert (last.psi != 0).any(axis=0).sum() == len(result.cells[0].coordinates)
    assert np.square(last.psi, dtype=np.float64).sum() == pytest.approx(result.observables["energy"][-1, 0])
    assert not result.frames[0].psi[:, :STEPS].any()
    assert "brightest" not in capsys.readouterr().out
    wide = rollout([law, "steps=1", "grid=unbounded", "extent=1000", "initial_state=particles"])
    assert wide.cells_a_pixel == 7
    assert wide.frames[0].psi.shape[1:] == (143, 143)
    assert "brightest of 7 x 7 cells" in capsys.readouterr().out


def test_a_pixel_is_its_brightest_cell() -> None:
    coordinates = np.array([[-5, 7], [-4, 7], [-3, 8], [10, 20]])
    psi = np.array([[1, 0], [3, 1], [-2, 0], [0.5, 0.5]], np.float32)
    cells = Cells(coordinates, psi)
    box = Box.of(cells)
    assert box == Box(-5, 7, 16, 14)
    frame = scattered.draw(cells, box, 4)
    assert frame.shape == (2, 4, 4)
    assert frame[:, 0, 0].tolist() == [3, 1]
    assert frame[:, 3, 3].tolist() == [0.5, 0.5]
    assert (frame != 0).any(axis=0).sum() == 2


def test_measured_without_a_grid_as_on_one() -> None:
    fields = [torch.from_numpy(amid_a_grid(1, seed)) for seed in (1, 2)]
    before, now = (scattered._of_field(field.numpy())[0] for field in fields)
    on_a_grid = observables.measure(fields[1], torus=False) | observables.compare(*fields)
    far = Cells(now.coordinates + np.array([2**60, -(2**60)]), now.psi)
    measured = scattered.measure(far) | scattered.compare(before, now)
    for name, value in measured.items():
        assert value == pytest.approx(on_a_grid[name].item(), rel=1e-9), name
    assert scattered.compare(before, far)["fidelity"] == 0
    nothing = Cells(np.zeros((0, 2), np.int64), np.zeros((0, 4), np.float32))
    assert set(scattered.measure(nothing).values()) == {0.0}
    assert scattered.compare(before, nothing) == {"norm_drift": 1.0, "fidelity": 0.0}
    assert scattered.compare(nothing, before) == {"norm_drift": 0.0, "fidelity": 0.0}
    assert scattered.draw(nothing, Box.of(nothing), 1).shape == (4, 1, 1)


def test_its_file_starts_another(exported: Callable) -> None:
    _, path = exported("nca")  # without chance
    options = [
        f"law={path}",
        "grid=unbounded",
        "initial_state=particles",
        "universes=3",
        "extent=40",
        "frames=2",
    ]
    whole, half = rollout([*options, "steps=7"]), rollout([*options, "steps=3"])
    file = half.folder / "field.npz"
    with np.load(file, allow_pickle=False) as content:
        assert "psi" not in content
        assert content["coordinates"].dtype == np.int64
        assert content["amplitudes"].dtype == np.float32
        assert content["counts"].tolist() == [len(cells.coordinates) for cells in half.cells]
        assert np.array_equal(content["amplitudes"], np.concatenate([cells.psi for cells in half.cells]))
        assert content["evaluated_cells"].tolist() == half.evaluated_cells.tolist()
        assert content["observable_occupancy"][-1].tolist() == content["counts"].tolist()
    options = [f"law={path}", "grid=unbounded", "initial_state=file", f"initial_state.path={file}"]
    continued = rollout([*options, "universes=3", "steps=4", "frames=2"])
    for expected, cells in zip(whole.cells, continued.cells, strict=True):
        assert np.array_equal(cells.coordinates, expected.coordinates)
        assert np.array_equal(cells.psi, expected.psi)
    with pytest.raises(UserError, match="a file says where its cells are: leave it out"):
        rollout([*options, "steps=1", "extent=8"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"psi": np.zeros((1, 4, 8, 8))}, "a field must be float32"),
        ({"psi": np.zeros((1, 6, 8, 8), np.float32)}, "the law's 2 components, those in .* have 3"),
        ({"phi": np.zeros(1)}, "psi"),
        (
            {
                "coordinates": np.zeros((2, 2), np.int64),
                "amplitudes": np.zeros((2, 4), np.float32),
                "counts": np.array([1]),
            },
            "there are 2 places",
        ),
        (
            {
                "coordinates": np.zeros((1, 2)),
                "amplitudes": np.zeros((1, 4), np.float32),
                "counts": np.array([1]),
            },
            "must be int64, float32, int64",
        ),
    ],
)
def test_files_that_hold_no_cells(law: str, tmp_path: Path, content: dict, message: str) -> None:
    np.savez(tmp_path / "start.npz", **content)
    path = f"initial_state.path={tmp_path}/start.npz"
    with pytest.raises(UserError, match=message):
        rollout([law, "steps=1", "grid=unbounded", "initial_state=file", path])


def test_cells_are_counted(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = rollout([law, "steps=4", "grid=unbounded", "initial_state=particles", "universes=2"])
    printed = capsys.readouterr().out
    occupied = sum(len(cells.coordinates) for cells in result.cells)
    assert f"cells     {occupied} occupied, {result.evaluated_cells[-1]} evaluated" in printed
    assert "2 x unbounded" in printed
    assert result.evaluated_cells[-1] >= occupied
    assert (np.diff(result.evaluated_cells) > 0).all()


@pytest.mark.usefixtures("ready_store")
def test_it_is_logged_as_a_child() -> None:
    run = train([*SMALL, "model=nca", "model.bias=false", "trainer.episodes=1"])
    result = rollout([f"run_id={run.run_id}", "steps=3", "grid=unbounded", "extent=[8,12]", "universes=2"])
    client = MlflowClient(run.tracking_uri)
    child = client.get_run(result.run_id)
    assert child.data.params["grid"] == "unbounded"
    assert child.data.params["extent"] == "[8, 12]"
    assert child.data.tags["mlflow.parentRunId"] == run.run_id
    assert child.info.run_name == "rollout-3-unbounded-seed0"
    history = client.get_metric_history(result.run_id, "rollout/evaluated_cells")
    assert [metric.value for metric in history] == result.evaluated_cells.tolist()
    assert "rollout/von_neumann_entropy" in child.data.metrics
    assert {f.path for f in client.list_artifacts(result.run_id, "rollout")} == {"rollout/field.npz"}
    assert Image.open(result.folder / "strip.png").width > 500


def refused(*options: str) -> str:
    with pytest.raises(UserError) as refusal:
        rollout(["steps=1", *options])
    return str(refusal.value)


def test_laws_that_cannot_say_why_and_what_helps(exported: Callable) -> None:
    for name, reason in (
        ("unet", "it is not known to be local. A GroupNorm looks at the whole grid: train with"),
        ("unet_convlstm", "it has a memory"),
        ("mlp", "it makes matter of vacuum, of norm "),
    ):
        _, path = exported(name)
        message = refused(f"law={path}", "grid=unbounded")
        assert message.startswith("this law cannot run in an unbounded universe: " + reason)
        assert "or give a grid" in message or "; give a grid" in message
    # A threshold above what the law makes of vacuum is one of the remedies.
    result: Rollout = rollout([f"law={path}", "grid=unbounded", "steps=1", "frames=2", "physics.epsilon=10"])
    assert result.psi is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["extent=8"], "`extent` is where an unbounded universe starts; add grid=unbounded"),
        (["grid=8", "extent=8"], "`extent` is where an unbounded universe starts; add grid=unbounded"),
        (["grid=unbounded", "extent=0"], "`extent` must be N or [height, width], each from 1 to 2147483648"),
        (["grid=unbounded", "extent=[1,2,3]"], "`extent` must be N or [height, width]"),
        (["grid=unbounded", "extent=100000"], "`extent` must be 1 to 65536 a side for soup"),
        (["grid=endless"], "`grid` must be N or [height, width], each from 1 to 65536, or unbounded"),
        (["grid=unbounded", "initial_state=file"], "`initial_state.path`"),
    ],
)
def test_settings_that_make_no_sense(law: str, options: list[str], message: str) -> None:
    assert re.search(re.escape(message), refused(law, *options))


def test_a_file_of_an_unbounded_universe_is_for_one(law: str) -> None:
    start = rollout([law, "steps=1", "grid=unbounded"])
    file = ["initial_state=file", f"initial_state.path={start.folder}/field.npz"]
    with pytest.raises(UserError, match=r"holds the cells of an unbounded universe; .*grid=unbounded"):
        rollout([law, "steps=1", "grid=32", *file])
    assert rollout([law, "steps=1", "grid=unbounded", *file]).cells


def test_an_unbounded_rollout_goes_on_bit_for_bit(law: str) -> None:
    start = ["grid=unbounded", "extent=16", "initial_state=particles", "universes=2", "seed=3"]
    whole = rollout([law, *start, "steps=6"])
    begun = rollout([law, *start, "steps=4"])
    rest = rollout([law, f"resume={begun.folder / 'universe.npz'}", "steps=2"])
    assert rest.psi is None
    assert rest.steps.tolist() == [4, 6]
    for cells, expected in zip(rest.cells, whole.cells, strict=True):
        assert np.array_equal(cells.coordinates, expected.coordinates)
        assert np.array_equal(cells.amplitudes, expected.amplitudes)
