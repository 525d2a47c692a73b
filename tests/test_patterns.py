import math
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atheria.field import modulus
from atheria.patterns import (
    lmc_complexity,
    spectral_entropy,
    structure_factor,
    symmetry_score,
    symmetry_scores,
    zlib_complexity,
)
from atheria.symmetries import global_phase, grid_symmetries


def density(rho: torch.Tensor) -> torch.Tensor:
    """A field of one component with the density rho (H, W)."""
    root = rho.sqrt()
    return torch.stack([root * 0.6, root * 0.8])[None].float()


def particle(x: int, y: int, height: int = 8, width: int = 8) -> torch.Tensor:
    rho = torch.zeros(height, width)
    rho[y, x] = 2.0
    return density(rho)


def wave(amplitude: float, frequency: int, height: int = 8, width: int = 16) -> torch.Tensor:
    """rho = 1 + amplitude cos(2 pi frequency x / width)."""
    x = torch.arange(width).double()
    return density((1 + amplitude * torch.cos(2 * math.pi * frequency * x / width)).expand(height, width))


def test_symmetry_of_one_particle() -> None:
    on_diagonal = {name: score.item() for name, score in symmetry_scores(particle(2, 2)).items()}
    assert len(on_diagonal) == 7
    assert {name for name, score in on_diagonal.items() if score} == {"diagonal"}
    assert on_diagonal["diagonal"] == pytest.approx(1)
    assert symmetry_score(particle(2, 2)).item() == pytest.approx(1 / 7)
    assert symmetry_score(particle(4, 4, 9, 9)).item() == pytest.approx(1)  # in the middle
    assert symmetry_score(particle(0, 1)).item() == 0


def test_symmetry_of_a_grid_that_is_not_square() -> None:
    scores = symmetry_scores(particle(4, 0, 8, 9))
    assert {name: score.item() for name, score in scores.items()} == pytest.approx(
        {"half_turn": 0, "mirror_y": 0, "mirror_x": 1}
    )
    assert symmetry_score(particle(4, 0, 8, 9)).item() == pytest.approx(1 / 3)


def test_symmetry_is_the_formula() -> None:
    psi = torch.randn(2, 6, 5, 5).double()
    amplitude = modulus(psi, floor=0.0)
    for name, act in grid_symmetries(5, 5).items():
        distance = (amplitude - act(amplitude)).square().sum(dim=(1, 2, 3))
        expected = 1 - distance / (2 * psi.square().sum(dim=(1, 2, 3)))
        torch.testing.assert_close(symmetry_scores(psi)[name], expected)


def test_zlib_complexity() -> None:
    noise = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    assert zlib_complexity(density(torch.ones(64, 64))).item() < 0.01
    assert zlib_complexity(density(noise)).item() == pytest.approx(1, abs=0.02)
    levels = bytes([0, 255, 128, 64])  # of rho = 0, 1, 0.5, 0.25
    expected = len(zlib.compress(levels, 9)) / 4
    quarters = density(3 * torch.tensor([[0, 1], [0.5, 0.25]]))
    assert zlib_complexity(quarters).item() == expected
    assert zlib_complexity(100 * quarters).item() == expected  # the scale does not count


def test_lmc_complexity() -> None:
    assert lmc_complexity(density(torch.ones(8, 8))).item() == pytest.approx(0, abs=1e-12)
    assert lmc_complexity(particle(1, 2)).item() == pytest.approx(0, abs=1e-12)
    two = particle(1, 2) + particle(5, 5)
    expected = math.log(2) / math.log(64) * (2 * (1 / 2 - 1 / 64) ** 2 + 62 / 64**2)
    assert lmc_complexity(two).item() == pytest.approx(expected)
    assert lmc_complexity(density(torch.ones(1, 1))).item() == 0


def test_spectral_entropy() -> None:
    assert spectral_entropy(particle(3, 1)).item() == pytest.approx(1)
    assert spectral_entropy(density(torch.ones(8, 8))).item() == 0
    assert spectral_entropy(density(0.1 * torch.rand(1, 1).expand(7, 9))).item() == 0
    one_wave = spectral_entropy(wave(0.5, 3)).item()  # +k and -k
    assert one_wave == pytest.approx(math.log(2) / math.log(8 * 16 - 1), rel=1e-4)
    assert spectral_entropy(density(torch.ones(1, 1))).item() == 0


def test_a_density_that_is_uniform_to_rounding_has_no_spectrum() -> None:
    psi = torch.randn(1, 8, 16, 16)
    psi /= psi.square().sum(dim=1, keepdim=True).sqrt()
    assert spectral_entropy(psi).item() == 0


def test_structure_factor_of_a_particle_and_of_a_wave() -> None:
    wave_numbers, power = structure_factor(particle(3, 1, 8, 12))
    assert wave_numbers.tolist() == pytest.approx([n / 12 for n in range(7)])
    assert power[0].tolist() == pytest.approx([4.0] * 7)
    wave_numbers, power = structure_factor(wave(0.5, 3, 8, 16))
    cells = 8 * 16
    modes = {0: 1, 3: 0}
    for ky in range(-4, 4):
        for kx in range(-8, 8):
            modes[3] += round(16 * math.hypot(ky / 8, kx / 16)) == 3
    expected = [cells**2, 0, 0, 2 * (0.25 * cells) ** 2 / modes[3], 0, 0, 0, 0, 0]
    assert power[0].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-3)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 6.28), st.sampled_from([(4, 4), (5, 7), (1, 6), (1, 1)]))
def test_bounds_and_invariance_under_a_global_phase(seed: int, angle: float, grid: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    psi = torch.randn(2, 6, *grid, generator=generator)
    psi *= torch.rand(2, 1, *grid, generator=generator) < 0.5
    turned = global_phase(angle)(psi)
    for function in (symmetry_score, lmc_complexity, spectral_entropy):
        value = function(psi)
        assert value.dtype == torch.float64
        assert ((value >= -1e-12) & (value <= 1 + 1e-12)).all()
        torch.testing.assert_close(function(turned), value, atol=1e-5, rtol=0)
    assert (zlib_complexity(psi) >= 0).all()
