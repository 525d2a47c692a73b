import math

import pytest
import torch

from atheria import noise
from atheria.config import CurriculumConfig, UserError
from atheria.field import energy_density, to_complex
from atheria.noise import Curriculum

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


@pytest.mark.parametrize("d_state", [2, 4, 8])
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_phase_flip_dephases(d_state: int, level: float) -> None:
    psi = one_state_everywhere(d_state)
    flipped = noise.apply(noise.phase_flip, psi, level, seed=4, step=2)
    before = density_matrices(psi)[0]
    kept = torch.eye(d_state) + (1 - level) * (1 - torch.eye(d_state))
    assert mean_within_standard_errors(density_matrices(flipped), before * kept)


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


@pytest.mark.parametrize("name", ["phase_flip", "sign_flip", "seed"])
def test_noise_keeps_norms_and_vacuum(name: str) -> None:
    psi = torch.randn(3, 6, 8, 8)
    psi[:, :, 2] = 0
    channel = noise.channel(name)
    assert channel is not None
    noisy = noise.apply(channel, psi, 0.7, seed=1, step=3)
    assert not torch.equal(noisy, psi)
    torch.testing.assert_close(energy_density(noisy), energy_density(psi))
    assert (noisy[:, :, 2] == 0).all()


def test_an_unknown_channel_is_refused() -> None:
    with pytest.raises(UserError, match="'hum' is not registered in `atheria.noise`; known: phase_flip"):
        noise.channel("hum")


def test_curricula() -> None:
    linear = Curriculum(CurriculumConfig("linear", 100, 0.001), 0.05, episodes=7)
    assert [linear.level(e) for e in (0, 1, 50, 100, 500)] == pytest.approx([0, 0, 0.025, 0.05, 0.05])
    cosine = Curriculum(CurriculumConfig("cosine"), 0.05, episodes=100)
    assert [cosine.level(e) for e in (0, 50, 100)] == pytest.approx([0, 0.025, 0.05])
    assert Curriculum(CurriculumConfig("constant"), 0.05, episodes=100).level(0) == 0.05
