import dataclasses
import math

import pytest
import torch

from atheria import artifact, noise, registry
from atheria.initial_state import random_states
from atheria.philox import Lattice
from atheria.physics import Dynamics
from atheria.tangents import lyapunov_exponent, unitarity_error

from .conftest import MODELS, PHYSICS, make_law


class Scaled(torch.nn.Module):
    """psi -> factor psi, the factors of the components in turn."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.factors = torch.tensor(factors).repeat(2).view(1, -1, 1, 1)

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return (self.factors - 1) * psi


class Doubling(torch.nn.Module):
    """Re -> 2 Re mod 1, Im untouched: ln 2, the exponent of the Bernoulli map."""

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        re, im = psi.chunk(2, dim=1)
        return torch.cat([(2 * re).remainder(1) - re, torch.zeros_like(im)], dim=1)


class Fibonacci(torch.nn.Module):
    """psi' = psi + memory, memory' = psi: grows by the golden ratio."""

    def initial_memory(self, batch: int, height: int, width: int) -> torch.Tensor:
        return torch.zeros(batch, 4, height, width)

    def forward(self, psi: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return memory, psi


def dynamics_of(law: torch.nn.Module, **physics) -> Dynamics:
    return Dynamics(law, dataclasses.replace(PHYSICS, **physics), seed=7)


def soup(channels: int = 4, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, 8, 8, generator=torch.Generator().manual_seed(3))


def test_unitarity_of_linear_laws() -> None:
    walk = dynamics_of(make_law("quantum_walk"))
    assert unitarity_error(walk, soup(10)).max() < 1e-6
    assert unitarity_error(dynamics_of(Scaled(2.0, 2.0)), soup()).tolist() == pytest.approx([3.0] * 2)
    decaying = dynamics_of(make_law("quantum_walk"), gamma=0.1)  # delta is added to (1 - gamma) psi
    assert unitarity_error(decaying, soup(10)).min() > 1e-3


def test_unitarity_is_sampled_without_bias() -> None:
    error = unitarity_error(dynamics_of(Scaled(1.0, 2.0)), soup(), samples=64)
    assert error.tolist() == pytest.approx([1.5] * 2, rel=0.05)  # tr J^T J / dim - 1
    assert torch.equal(error, unitarity_error(dynamics_of(Scaled(1.0, 2.0)), soup(), samples=64))


def test_exponents_of_linear_laws() -> None:
    for factor in (0.5, 1.0, 1.7):
        exponent = lyapunov_exponent(dynamics_of(Scaled(factor, factor)), soup(), steps=10)
        assert exponent.dtype == torch.float64
        assert exponent.tolist() == pytest.approx([math.log(factor)] * 2, abs=1e-6)
    assert lyapunov_exponent(dynamics_of(make_law("quantum_walk")), soup(10), 10).abs().max() < 1e-6
    with_decay = lyapunov_exponent(dynamics_of(Scaled(1.0, 1.0), gamma=0.5), soup(), 10)
    assert with_decay.tolist() == pytest.approx([math.log(0.5)] * 2, abs=1e-6)


def test_after_a_transient_the_largest_exponent_is_left() -> None:
    dynamics = dynamics_of(Scaled(0.9, 1.2))
    exponent = lyapunov_exponent(dynamics, soup(), steps=5, transient=40)
    assert exponent.tolist() == pytest.approx([math.log(1.2)] * 2, abs=1e-5)
    assert lyapunov_exponent(dynamics, soup(), steps=5).max() < math.log(1.2) - 0.01


def test_exponent_of_a_chaotic_map() -> None:
    exponent = lyapunov_exponent(dynamics_of(Doubling()), soup().abs(), steps=12, transient=20)
    assert exponent.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-5)


def test_memory_belongs_to_the_state() -> None:
    exponent = lyapunov_exponent(dynamics_of(Fibonacci()), soup(), steps=10, transient=15)
    assert exponent.tolist() == pytest.approx([math.log((1 + 5**0.5) / 2)] * 2, abs=1e-6)


def test_normalisation_takes_growth_along_the_field_away() -> None:
    exponent = lyapunov_exponent(dynamics_of(Scaled(3.0), normalise="cell"), soup(2), 8, transient=8)
    assert exponent.abs().max() < 1e-5  # the phase of a cell is all that is left to perturb


def test_a_perturbation_is_not_the_state_that_the_seed_began_with() -> None:
    dynamics = dynamics_of(Scaled(1.0, 1.0), normalise="cell")
    psi = random_states(2, Lattice(2, 32, 32, torch.device("cpu")), dynamics.seed, step=0)
    error = unitarity_error(dynamics, psi, samples=1)
    assert error.tolist() == pytest.approx([1 / 4] * 2, abs=0.03)  # one direction of four is lost, not all


def test_the_mask_is_another_at_each_step() -> None:
    exponent = lyapunov_exponent(dynamics_of(Scaled(2.0, 2.0), fire_rate=0.5), soup(), steps=6)
    assert exponent.tolist() == pytest.approx([0.5 * math.log((1 + 4) / 2)] * 2, abs=0.08)


def test_what_dies_and_what_is_empty() -> None:
    psi = soup()
    psi[1] = 0
    dead = dynamics_of(Scaled(1.0, 1.0), epsilon=100.0)
    assert lyapunov_exponent(dead, psi, 3).tolist() == [-math.inf, 0]
    assert unitarity_error(dead, psi).tolist() == [1, 0]


@torch.no_grad()
def test_the_exponent_is_that_of_two_trajectories_close_by() -> None:
    dynamics = dynamics_of(make_law("nca"))
    psi, size = soup(batch=1), 1e-3
    near, apart, growth = dynamics.start(psi), torch.randn_like(psi), []
    for _ in range(40):
        far = near._replace(psi=near.psi + apart * (size / apart.norm()))
        near, far = dynamics.step(near), dynamics.step(far)
        apart = far.psi - near.psi
        growth.append(math.log(apart.norm() / size))
    exponent = lyapunov_exponent(dynamics, psi, steps=10, transient=30)
    assert exponent.item() == pytest.approx(sum(growth[30:]) / 10, abs=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_every_law_has_tangents_also_in_inference_mode(name: str) -> None:
    dynamics = dynamics_of(make_law(name), fire_rate=0.5)
    psi = soup(2 * MODELS[name]["d_state"])
    exponent = lyapunov_exponent(dynamics, psi, 3)
    assert exponent.isfinite().all()
    with torch.inference_mode():
        assert torch.equal(lyapunov_exponent(dynamics, psi * 1, 3), exponent)


@pytest.mark.parametrize("channel", registry.names("atheria.noise"))
def test_noise_is_one_fixed_draw(channel: str) -> None:
    dynamics = Dynamics(Scaled(2.0, 2.0), PHYSICS, 7, noise.channel(channel), level=0.3)
    exponent = lyapunov_exponent(dynamics, soup(), 3)
    assert exponent.isfinite().all()
    if channel not in (
        "amplitude_damping",
        "mixed",
    ):  # which restore the norm of the field, not the tangent's
        assert exponent.max() < math.log(2) + 1e-5


def test_torchscript_is_refused() -> None:
    scripted = dynamics_of(artifact.script(make_law("mlp")))
    for function in (unitarity_error, lyapunov_exponent):
        with pytest.raises(ValueError, match="TorchScript loses tangents"):
            function(scripted, soup(8), 1)
