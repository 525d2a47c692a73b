"""What is measured on a field: `observe`, as the engine does natively; `measure`, all; `compare`, two.

With rho(x) the energy of a cell, N its sum over cells and p = rho / N. Every function takes psi
(B, 2d, H, W) and returns float64 (B,); a universe without energy has 0 everywhere.
"""

import math

import torch
from torch import Tensor

from atheria.coherence import (
    l1_coherence,
    local_entropy,
    neighbour_coherence,
    purity,
    reduced_state,
    von_neumann_entropy,
)
from atheria.field import energy_density, to_complex, total_energy
from atheria.patterns import lmc_complexity, spectral_entropy, symmetry_score, zlib_complexity
from atheria.probability import entropy, ratio

NO_CENTRE = 1e-9
"""Below this share of the energy, a circular moment is rounding: the matter has no centre on that axis."""


LABELS = {
    "occupancy": "share of occupied cells",
    "position_entropy": "position entropy",
    "radius_of_gyration": "radius of gyration (cells)",
    "fidelity": "fidelity to the start",
    "von_neumann_entropy": "von Neumann entropy",
    "neighbour_coherence": "neighbour coherence",
    "symmetry_score": "symmetry score",
    "zlib_complexity": "zlib complexity",
}
"""What pictures and reports show beside the energy, and what they call it."""


def observe(psi: Tensor, torus: bool) -> dict[str, Tensor]:
    """What the engine observes too, by name, (B,) float64 each.

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
    p = ratio(rho, energy[:, None, None])
    centre_y, spread_y = _axis(p.sum(dim=2), torus)
    centre_x, spread_x = _axis(p.sum(dim=1), torus)
    return {
        "energy": energy,
        "occupancy": (rho > 0).double().mean(dim=(1, 2)),
        "position_entropy": entropy(p, dim=(1, 2)),
        "ipr": p.square().sum(dim=(1, 2)),
        "centre_x": centre_x,
        "centre_y": centre_y,
        "radius_of_gyration": torch.sqrt(spread_x + spread_y),
    }


def measure(psi: Tensor, torus: bool) -> dict[str, Tensor]:
    """Every scalar that one field has, by name, (B,) float64 each.

    Those of `observe`; ``local_entropy``, ``von_neumann_entropy``, ``purity``, ``l1_coherence``,
    ``neighbour_coherence`` and ``neighbour_coherence_real``, see `atheria.coherence`; ``symmetry_score``,
    ``zlib_complexity``, ``lmc_complexity`` and ``spectral_entropy``, see `atheria.patterns`.

    Args:
        psi: (B, 2d, H, W). A universe whose energy is not finite has NaN in what `observe` does not give.
        torus: Whether the grid wraps.
    """
    psi = psi.double()
    seen = observe(psi, torus)
    finite = seen["energy"].isfinite()
    kept = torch.where(finite[:, None, None, None], psi, 0.0)
    sigma = reduced_state(kept)
    coherence, coherence_real = neighbour_coherence(kept, torus)
    measured = {
        "local_entropy": local_entropy(kept),
        "von_neumann_entropy": von_neumann_entropy(sigma),
        "purity": purity(sigma),
        "l1_coherence": l1_coherence(kept),
        "neighbour_coherence": coherence,
        "neighbour_coherence_real": coherence_real,
        "symmetry_score": symmetry_score(kept),
        "zlib_complexity": zlib_complexity(kept),
        "lmc_complexity": lmc_complexity(kept),
        "spectral_entropy": spectral_entropy(kept),
    }
    return {**seen, **{name: torch.where(finite, value, torch.nan) for name, value in measured.items()}}


def compare(initial: Tensor, psi: Tensor) -> dict[str, Tensor]:
    """What two fields of the same universes are to each other, by name, (B,) float64 each.

    ``norm_drift``: |N_t - N_0| / N_0, from 0; see `drift`. ``fidelity``: |<psi_0|psi_t>|^2 / (N_0 N_t), from
    0 to 1 (alike but for a factor), the squared overlap of two pure states (Jozsa, 1994). Both
    are 0 where the initial field has no energy.

    Args:
        initial: psi_0, (B, 2d, H, W).
        psi: psi_t, of the same shape.
    """
    before, after = initial.double(), psi.double()
    energy_before, energy_after = total_energy(before), total_energy(after)
    overlap = (to_complex(before).conj() * to_complex(after)).sum(dim=(1, 2, 3))
    return {
        "norm_drift": drift(energy_before, energy_after),
        "fidelity": ratio(overlap.abs().square(), energy_before * energy_after),
    }


def drift(before: Tensor, after: Tensor) -> Tensor:
    """|N' - N| / N of two energies, from 0; 0 where there was none.

    Of a start and now it is ``norm_drift``, of two consecutive fields ``step_drift``.

    Args:
        before: N, (B,) or any shape.
        after: N', of the same shape.
    """
    return ratio((after - before).abs(), before)


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
