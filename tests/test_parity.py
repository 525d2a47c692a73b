"""C++ = Python: one step from the same state, at 50 states along a trajectory, within 1e-5 max(1, max|psi|).

Cells whose norm lies within rounding of the vacuum threshold are excepted and counted.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from atheria_core import Engine

from atheria import initial_state, laws, noise, registry
from atheria.config import InitialStateConfig, PhysicsConfig
from atheria.field import energy_density
from atheria.observables import observe
from atheria.philox import Lattice
from atheria.physics import Dynamics, combine, fire_mask

from .conftest import MODELS, PHYSICS, plain_torchscript

STATES = 50
SEED = 2**63 + 12345  # both words of the key are in use


def compare(
    engine: Engine,
    dynamics: Dynamics,
    psi: torch.Tensor,
    states: int = STATES,
    before_normalising: bool = False,
) -> tuple[float, int]:
    """Largest error over the trajectory, in units of max(1, max|psi|), and the number of excepted cells.

    Args:
        before_normalising: Errors count as they were before each cell was normalised, which makes those of
            faint cells large.
    """
    engine.seed = dynamics.seed
    engine.set_state(psi.numpy())
    state = dynamics.start(psi)
    worst, excepted = 0.0, 0
    for _ in range(states):
        borderline = near_threshold(dynamics, state)
        faintness = norms_before_threshold(dynamics, state).clamp(max=1.0) if before_normalising else 1.0
        state = dynamics.step(state)
        engine.step_native()
        native = torch.from_numpy(engine.state())
        error = (native - state.psi).abs() * ~borderline * faintness
        worst = max(worst, (error.max() / max(1.0, state.psi.abs().max())).item())
        excepted += int(borderline.sum())
        # The next step starts from the engine's state on both sides: steps are compared, not histories.
        state = state._replace(psi=native)
    return worst, excepted


def near_threshold(dynamics: Dynamics, state) -> torch.Tensor:
    """Cells (B, 1, H, W) whose norm before the threshold is within rounding of it."""
    physics = dynamics.physics
    if physics.epsilon == 0:
        return torch.zeros_like(state.psi[:, :1], dtype=torch.bool)
    return (norms_before_threshold(dynamics, state) - physics.epsilon).abs() < 1e-5


def norms_before_threshold(dynamics: Dynamics, state) -> torch.Tensor:
    """Cells' norms (B, 1, H, W) after a step without threshold and normalisation."""
    physics = dynamics.physics
    delta, _ = laws.propose(dynamics.law, state.psi, state.memory)
    mask = fire_mask(state, physics.fire_rate, dynamics.seed) if physics.fire_rate < 1 else None
    unchecked = PhysicsConfig(physics.gamma, 0.0, "none", physics.fire_rate, physics.boundary)
    return energy_density(combine(state.psi, delta, unchecked, mask)).sqrt().unsqueeze(1)


COMPILED = [name for name in MODELS if MODELS[name]["name"] != "snn_unet"]


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "torchscript") for name in MODELS), *((name, "compiled") for name in COMPILED)],
)
@pytest.mark.parametrize("normalise", ["none", "cell", "global"])
@pytest.mark.parametrize(("gamma", "epsilon", "fire_rate"), [(0.0, 0.0, 1.0), (0.05, 0.1, 0.5)])
@torch.inference_mode()
def test_engine_and_python_agree(
    exported: Callable,
    name: str,
    backend: str,
    normalise: str,
    gamma: float,
    epsilon: float,
    fire_rate: float,
) -> None:
    boundary = "zeros" if gamma and name != "quantum_walk" else "torus"
    physics = PhysicsConfig(gamma, epsilon, normalise, fire_rate, boundary)
    law, path = exported(name, physics)
    engine = Engine(backend=backend)
    engine.load_model(path)
    generator = torch.Generator().manual_seed(1)
    for batch, height, width in ((1, 16, 16), (3, 8, 20)):
        psi = torch.randn(batch, 2 * MODELS[name]["d_state"], height, width, generator=generator)
        psi *= 0.5
        psi[:, :, :3, :3] = 0
        dynamics = Dynamics(law, physics, SEED)
        worst, excepted = compare(engine, dynamics, psi)
        assert worst <= 1e-5
        assert excepted <= 0.001 * STATES * batch * height * width


