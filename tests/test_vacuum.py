"""The harmonic vacuum: what it is, that it makes no matter by itself, and that all engines agree on it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from atheria_core import Engine
from hypothesis import given, settings
from hypothesis import strategies as st

from atheria import noise
from atheria.artifact import read_description
from atheria.config import PhysicsConfig, UserError, validate
from atheria.engine import from_run
from atheria.philox import VACUUM, philox
from atheria.physics import Dynamics
from atheria.rollout import rollout
from atheria.train import train
from atheria.vacuum import near, waves

from .conftest import MODELS, PHYSICS, SMALL, make_law, plain_torchscript
from .test_parity import compare

SEED = 2**63 + 12345
HARMONIC = replace(PHYSICS, harmonic=0.2)
LOCAL = {"nca": 1, "deep_qca": 1, "quantum_walk": 1, "snn_unet": 5, "unet pixel": 31, "mlp": 0}
LIKE = torch.zeros(1, dtype=torch.float64)


@pytest.fixture(autouse=True)
def vacuum_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laws that leave true vacuum alone."""
    for name in ("mlp", "deep_qca", "snn_unet"):
        monkeypatch.setitem(MODELS, name, {**MODELS[name], "bias": False})


def few_cells(d_state: int, batch: int, height: int, width: int, seed: int = 0, share: float = 0.05):
    generator = torch.Generator().manual_seed(seed)
    psi = torch.randn(batch, 2 * d_state, height, width, generator=generator)
    return psi * (torch.rand(batch, 1, height, width, generator=generator) < share)


def test_it_is_the_waves_that_are_documented() -> None:
    d_state, seed, step = 3, SEED, 77
    got = waves(0.5, d_state, (6, 5), seed, step, LIKE)
    assert got.shape == (1, 6, 6, 5)
    for i, x, y in ((0, 0, 0), (1, 4, 2), (2, 3, 5)):
        total = 0j
        for k in range(4):
            counter = tuple(torch.tensor(word) for word in (k, i, 0, VACUUM))
            a, b, c, f = (int(word) for word in philox(counter, seed))
            total += np.exp(2j * np.pi * ((a * x + b * y + c * step + f) % 2**32) / 2**32)
        total *= 0.5 / np.sqrt(4 * d_state)
        assert got[0, i, y, x].item() == pytest.approx(total.real, abs=1e-12)
        assert got[0, d_state + i, y, x].item() == pytest.approx(total.imag, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), step=st.integers(0, 2**40), level=st.floats(1e-3, 10))
def test_its_size_is_its_level(seed: int, step: int, level: float) -> None:
    rho = waves(level, 4, (64, 64), seed, step, LIKE).square().sum(dim=1)
    assert rho.max() <= 4 * level**2 * (1 + 1e-9)
    over_time = torch.stack([waves(level, 4, (48, 48), seed, step + 10 * t, LIKE) for t in range(4)])
    assert over_time.square().sum(dim=2).mean() == pytest.approx(level**2, rel=0.6)


def test_it_depends_on_seed_and_step_and_nothing_else() -> None:
    field = waves(0.1, 2, (8, 8), 1, 5, LIKE)
    assert torch.equal(field, waves(0.1, 2, (8, 8), 1, 5, LIKE))
    small = waves(0.1, 2, (8, 3), 1, 5, LIKE)  # of the place, not of the grid
    torch.testing.assert_close(field[..., :3], small, rtol=0, atol=1e-15)
    assert torch.equal(field, waves(0.1, 2, (8, 8), 1, 5 + 2**32, LIKE))  # as every counter
    for seed, step in ((2, 5), (1, 6), (1 + 2**33, 5)):
        assert not torch.allclose(field, waves(0.1, 2, (8, 8), seed, step, LIKE))


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    radius=st.integers(0, 12),
    torus=st.booleans(),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_near_is_within_a_square_about_matter(
    seed: int, radius: int, torus: bool, height: int, width: int
) -> None:
    occupied = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(seed)) < 0.1
    expected = torch.zeros_like(occupied)
    for u, _, y, x in occupied.nonzero().tolist():
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                row, column = y + dy, x + dx
                if torus:
                    expected[u, 0, row % height, column % width] = True
                elif 0 <= row < height and 0 <= column < width:
                    expected[u, 0, row, column] = True
    assert torch.equal(near(occupied, radius, torus), expected)


