"""A rollout on its way: an engine steps, and what is seen of its universes is kept."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import merge
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from atheria_core import Engine, Snapshot
from numpy.typing import NDArray

from atheria import inline, refusals, strip
from atheria.config import RolloutConfig
from atheria.files import short
from atheria.film import Film
from atheria.measuring import series, step_drift
from atheria.progress import Progress, warn
from atheria.scattered import Cells, cells_of
from atheria.views import VIEWS, Field, Frame, View
from atheria.watch import Watch, watch

STRIP = "strip.png"


@dataclass(frozen=True)
class Rollout:
    """A finished rollout.

    Attributes:
        steps: (T,) the steps that were observed.
        observables: By name, (T, B) each.
        evaluated_cells: (T,) the cells of all universes that the law was evaluated in, in the step before.
        frames: Universe 0 along the way.
        cells_a_pixel: Along a side of a frame's pixel, which is the cell of them that has the most energy.
        measured: What only Python measures, of every universe at the frames' steps, before noise: by
            name, (F, B) each.
        psi: The last field, (B, 2d, H, W); None where it is unbounded.
        cells: The last cells of each unbounded universe; none on a grid.
        universe: What it ended with, whole, for `atheria_core.Engine.restore`.
        stopped: Why it ended before its last step, or None.
        is_interrupted: Whether that is because it was told to.
        folder: Where the files are.
        film: The film, where one was asked for.
        run_id: The child run it was logged as, or None for a law without a run.
    """

    steps: NDArray[np.int64]
    observables: dict[str, NDArray[np.float64]]
    evaluated_cells: NDArray[np.int64]
    frames: list[Frame]
    cells_a_pixel: int
    measured: dict[str, NDArray[np.float64]]
    psi: NDArray[np.float32] | None
    cells: list[Cells]
    universe: Snapshot
    stopped: str | None = None
    is_interrupted: bool = False
    folder: Path = Path()
    film: Path | None = None
    run_id: str | None = None

    def _repr_html_(self) -> str:
        """In a notebook: the observables at the beginning and the end, means over universes, and the film."""
        rows = [["", f"step {self.steps[0]}", f"step {self.steps[-1]}"]]
        for name, values in {**self.observables, **self.measured}.items():
            rows.append([name, f"{values[0].mean():.6g}", f"{values[-1].mean():.6g}"])
        return inline.shown(rows, self.folder / STRIP)


def roll(engine: Engine, config: RolloutConfig, folder: Path, extent: list[int] | None) -> Rollout:
    """Steps to the end, or until something ends it. Marks are steps from here on.

    Args:
        engine: At the start.
        config: What to look at, and when.
        folder: Where a film lies until the rollout is written.
        extent: Of an unbounded universe, see `atheria.watch.watch`.

    Raises:
        UserError: The engine cannot step, for want of memory.
        KeyboardInterrupt: There was nothing to keep yet.
    """
    first = engine.step_count
    strip_marks = strip.spread(config.steps, config.frames)
    film_marks = range(0, config.steps + 1, config.film_every) if config.film else range(0)
    observed_marks = [range(0, config.steps, config.observe_every), range(config.steps, config.steps + 1)]
    seen = _Seen(engine, watch(engine, extent))
    stopped: str | None = None
    is_interrupted = False
    progress = Progress(config.steps, "step")
    started = time.perf_counter()
    view = VIEWS[config.view]()
    camera = _Camera(config, folder, view)
    try:
        with camera:
            for mark, _ in groupby(merge(*observed_marks, strip_marks, film_marks)):
                before = engine.step_count
                is_shown = mark in strip_marks or mark in film_marks
                looks_back = seen.watch if is_shown and view.needs_before else None
                stopped, earlier = _advance(
                    engine, first + mark, mark in strip_marks, looks_back, config.stop
                )
                if stopped or any(mark in marks for marks in observed_marks):
                    seen.observe()
                if stopped or mark in strip_marks:
                    seen.measure(earlier, is_start=engine.step_count == first)
                if stopped:
                    break
                if mark in film_marks:
                    camera.add(Frame(engine.step_count, seen.watch.field(), earlier.field))
                progress.advance({"energy": seen.energy()}, engine.step_count - before)
    except KeyboardInterrupt:
        if not seen.is_anything:
            raise
        is_interrupted, stopped = True, f"interrupted at step {engine.step_count}"
        seen.observe()
    seconds = time.perf_counter() - started
    progress.close()
    film = camera.film if camera.film is not None and camera.film.path.is_file() else None
    shown = "" if film is None else f" and a film of {film.frames} frames"
    print(f"rate      {(engine.step_count - first) / seconds:.1f} steps/s with observables{shown}")
    return replace(
        seen.rollout(),
        stopped=stopped,
        is_interrupted=is_interrupted,
        film=None if film is None else film.path,
    )


class _Earlier(NamedTuple):
    """What was seen a step before the last, None each where it was not looked at."""

    field: Field | None = None
    observed: list[dict[str, float]] | None = None


class _Observed(NamedTuple):
    step: int
    universes: list[dict[str, float]]
    evaluated_cells: int


class _Measured(NamedTuple):
    step: int
    values: dict[str, NDArray[np.float64]]


class _Seen:
    """What of an engine's universes was seen along the way.

    Attributes:
        watch: How frames are taken.
    """

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self.watch = watch
        self._engine = engine
        self._observed: list[_Observed] = []
        self._measured: list[_Measured] = []

    @property
    def is_anything(self) -> bool:
        """Whether there is enough for a `Rollout`."""
        return bool(self._measured)

    def observe(self) -> None:
        """Takes down the observables, unless they have been at this step."""
        step = self._engine.step_count
        if not self._observed or self._observed[-1].step < step:
            evaluated_cells = self._engine.info()["evaluated_cells"]
            self._observed.append(_Observed(step, self._engine.observables(), evaluated_cells))

    def energy(self) -> float:
        """Of universe 0, when it was observed last."""
        return self._observed[-1].universes[0]["energy"]

    def measure(self, earlier: _Earlier, is_start: bool) -> None:
        """Takes down a frame, and what only Python measures, unless that has been at this step."""
        step = self._engine.step_count
        if self._measured and self._measured[-1].step == step:
            return
        drift = np.full(len(self._observed[0].universes), 0.0 if is_start else np.nan)
        if earlier.observed is not None:
            drift = step_drift(earlier.observed, self._engine.observables())
        found = self.watch.look(earlier.field) | {"step_drift": drift}
        self._measured.append(_Measured(step, found))

    def rollout(self) -> Rollout:
        """All of it, with the field as it is now."""
        steps, observed, evaluated_cells = zip(*self._observed, strict=True)
        universes = range(len(observed[0]))
        is_unbounded = self._engine.info()["universe"] == "unbounded"
        return Rollout(
            steps=np.array(steps),
            observables=series(list(observed)),
            evaluated_cells=np.array(evaluated_cells),
            frames=self.watch.frames()[: len(self._measured)],  # an interrupted look has left one more
            cells_a_pixel=self.watch.cells_a_pixel(),
            measured={
                name: np.stack([at.values[name] for at in self._measured])
                for name in self._measured[0].values
                if name not in observed[0][0]
            },
            psi=None if is_unbounded else self._engine.state(),
            cells=[cells_of(self._engine, universe) for universe in universes] if is_unbounded else [],
            universe=self._engine.snapshot(),
        )


class _Camera:
    """Makes the film where one is asked for; where the disk takes no more, the rollout goes on without it.

    Attributes:
        film: The film; None for none.
    """

    def __init__(self, config: RolloutConfig, folder: Path, view: View) -> None:
        self.film: Film | None = None
        if config.film is not None:
            self.film = Film(folder / f".rolling.{config.film}", view, "native rollout", config.film_scale)

    def __enter__(self) -> "_Camera":
        self._try(lambda film: film.__enter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            kind = error = trace = None  # what there is of the film is whole
        self._try(lambda film: film.__exit__(kind, error, trace))

    def add(self, frame: Frame) -> None:
        """Adds a frame."""
        self._try(lambda film: film.add(frame))

    def _try(self, action: Callable[[Film], object]) -> None:
        film = self.film
        if film is None:
            return
        try:
            action(film)
        except OSError as error:
            self.film = None
            with suppress(OSError):
                film.__exit__(type(error), error, None)
            where = short(film.path.parent)
            warn(f"the film could not be written to '{where}' ({error}); the rollout goes on without it")


def _advance(
    engine: Engine, target: int, is_measured: bool, looks_back: Watch | None, conditions: Sequence[str]
) -> tuple[str | None, _Earlier]:
    """Steps to `target`; returns why it ended before, or None, and what was seen a step before."""
    earlier = _Earlier()
    try:
        with refusals.of_engine():
            if engine.step_count < target and (is_measured or looks_back is not None):
                if ended := _step(engine, target - 1, conditions):
                    return ended, _Earlier()
                earlier = _Earlier(
                    None if looks_back is None else looks_back.field(),
                    engine.observables() if is_measured else None,
                )
            ended = _step(engine, target, conditions)
    except OverflowError as error:
        return str(error), _Earlier()
    return ended, _Earlier() if ended else earlier


def _step(engine: Engine, target: int, conditions: Sequence[str]) -> str | None:
    """Steps to `target`; returns which of the conditions ended it before, or None."""
    steps = target - engine.step_count
    if not conditions:
        engine.step_native(steps)
        return None
    if steps > 0:
        engine.rollout(steps, steps, stop=conditions)
    if engine.step_count == target:
        return None
    is_extinct = engine.step_native(0) == 0
    return f"{'extinct' if is_extinct else 'a fixed point'} at step {engine.step_count}"
