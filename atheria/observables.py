"""What is measured on a field; the engine computes the same ones natively.

With rho(x) the energy of a cell, N its sum over cells and p = rho / N. Every function takes psi
(B, 2d, H, W) and returns float64 (B,); a universe without energy has 0 everywhere.
"""

import math

import torch
from torch import Tensor

from atheria.field import energy_density

NO_CENTRE = 1e-9
"""Below this share of the energy, a circular moment is rounding: the matter has no centre on that axis."""


def observe(psi: Tensor, torus: bool) -> dict[str, Tensor]:
    """All observables by name, (B,) float64 each.

    ``energy``: N. ``occupancy``: share of cells with rho > 0. ``position_entropy``: -sum p ln p, from
    0 to ln(H W). ``ipr``: inverse participation ratio sum p^2, from 1/(H W) to 1. ``centre_x``,
    ``centre_y``: centre of mass in cells; the middle of a circular axis along which the matter has none.
    ``radius_of_gyration``: root mean square distance from it, in cells.

    Args:
        psi: (B, 2d, H, W).
        torus: Whether the grid wraps: then centre and distances are circular.
    """
    rho = energy_density(psi.double())
    energy = rho.sum(dim=(1, 2))
    p = rho / torch.where(energy > 0, energy, 1.0)[:, None, None]
    centre_y, spread_y = _axis(p.sum(dim=2), torus)
    centre_x, spread_x = _axis(p.sum(dim=1), torus)
    return {
        "energy": energy,
        "occupancy": (rho > 0).double().mean(dim=(1, 2)),
        "position_entropy": -torch.xlogy(p, p).sum(dim=(1, 2)),
        "ipr": p.square().sum(dim=(1, 2)),
        "centre_x": centre_x,
        "centre_y": centre_y,
        "radius_of_gyration": torch.sqrt(spread_x + spread_y),
    }


def _axis(p: Tensor, circular: bool) -> tuple[Tensor, Tensor]:
    """Mean position along an axis and mean squared distance from it; p: (B, size)."""
    size = p.shape[1]
    position = torch.arange(size, dtype=p.dtype, device=p.device)
    if circular:
        angle = 2 * math.pi * position / size
        x, y = (p * angle.cos()).sum(dim=1), (p * angle.sin()).sum(dim=1)
        centre = (torch.atan2(y, x) / (2 * math.pi) * size).remainder(size)
        centre = torch.where(centre < size, centre, 0.0)  # a tiny negative angle rounds up to size
        has_centre = torch.hypot(x, y) >= NO_CENTRE * p.sum(dim=1)
        centre = torch.where(has_centre, centre, size / 2)
    else:
        centre = (p * position).sum(dim=1)
    distance = position - centre[:, None]
    if circular:
        distance = distance - size * torch.round(distance / size)
    return centre, (p * distance.square()).sum(dim=1)
