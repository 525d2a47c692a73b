import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atheria.coherence import (
    l1_coherence,
    local_entropy,
    neighbour_coherence,
    purity,
    reduced_state,
    von_neumann_entropy,
)
from atheria.field import from_complex, to_complex
from atheria.symmetries import global_phase

D = 3


def cells(*amplitudes: list[complex]) -> torch.Tensor:
    """A field of one row of cells, each given by its components."""
    return from_complex(torch.tensor(amplitudes, dtype=torch.complex64).T[None, :, None, :])


def sigma_scalars(psi: torch.Tensor) -> tuple[float, float]:
    sigma = reduced_state(psi)
    return von_neumann_entropy(sigma).item(), purity(sigma).item()


def test_one_component() -> None:
    psi = cells([0, 2j, 0], [0, 0, 0])
    assert local_entropy(psi).item() == pytest.approx(0, abs=1e-9)
    assert l1_coherence(psi).item() == pytest.approx(0, abs=1e-9)
    assert sigma_scalars(psi) == pytest.approx((0, 1), abs=1e-9)


def test_a_superposition_of_two_components() -> None:
    psi = cells([0.6, 0.8j, 0], [0, 0, 0])
    entropy = -(0.36 * math.log(0.36) + 0.64 * math.log(0.64))
    assert local_entropy(psi).item() == pytest.approx(entropy, rel=1e-6)
    assert l1_coherence(psi).item() == pytest.approx(2 * 0.6 * 0.8, rel=1e-6)
    assert sigma_scalars(psi) == pytest.approx((0, 1), abs=1e-6)  # one cell is pure
    sigma = reduced_state(psi)[0]
    assert sigma[0, 1].item() == pytest.approx(-0.48j, rel=1e-6)  # psi_0 conj(psi_1): not the transpose
    assert sigma.trace().item() == pytest.approx(1)


def test_all_components_alike() -> None:
    psi = cells([1, 1j, -1])
    assert local_entropy(psi).item() == pytest.approx(math.log(D))
    assert l1_coherence(psi).item() == pytest.approx(D - 1)


def test_local_things_are_means_over_occupied_cells_whatever_their_energy() -> None:
    psi = cells([1, 1, 0], [10, 0, 0], [0, 0, 0], [1e-20, 1e-20, 0])
    assert local_entropy(psi).item() == pytest.approx(2 / 3 * math.log(2))
    assert l1_coherence(psi).item() == pytest.approx(2 / 3)


def test_orthogonal_cells_of_equal_energy_are_maximally_mixed() -> None:
    psi = cells([1, 0, 0], [0, 1j, 0], [0, 0, -1])
    assert sigma_scalars(psi) == pytest.approx((math.log(D), 1 / D))


def test_a_mixture_is_weighted_by_energy() -> None:
    psi = cells([3**0.5, 0, 0], [0, 1, 0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert sigma_scalars(psi) == pytest.approx((entropy, 0.75**2 + 0.25**2))


def test_neighbours_in_a_row() -> None:
    psi = cells([1, 0, 0], [-5, 0, 0], [0, 0, 0], [0.6, 0.8, 0])
    modulus, real = neighbour_coherence(psi, torus=False)
    assert (modulus.item(), real.item()) == pytest.approx((1, -1))
    modulus, real = neighbour_coherence(psi, torus=True)  # and the last with the first
    assert (modulus.item(), real.item()) == pytest.approx((0.8, -0.2))


def test_a_plane_wave_is_coherent_up_to_its_phase() -> None:
    wave = torch.exp(2j * math.pi * torch.arange(8) / 8).expand(1, 1, 8, 8)
    for torus in (True, False):
        modulus, real = neighbour_coherence(from_complex(wave), torus)
        assert modulus.item() == pytest.approx(1, rel=1e-6)
        along_x, along_y = math.cos(2 * math.pi / 8), 1
        assert real.item() == pytest.approx((along_x + along_y) / 2, rel=1e-6)


def test_a_checkerboard_of_signs() -> None:
    signs = (-1.0) ** (torch.arange(4)[:, None] + torch.arange(6))
    psi = torch.stack([signs, 2 * signs])[None]
    assert [part.item() for part in neighbour_coherence(psi, torus=True)] == pytest.approx([1, -1])


def test_no_cell_is_its_own_neighbour() -> None:
    for torus in (True, False):
        assert [part.item() for part in neighbour_coherence(cells([1, 0, 0]), torus)] == [0, 0]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 6.28), st.booleans())
def test_bounds_and_invariance_under_a_global_phase(seed: int, angle: float, torus: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    psi = torch.randn(2, 2 * D, 4, 5, generator=generator)
    psi *= torch.rand(2, 1, 4, 5, generator=generator) < 0.6
    turned = global_phase(angle)(psi)
    slack = 1e-9
    for field in (psi, turned):
        sigma = reduced_state(field)
        modulus, real = neighbour_coherence(field, torus)
        for value, low, high in (
            (local_entropy(field), 0, math.log(D)),
            (l1_coherence(field), 0, D - 1),
            (von_neumann_entropy(sigma), 0, math.log(D)),
            (purity(sigma)[psi.abs().amax(dim=(1, 2, 3)) > 0], 1 / D, 1),
            (modulus, 0, 1),
            (real.abs(), 0, modulus.max().item()),
        ):
            assert (value >= low - slack).all()
            assert (value <= high + slack).all()
    torch.testing.assert_close(reduced_state(turned), reduced_state(psi), atol=1e-6, rtol=0)
    for before, after in zip(
        neighbour_coherence(psi, torus), neighbour_coherence(turned, torus), strict=True
    ):
        torch.testing.assert_close(after, before, atol=1e-6, rtol=0)


def test_the_reduced_state_is_the_sum_over_cells() -> None:
    psi = torch.randn(2, 2 * D, 3, 4)
    amplitudes = to_complex(psi.double())
    expected = torch.einsum("bihw,bjhw->bij", amplitudes, amplitudes.conj())
    expected /= psi.double().square().sum(dim=(1, 2, 3))[:, None, None]
    torch.testing.assert_close(reduced_state(psi), expected)
