"""Unbounded universes: dense = unbounded while matter stays away from the edge; memory follows matter."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from atheria_core import Engine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atheria import laws
from atheria.config import PhysicsConfig

from .conftest import plain_torchscript

PHYSICS = PhysicsConfig(gamma=0.05, epsilon=0.0, normalise="none", fire_rate=1.0, boundary="torus")
LOCAL = {
    "mlp": {"name": "mlp", "d_state": 4, "hidden_channels": 8, "bias": False},
    "deep_qca": {"name": "deep_qca", "d_state": 3, "hidden_channels": 16, "bias": False},
    "nca": {"name": "nca", "d_state": 4, "hidden_channels": 8, "bias": False},
    "quantum_walk": {"name": "quantum_walk", "d_state": 4},
    "unet pixel": {"name": "unet", "d_state": 2, "hidden_channels": 4, "norm": "pixel", "bias": False},
    "own filters": {"d_state": 3},
}
RADIUS = {"mlp": 0, "unet pixel": 31}
SEED = 2**63 + 7


class OwnFilters(torch.nn.Module):
    """A law that sums the neighbours of each number in a way of its own."""

    def __init__(self, d_state: int) -> None:
        super().__init__()
        self.filters = torch.nn.Parameter(0.3 * torch.randn(2 * d_state, 1, 3, 3))

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        around = torch.nn.functional.pad(psi, [1, 1, 1, 1], mode="circular")
        return torch.tanh(torch.nn.functional.conv2d(around, self.filters, groups=len(self.filters)))


class Drift(torch.nn.Module):
    """A law that moves all matter by (1, 1), or looks there and changes nothing."""

    def __init__(self, moves: bool) -> None:
        super().__init__()
        self.moves = moves
        filters = torch.zeros(8, 1, 3, 3)
        filters[:, :, 0, 0] = 1
        filters[:, :, 1, 1] = -1
        self.filters = torch.nn.Parameter(filters)

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        around = torch.nn.functional.pad(psi, [1, 1, 1, 1], mode="circular")
        change = torch.nn.functional.conv2d(around, self.filters, groups=len(self.filters))
        return change if self.moves else torch.relu(-change * change)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A law of each kind that moves matter about."""
    folder = tmp_path_factory.mktemp("laws")
    return {name: written(name, folder) for name in LOCAL}


def written(name: str, folder: Path) -> Path:
    torch.manual_seed(1)
    law = laws.build(LOCAL[name], "torus") if "name" in LOCAL[name] else OwnFilters(**LOCAL[name])
    if "hidden_channels" in LOCAL[name]:
        weights = [p for p in law.parameters() if p.requires_grad and p.dim() == 4]
        torch.nn.init.normal_(weights[-1], std=0.2)
    law.receptive_radius = RADIUS.get(name, 1)
    return plain_torchscript(law, folder / f"{name.replace(' ', '_')}.pt")


def make(path: Path, name: str, backend: str, physics: dict) -> Engine:
    engine = Engine(d_state=LOCAL[name]["d_state"], backend=backend)
    engine.load_model(path, physics)
    engine.seed = SEED
    return engine


