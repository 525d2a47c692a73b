import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atheria.observables import observe


def single_cells(*cells: tuple[int, int, float], height: int = 8, width: int = 10) -> torch.Tensor:
    """A field with amplitude sqrt(energy) at the cells (x, y, energy)."""
    psi = torch.zeros(1, 2, height, width)
    for x, y, energy in cells:
        psi[0, 0, y, x] = energy**0.5
    return psi


def value(psi: torch.Tensor, name: str, torus: bool = True) -> float:
    return observe(psi, torus)[name].item()


@given(st.integers(0, 9), st.integers(0, 7), st.floats(0.01, 100))
def test_one_particle(x: int, y: int, energy: float) -> None:
    for torus in (True, False):
        seen = {name: v.item() for name, v in observe(single_cells((x, y, energy)), torus).items()}
        assert seen["energy"] == pytest.approx(energy, rel=1e-5)
        assert seen["occupancy"] == 1 / 80
        assert seen["position_entropy"] == pytest.approx(0, abs=1e-12)
        assert seen["ipr"] == pytest.approx(1)
        assert math.remainder(seen["centre_x"] - x, 10) == pytest.approx(0, abs=1e-9)
        assert math.remainder(seen["centre_y"] - y, 8) == pytest.approx(0, abs=1e-9)
        assert seen["radius_of_gyration"] == pytest.approx(0, abs=1e-6)


def test_a_uniform_field() -> None:
    seen = observe(torch.ones(2, 2, 8, 10), torus=False)
    assert seen["position_entropy"].tolist() == pytest.approx([math.log(80)] * 2)
    assert seen["ipr"].tolist() == pytest.approx([1 / 80] * 2)
    assert seen["centre_x"].tolist() == pytest.approx([4.5] * 2)


def test_two_particles_across_the_seam_of_a_torus() -> None:
    psi = single_cells((9, 0, 1.0), (1, 0, 1.0))
    assert math.remainder(value(psi, "centre_x"), 10) == pytest.approx(0, abs=1e-9)
    assert value(psi, "radius_of_gyration") == pytest.approx(1)
    assert value(psi, "centre_x", torus=False) == pytest.approx(5)
    assert value(psi, "radius_of_gyration", torus=False) == pytest.approx(4)


def test_matter_without_a_centre_has_the_middle() -> None:
    seen = observe(torch.ones(1, 2, 12, 16), torus=True)
    assert (seen["centre_x"].item(), seen["centre_y"].item()) == (8, 6)


def test_vacuum_has_no_observables_but_zeros() -> None:
    assert {v.item() for v in observe(torch.zeros(1, 4, 4, 4), torus=False).values()} == {0.0}
