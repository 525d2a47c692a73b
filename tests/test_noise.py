import math

import pytest
import torch
from torch.autograd import forward_ad

from atheria import noise
from atheria.config import UserError
from atheria.field import energy_density, to_complex

TRAJECTORIES = 128 * 256


def one_state_everywhere(d_state: int, norm: float = 1.7) -> torch.Tensor:
    """The same state in many cells: each cell is a trajectory."""
    generator = torch.Generator().manual_seed(d_state)
    state = torch.randn(2 * d_state, generator=generator)
    state *= norm / state.norm()
    return state[None, :, None, None].expand(1, -1, 128, 256).contiguous()


def density_matrices(psi: torch.Tensor) -> torch.Tensor:
    """psi psi^dagger of every cell: (cells, d, d)."""
    states = to_complex(psi)[0].flatten(1).T
    return states[:, :, None] * states[:, None, :].conj()


def mean_within_standard_errors(samples: torch.Tensor, expected: torch.Tensor, errors: float = 4) -> bool:
    spread = torch.view_as_real(samples).std(dim=0) / math.sqrt(len(samples))
    miss = torch.view_as_real(samples.mean(dim=0) - expected).abs()
    return bool((miss <= errors * spread + 1e-5).all())


def shifted(rho: torch.Tensor, k: int) -> torch.Tensor:
    """X^k rho X^-k."""
    return rho.roll((k, k), (0, 1))


def only_diagonal(rho: torch.Tensor) -> torch.Tensor:
    return torch.diag(rho.diagonal())


def damped(rho: torch.Tensor, g: float) -> torch.Tensor:
    """sum_i K_i rho K_i^dagger with K_0 = diag(1, sqrt(1-g), ...) and K_i = sqrt(g) |0><i|."""
    keep = torch.full((len(rho),), math.sqrt(1 - g))
    keep[0] = 1
    after = keep[:, None] * rho * keep[None, :]
    after[0, 0] += g * rho.diagonal()[1:].sum()
    return after


def dephased(rho: torch.Tensor, p: float) -> torch.Tensor:
    return (1 - p) * rho + p * only_diagonal(rho)


def flipped(rho: torch.Tensor, p: float) -> torch.Tensor:
    return (1 - p) * rho + p / (len(rho) - 1) * sum(shifted(rho, k) for k in range(1, len(rho)))


def depolarised(rho: torch.Tensor, p: float) -> torch.Tensor:
    return (1 - p) * rho + p * rho.trace() * torch.eye(len(rho)) / len(rho)


MEAN_MAPS = {
    "phase_flip": dephased,
    "dephasing": dephased,
    "bit_flip": flipped,
    "sign_flip": lambda rho, p: rho,
    "seed": dephased,
    "depolarising": depolarised,
    "amplitude_damping": damped,
    "mixed": lambda rho, p: (dephased(rho, p) + flipped(rho, p) + depolarised(rho, p) + damped(rho, p)) / 4,
    "thermal": lambda rho, t: rho + 2 * t**2 * torch.eye(len(rho)),
}
"""The exact map on rho = psi psi^dagger that each channel has on average."""


@pytest.mark.parametrize("d_state", [2, 4, 8])
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", MEAN_MAPS)
def test_the_average_over_trajectories_is_the_exact_map(name: str, level: float, d_state: int) -> None:
    psi = one_state_everywhere(d_state)
    channel = noise.channel(name)
    assert channel is not None
    noisy = noise.apply(channel, psi, level, seed=4, step=2)
    expected = MEAN_MAPS[name](density_matrices(psi)[0], level)
    assert mean_within_standard_errors(density_matrices(noisy), expected)


@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_sign_flip_turns_the_sign_at_its_rate(level: float) -> None:
    psi = one_state_everywhere(2)
    flipped = noise.apply(noise.sign_flip, psi, level, seed=4, step=2)
    sign = (flipped / psi)[0, 0]
    assert set(sign.unique().tolist()) <= {-1.0, 1.0}
    share = (sign < 0).float().mean().item()
    assert abs(share - level) <= 4 * math.sqrt(level * (1 - level) / TRAJECTORIES)