@pytest.mark.parametrize("name", LOCAL)
@torch.inference_mode()
def test_it_is_never_matter_by_itself(name: str) -> None:
    law, d_state = make_law(name), MODELS[name]["d_state"]
    dynamics = Dynamics(law, HARMONIC, SEED)
    nothing = torch.zeros(1, 2 * d_state, 64, 64)
    assert not dynamics.rollout(dynamics.start(nothing), 3).psi.any()
    one = nothing.clone()
    one[0, :, 32, 32] = 0.5
    reached = (dynamics.step(dynamics.start(one)).psi != 0).any(dim=1)[0].nonzero()
    radius = LOCAL[name]
    assert (reached - 32).abs().max() <= radius
    quiet = Dynamics(law, PHYSICS, SEED)
    acts = not torch.equal(dynamics.step(dynamics.start(one)).psi, quiet.step(quiet.start(one)).psi)
    assert acts == (radius > 0)


@pytest.mark.parametrize("backend", ["fastest", "torchscript"])
@pytest.mark.parametrize("name", LOCAL)
@torch.inference_mode()
def test_engine_and_python_agree(exported: Callable, name: str, backend: str) -> None:
    boundary = "torus" if name == "quantum_walk" else "zeros"
    damped = replace(HARMONIC, gamma=0.05, fire_rate=0.6, boundary=boundary, normalise="global")
    for physics in (damped, HARMONIC):
        law, path = exported(name, physics)
        engine = Engine(backend=backend)
        engine.load_model(path)
        assert engine.info()["harmonic"] == 0.2
        for batch, height, width in ((2, 16, 16), (1, 8, 24)):
            psi = few_cells(MODELS[name]["d_state"], batch, height, width)
            worst, _ = compare(engine, Dynamics(law, physics, SEED), psi, states=10)
            assert worst <= 1e-5
        quiet = Dynamics(law, replace(physics, harmonic=0.0), SEED)
        if LOCAL[name] > 0:
            engine.load_model(path)
            assert compare(engine, quiet, psi, states=1)[0] > 1e-3  # the comparison above was not empty


