import dataclasses

import pytest
import torch

from atheria import noise
from atheria.physics import Dynamics
from atheria.spreading import damage_spreading

from .conftest import PHYSICS, make_law


class Shift(torch.nn.Module):
    """psi moves right, `stride` cells a step."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return psi.roll(self.stride, -1) - psi


class Still(torch.nn.Module):
    """A law that does nothing."""

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(psi)


def dynamics_of(law: torch.nn.Module, **physics) -> Dynamics:
    return Dynamics(law, dataclasses.replace(PHYSICS, **physics), seed=7)


def soup(channels: int, height: int = 16, width: int = 20) -> torch.Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(3))


def test_damage_stays_where_nothing_moves() -> None:
    damage = damage_spreading(dynamics_of(Still()), soup(2), steps=4)
    assert torch.equal(damage.fraction, torch.full((5, 2), 1 / 320, dtype=torch.float64))
    assert damage.radius.max() == 0
    assert damage.speed.tolist() == [0, 0]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_shift_carries_damage_around_the_torus(stride: int) -> None:
    psi = torch.zeros(1, 2, 8, 20)
    psi[0, 0, 3, 17] = 1
    damage = damage_spreading(dynamics_of(Shift(stride)), psi, steps=14 // stride)
    walked = [stride * t for t in range(14 // stride + 1)]
    assert damage.radius[:, 0].tolist() == [min(x, 20 - x) for x in walked]
    assert damage.speed.item() == stride
    assert damage.fraction[:, 0].tolist() == [1 / 160] * len(walked)


def test_without_a_torus_distances_do_not_wrap() -> None:
    psi = torch.zeros(1, 2, 8, 20)
    psi[0, 0, 3, 17] = 1
    damage = damage_spreading(dynamics_of(Shift(1), boundary="zeros"), psi, steps=4)
    assert damage.radius[:, 0].tolist() == [0, 1, 2, 17, 16]  # the law itself still wraps


def test_a_walk_spreads_at_the_speed_of_light() -> None:
    damage = damage_spreading(dynamics_of(make_law("quantum_walk")), soup(10), steps=6)
    assert damage.speed.tolist() == [1, 1]
    assert damage.radius[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert (damage.fraction.diff(dim=0) > 0).all()


@pytest.mark.parametrize("name", ["nca", "deep_qca", "mlp"])
def test_no_local_law_is_faster_than_its_radius(name: str) -> None:
    law = make_law(name)
    channels = {"mlp": 8}.get(name, 4)
    damage = damage_spreading(dynamics_of(law), soup(channels), steps=5)
    assert (damage.speed <= law.receptive_radius).all()
    steps = torch.arange(6)[:, None]
    assert (damage.radius <= law.receptive_radius * steps).all()
    assert ((damage.fraction >= 0) & (damage.fraction <= 1)).all()


def test_mask_and_noise_are_common() -> None:
    for channel in ("dephasing", "thermal"):
        noisy = Dynamics(Still(), PHYSICS, 7, noise.channel(channel), level=0.3)
        damage = damage_spreading(noisy, soup(4), steps=3)
        assert torch.equal(damage.fraction, torch.full((4, 2), 1 / 320, dtype=torch.float64))
    masked = damage_spreading(dynamics_of(make_law("mlp"), fire_rate=0.5), soup(8), steps=3)
    assert torch.equal(masked.fraction, torch.full((4, 2), 1 / 320, dtype=torch.float64))


def test_global_normalisation_keeps_one_reference() -> None:
    damage = damage_spreading(dynamics_of(Still(), normalise="global"), soup(2), steps=1)
    assert damage.fraction[1].tolist() == [1, 1]  # the others make up for what is lost


def test_a_universe_without_energy_has_nothing_to_lose() -> None:
    psi = soup(8)
    psi[0] = 0
    damage = damage_spreading(dynamics_of(make_law("mlp")), psi, steps=2)
    assert damage.fraction[:, 0].tolist() == [0, 0, 0]
    assert damage.speed[0] == 0
    assert damage.fraction[0, 1] == 1 / 320


def test_an_explosion_is_not_a_recovery() -> None:
    psi = soup(8)
    psi[0] = torch.inf
    damage = damage_spreading(dynamics_of(Still()), psi, steps=1)
    assert damage.fraction[:, 0].isnan().all()
    assert damage.speed[0].isnan()
    assert damage.speed[1] == 0