def test_the_seed_mix_flips_signs_in_one_step_of_five() -> None:
    """At level 1 a fifth of the universes see sign flips, in a tenth of their cells."""
    psi = torch.ones(400, 2, 16, 16)
    mixed = noise.apply(noise.seed_mix, psi, 1.0, seed=0, step=0)
    phases_alone = noise.apply(noise.phase_flip, psi, 1.0, seed=0, step=0)
    flipped = (mixed - phases_alone).abs().sum(dim=1) > 1e-6
    hit = flipped.flatten(1).any(dim=1)
    assert abs(hit.float().mean() - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 400)
    assert abs(flipped[hit].float().mean() - 0.1) < 0.01


@pytest.mark.parametrize("name", sorted({*MEAN_MAPS} - {"thermal"}))
def test_noise_keeps_norms_and_vacuum(name: str) -> None:
    psi = torch.randn(3, 6, 8, 8)
    psi[:, :, 2] = 0
    channel = noise.channel(name)
    assert channel is not None
    noisy = noise.apply(channel, psi, 0.7, seed=1, step=3)
    assert not torch.equal(noisy, psi)
    torch.testing.assert_close(energy_density(noisy), energy_density(psi))
    assert (noisy[:, :, 2] == 0).all()


@pytest.mark.parametrize("name", MEAN_MAPS)
def test_gradients_pass_through_noise_and_are_finite_at_vacuum(name: str) -> None:
    psi = torch.randn(2, 6, 8, 8)
    psi[:, :, 2] = 0
    psi.requires_grad_()
    channel = noise.channel(name)
    assert channel is not None
    noise.apply(channel, psi, 0.5, seed=1, step=3).sum().backward()
    assert torch.isfinite(psi.grad).all()
    assert psi.grad.abs().sum() > 0


@pytest.mark.parametrize("level", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("name", sorted({*MEAN_MAPS} - {"amplitude_damping", "mixed", "thermal"}))
def test_the_extension_does_what_the_channel_in_python_does(name: str, level: float) -> None:
    """With its gradient and its tangent, which the extension has from the inverse."""
    channel = noise.channel(name)
    assert channel is not None
    psi = torch.randn(5, 6, 8, 12, requires_grad=True)
    weights = torch.randn(5, 6, 8, 12)
    native = noise.apply(channel, psi, level, 2**63 + 7, 3, 10)
    plain = noise.by_torch(channel, psi, level, 2**63 + 7, 3, 10)
    torch.testing.assert_close(native, plain, atol=2e-6, rtol=0)
    gradients = [torch.autograd.grad(result, psi, weights)[0] for result in (native, plain)]
    torch.testing.assert_close(*gradients, atol=2e-6, rtol=0)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(psi.detach(), weights)
        tangents = [
            forward_ad.unpack_dual(act(channel, dual, level, 2**63 + 7, 3, 10)).tangent
            for act in (noise.apply, noise.by_torch)
        ]
    torch.testing.assert_close(*tangents, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["bit_flip", "mixed"])
def test_shifts_need_two_components(name: str) -> None:
    channel = noise.channel(name)
    assert channel is not None
    with pytest.raises(UserError, match=f"noise={name} needs `model.d_state` of at least 2"):
        noise.apply(channel, torch.ones(1, 2, 4, 4), 0.5, seed=0, step=0)


def test_thermal_noise_leaves_vacuum_empty() -> None:
    psi = torch.zeros(1, 4, 8, 8)
    psi[0, 0, 3, 3] = 1
    warm = noise.apply(noise.thermal, psi, 0.5, seed=0, step=0)
    assert (energy_density(warm) > 0).sum() == 1


def test_an_unknown_channel_is_refused() -> None:
    with pytest.raises(
        UserError, match="'hum' is not registered in `atheria.noise`; known: amplitude_damping"
    ):
        noise.channel("hum")
