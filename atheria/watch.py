"""What a rollout keeps and measures of the engine's universes at a few of its steps."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atheria import scattered
from atheria.measuring import measured
from atheria.scattered import Box, cells_of
from atheria.views import Field, Frame

LARGEST_FILM = 1024
"""Cells along a side of a film of an unbounded universe, at most."""
LARGEST_FRAME = 160
"""Pixels along a side of a frame of an unbounded universe, as many as a film strip shows without loss: beyond
it a pixel stands for several cells."""


def computed_by(info: Mapping[str, Any]) -> dict[str, Any]:
    """What of an engine's `info` says what computes: its threads do so on the CPU alone."""
    keys = ("backend", "device", "threads", "precision")
    return {key: info[key] for key in keys if key != "threads" or info["device"] == "cpu"}


def engine_line(info: Mapping[str, Any]) -> str:
    """The same for people."""
    known = computed_by(info)
    threads = known.get("threads")
    at_once = "" if threads is None else f", {threads} thread{'' if threads == 1 else 's'}"
    return f"{known['backend']} on {known['device']}{at_once}"


class Watch(Protocol):
    """Looks at the universes of an engine."""

    def field(self) -> Field:
        """Universe 0 as films show it, (2d, H, W): always the same place."""

    def look(self, before: Field | None = None) -> dict[str, NDArray[np.float64]]:
        """Keeps a frame of universe 0; what only Python measures, by name, (B,) each, before noise.

        Args:
            before: `field` one step earlier, for views that need it.
        """

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

    def field(self) -> Field:
        """See `Watch.field`."""
        psi: Field = self._engine.state()[0].copy()
        return psi

    def look(self, before: Field | None = None) -> dict[str, NDArray[np.float64]]:
        """See `Watch.look`."""
        self._frames.append(Frame(self._engine.step_count, self.field(), before))
        return measured(self._initial, self._engine.state(before_noise=True), self._torus)

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
        self._screen = _centre(self._box, LARGEST_FILM)
        self._kept: list[tuple[int, scattered.Cells]] = []

    def field(self) -> Field:
        """See `Watch.field`."""
        psi: Field = self._engine.window(*self._screen)
        return psi

    def look(self, before: Field | None = None) -> dict[str, NDArray[np.float64]]:
        """See `Watch.look`; frames of scattered cells have no step before."""
        measured = []
        for universe, initial in enumerate(self._initial):
            quiet = cells_of(self._engine, universe, before_noise=True)
            measured.append({**scattered.compare(initial, quiet), **scattered.measure(quiet)})
            if universe == 0:
                cells = cells_of(self._engine, universe)
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


def _centre(box: Box, side: int) -> Box:
    """The middle of a box, at most `side` cells wide and high."""
    width, height = min(box.width, side), min(box.height, side)
    return Box(box.x + (box.width - width) // 2, box.y + (box.height - height) // 2, width, height)
