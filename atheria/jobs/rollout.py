"""The work of ``python -m atheria.rollout``."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from atheria_core import Engine
from numpy.typing import NDArray

from atheria import film, initial_state, inline, observables
from atheria.artifact import Description, read_description
from atheria.config import InitialStateConfig, RolloutConfig, TrackingConfig, UserError, validate
from atheria.fetch import check_names, law_of_run, run_named
from atheria.files import atomically, check_writable, sha256, short
from atheria.film import Frame
from atheria.philox import Lattice
from atheria.progress import Progress
from atheria.runs import start_run
from atheria.stores import how_to_look, store_uri
from atheria.tracking import OutageError, find_run

PRINTED = ("energy", "occupancy", "position_entropy", "ipr", "radius_of_gyration")
PRINTED_OF_FRAMES = (
    "fidelity",
    "von_neumann_entropy",
    "neighbour_coherence",
    "symmetry_score",
    "zlib_complexity",
)
PRINTED_ROWS = 8

STRIP = "strip.png"

CELLS_MEASURED_TOGETHER = 1 << 18
"""Measuring takes a dozen times the memory of the field: many universes are measured in turn."""


@dataclass(frozen=True)
class Rollout:
    """A finished rollout.

    Attributes:
        steps: (T,) the steps that were observed.
        observables: By name, (T, B) each.
        frames: Universe 0 along the way.
        measured: What only Python measures, of every universe at the frames' steps, noise included: by
            name, (F, B) each.
        psi: The last field, (B, 2d, H, W).
        stopped: Why it ended before its last step, or None.
        folder: Where the files are.
        run_id: The child run it was logged as, or None for a law without a run.
    """

    steps: NDArray[np.int64]
    observables: dict[str, NDArray[np.float64]]
    frames: list[Frame]
    measured: dict[str, NDArray[np.float64]]
    psi: NDArray[np.float32]
    stopped: str | None = None
    folder: Path = Path()
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
    if config.noise.name == "none" and config.noise.level > 0:
        raise UserError("`noise.level` needs a channel: choose one, as noise=phase_flip")
    if config.initial_state["kind"] is not None:
        validate(InitialStateConfig, config.initial_state, at="initial_state")


def run(config: RolloutConfig) -> Rollout:
    """Rolls a law out natively; prints, writes and logs what came of it.

    Raises:
        UserError: The law cannot be had, or does not suit the grid or the initial state.
    """
    run_id = run_named(config.run_id, config.law, config.best_of, config.tracking.uri)
    law = Path(config.law or "") if run_id is None else law_of_run(run_id, config.tracking.uri)
    engine, settings = _start(config, law)
    if run_id is None or config.tracking.mode == "off":
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        return _finish(_roll(engine, config), _home(config) / name)
    tracking, parent = _beside(run_id, config.tracking)
    height, width = settings["grid"]
    name = f"rollout-{config.steps}-{height}x{width}-seed{config.seed}"
    with start_run(tracking, _home(config), name, {"atheria.kind": "rollout"}, parent) as logged:
        logged.log_params(settings)
        result = replace(_roll(engine, config), run_id=logged.run_id)
        for steps, series in ((result.steps, result.observables), (_frame_steps(result), result.measured)):
            for index, step in enumerate(steps):
                logged.log({f"rollout/{k}": v[index].mean() for k, v in series.items()}, int(step))
        if result.stopped:
            logged.set_tag("atheria.stopped", result.stopped)
        result = _finish(result, logged.folder)
        logged.log_file(result.folder / "field.npz", "rollout")
        logged.log_file(result.folder / STRIP, "pictures")
    print(f"run       {logged.run_id}, child of {parent}")
    print(f"next\n  {how_to_look(store_uri(tracking.uri))}")
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
    description = read_description(law)
    if description is None:
        raise UserError(
            f"'{law}' does not describe itself; export it with python -m atheria.export, or load it "
            "in Python: atheria_core.Engine(d_state=...).load_model(path)"
        )
    with _engine_faults():
        engine = Engine(device=config.device, threads=config.threads)
        given = {key: value for key, value in config.physics.items() if value is not None}
        engine.load_model(law, given)
        engine.set_noise(config.noise.name, config.noise.level)
        initial = _set_initial_state(engine, config, description)
    info = engine.info()
    universes, _, height, width = engine.state().shape
    print(
        f"law       {description.law}, d_state {description.d_state}, from {short(law)}\n"
        f"engine    {info['backend']} on {info['device']}, {info['threads']} threads; "
        f"{universes} x {height} x {width} cells",
        flush=True,
    )
    physics = {key: info[key] for key in ("gamma", "epsilon", "normalise", "fire_rate", "boundary")}
    return engine, {
        "law": description.law,
        "law_sha256": sha256(law),
        "steps": config.steps,
        "grid": [height, width],
        "universes": universes,
        "seed": config.seed,
        "physics": physics,
        "noise": asdict(config.noise),
        "initial_state": asdict(initial),
        "observe_every": config.observe_every,
        "engine": {key: info[key] for key in ("backend", "device", "threads", "precision")},
    }


def _set_initial_state(engine: Engine, config: RolloutConfig, description: Description) -> InitialStateConfig:
    given = config.initial_state
    chosen = description.initial_state
    if given["kind"] is not None:
        chosen = validate(InitialStateConfig, given, at="initial_state")
    height, width = config.grid or description.training_grid
    if chosen.kind != "file":
        engine.start(chosen, config.seed, (height, width), config.universes)
        return chosen
    lattice = Lattice(config.universes, height, width, torch.device("cpu"))
    psi = initial_state.make(chosen, description.d_state, lattice, config.seed)
    engine.set_state(psi.numpy())
    engine.seed = config.seed
    return chosen


def _roll(engine: Engine, config: RolloutConfig) -> Rollout:
    """Steps to the end, or until the field is no longer finite."""
    film_steps = film.spread(config.steps, config.frames)
    observed_steps = {*range(0, config.steps, config.observe_every), config.steps}
    observed: list[tuple[int, list[dict[str, float]]]] = []
    frames: list[Frame] = []
    measured: list[dict[str, NDArray[np.float64]]] = []
    torus = engine.info()["boundary"] == "torus"
    initial = engine.state()
    stopped: str | None = None
    progress = Progress(config.steps, "step")
    started = time.perf_counter()
    for mark in sorted(observed_steps.union(film_steps)):
        before = engine.step_count
        stopped = _advance(engine, mark - before)
        step = engine.step_count
        if step > before or mark == 0:
            if stopped or mark in observed_steps:
                observed.append((step, engine.observables()))
            if stopped or mark in film_steps:
                psi = engine.state()
                frames.append(Frame(step, psi[0].copy()))
                measured.append(_measure(initial, psi, torus))
        if stopped:
            break
        progress.advance({"energy": observed[-1][1][0]["energy"]}, step - before)
    seconds = time.perf_counter() - started
    progress.close()
    print(f"rate      {engine.step_count / seconds:.1f} steps/s with observables")
    return Rollout(
        steps=np.array([step for step, _ in observed]),
        observables=_series([universes for _, universes in observed]),
        frames=frames,
        measured={
            name: np.stack([values[name] for values in measured])
            for name in measured[0]
            if name not in observed[0][1][0]
        },
        psi=engine.state(),
        stopped=stopped,
    )


def _advance(engine: Engine, steps: int) -> str | None:
    """Steps; returns why the field stopped being finite, or None."""
    try:
        engine.step_native(steps)
    except OverflowError as error:
        return str(error)
    return None


def _series(observed: list[list[dict[str, float]]]) -> dict[str, NDArray[np.float64]]:
    """Lists over steps of lists over universes, as one array (T, B) for each observable."""
    return {
        name: np.array([[universe[name] for universe in universes] for universes in observed])
        for name in observed[0][0]
    }


def _measure(
    initial: NDArray[np.float32], psi: NDArray[np.float32], torus: bool
) -> dict[str, NDArray[np.float64]]:
    """Of each universe of psi, (B,) each."""
    together = max(1, CELLS_MEASURED_TOGETHER // psi[0, 0].size)
    parts = []
    for first in range(0, len(psi), together):
        before, now = (torch.from_numpy(field[first : first + together]) for field in (initial, psi))
        parts.append({**observables.compare(before, now), **observables.measure(now, torus)})
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def _frame_steps(result: Rollout) -> NDArray[np.int64]:
    return np.array([frame.step for frame in result.frames])


def _finish(result: Rollout, folder: Path) -> Rollout:
    """Writes the field and the film strip, prints the observables."""
    atomically(folder / "field.npz", lambda file: _write_field(file, result))
    film.save(film.strip(result.frames, "native rollout, universe 0"), folder / STRIP)
    print(_table(result.steps, result.observables, PRINTED))
    print(_table(_frame_steps(result), result.measured, PRINTED_OF_FRAMES))
    if result.stopped:
        print(f"stopped   {result.stopped}")
    print(f"field     {short(folder / 'field.npz')}")
    print(f"picture   {short(folder / 'strip.png')}")
    return replace(result, folder=folder)


def _write_field(path: Path, result: Rollout) -> None:
    with path.open("wb") as file:
        np.savez(
            file,
            psi=result.psi,
            steps=result.steps,
            allow_pickle=False,
            **{f"observable_{name}": values for name, values in result.observables.items()},
            measured_steps=_frame_steps(result),
            **{f"measured_{name}": values for name, values in result.measured.items()},
        )


def _table(steps: NDArray[np.int64], series: dict[str, NDArray[np.float64]], names: Sequence[str]) -> str:
    """A few rows, of means over universes."""
    rows = ["step".rjust(8) + "".join(name.rjust(20) for name in names)]
    for index in film.spread(len(steps) - 1, PRINTED_ROWS):
        values = (series[name][index].mean() for name in names)
        rows.append(f"{steps[index]:8d}" + "".join(f"{value:20.6g}" for value in values))
    return "\n".join(rows)


@contextmanager
def _engine_faults() -> Iterator[None]:
    """What the engine refuses is the caller's to mend."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from error