def particles(rng: np.random.Generator, d_state: int, count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct cells of a square, and their amplitudes."""
    flat = rng.choice(side * side, count, replace=False)
    where = np.stack([flat % side, flat // side], 1).astype(np.int64)
    amplitudes = rng.standard_normal((count, d_state)) + 1j * rng.standard_normal((count, d_state))
    return where, (0.5 * amplitudes).astype(np.complex64)


def dense(where: np.ndarray, amplitudes: np.ndarray, margin: int, side: int) -> np.ndarray:
    """The same matter amid a grid, `margin` cells from its edge."""
    d_state = amplitudes.shape[1]
    psi = np.zeros((1, 2 * d_state, side + 2 * margin, side + 2 * margin), np.float32)
    for (x, y), amplitude in zip(where, amplitudes, strict=True):
        psi[0, :d_state, y + margin, x + margin] = amplitude.real
        psi[0, d_state:, y + margin, x + margin] = amplitude.imag
    return psi


@pytest.mark.parametrize("name", LOCAL)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    epsilon=st.sampled_from([0.0, 0.1]),
    normalise=st.sampled_from(["none", "cell", "global"]),
    noise=st.sampled_from(["none", "depolarising", "thermal"]),
    fire_rate=st.sampled_from([1.0, 0.5]),
)
def test_dense_and_unbounded_agree(
    files: dict[str, Path],
    name: str,
    seed: int,
    epsilon: float,
    normalise: str,
    noise: str,
    fire_rate: float,
) -> None:
    physics = {"gamma": 0.05, "epsilon": epsilon, "normalise": normalise, "fire_rate": fire_rate}
    steps, side = (1, 4) if name == "unet pixel" else (3, 8)
    radius = RADIUS.get(name, 1)
    margin = (steps + 1) * radius // 4 * 4 + 4
    rng = np.random.default_rng(seed)
    where, amplitudes = particles(rng, LOCAL[name]["d_state"], 3, side)
    grid = make(files[name], name, "fastest", physics)
    unbounded = make(files[name], name, "fastest", physics)
    grid.set_state(dense(where, amplitudes, margin, side))
    unbounded.set_cells(where + margin, amplitudes)  # randomness depends on the coordinates
    for engine in (grid, unbounded):
        engine.seed = SEED
        engine.set_noise(noise, 0.1 if noise != "none" else 0.0)
    for _ in range(steps):
        grid.step_native()
        unbounded.step_native()
    expected = grid.state()[0]
    size = expected.shape[1]
    got = unbounded.window(0, 0, size, size)
    scale = max(1.0, np.abs(expected).max())
    wrong = np.abs(got - expected).max(axis=0) > 1e-5 * scale
    assert wrong.sum() <= (0 if epsilon == 0 else 1)  # a cell within rounding of the threshold
    assert unbounded.info()["universe"] == "unbounded"


@pytest.mark.parametrize("origin", [(0, 0), (-(2**40) - 3, 2**40 + 5), (2**61 + 1, -(2**61) - 1)])
def test_places_far_away_are_like_any_other(files: dict[str, Path], origin: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    where, amplitudes = particles(rng, 3, 12, 20)
    near = make(files["deep_qca"], "deep_qca", "compiled", {"gamma": 0.05})
    near.set_cells(where, amplitudes)
    near.step_native(3)
    far = make(files["deep_qca"], "deep_qca", "compiled", {"gamma": 0.05})
    far.set_cells(where + np.array(origin), amplitudes)
    far.step_native(3)
    np.testing.assert_array_equal(
        far.window(origin[0] - 4, origin[1] - 4, 30, 30), near.window(-4, -4, 30, 30)
    )


def test_a_snapshot_brings_every_cell_back(files: dict[str, Path]) -> None:
    rng = np.random.default_rng(5)
    where, amplitudes = particles(rng, 3, 30, 20)
    engine = make(files["deep_qca"], "deep_qca", "compiled", {"gamma": 0.05, "fire_rate": 0.5})
    engine.set_cells(where, amplitudes)
    engine.set_noise("depolarising", 0.2)
    engine.step_native(2)
    kept = engine.snapshot()
    engine.step_native(3)
    expected = engine.window(-10, -10, 40, 40)
    engine.reset("zeros", 0, None)
    engine.restore(kept)
    engine.step_native(3)
    np.testing.assert_array_equal(engine.window(-10, -10, 40, 40), expected)


def test_matter_that_dies_leaves_nothing(files: dict[str, Path]) -> None:
    engine = make(files["mlp"], "mlp", "compiled", {"epsilon": 1e6})
    rng = np.random.default_rng(6)
    engine.set_cells(*particles(rng, 4, 30, 100))
    assert engine.info()["evaluated_cells"] == 30
    assert engine.step_native() == 0
    engine.step_native()
    assert engine.info()["evaluated_cells"] == 0


def drifting(moves: bool, folder: Path) -> Engine:
    law = Drift(moves)
    law.receptive_radius = 1
    engine = Engine(d_state=4, backend="compiled")
    engine.load_model(plain_torchscript(law, folder / "law.pt"), {"gamma": 0.0})
    return engine


def test_matter_that_travels_stays_whole_and_leaves_no_memory_behind(tmp_path: Path) -> None:
    engine = drifting(True, tmp_path)
    where, amplitudes = particles(np.random.default_rng(7), 4, 300, 3000)
    engine.set_cells(where, amplitudes)
    engine.step_native(100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine.step_native(1900)
    coordinates, found = engine.cells()
    order = np.lexsort(where.T)
    np.testing.assert_array_equal(coordinates, where[order] + 2000)
    np.testing.assert_array_equal(found, amplitudes[order])
    # A tile has 2 KiB, and 300 cells come through some 100,000 of them.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_a_universe_takes_the_memory_of_one_that_is_gone(tmp_path: Path) -> None:
    engine = drifting(False, tmp_path)
    matter = particles(np.random.default_rng(8), 4, 1000, 3000)
    faults = []
    for _ in range(8):
        engine.reset("zeros", 0, None)
        engine.set_cells(*matter)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        engine.step_native(2)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert min(faults[1:]) < 200  # its numbers lie on some 1,200 pages


HAMMERS = """
import os, signal, sys, threading
import numpy as np
import torch
from atheria_core import Engine

torch.set_num_threads(1)  # a forked child of OpenMP's threads has none of them, and waits for them
draw = np.random.default_rng(0)
matter = draw.integers(0, 10**6, (10_000, 2)), draw.standard_normal((10_000, 4)).astype(np.complex64)

def loaded():
    engine = Engine(d_state=4)
    engine.load_model(sys.argv[1], {"normalise": "none", "gamma": 0.0, "epsilon": 0.0})
    return engine

def hammer(engine, times):
    for _ in range(times):
        engine.reset("zeros", 0, None)
        engine.set_cells(*matter)

own = loaded()
hammer(own, 2)
for engine in [loaded() for _ in range(3)]:
    threading.Thread(target=hammer, args=[engine, 10**9], daemon=True).start()
ended = []
for _ in range(60):
    if not (child := os.fork()):
        signal.alarm(60)
        hammer(own, 1)
        os._exit(0)
    ended.append(os.waitpid(child, 0)[1])
    if ended[-1]:
        break
print(ended.count(0))
sys.stdout.flush()
os._exit(0)
"""


def test_a_process_may_fork_while_its_threads_make_universes(tmp_path: Path) -> None:
    path = plain_torchscript(Drift(False), tmp_path / "law.pt")
    ended = subprocess.run([sys.executable, "-c", HAMMERS, str(path)], capture_output=True, text=True)
    assert ended.stdout == "60\n", ended.stderr


def test_what_was_empty_beside_matter_is_no_change(tmp_path: Path) -> None:
    engine = drifting(False, tmp_path)
    engine.set_cells(np.array([[0, 0], [100, 7]]), np.full((2, 4), 0.5 + 0.5j, np.complex64))
    assert [entry["step"] for entry in engine.rollout(10, 1, stop=["fixed_point"])][-1] == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([0.0, 0.5]), st.integers(0, 2**32 - 1))
def test_each_step_is_that_of_a_universe_which_begins_there(
    files: dict[str, Path], data: st.DataObject, epsilon: float, seed: int
) -> None:
    """Which cells a step evaluates is kept for the next one; here hands change what is there between them."""
    rng = np.random.default_rng(seed)
    physics = {"gamma": 0.05, "epsilon": epsilon}
    engine, fresh = (make(files["deep_qca"], "deep_qca", "compiled", physics) for _ in range(2))
    engine.reset("zeros", 0, None, universes=3)
    for universe in range(3):
        engine.set_cells(*particles(rng, 3, 10 * universe, 30), universe=universe)
    for _ in range(8):
        universe = data.draw(st.integers(0, 2))
        match data.draw(st.sampled_from(["nothing", "nothing", "add", "change", "take"])):
            case "add":
                engine.add_particles(*particles(rng, 3, 2, 40), universe=universe)
            case "change" | "take" as hands:
                coordinates, amplitudes = engine.cells(universe=universe)
                factor = np.complex64(2.0 if hands == "change" else 0.0)
                engine.add_particles(coordinates[:2], factor * amplitudes[:2], universe=universe)
        fresh.reset("zeros", 0, None, universes=3)
        for other in range(3):
            fresh.set_cells(*engine.cells(universe=other), universe=other)
        engine.step_native()
        fresh.step_native()
        assert engine.info()["evaluated_cells"] == fresh.info()["evaluated_cells"]
        for other in range(3):
            coordinates, amplitudes = engine.cells(universe=other)
            expected_coordinates, expected = fresh.cells(universe=other)
            np.testing.assert_array_equal(coordinates, expected_coordinates)
            np.testing.assert_allclose(amplitudes, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "mlp", "d_state": 4, "hidden_channels": 16, "bias": True}, "vacuum"),
        (
            {"name": "unet", "d_state": 2, "hidden_channels": 8, "norm": "group", "bias": False},
            "local|GroupNorm",
        ),
    ],
)
def test_laws_that_cannot_are_refused(tmp_path: Path, model: dict, message: str) -> None:
    torch.manual_seed(0)
    law = laws.build(model, "torus")
    for parameter in law.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    engine = Engine(d_state=model["d_state"])
    engine.load_model(plain_torchscript(law, tmp_path / "law.pt"))
    with pytest.raises(ValueError, match=message):
        engine.reset("particles", 0, None)


def test_state_is_for_grids(exported: Callable, files: dict[str, Path]) -> None:
    engine = make(files["mlp"], "mlp", "compiled", {})
    engine.reset("particles", 0, None, count=5, extent=(2**20, 2**20))
    with pytest.raises((ValueError, RuntimeError), match="cells"):
        engine.state()
    assert len(engine.cells()[0]) == 5
