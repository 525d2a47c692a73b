"""How far and how fast the loss of one cell is felt."""

from typing import NamedTuple

import torch
from torch import Tensor

from atheria.field import energy_density
from atheria.physics import Dynamics
from atheria.probability import ratio

DAMAGED = 1e-6
"""A cell is damaged where ||psi - psi'|| exceeds this."""


class Damage(NamedTuple):
    """How a perturbation spread.

    Attributes:
        fraction: (T + 1, B), share of damaged cells after 0 to T steps, 0 to 1.
        radius: (T + 1, B), distance in cells of the farthest damaged cell from the first, the larger of
            its distances along y and x.
        speed: (B,), cells a step of the front until it was farthest; a local law's is at most its radius.
    """

    fraction: Tensor
    radius: Tensor
    speed: Tensor


@torch.no_grad()
def damage_spreading(dynamics: Dynamics, psi: Tensor, steps: int) -> Damage:
    """How far the loss of one cell is felt: the cell with most energy is emptied in a copy.

    Both copies step with the same mask, noise and reference energy (common random numbers: Stanley,
    Stauffer, Kertesz & Herrmann, 1987). Distances wrap where the physics' boundary is a torus. A universe
    without energy has nothing to lose and 0 everywhere; one that is no longer finite has NaN.

    Args:
        dynamics: The dynamics.
        psi: The start, (B, 2d, H, W).
        steps: T.
    """
    distance, struck = _strike(psi, dynamics.physics.boundary == "torus")
    whole = dynamics.start(psi)
    damaged = whole._replace(psi=torch.where(struck.unsqueeze(1), 0.0, psi))
    fractions, radii = [], []
    for step in range(steps + 1):
        if step > 0:
            whole, damaged = dynamics.step(whole), dynamics.step(damaged)
        difference = energy_density((whole.psi - damaged.psi).double()).sqrt()
        apart = difference > DAMAGED
        exploded = ~difference.isfinite().all(dim=2).all(dim=1)
        fractions.append(apart.double().mean(dim=(1, 2)).masked_fill(exploded, torch.nan))
        radii.append(torch.where(apart, distance, 0.0).amax(dim=(1, 2)).masked_fill(exploded, torch.nan))
    fraction, radius = torch.stack(fractions), torch.stack(radii)
    farthest, first_at = radius.max(dim=0)
    speed = ratio(farthest, first_at).masked_fill(farthest.isnan(), torch.nan)
    return Damage(fraction, radius, speed)


def _strike(psi: Tensor, torus: bool) -> tuple[Tensor, Tensor]:
    """Chebyshev distance of each cell from the one with most energy, and where that is 0: (B, H, W)."""
    _, _, height, width = psi.shape
    brightest = energy_density(psi.double()).flatten(start_dim=1).argmax(dim=1)
    centre = (brightest // width, brightest % width)
    along = []
    for size, middle in zip((height, width), centre, strict=True):
        offset = (torch.arange(size, device=psi.device) - middle[:, None]).abs()
        along.append(torch.minimum(offset, size - offset) if torus else offset)
    distance = torch.maximum(along[0][:, :, None], along[1][:, None, :]).double()
    return distance, distance == 0
