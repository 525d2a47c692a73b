"""What a rollout keeps and measures of the engine's universes at a few of its steps."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from atheria import observables, scattered
from atheria.film import Frame
from atheria.scattered import Box, cells_of

CELLS_MEASURED_TOGETHER = 1 << 18
"""Measuring takes a dozen times the memory of the field: many universes are measured in turn."""
LARGEST_FRAME = 160
"""Pixels along a side of a frame of an unbounded universe, as many as a film strip shows without loss: beyond
it a pixel stands for several cells."""


class Watch(Protocol):
    """Looks at the universes of an engine."""

    def look(self) -> dict[str, NDArray[np.float64]]:
        """Keeps a frame of universe 0; what only Python measures, by name, (B,) each."""

    def frames(self) -> list[Frame]:
        """The frames that were kept."""

    def cells_a_pixel(self) -> int:
        """Cells along a side of a frame's pixel."""


def watch(engine: Any, extent: list[int] | None) -> Watch:
    """How to look at the universes that an `atheria_core.Engine` has.

    Args:
        engine: At the start, which later fields are compared with.
        extent: Height and width, from (0, 0) on, of what is shown at least of an unbounded universe; None
            for nothing but its matter.
    """
    return WatchCells(engine, extent) if engine.info()["universe"] == "unbounded" else WatchGrid(engine)


class WatchGrid:
    """Universes on a grid: frames show all of it."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._torus = engine.info()["boundary"] == "torus"
        self._initial = engine.state()
        self._frames: list[Frame] = []

    def look(self) -> dict[str, NDArray[np.float64]]:
        """See `Watch.look`."""
        psi = self._engine.state()
        self._frames.append(Frame(self._engine.step_count, psi[0].copy()))
        together = max(1, CELLS_MEASURED_TOGETHER // psi[0, 0].size)
        parts = []
        for first in range(0, len(psi), together):
            before, now = (
                torch.from_numpy(field[first : first + together]) for field in (self._initial, psi)
            )
            parts.append({**observables.compare(before, now), **observables.measure(now, self._torus)})
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}

    def frames(self) -> list[Frame]:
        """See `Watch.frames`."""
        return self._frames

    def cells_a_pixel(self) -> int:
        """See `Watch.cells_a_pixel`."""
        return 1


class WatchCells:
    """Unbounded universes: frames show all places where matter is in one of them."""

    def __init__(self, engine: Any, extent: list[int] | None) -> None:
        self._engine = engine
        self._universes = len(engine.observables())
        self._initial = [cells_of(engine, universe) for universe in range(self._universes)]
        self._box = Box(0, 0, extent[1], extent[0]) if extent else Box.of(self._initial[0])
        self._kept: list[tuple[int, scattered.Cells]] = []

    def look(self) -> dict[str, NDArray[np.float64]]:
        """See `Watch.look`."""
        measured = []
        for universe, initial in enumerate(self._initial):
            cells = cells_of(self._engine, universe)
            measured.append({**scattered.compare(initial, cells), **scattered.measure(cells)})
            if universe == 0:
                self._kept.append((self._engine.step_count, cells))
                self._box = self._box.around(cells)
        return {name: np.array([values[name] for values in measured]) for name in measured[0]}

    def frames(self) -> list[Frame]:
        """See `Watch.frames`."""
        block = self.cells_a_pixel()
        return [Frame(step, scattered.draw(cells, self._box, block)) for step, cells in self._kept]

    def cells_a_pixel(self) -> int:
        """See `Watch.cells_a_pixel`."""
        return -(-max(self._box.width, self._box.height) // LARGEST_FRAME)
