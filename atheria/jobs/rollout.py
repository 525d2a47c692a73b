"""The work of ``python -m atheria.rollout``."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from atheria_core import Engine, Snapshot, load_snapshot, save_snapshot
from numpy.typing import NDArray
from PIL.Image import Image as Picture

from atheria import initial_state, inline, refusals, scattered, strip
from atheria.artifact import Description, described
from atheria.config import (
    InitialStateConfig,
    RolloutConfig,
    TrackingConfig,
    UserError,
    check_noise,
    chosen_initial_state,
    chosen_physics,
)
from atheria.fetch import check_names, find_law
from atheria.files import atomically, check_writable, room_in, sha256, short
from atheria.film import Film, check_format
from atheria.measuring import series, step_drift
from atheria.philox import Lattice
from atheria.progress import Progress, warn
from atheria.runs import KIND_TAG, start_run
from atheria.scattered import Cells, cells_of
from atheria.stores import how_to_look
from atheria.tracking import OutageError, find_run
from atheria.views import VIEWS, Density, Field, Frame, Phase, View
from atheria.watch import Watch, computed_by, engine_line, watch

PRINTED = ("energy", "occupancy", "position_entropy", "ipr", "radius_of_gyration")
PRINTED_OF_FRAMES = (
    "fidelity",
    "von_neumann_entropy",
    "neighbour_coherence",
    "symmetry_score",
    "zlib_complexity",
)
PRINTED_OF_CELLS = ("fidelity", "von_neumann_entropy", "purity", "l1_coherence", "neighbour_coherence")
PRINTED_ROWS = 8

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
    folder: Path = Path()
    film: Path | None = None
    run_id: str | None = None

    def _repr_html_(self) -> str:
        """In a notebook: the observables at the beginning and the end, means over universes, and the film."""
        rows = [["", f"step {self.steps[0]}", f"step {self.steps[-1]}"]]
        for name, values in {**self.observables, **self.measured}.items():
            rows.append([name, f"{values[0].mean():.6g}", f"{values[-1].mean():.6g}"])
        return inline.shown(rows, self.folder / STRIP)


def check(config: RolloutConfig) -> None:
    """Raises UserError where the settings contradict each other."""
    check_names(config.run_id, config.law, config.best_of)
    check_writable(Path(config.output), "output")
    check_format(config.film)
    check_noise(config.noise)
    _check_resumed(config)
    if config.extent is not None and config.grid != "unbounded":
        raise UserError("`extent` is where an unbounded universe starts; add grid=unbounded, or leave it out")
    chosen_initial_state(config.initial_state)


def _check_resumed(config: RolloutConfig) -> None:
    """Raises UserError where something is chosen that a universe to go on with already has."""
    if config.resume is None:
        return
    chosen = {
        "grid": config.grid is not None,
        "extent": config.extent is not None,
        "initial_state": config.initial_state["kind"] is not None,
        "noise": config.noise.name != "none",
        "universes": config.universes != 1,
        "seed": config.seed != 0,
    }
    name = next((name for name, is_chosen in chosen.items() if is_chosen), None)
    if name is not None:
        raise UserError(f"`{name}` is that of the universe which `resume` goes on with; leave it out")


def run(config: RolloutConfig) -> Rollout:
    """Rolls a law out natively; prints, writes and logs what came of it.

    Raises:
        UserError: The law cannot be had, or does not suit the grid or the initial state.
    """
    run_id, law = find_law(config.run_id, config.law, config.best_of, config.tracking.uri)
    engine, settings = _start(config, law)
    if run_id is None or config.tracking.mode == "off":
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        folder = _home(config) / name
        return _finish(_roll(engine, config, folder, settings.get("extent")), config, folder)
    tracking, parent = _beside(run_id, config.tracking)
    where = "unbounded" if settings["grid"] == "unbounded" else "{}x{}".format(*settings["grid"])
    name = f"rollout-{config.steps}-{where}-seed{settings['seed']}"
    with start_run(tracking, _home(config), name, {KIND_TAG: "rollout"}, parent) as logged:
        logged.log_params(settings)
        rolled = _roll(engine, config, logged.folder, settings.get("extent"))
        result = replace(rolled, run_id=logged.run_id)
        everything = [(result.steps, result.observables), (_frame_steps(result), result.measured)]
        if result.psi is None:
            everything.append(
                (result.steps, {"evaluated_cells": result.evaluated_cells[:, None].astype(np.float64)})
            )
        for steps, curves in everything:
            for index, step in enumerate(steps):
                logged.log({f"rollout/{k}": v[index].mean() for k, v in curves.items()}, int(step))
        if result.stopped:
            logged.set_tag("atheria.stopped", result.stopped)
        result = _finish(result, config, logged.folder)
        logged.log_file(result.folder / "field.npz", "rollout")
        logged.log_file(result.folder / STRIP, "pictures")
        if result.film is not None:
            logged.log_file(result.film, "pictures")
    print(f"run       {logged.run_id}, child of {parent}")
    print("\n  ".join(["next", *how_to_look(tracking, config.output)]))
    return result


def _home(config: RolloutConfig) -> Path:
    """The folder of the folders of rollouts."""
    return Path(config.output).absolute() / "rollouts"


def _beside(run_id: str, tracking: TrackingConfig) -> tuple[TrackingConfig, str]:
    """Where the rollout of a run is logged: in its experiment, as its child."""
    try:
        parent = find_run(run_id, tracking.uri)
    except OutageError:
        return tracking, run_id  # the law came from the cache
    return replace(tracking, experiment=parent.experiment), parent.run_id


def _start(config: RolloutConfig, law: Path) -> tuple[Engine, dict[str, Any]]:
    """An engine with its universe as the configuration asks for, and all that decides what it computes."""
    description = described(law)
    with refusals.of_engine():
        engine = Engine(device=config.device, threads=config.threads)
        engine.load_model(law, chosen_physics(config.physics))
        begin = _begin if config.resume is None else _resume
        settings = begin(engine, config, description)
    info = engine.info()
    if info["universe"] == "unbounded":
        where: dict[str, Any] = {"grid": "unbounded"}
        universes = len(engine.observables())
        occupied = engine.step_native(0)
        cells = f"{universes} x unbounded, {occupied} cells occupied, {info['evaluated_cells']} evaluated"
    else:
        universes, _, height, width = engine.state().shape
        where = {"grid": [height, width]}
        cells = f"{universes} x {height} x {width} cells"
    print(
        f"law       {description.law}, d_state {description.d_state}, from {short(law)}\n"
        f"engine    {engine_line(info)}; {cells}",
        flush=True,
    )
    physics = {
        key: info[key] for key in ("gamma", "epsilon", "normalise", "fire_rate", "boundary", "harmonic")
    }
    return engine, {
        "law": description.law,
        "law_sha256": sha256(law),
        "steps": config.steps,
        **where,
        "universes": universes,
        "physics": physics,
        **settings,
        "observe_every": config.observe_every,
        "engine": computed_by(info),
    }


def _begin(engine: Engine, config: RolloutConfig, description: Description) -> dict[str, Any]:
    """Starts universes; returns what decides how they begin."""
    engine.set_noise(config.noise.name, config.noise.level)
    initial = _set_initial_state(engine, config, description)
    settings = {"seed": config.seed, "noise": asdict(config.noise), "initial_state": asdict(initial)}
    if config.grid == "unbounded" and initial.kind != "file":
        settings["extent"] = config.extent or description.training_grid
    return settings


def _resume(engine: Engine, config: RolloutConfig, _: Description) -> dict[str, Any]:
    """Goes on with the universes that a rollout ended with; returns what tells which those are."""
    path = Path(str(config.resume))
    if not path.is_file():
        raise UserError(
            f"`resume` must be the universe.npz of a rollout, got '{path}', which is not there; "
            "each rollout prints where it is"
        )
    engine.restore(load_snapshot(path))
    print(f"universe  from {short(path)}, at step {engine.step_count}", flush=True)
    return {"seed": engine.seed, "resume_sha256": sha256(path), "first_step": engine.step_count}


def _set_initial_state(engine: Engine, config: RolloutConfig, description: Description) -> InitialStateConfig:
    chosen = chosen_initial_state(config.initial_state) or description.initial_state
    engine.seed = config.seed
    if config.grid == "unbounded":
        _set_cells(engine, chosen, config, description)
        return chosen
    height, width = config.grid or description.training_grid
    if chosen.kind != "file":
        engine.start(chosen, config.seed, (height, width), config.universes)
        return chosen
    lattice = Lattice(config.universes, height, width, torch.device("cpu"))
    psi = initial_state.make(chosen, description.d_state, lattice, config.seed)
    engine.set_state(psi.numpy())
    return chosen


def _set_cells(
    engine: Engine, chosen: InitialStateConfig, config: RolloutConfig, description: Description
) -> None:
    """Starts unbounded universes."""
    if chosen.kind != "file":
        height, width = config.extent or description.training_grid
        engine.start(chosen, config.seed, None, config.universes, (height, width))
        return
    if config.extent is not None:
        raise UserError(
            "`extent` is for states that are drawn; a file says where its cells are: leave it out"
        )
    engine.reset("zeros", config.seed, None, config.universes)
    found = scattered.read(chosen.path, description.d_state)
    for universe in range(config.universes):
        cells = found[universe % len(found)]
        engine.set_cells(cells.coordinates, cells.amplitudes, universe)


def _roll(engine: Engine, config: RolloutConfig, folder: Path, extent: list[int] | None) -> Rollout:
    """Steps to the end, or until the field is no longer finite. Marks are steps from here on."""
    first = engine.step_count
    strip_marks = strip.spread(config.steps, config.frames)
    film_marks = range(0, config.steps + 1, config.film_every) if config.film else range(0)
    observed_marks = {*range(0, config.steps, config.observe_every), config.steps}
    seen = _Seen(engine, watch(engine, extent))
    stopped: str | None = None
    progress = Progress(config.steps, "step")
    started = time.perf_counter()
    view = VIEWS[config.view]()
    with _Camera(config, folder, view) as camera:
        for mark in sorted({*observed_marks, *strip_marks, *film_marks}):
            before = engine.step_count
            is_shown = mark in strip_marks or mark in film_marks
            looks_back = seen.watch if is_shown and view.needs_before else None
            stopped, earlier = _advance(engine, first + mark - before, mark in strip_marks, looks_back)
            if engine.step_count > before or mark == 0:
                if stopped or mark in observed_marks:
                    seen.observe()
                if stopped or mark in strip_marks:
                    seen.measure(earlier, is_start=engine.step_count == first)
                if not stopped and mark in film_marks:
                    camera.add(Frame(engine.step_count, seen.watch.field(), earlier.field))
            if stopped:
                break
            progress.advance({"energy": seen.energy()}, engine.step_count - before)
    seconds = time.perf_counter() - started
    progress.close()
    film = camera.film
    shown = "" if film is None else f" and a film of {film.frames} frames"
    print(f"rate      {(engine.step_count - first) / seconds:.1f} steps/s with observables{shown}")
    return replace(seen.rollout(), stopped=stopped, film=None if film is None else film.path)


class _Earlier(NamedTuple):
    """What was seen a step before the last, None each where it was not looked at."""

    field: Field | None = None
    observed: list[dict[str, float]] | None = None


class _Seen:
    """What of an engine's universes was seen along the way.

    Attributes:
        watch: How frames are taken.
    """

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self.watch = watch
        self._engine = engine
        self._steps: list[int] = []
        self._observed: list[list[dict[str, float]]] = []
        self._evaluated_cells: list[int] = []
        self._measured: list[dict[str, NDArray[np.float64]]] = []

    def observe(self) -> None:
        """Takes down the observables."""
        self._steps.append(self._engine.step_count)
        self._observed.append(self._engine.observables())
        self._evaluated_cells.append(self._engine.info()["evaluated_cells"])

    def energy(self) -> float:
        """Of universe 0, when it was observed last."""
        return self._observed[-1][0]["energy"]

    def measure(self, earlier: _Earlier, is_start: bool) -> None:
        """Takes down a frame, and what only Python measures."""
        drift = np.full(len(self._observed[0]), 0.0 if is_start else np.nan)
        if earlier.observed is not None:
            drift = step_drift(earlier.observed, self._engine.observables())
        self._measured.append(self.watch.look(earlier.field) | {"step_drift": drift})

    def rollout(self) -> Rollout:
        """All of it, with the field as it is now."""
        universes = range(len(self._observed[0]))
        is_unbounded = self._engine.info()["universe"] == "unbounded"
        return Rollout(
            steps=np.array(self._steps),
            observables=series(self._observed),
            evaluated_cells=np.array(self._evaluated_cells),
            frames=self.watch.frames(),
            cells_a_pixel=self.watch.cells_a_pixel(),
            measured={
                name: np.stack([values[name] for values in self._measured])
                for name in self._measured[0]
                if name not in self._observed[0][0]
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
            self.film = Film(folder / f"film.{config.film}", view, "native rollout", config.film_scale)

    def __enter__(self) -> "_Camera":
        self._try(lambda film: film.__enter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            warn(f"'{short(film.path)}' could not be written ({error}); the rollout goes on without it")


def _advance(
    engine: Engine, steps: int, is_measured: bool, looks_back: Watch | None
) -> tuple[str | None, _Earlier]:
    """Steps; returns why the field stopped being finite, or None, and what was seen a step before."""
    earlier = _Earlier()
    try:
        with refusals.of_engine():
            if steps > 0 and (is_measured or looks_back is not None):
                engine.step_native(steps - 1)
                earlier = _Earlier(
                    None if looks_back is None else looks_back.field(),
                    engine.observables() if is_measured else None,
                )
                steps = 1
            engine.step_native(steps)
    except OverflowError as error:
        return str(error), _Earlier()
    return None, earlier


def _frame_steps(result: Rollout) -> NDArray[np.int64]:
    return np.array([frame.step for frame in result.frames])


def _finish(result: Rollout, config: RolloutConfig, folder: Path) -> Rollout:
    """Prints the observables, then writes the field and the film strip."""
    print(_table(result.steps, result.observables, PRINTED))
    of_frames = PRINTED_OF_FRAMES if result.psi is not None else PRINTED_OF_CELLS
    print(_table(_frame_steps(result), result.measured, of_frames))
    if result.psi is None:
        occupied = sum(len(cells.coordinates) for cells in result.cells)
        print(f"cells     {occupied} occupied, {result.evaluated_cells[-1]} evaluated in the last step")
    if result.cells_a_pixel > 1:
        print(
            "strip     matter is spread too widely for a pixel a cell: one is the brightest of "
            f"{result.cells_a_pixel} x {result.cells_a_pixel} cells"
        )
    if result.stopped:
        print(f"stopped   {result.stopped}")
    with room_in(folder):
        atomically(folder / "field.npz", lambda file: _write_field(file, result))
        save_snapshot(result.universe, folder / "universe.npz")
        strip.save(_picture(result, config), folder / STRIP)
    print(f"field     {short(folder / 'field.npz')}")
    print(f"universe  {short(folder / 'universe.npz')}, which resume=... goes on with")
    print(f"picture   {short(folder / STRIP)}")
    if result.film is not None:
        print(f"film      {short(result.film)}")
    return replace(result, folder=folder)


def _picture(result: Rollout, config: RolloutConfig) -> Picture:
    views: list[View] = [Density(), Phase()]
    is_drawn = result.psi is not None or not VIEWS[config.view].needs_before
    if is_drawn and config.view not in [view.name for view in views]:
        views.append(VIEWS[config.view]())
    title = "native rollout, universe 0"
    return strip.strip(result.frames, title, views, cells_a_pixel=result.cells_a_pixel)


def _write_field(path: Path, result: Rollout) -> None:
    """The field or the cells, and all that was measured; read with numpy.load."""
    field = scattered.as_arrays(result.cells) if result.psi is None else {"psi": result.psi}
    with path.open("wb") as file:
        np.savez(
            file,
            steps=result.steps,
            evaluated_cells=result.evaluated_cells,
            allow_pickle=False,
            **field,
            **{f"observable_{name}": values for name, values in result.observables.items()},
            measured_steps=_frame_steps(result),
            **{f"measured_{name}": values for name, values in result.measured.items()},
        )


def _table(steps: NDArray[np.int64], curves: dict[str, NDArray[np.float64]], names: Sequence[str]) -> str:
    """A few rows, of means over universes."""
    rows = ["step".rjust(8) + "".join(name.rjust(20) for name in names)]
    for index in strip.spread(len(steps) - 1, PRINTED_ROWS):
        values = (curves[name][index].mean() for name in names)
        rows.append(f"{steps[index]:8d}" + "".join(f"{value:20.6g}" for value in values))
    return "\n".join(rows)
