import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atheria.coherence import neighbour_coherence
from atheria.observables import compare, measure, observe
from atheria.symmetries import global_phase

MEASURED = {
    "local_entropy",
    "von_neumann_entropy",
    "purity",
    "l1_coherence",
    "neighbour_coherence",
    "neighbour_coherence_real",
    "symmetry_score",
    "zlib_complexity",
    "lmc_complexity",
    "spectral_entropy",
}


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


def test_measure_holds_what_observe_holds_and_more() -> None:
    psi = torch.randn(2, 6, 8, 10)
    for torus in (True, False):
        measured, seen = measure(psi, torus), observe(psi, torus)
        assert {name: measured[name].tolist() for name in seen} == {k: v.tolist() for k, v in seen.items()}
        assert set(measured) - set(seen) == MEASURED
        assert {(value.dtype, value.shape) for value in measured.values()} == {(torch.float64, (2,))}
    assert torch.equal(measured["neighbour_coherence"], neighbour_coherence(psi, torus=False)[0])


def test_universes_do_not_mix_and_an_explosion_is_no_number() -> None:
    psi = torch.randn(4, 4, 8, 8)
    psi[0] = 0
    psi[2, 0, 3, 3] = torch.inf
    psi[3, 1, 2, 2] = torch.nan
    measured = measure(psi, torus=True)
    alone = measure(psi[1:2], torus=True)
    for name, value in measured.items():
        assert value[0] == 0, name
        assert value[1].item() == pytest.approx(alone[name].item()), name
        if name in MEASURED:
            assert value[2:].isnan().all(), name


def test_a_batch_of_vacuum() -> None:
    psi = torch.zeros(2, 4, 5, 7)
    for values in (measure(psi, torus=True), compare(psi, psi), compare(psi, psi + 1)):
        assert {x for value in values.values() for x in value.tolist()} == {0.0}


def test_drift_and_fidelity() -> None:
    psi = torch.randn(1, 4, 6, 6)
    for factor, drift in ((1.0, 0.0), (2.0, 3.0), (0.5, 0.75), (0.0, 1.0)):
        compared = compare(psi, factor * global_phase(1.3)(psi))
        assert compared["norm_drift"].item() == pytest.approx(drift, abs=1e-6)
        assert compared["fidelity"].item() == pytest.approx(min(factor, 1.0) and 1, abs=1e-6)
    one, other = single_cells((1, 1, 1.0)), single_cells((2, 1, 1.0))
    assert compare(one, other)["fidelity"].item() == 0
    # Half of the state's weight is where the other is, with another phase.
    assert compare(one, one.roll(1, dims=1) + other)["fidelity"].item() == pytest.approx(0.5)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 6.28))
def test_a_global_phase_changes_no_observable(seed: int, angle: float) -> None:
    psi = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(seed))
    before, after = measure(psi, torus=True), measure(global_phase(angle)(psi), torus=True)
    del before["zlib_complexity"], after["zlib_complexity"]  # a level may round the other way
    for name, value in before.items():
        assert after[name].item() == pytest.approx(value.item(), abs=1e-4), name
    assert 0 <= compare(psi, psi.flip(-1))["fidelity"].item() <= 1
