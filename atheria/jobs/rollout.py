"""The work of ``python -m atheria.rollout``."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from atheria_core import Engine, load_snapshot, save_snapshot
from numpy.typing import NDArray
from PIL.Image import Image as Picture

from atheria import initial_state, refusals, scattered, strip
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
from atheria.film import check_format
from atheria.philox import Lattice
from atheria.progress import warn
from atheria.rolling import STRIP, Rollout, roll
from atheria.runs import KIND_TAG, start_run
from atheria.stores import how_to_look
from atheria.tracking import OutageError, find_run
from atheria.views import VIEWS, Density, Phase, View
from atheria.watch import computed_by, engine_line

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

SETTINGS = "rollout.json"
"""What a rollout was told, beside its files."""
UNIVERSE = "universe.npz"
"""What it ended with."""


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
        "universes": config.universes is not None,
        "seed": config.seed is not None,
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
        result = roll(engine, config, folder, settings.get("extent"))
        if result.is_interrupted:  # which leaves alone what an earlier rollout has finished there
            folder = folder.with_name(f"{name}-step{engine.step_count}")
        return _ended(_finish(result, config, settings, folder))
    tracking, parent = _beside(run_id, config.tracking)
    where = "unbounded" if settings["grid"] == "unbounded" else "{}x{}".format(*settings["grid"])
    name = f"rollout-{config.steps}-{where}-seed{settings['seed']}"
    with start_run(tracking, _home(config), name, {KIND_TAG: "rollout"}, parent) as logged:
        logged.log_params(settings)
        rolled = roll(engine, config, logged.folder, settings.get("extent"))
        result = _finish(replace(rolled, run_id=logged.run_id), config, settings, logged.folder)
        logged.log_file(result.folder / "field.npz", "rollout")
        logged.log_file(result.folder / STRIP, "pictures")
        if result.film is not None:
            logged.log_file(result.film, "pictures")
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
        _ended(result)
    print(f"run       {logged.run_id}, child of {parent}")
    print("\n  ".join(["next", *how_to_look(tracking, config.output)]))
    return result


def _ended(result: Rollout) -> Rollout:
    """Raises KeyboardInterrupt, now that all is written, where that ended it."""
    if result.is_interrupted:
        raise KeyboardInterrupt
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
        engine = Engine(
            device=config.device, threads=config.threads, precision=config.precision, backend=config.backend
        )
        engine.load_model(law, chosen_physics(config.physics))
        begin = _begin if config.resume is None else _resume
        settings = begin(engine, config, description)
        if config.stop:
            engine.rollout(0, 1, stop=config.stop)  # refused now, if at all
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
    settings = {
        "law": description.law,
        "law_sha256": sha256(law),
        "steps": config.steps,
        **where,
        "universes": universes,
        "physics": physics,
        **settings,
        "observe_every": config.observe_every,
        "stop": config.stop,
        "engine": computed_by(info),
    }
    if config.resume is not None:
        _warn_of_changes(_universe_of(Path(config.resume)), settings)
    return engine, settings


def _begin(engine: Engine, config: RolloutConfig, description: Description) -> dict[str, Any]:
    """Starts universes; returns what decides how they begin."""
    engine.set_noise(config.noise.name, config.noise.level)
    initial = _set_initial_state(engine, config, description)
    settings = {"seed": engine.seed, "noise": asdict(config.noise), "initial_state": asdict(initial)}
    if config.grid == "unbounded" and initial.kind != "file":
        settings["extent"] = config.extent or description.training_grid
    return settings


def _resume(engine: Engine, config: RolloutConfig, _: Description) -> dict[str, Any]:
    """Goes on with the universes that a rollout ended with; returns what tells which those are."""
    path = _universe_of(Path(str(config.resume)))
    engine.restore(load_snapshot(path))
    info = engine.info()
    noise = {"name": info["noise"], "level": info["noise_level"]}
    said = "no noise" if noise["name"] == "none" else f"noise {noise['name']} at {noise['level']:g}"
    print(
        f"universe  from {short(path)}, at step {engine.step_count}; seed {engine.seed}, {said}", flush=True
    )
    return {
        "seed": engine.seed,
        "noise": noise,
        "resume_sha256": sha256(path),
        "first_step": engine.step_count,
    }


def _universe_of(given: Path) -> Path:
    """The file of a rollout, or of its folder, to go on with."""
    path = given / UNIVERSE if given.is_dir() else given
    if not path.is_file():
        raise UserError(
            f"`resume` must be the {UNIVERSE} of a rollout, or its folder, got '{given}', where that is not; "
            "each rollout prints where it is"
        )
    beside = path.with_name(UNIVERSE)
    if path.name == "field.npz" and beside.is_file():
        raise UserError(
            f"`resume` must be the {UNIVERSE} of a rollout, got its field; give '{short(beside)}'"
        )
    return path


def _warn_of_changes(resumed: Path, settings: dict[str, Any]) -> None:
    """Says where a universe goes on under another law or other physics than it has come from."""
    earlier = resumed.with_name(SETTINGS)
    if not earlier.is_file():
        return
    try:
        before = json.loads(earlier.read_text())
        changed = ["law"] if before["law_sha256"] != settings["law_sha256"] else []
        changed += [key for key, value in before["physics"].items() if settings["physics"].get(key) != value]
        was, now = (
            ", ".join(f"{key} {({'law': of['law']} | of['physics'])[key]}" for key in changed)
            for of in (before, settings)
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{short(earlier)}' is not what a rollout wrote: {error!r}; remove it to go on without it"
        ) from None
    if changed:
        warn(f"until step {settings['first_step']} that universe was of {was}; it goes on with {now}")


def _set_initial_state(engine: Engine, config: RolloutConfig, description: Description) -> InitialStateConfig:
    chosen = chosen_initial_state(config.initial_state) or description.initial_state
    engine.seed = seed = config.seed or 0
    universes = config.universes or 1
    if config.grid == "unbounded":
        _set_cells(engine, chosen, config, description)
        return chosen
    height, width = config.grid or description.training_grid
    if chosen.kind != "file":
        engine.start(chosen, seed, (height, width), universes)
        return chosen
    lattice = Lattice(universes, height, width, torch.device("cpu"))
    psi = initial_state.make(chosen, description.d_state, lattice, seed)
    engine.set_state(psi.numpy())
    return chosen


def _set_cells(
    engine: Engine, chosen: InitialStateConfig, config: RolloutConfig, description: Description
) -> None:
    """Starts unbounded universes."""
    seed, universes = config.seed or 0, config.universes or 1
    if chosen.kind != "file":
        height, width = config.extent or description.training_grid
        engine.start(chosen, seed, None, universes, (height, width))
        return
    if config.extent is not None:
        raise UserError(
            "`extent` is for states that are drawn; a file says where its cells are: leave it out"
        )
    engine.reset("zeros", seed, None, universes)
    found = scattered.read(chosen.path, description.d_state)
    for universe in range(universes):
        cells = found[universe % len(found)]
        engine.set_cells(cells.coordinates, cells.amplitudes, universe)


def _frame_steps(result: Rollout) -> NDArray[np.int64]:
    return np.array([frame.step for frame in result.frames])


def _finish(result: Rollout, config: RolloutConfig, settings: dict[str, Any], folder: Path) -> Rollout:
    """Prints the observables, then writes the field, the universe, the settings and the film strip."""
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
        save_snapshot(result.universe, folder / UNIVERSE)
        ended = {"last_step": int(result.steps[-1]), "stopped": result.stopped}
        atomically(folder / SETTINGS, lambda file: file.write_text(json.dumps(settings | ended, indent=2)))
        if result.film is not None:
            film = folder / f"film{result.film.suffix}"
            result = replace(result, film=result.film.replace(film))
        strip.save(_picture(result, config), folder / STRIP)
    print(f"field     {short(folder / 'field.npz')}")
    print(f"universe  {short(folder / UNIVERSE)}, which resume=... goes on with")
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
