"""The matter of an unbounded universe as its occupied cells: measured, drawn, and read from a file.

What needs the number of cells of a grid (`atheria.patterns`) is not defined there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atheria.coherence import (
    l1_coherence,
    local_entropy,
    neighbour_coherence,
    purity,
    reduced_state,
    von_neumann_entropy,
)
from atheria.config import UserError
from atheria.initial_state import existing


class Cells(NamedTuple):
    """The occupied cells of a universe.

    Attributes:
        coordinates: (n, 2) int64, (x, y) each.
        psi: (n, 2d) float32: Re of the components, then Im.
    """

    coordinates: NDArray[np.int64]
    psi: NDArray[np.float32]

    @property
    def amplitudes(self) -> NDArray[np.complex64]:
        """(n, d)."""
        re, im = np.split(self.psi, 2, axis=1)
        joined: NDArray[np.complex64] = re + np.complex64(1j) * im
        return joined


class Box(NamedTuple):
    """Cells from (x, y) on."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def of(cls, cells: Cells) -> "Box":
        """The smallest box that holds the cells; where there are none, the cell at the origin."""
        first = cells.coordinates[0] if len(cells.coordinates) else (0, 0)
        return cls(int(first[0]), int(first[1]), 1, 1).around(cells)

    def around(self, cells: Cells) -> "Box":
        """The smallest box that holds this one and the cells."""
        if len(cells.coordinates) == 0:
            return self
        west, north = (int(side) for side in cells.coordinates.min(axis=0))
        east, south = (int(side) + 1 for side in cells.coordinates.max(axis=0))
        x, y = min(self.x, west), min(self.y, north)
        width = max(self.x + self.width, east) - x
        return Box(x, y, width, max(self.y + self.height, south) - y)


def cells_of(engine: Any, universe: int, before_noise: bool = False) -> Cells:
    """The occupied cells of a universe of an `atheria_core.Engine`, as its method `cells`."""
    coordinates, amplitudes = engine.cells(universe, before_noise)
    return Cells(coordinates, np.concatenate([amplitudes.real, amplitudes.imag], axis=1))


def measure(cells: Cells) -> dict[str, float]:
    """What `atheria.observables.measure` adds to `observe` and is defined without a grid, by name."""
    row = torch.from_numpy(cells.psi.T[None, :, None, :].astype(np.float64))
    sigma = reduced_state(row)
    coherence, coherence_real = neighbour_coherence(_pairs(cells), torus=False)
    measured = {
        "local_entropy": local_entropy(row),
        "von_neumann_entropy": von_neumann_entropy(sigma),
        "purity": purity(sigma),
        "l1_coherence": l1_coherence(row),
        "neighbour_coherence": coherence.mean() if len(coherence) else torch.zeros(1),
        "neighbour_coherence_real": coherence_real.mean() if len(coherence) else torch.zeros(1),
    }
    return {name: value.item() for name, value in measured.items()}


def compare(initial: Cells, cells: Cells) -> dict[str, float]:
    """As `atheria.observables.compare`: ``norm_drift`` and ``fidelity``."""
    before, after = initial.psi.astype(np.float64), cells.psi.astype(np.float64)
    energy_before, energy_after = np.square(before).sum(), np.square(after).sum()
    if energy_before == 0:
        return {"norm_drift": 0.0, "fidelity": 0.0}
    drift = abs(energy_after - energy_before) / energy_before
    if energy_after == 0:
        return {"norm_drift": float(drift), "fidelity": 0.0}
    old, new = _keys(initial.coordinates, cells.coordinates)
    _, i, j = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    (re, im), (new_re, new_im) = np.split(before[i], 2, axis=1), np.split(after[j], 2, axis=1)
    overlap = complex((re * new_re + im * new_im).sum(), (re * new_im - im * new_re).sum())
    return {"norm_drift": float(drift), "fidelity": float(abs(overlap) ** 2 / (energy_before * energy_after))}


