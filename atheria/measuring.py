"""Series of what is observed on a batch of universes: natively, or by Python where only that can."""

import numpy as np
import torch
from numpy.typing import NDArray

from atheria import observables

CELLS_MEASURED_TOGETHER = 1 << 18
"""Measuring takes a dozen times the memory of the field: many universes are measured in turn."""

Series = dict[str, NDArray[np.float64]]
"""(T, B) for each observable."""


def series(observed: list[list[dict[str, float]]]) -> Series:
    """Lists over steps of lists over universes, as one array (T, B) for each observable."""
    return {
        name: np.array([[universe[name] for universe in universes] for universes in observed])
        for name in observed[0][0]
    }


def step_drift(before: list[dict[str, float]], after: list[dict[str, float]]) -> NDArray[np.float64]:
    """|N_{t+1} - N_t| / N_t of each universe, (B,), from what was observed before and after a step."""
    energies = (
        torch.tensor([universe["energy"] for universe in universes], dtype=torch.float64)
        for universes in (before, after)
    )
    values: NDArray[np.float64] = observables.drift(*energies).numpy()
    return values


def measured(initial: NDArray[np.float32], psi: NDArray[np.float32], torus: bool) -> Series:
    """Everything that is measured on each universe, (B,) each.

    Args:
        initial: The fields at the start, (B, 2d, H, W).
        psi: The fields now.
        torus: Whether the grid wraps.
    """
    together = max(1, CELLS_MEASURED_TOGETHER // psi[0, 0].size)
    parts = []
    for first in range(0, len(psi), together):
        before, now = (torch.from_numpy(field[first : first + together]) for field in (initial, psi))
        parts.append({**observables.compare(before, now), **observables.measure(now, torus)})
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