@pytest.mark.parametrize("backend", ["fastest", "torchscript"])
@pytest.mark.parametrize("name", [name for name in LOCAL if name != "mlp"])
@pytest.mark.parametrize("channel", ["none", "depolarising"])
def test_unbounded_is_a_grid_that_is_large_enough(
    exported: Callable, name: str, backend: str, channel: str
) -> None:
    steps, side = (1, 4) if LOCAL[name] > 5 else (3, 8)
    margin = -(-(steps + 2) * LOCAL[name] // 4) * 4  # a step reads the vacuum up to 2 R from matter
    size = side + 2 * margin
    physics = replace(HARMONIC, gamma=0.05, fire_rate=0.6, epsilon=0.02)
    _, path = exported(name, physics)
    grid, free = Engine(backend=backend), Engine(backend=backend)
    psi = torch.zeros(2, 2 * MODELS[name]["d_state"], size, size)
    psi[..., margin:-margin, margin:-margin] = few_cells(MODELS[name]["d_state"], 2, side, side, share=0.3)
    for engine in (grid, free):
        engine.load_model(path)
        engine.set_noise(channel, 0.0 if channel == "none" else 0.2)
    grid.set_state(psi.numpy())
    free.reset("zeros", SEED, None, 2)
    for universe in range(2):
        free.set_cells(*grid.cells(universe), universe)
    for engine in (grid, free):
        engine.seed = SEED
        engine.step_native(steps)
    expected = grid.state()
    for universe in range(2):
        got = free.window(0, 0, size, size, universe)
        wrong = np.abs(got - expected[universe]).max(axis=0) > 1e-5 * max(1.0, np.abs(expected).max())
        assert wrong.sum() <= 1  # a cell within rounding of the threshold
    assert len(free.cells()[0]) > (psi[0] != 0).any(dim=0).sum()  # it has spread


def test_places_far_away_have_the_same_waves_modulo_the_counter(exported: Callable) -> None:
    _, path = exported("nca", HARMONIC)
    places = np.array([[1, 2], [4, 9], [-3, 0]])
    amplitudes = np.ones((3, 2), np.complex64)
    fields = []
    for origin in ((0, 0), (2**32 * 8, -(2**32) * 8), (8, 0)):
        engine = Engine()
        engine.load_model(path)
        engine.seed = SEED
        engine.set_cells(places + np.array(origin), amplitudes)
        engine.step_native(3)
        fields.append(engine.window(origin[0] - 8, origin[1] - 8, 24, 24))
    assert np.array_equal(fields[0], fields[1])
    assert not np.allclose(fields[0], fields[2])


def test_all_universes_read_the_same_vacuum() -> None:
    dynamics = Dynamics(make_law("nca"), HARMONIC, SEED)
    psi = few_cells(2, 1, 16, 16).expand(3, -1, -1, -1).contiguous()
    after = dynamics.rollout(dynamics.start(psi), 3).psi
    assert torch.equal(after[0], after[2])
    later = replace(dynamics, first_universe=5)
    assert torch.equal(later.rollout(later.start(psi), 3).psi, after)


def test_its_gradient_is_that_of_a_difference() -> None:
    law = make_law("nca").double()
    dynamics = Dynamics(law, replace(HARMONIC, gamma=0.1), SEED, noise.channel("dephasing"), 0.3)
    psi = few_cells(2, 1, 6, 6, share=0.2).double()
    weight = next(p for p in law.parameters() if p.requires_grad)

    def energy() -> torch.Tensor:
        return dynamics.rollout(dynamics.start(psi), 2).psi.square().sum()

    energy().backward()
    with torch.no_grad():
        slope, place = weight.grad.flatten(), weight.grad.abs().argmax()
        ends = []
        for change in (1e-6, -2e-6):
            weight.view(-1)[place] += change
            ends.append(energy().item())
    assert slope[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_laws_without_a_reach_are_refused(exported: Callable, tmp_path) -> None:
    for name in ("unet", "unet_convlstm"):
        law, path = exported(name)
        with pytest.raises(UserError, match="`physics.harmonic` needs a local law without memory"):
            Dynamics(law, HARMONIC, SEED)
        engine = Engine()
        with pytest.raises(ValueError, match="`harmonic` needs a local law without memory"):
            engine.load_model(path, {"harmonic": 0.1})
    with pytest.raises(UserError, match="`physics.harmonic` must be greater than or equal to 0"):
        engine.load_model(path, {"harmonic": -0.1})
    _, path = exported("nca", HARMONIC)
    engine.load_model(path)
    with pytest.raises(ValueError, match="a step without chance or waves"):
        engine.rollout(5, 1, stop=["fixed_point"])
    plain = Engine(d_state=2)  # the compiled graph says how far it looks
    plain.load_model(plain_torchscript(make_law("nca"), tmp_path / "plain.pt"), {"harmonic": 0.1})


def test_a_training_refuses_before_it_starts(tmp_path) -> None:
    with pytest.raises(UserError, match="`physics.harmonic` needs a local law without memory"):
        train([*SMALL, "physics.harmonic=0.1"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ready_store")
def test_a_law_is_rolled_out_in_the_vacuum_that_it_was_trained_in() -> None:
    run = train([*SMALL, "model=nca", "model.bias=false", "physics.harmonic=0.05", "trainer.episodes=2"])
    assert read_description(run.law).physics.harmonic == 0.05
    engine = from_run(run.run_id)
    assert engine.info()["harmonic"] == 0.05
    options = [f"law={run.law}", "steps=3", "grid=16", "frames=2", "initial_state=particles"]
    inherited = rollout(options)
    assert np.array_equal(inherited.psi, rollout([*options, "physics.harmonic=0.05"]).psi)
    assert not np.array_equal(inherited.psi, rollout([*options, "physics.harmonic=0"]).psi)
    unbounded = rollout([*options[:2], "grid=unbounded", "frames=2"])
    assert len(unbounded.cells[0].coordinates) > 0


def test_what_was_written_before_has_none() -> None:
    saved = {"gamma": 0.0, "epsilon": 0.0, "normalise": "none", "fire_rate": 1.0, "boundary": "torus"}
    assert validate(PhysicsConfig, saved).harmonic == 0
