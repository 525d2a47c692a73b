import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atheria import losses
from atheria.config import UserError
from atheria.losses import Objective, Trajectory

V4 = {"survival": 10.0, "symmetry": 5.0, "complexity": 1.0}
V3 = {"displacement": 10.0, "variance": 1.0}
EXTRAS = {"energy": 1.0, "sparsity": 1.0, "total_variation": 1.0, "overflow": 1.0, "step_difference": 1.0}


def field(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def rollout(initial: torch.Tensor, final: torch.Tensor) -> Trajectory:
    """One that stood still before its last step."""
    return Trajectory(initial, initial, final, final)


@given(st.floats(0, 3))
def test_survival_is_the_distance_from_four_fifths_of_the_energy(scale: float) -> None:
    expected = abs(scale**2 - 0.8)
    assert losses.survival(rollout(field(), scale * field())).tolist() == pytest.approx(
        [expected] * 3, abs=1e-5
    )


def test_the_pull_towards_survival_weakens_near_the_goal() -> None:
    """The value is the modulus; the gradient is Huber's, so that it fades where the modulus' would not."""

    def slope(share: float) -> float:
        scale = torch.tensor(share**0.5, requires_grad=True)
        psi = field()[:1]
        losses.survival(rollout(psi, scale * psi)).sum().backward()
        return scale.grad.item() / (2 * share**0.5)  # with respect to N_T / N_0

    assert slope(0.5) == pytest.approx(-1, rel=1e-3)
    assert slope(1.2) == pytest.approx(1, rel=1e-3)
    assert slope(0.81) == pytest.approx(0.1, rel=1e-2)
    assert slope(0.75) == pytest.approx(-0.5, rel=1e-2)


def test_symmetry_is_zero_for_a_field_that_a_quarter_turn_maps_to_itself() -> None:
    psi = field()
    turned = sum(torch.rot90(psi, k, (2, 3)) for k in range(4))
    assert losses.symmetry(rollout(psi, turned)).max() < 1e-10
    one = torch.zeros(1, 2, 4, 4)
    one[0, 0, 0, 0] = 2.0  # two corners of 16 differ by 2
    assert losses.symmetry(rollout(one, one)).item() == pytest.approx(2 * 4 / 16, rel=1e-3)


def test_complexity_is_minus_the_log_of_the_spread_of_the_amplitudes() -> None:
    psi = torch.zeros(1, 2, 2, 2)
    psi[0, 0] = torch.tensor([[1.0, 3.0], [1.0, 3.0]])  # standard deviation 1
    assert losses.complexity(rollout(psi, psi)).item() == pytest.approx(0, abs=1e-5)
    assert losses.complexity(rollout(psi, math.e * psi)).item() == pytest.approx(-1, abs=1e-5)


def test_the_classic_terms() -> None:
    psi = field()
    assert losses.displacement(rollout(psi, psi)).max() < 1e-5
    moved = psi.clone()
    moved[:, 0] += 3
    moved[:, 2] += 4  # Re and Im of component 0: a distance of 5 on one component of two
    assert losses.displacement(rollout(psi, moved)).tolist() == pytest.approx([2.5] * 3, rel=1e-4)
    constant = torch.ones(1, 2, 4, 4)
    assert losses.variance(rollout(psi, constant)).item() == pytest.approx(0.1, abs=1e-6)


@given(st.floats(0.1, 3))
def test_energy_is_the_squared_relative_change(scale: float) -> None:
    expected = (scale**2 - 1) ** 2
    got = losses.energy(rollout(field(), scale * field()))
    assert got.tolist() == pytest.approx([expected] * 3, rel=1e-3, abs=1e-5)


@given(st.integers(1, 64), st.floats(0.1, 10))
def test_sparsity_is_the_share_of_equally_occupied_cells(occupied: int, norm: float) -> None:
    psi = torch.zeros(1, 2, 8, 8)
    psi.flatten(2)[0, 1, :occupied] = norm
    assert losses.sparsity(rollout(psi, psi)).item() == pytest.approx(occupied / 64, rel=5e-3)


def test_total_variation_of_a_ramp_and_of_a_constant() -> None:
    ramp = torch.arange(8.0).expand(1, 2, 8, 8).contiguous()  # along x, by sqrt(2) a cell
    assert losses.total_variation(rollout(ramp, ramp)).item() == pytest.approx(2**0.5 / 2, rel=1e-3)
    assert losses.total_variation(rollout(ramp, torch.ones(1, 2, 8, 8))).item() < 1e-5


def test_overflow_counts_what_is_above_the_bound_before_normalisation() -> None:
    phi = torch.zeros(1, 2, 2, 2)
    phi[0, 0, 0, 0], phi[0, 1, 1, 1] = 5.0, 2.5  # one cell of four is 2 above 3
    trajectory = Trajectory(field(), field(), torch.zeros(1, 2, 2, 2), phi)
    assert losses.overflow(trajectory).item() == pytest.approx(4 / 4)


def test_step_difference_is_that_of_the_last_step() -> None:
    final = torch.full((1, 2, 4, 4), 3.0)
    trajectory = Trajectory(torch.zeros(1, 2, 4, 4), final - 0.5, final, final)
    assert losses.step_difference(trajectory).item() == pytest.approx(2 * 0.25)


@pytest.mark.parametrize("weights", [V3, V4, EXTRAS])
def test_gradients_are_finite_at_vacuum_and_at_rest(weights: dict[str, float]) -> None:
    for start in (torch.zeros(2, 4, 8, 8), field()):
        final = start.clone().requires_grad_()
        Objective(weights)(rollout(start, final)).loss.sum().backward()
        assert torch.isfinite(final.grad).all()


def test_the_loss_is_the_weighted_sum_of_the_terms() -> None:
    loss, terms = Objective(V4)(rollout(field(0), field(1)))
    assert loss.tolist() == pytest.approx(sum(V4[name] * term for name, term in terms.items()).tolist())


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(UserError, match="square `trainer.grid`, got 4 x 8"):
        losses.symmetry(rollout(torch.zeros(1, 2, 4, 8), torch.zeros(1, 2, 4, 8)))
    with pytest.raises(UserError, match="'survivl' is not registered in `atheria.losses`"):
        Objective({"survivl": 1.0})