def draw(cells: Cells, box: Box, block: int) -> NDArray[np.float32]:
    """The field in a box that holds the cells, a pixel for `block` x `block` of them: (2d, height, width).

    A pixel is the cell of its block that has the most energy.
    """
    height, width = -(-box.height // block), -(-box.width // block)
    field = np.zeros((cells.psi.shape[1], height, width), np.float32)
    order = np.argsort(np.square(cells.psi, dtype=np.float64).sum(axis=1), kind="stable")
    column, row = ((cells.coordinates[order] - (box.x, box.y)) // block).T
    field[:, row, column] = cells.psi[order].T  # of those at one place the last stays
    return field


def as_arrays(universes: Sequence[Cells]) -> dict[str, NDArray[Any]]:
    """What a file holds of them: ``coordinates`` and ``amplitudes``, universe after universe, ``counts``."""
    return {
        "coordinates": np.concatenate([cells.coordinates for cells in universes]),
        "amplitudes": np.concatenate([cells.psi for cells in universes]),
        "counts": np.array([len(cells.coordinates) for cells in universes]),
    }


def read(path: str | None, d_state: int) -> list[Cells]:
    """Universes from a file: what a rollout of unbounded ones has written, or the cells of a field.

    Args:
        path: ``.npz`` with what `as_arrays` names, or with ``psi``; or ``.npy``.
        d_state: Complex components of a cell.

    Raises:
        UserError: The file is missing, holds something else, or cells of another number of components.
    """
    try:
        content = np.load(existing(path), allow_pickle=False)
        if not isinstance(content, np.ndarray) and "coordinates" in content:
            found = _universes(*(content[name] for name in ("coordinates", "amplitudes", "counts")))
        elif isinstance(content, np.ndarray):
            found = _of_field(content)
        elif "psi" in content:
            found = _of_field(content["psi"])
        else:
            raise ValueError(
                f"it has neither `psi` nor `coordinates`, but {', '.join(content)}; a rollout's field.npz "
                "has one of them, and its universe.npz is what resume=... goes on with"
            )
    except UserError:
        raise
    except (ValueError, OSError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"`initial_state.path`: '{path}' cannot be read: {error}") from None
    width = found[0].psi.shape[1]
    if width != 2 * d_state:
        raise UserError(
            f"`initial_state.path`: the cells must have the law's {d_state} components, "
            f"those in '{path}' have {width / 2:g}"
        )
    return found


def _universes(coordinates: NDArray[Any], amplitudes: NDArray[Any], counts: NDArray[Any]) -> list[Cells]:
    kinds = coordinates.dtype, amplitudes.dtype, counts.dtype
    if kinds != (np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.int64)):
        raise ValueError(f"coordinates, amplitudes and counts must be int64, float32, int64, got {kinds}")
    if len(counts) == 0 or not len(coordinates) == len(amplitudes) == counts.sum() or (counts < 0).any():
        raise ValueError(f"there are {len(coordinates)} places, {len(amplitudes)} states, {counts} cells")
    ends = np.cumsum(counts)[:-1]
    return [
        Cells(*cells) for cells in zip(np.split(coordinates, ends), np.split(amplitudes, ends), strict=True)
    ]


def _of_field(psi: NDArray[Any]) -> list[Cells]:
    if psi.dtype != np.float32 or psi.ndim != 4 or len(psi) == 0:
        raise ValueError(f"a field must be float32 (B, 2d, H, W), got {psi.dtype} {psi.shape}")
    found = []
    for universe in psi:
        y, x = np.nonzero((universe != 0).any(axis=0))
        found.append(Cells(np.stack([x, y], axis=1).astype(np.int64), universe[:, y, x].T.copy()))
    return found


def _keys(*places: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
    """One integer a place, the same where places are the same; for each array (n, 2)."""
    together = np.concatenate(places)
    columns, x = np.unique(together[:, 0], return_inverse=True)
    _, y = np.unique(together[:, 1], return_inverse=True)
    keys: NDArray[np.int64] = y * max(1, len(columns)) + x
    return np.split(keys, np.cumsum([len(part) for part in places])[:-1])


def _pairs(cells: Cells) -> Tensor:
    """Every pair of neighbouring cells as a field of its own: float64 (pairs, 2d, 1, 2)."""
    pairs = []
    for step in ((1, 0), (0, 1)):
        beside, here = _keys(cells.coordinates + np.array(step), cells.coordinates)
        _, i, j = np.intersect1d(beside, here, assume_unique=True, return_indices=True)
        pairs.append(np.stack([cells.psi[i], cells.psi[j]], axis=-1))
    return torch.from_numpy(np.concatenate(pairs)[:, :, None, :].astype(np.float64))
