import math

import pytest
import torch

from atheria.physics import Dynamics
from atheria.symmetries import (
    equivariance_error,
    equivariance_errors,
    global_phase,
    grid_symmetries,
    translation,
)

from .conftest import MODELS, PHYSICS, make_law


def one_step(name: str):
    dynamics = Dynamics(make_law(name), PHYSICS, seed=0)
    return lambda psi: dynamics.step(dynamics.start(psi)).psi


def soup(name: str, height: int = 8, width: int = 8) -> torch.Tensor:
    return torch.randn(2, 2 * MODELS[name]["d_state"], height, width, generator=torch.manual_seed(0))


def test_the_elements_of_d4_are_eight_and_closed() -> None:
    corner = torch.arange(9.0).view(1, 1, 3, 3)
    images = {"identity": corner} | {name: act(corner) for name, act in grid_symmetries(3, 3).items()}
    known = {tuple(image.flatten().tolist()) for image in images.values()}
    assert len(known) == 8
    for act in grid_symmetries(3, 3).values():
        assert {tuple(act(image).flatten().tolist()) for image in images.values()} == known


def test_a_grid_that_is_not_square_keeps_its_shape() -> None:
    field = torch.randn(1, 2, 3, 4)
    actions = grid_symmetries(3, 4)
    assert set(actions) == {"half_turn", "mirror_y", "mirror_x"}
    assert {act(field).shape for act in actions.values()} == {field.shape}


def test_a_global_phase_turns_every_component() -> None:
    turned = global_phase(math.pi / 2)(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1))
    assert turned.flatten().tolist() == pytest.approx([-3, -4, 1, 2], abs=1e-6)  # i (1 + 3i), i (2 + 4i)


def test_an_mlp_heeds_the_grid_but_not_the_phase() -> None:
    errors = equivariance_errors(one_step("mlp"), soup("mlp"))
    assert errors["d4"].max() < 1e-6
    assert errors["translation"].max() < 1e-6
    assert errors["u1"].min() > 1e-3


def test_a_linear_walk_heeds_the_phase_and_translations_but_not_turns() -> None:
    errors = equivariance_errors(one_step("quantum_walk"), soup("quantum_walk", 8, 12))
    assert errors["u1"].max() < 1e-6
    assert errors["translation"].max() < 1e-6
    assert errors["d4"].min() > 0.1


def test_a_law_that_pools_heeds_shifts_by_its_stride() -> None:
    step, psi = one_step("unet"), soup("unet")
    assert equivariance_errors(step, psi, shift=4)["translation"].max() < 1e-5
    assert equivariance_errors(step, psi, shift=1)["translation"].min() > 1e-3


def test_the_error_is_the_formula() -> None:
    psi = torch.zeros(1, 2, 2, 2)
    psi[0, 0, 0, 0] = 2.0
    weights = torch.tensor([[1.0, 3.0], [1.0, 1.0]])
    # F(g psi) = 6 and g F(psi) = 2 at the same cell, ||F(psi)|| = 2
    assert equivariance_error(lambda field: weights * field, psi, translation(0, 1)).item() == 2


def test_a_map_to_nothing_has_no_error() -> None:
    errors = equivariance_errors(torch.zeros_like, torch.randn(2, 2, 4, 4))
    assert {value for error in errors.values() for value in error.tolist()} == {0.0}
