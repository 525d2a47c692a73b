from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atheria.field import energy_density, from_complex, to_complex, total_energy
from atheria.physics import Dynamics, combine, normalise

from .conftest import PHYSICS


class Nothing(torch.nn.Module):
    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(psi)


class Constant(torch.nn.Module):
    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(psi)


class Counting(torch.nn.Module):
    """A law with memory: adds the number of steps that it has seen."""

    def initial_memory(self, batch: int, height: int, width: int) -> torch.Tensor:
        return torch.zeros(batch, 1, 1, 1)

    def forward(self, psi: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        memory = memory + 1
        return memory.expand_as(psi), memory


def random_field(seed: int = 0, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, 6, 8, generator=torch.Generator().manual_seed(seed))


def test_complex_and_planar_are_inverse() -> None:
    psi = random_field()
    assert torch.equal(from_complex(to_complex(psi)), psi)
    torch.testing.assert_close(to_complex(psi).abs().square().sum(dim=1), energy_density(psi))


@given(st.floats(0, 0.99), st.integers(1, 20))
def test_decay_without_a_law_is_exponential(gamma: float, steps: int) -> None:
    psi = random_field()
    dynamics = Dynamics(Nothing(), replace(PHYSICS, gamma=gamma), seed=0)
    final = dynamics.rollout(dynamics.start(psi), steps).psi
    torch.testing.assert_close(final, (1 - gamma) ** steps * psi, rtol=1e-5, atol=1e-7)


def test_threshold_empties_cells_at_or_below_it() -> None:
    psi = torch.zeros(1, 2, 1, 3)
    psi[0, :, 0] = torch.tensor([[0.3, 0.3, 0.0], [0.4, 0.4001, 0.0]])
    kept = combine(psi, torch.zeros_like(psi), replace(PHYSICS, epsilon=0.5), None)
    assert (energy_density(kept)[0, 0] > 0).tolist() == [False, True, False]


def test_cell_normalisation_makes_cells_one_and_keeps_vacuum() -> None:
    psi = random_field()
    psi[:, :, 0] = 0
    rho = energy_density(normalise(psi, "cell", total_energy(psi)))
    assert (rho[:, 0] == 0).all()
    torch.testing.assert_close(rho[:, 1:], torch.ones_like(rho[:, 1:]))


def test_global_normalisation_restores_the_energy_of_the_start_per_universe() -> None:
    psi = random_field() * torch.tensor([1.0, 3.0])[:, None, None, None]
    dynamics = Dynamics(Constant(), replace(PHYSICS, normalise="global", gamma=0.2), seed=0)
    final = dynamics.rollout(dynamics.start(psi), 5).psi
    torch.testing.assert_close(total_energy(final), total_energy(psi))
    vacuum = torch.zeros(1, 2, 4, 4)
    assert torch.equal(normalise(vacuum, "global", total_energy(vacuum)), vacuum)


def test_gradients_are_finite_at_vacuum() -> None:
    for kind in ("cell", "global"):
        psi = random_field()
        psi[:, :, :3] = 0
        psi.requires_grad_()
        normalise(psi, kind, torch.ones(2)).square().sum().backward()
        assert torch.isfinite(psi.grad).all()


def test_fire_rate_is_the_share_of_cells_that_update() -> None:
    psi = torch.zeros(4, 2, 64, 64)
    dynamics = Dynamics(Constant(), replace(PHYSICS, fire_rate=0.3), seed=9)
    updated = energy_density(dynamics.step(dynamics.start(psi)).psi) > 0
    cells = updated.numel()
    assert abs(updated.float().mean() - 0.3) < 5 * (0.3 * 0.7 / cells) ** 0.5


def test_masks_differ_between_steps_and_universes() -> None:
    dynamics = Dynamics(Constant(), replace(PHYSICS, fire_rate=0.5), seed=9)
    first = dynamics.step(dynamics.start(torch.zeros(2, 2, 16, 16)))
    second = dynamics.step(first)
    assert not torch.equal(first.psi[0], first.psi[1])
    assert not torch.equal(second.psi - first.psi, first.psi)


def test_memory_is_carried_through_a_rollout() -> None:
    dynamics = Dynamics(Counting(), PHYSICS, seed=0)
    final = dynamics.rollout(dynamics.start(torch.zeros(1, 2, 4, 4)), 4)
    assert final.psi.unique().tolist() == [1 + 2 + 3 + 4]


def test_no_gradient_flows_back_through_a_detached_state() -> None:
    dynamics = Dynamics(Counting(), PHYSICS, seed=0)
    start = dynamics.start(random_field().requires_grad_())
    for state in (start, dynamics.step(start)):
        state = state._replace(memory=state.memory + state.psi.sum())
        parts = state.detached()
        assert not any(part.requires_grad for part in parts if isinstance(part, torch.Tensor))
        assert all(torch.equal(*pair) for pair in zip(parts[:3], state[:3], strict=True))


@pytest.mark.parametrize("first_universe", [0, 3])
def test_a_universe_does_not_depend_on_its_batch(first_universe: int) -> None:
    physics = replace(PHYSICS, fire_rate=0.5)
    psi = random_field(batch=5)
    whole = Dynamics(Constant(), physics, seed=1)
    part = replace(whole, first_universe=first_universe)
    chosen = psi[first_universe : first_universe + 2]
    expected = whole.rollout(whole.start(psi), 3).psi[first_universe : first_universe + 2]
    assert torch.equal(part.rollout(part.start(chosen), 3).psi, expected)