@pytest.mark.parametrize("channel", registry.names("atheria.noise"))
@torch.inference_mode()
def test_noise_draws_the_same_numbers(exported: Callable, channel: str) -> None:
    law, path = exported("mlp")
    engine = Engine()
    engine.load_model(path)
    engine.set_noise(channel, 0.4)
    dynamics = Dynamics(law, PHYSICS, SEED, noise.channel(channel), level=0.4)
    worst, _ = compare(engine, dynamics, torch.randn(6, 8, 8, 12), states=20)
    assert worst <= 1e-5
    engine.set_noise("none")
    quiet, _ = compare(engine, dynamics, torch.randn(1, 8, 8, 12), states=1)
    assert quiet > 0.01  # without noise they differ: the comparison above was not empty


@pytest.mark.parametrize("kind", ["soup", "random", "particles", "gaussian", "zeros"])
def test_initial_states_are_the_same(engine: Engine, kind: str) -> None:
    for universes, height, width in ((1, 8, 8), (3, 12, 20)):
        engine.reset(kind, SEED, (height, width), universes, density=0.3, count=7, width=2.5)
        config = InitialStateConfig(kind=kind, density=0.3, count=7, width=2.5)
        lattice = Lattice(universes, height, width, torch.device("cpu"))
        expected = initial_state.make(config, 4, lattice, SEED).numpy()
        np.testing.assert_allclose(engine.state(), expected, atol=1e-7, rtol=0)
        assert np.array_equal(engine.state() != 0, expected != 0)


@pytest.mark.parametrize("boundary", ["torus", "zeros"])
def test_observables_are_the_same(exported: Callable, boundary: str) -> None:
    _, path = exported("mlp", PhysicsConfig(0.0, 0.0, "none", 1.0, boundary))
    engine = Engine()
    engine.load_model(path)
    psi = torch.randn(3, 8, 12, 20) * (torch.rand(3, 1, 12, 20) < 0.1)
    psi[2] = 0
    engine.set_state(psi.numpy())
    expected = observe(psi, boundary == "torus")
    for index, native in enumerate(engine.observables()):
        assert native == pytest.approx({k: v[index].item() for k, v in expected.items()}, rel=1e-9, abs=1e-9)


class Remembers(torch.nn.Module):
    """A law whose memory is the field of the step before."""

    @torch.jit.export
    def initial_memory(self, batch: int, height: int, width: int) -> torch.Tensor:
        return torch.zeros(batch, 4, height, width)

    def forward(self, psi: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 0.1 * (memory - psi), psi


@torch.inference_mode()
def test_memory_is_carried_alike(tmp_path: Path) -> None:
    law = Remembers()
    engine = Engine(d_state=2)
    engine.load_model(plain_torchscript(law, tmp_path / "memory.pt"), {"gamma": 0.1})
    assert engine.info()["has_memory"]
    psi = torch.randn(2, 4, 8, 8)
    dynamics = Dynamics(law, PhysicsConfig(0.1, 0.0, "none", 1.0, "torus"), SEED)
    worst, _ = compare(engine, dynamics, psi)
    assert worst <= 1e-5


class Still(torch.nn.Module):
    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(psi)


@pytest.mark.parametrize("channel", ["bit_flip", "mixed"])
def test_shifts_need_two_components(tmp_path: Path, channel: str) -> None:
    engine = Engine(d_state=1)
    engine.load_model(plain_torchscript(Still(), tmp_path / "still.pt"), {})
    engine.set_noise(channel, 0.5)
    engine.set_state(np.ones((1, 2, 4, 4), np.float32))
    with pytest.raises(ValueError, match=f"noise {channel} needs `d_state` of at least 2, got 1"):
        engine.step_native()
