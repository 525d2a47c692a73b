"""The work of ``python -m atheria.evaluate``."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from atheria_core import Engine
from numpy.typing import NDArray

from atheria import artifact, checkpoint, comparison, laws, refusals, strip
from atheria.comparison import Condition, Curves, LawCurves
from atheria.config import (
    EvaluateConfig,
    InitialStateConfig,
    NoiseConfig,
    PhysicsConfig,
    UserError,
    check_noise,
    chosen_initial_state,
    validate,
)
from atheria.exporting import Origin, export_law
from atheria.fetch import check_names, find_law
from atheria.files import atomically, check_writable, sha256, short
from atheria.laws import Law
from atheria.measuring import measured, series, step_drift
from atheria.progress import Progress
from atheria.responses import fresh_law, responses
from atheria.runs import KIND_TAG, start_run
from atheria.stores import how_to_look
from atheria.tracking import OutageError, find_run
from atheria.views import Frame

MOMENTS = 24
"""Times at which the fields are measured."""
PICTURES = 5
_UNSEEN = 1 << 61
"""Flips a bit of the seed: neither training nor its evaluations, which choose checkpoints, draw so."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of one law or several.

    Attributes:
        laws: The laws as they were named, each with its untrained twin.
        folder: Table and pictures.
        run_ids: The child runs it was logged as, one for each law of a run.
    """

    laws: list[LawCurves]
    folder: Path
    run_ids: list[str]


@dataclass(frozen=True)
class _Law:
    """A law to evaluate; `run_id` and `experiment` where it is a run's."""

    label: str
    path: Path
    state: dict[str, Any]
    run_id: str | None = None
    experiment: str | None = None

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = self.state["config"]
        return config

    def trained(self) -> Law:
        law = laws.build(self.config["model"], self.config["physics"]["boundary"]).eval()
        checkpoint.load_weights(law, self.state, str(self.path))
        return law


def check(config: EvaluateConfig) -> None:
    """Raises UserError where the settings contradict each other."""
    for run_id, law, best_of in _named(config):
        check_names(run_id, law, best_of)
    check_writable(Path(config.output), "output")
    check_noise(config.noise)
    if chosen := chosen_initial_state(config.initial_state):
        _check_drawn(chosen)


def run(config: EvaluateConfig) -> Evaluation:
    """Evaluates; prints, draws and logs what came of it.

    Raises:
        UserError: A law cannot be had, or does not suit a grid or the initial state.
    """
    found = _told_apart([_find(*names, config) for names in _named(config)])
    initial, conditions = _setting(found[0], config)
    digests = [sha256(law.path) for law in found]
    settings = {
        "steps": config.steps,
        "grids": sorted({f"{c.grid[0]}x{c.grid[1]}" for c in conditions}),
        "universes": config.universes,
        "seed": config.seed,
        "noise": asdict(config.noise),
        "initial_state": asdict(initial),
    }
    print(f"laws      {', '.join(law.label for law in found)}, and untrained ones")
    print(f"states    {config.universes} of {initial.kind}, unseen; {config.steps} steps")
    print(f"where     {'; '.join(condition.name for condition in conditions)}", flush=True)
    evaluated = _evaluate_all(found, conditions, initial, config)
    all_of_it = [settings, [law.label for law in found], digests]
    name = hashlib.sha256(json.dumps(all_of_it, sort_keys=True).encode()).hexdigest()[:12]
    folder = Path(config.output).absolute() / "evaluations" / name
    files = _draw(evaluated, conditions, folder)
    print(comparison.tables(evaluated, conditions))
    for file in files:
        print(f"{'table' if file.suffix == '.csv' else 'picture':<9} {short(file)}")
    run_ids = []
    for law, curves, digest in zip(found, evaluated, digests, strict=True):
        if law.run_id is not None and config.tracking.mode != "off":
            run_ids.append(_log(law, curves, files, {**settings, "law_sha256": digest}, config))
            print(f"run       {run_ids[-1]}, child of {law.run_id}")
    if run_ids:
        experiment = next(law.experiment for law in found if law.experiment)
        look = how_to_look(replace(config.tracking, experiment=experiment), config.output)
        print("\n  ".join(["next", *look]))
    return Evaluation(evaluated, folder, run_ids)


def _named(config: EvaluateConfig) -> list[tuple[str | None, str | None, str | None]]:
    """The laws as `atheria.fetch` takes them, one of three names each."""
    named: list[tuple[str | None, str | None, str | None]] = [
        *((run_id, None, None) for run_id in config.run_id or []),
        *((None, law, None) for law in config.law or []),
    ]
    if config.best_of is not None or not named:
        named.append((None, None, config.best_of))
    kinds = sum(names is not None for names in (config.run_id, config.law, config.best_of))
    if kinds > 1:
        raise UserError("name the laws by one of run_id=, law=, best_of=, not by several")
    return named


def _find(run_id: str | None, law: str | None, best_of: str | None, config: EvaluateConfig) -> _Law:
    """A law by its name, fetched and verified."""
    uri = config.tracking.uri
    found, path = find_law(run_id, law, best_of, uri)
    state = artifact.as_checkpoint(path)
    if found is None:
        return _Law(path.stem, path, state)
    try:
        stored = find_run(found, uri)
    except OutageError:  # the law came from the cache
        return _Law(found[:8], path, state, found, config.tracking.experiment)
    return _Law(f"{stored.name} {stored.run_id[:8]}", path, state, stored.run_id, stored.experiment)


def _told_apart(found: list[_Law]) -> list[_Law]:
    """Files are called by their names; where two have the same, by their paths in the folder they share."""
    files = [law.path.absolute() for law in found if law.run_id is None]
    if len({file.stem for file in files}) == len(files):
        return found
    shared = os.path.commonpath([file.parent for file in files])
    return [
        law if law.run_id else replace(law, label=str(law.path.absolute().relative_to(shared)))
        for law in found
    ]


def _check_drawn(initial: InitialStateConfig) -> None:
    if initial.kind == "file":
        raise UserError(
            "`initial_state` must be drawn at random to be unseen, not taken from a file; "
            "as initial_state=soup"
        )


def _setting(first: _Law, config: EvaluateConfig) -> tuple[InitialStateConfig, list[Condition]]:
    """The initial states and the conditions, the same for all laws."""
    initial = chosen_initial_state(config.initial_state) or validate(
        InitialStateConfig, first.config["initial_state"], at="initial_state"
    )
    _check_drawn(initial)
    height, width = first.config["trainer"]["grid"]
    larger = tuple(config.grid or (2 * height, 2 * width))
    grids = list(dict.fromkeys([(height, width), (larger[0], larger[1])]))
    noises = [NoiseConfig("none", 0.0)]
    if config.noise.level > 0:
        noises.append(config.noise)
    return initial, [Condition(grid, noise.name, noise.level) for grid in grids for noise in noises]


def _evaluate_all(
    found: Sequence[_Law], conditions: list[Condition], initial: InitialStateConfig, config: EvaluateConfig
) -> list[LawCurves]:
    """Each law, with its untrained twin; laws that began alike share one."""
    seed = config.seed ^ _UNSEEN
    keys = [json.dumps([law.config[key] for key in ("model", "physics", "seed")]) for law in found]
    progress = Progress((len(found) + len(set(keys))) * len(conditions) * config.steps, "step")

    def evaluated(label: str, path: Path, law: Law, of: _Law, twin: LawCurves | None) -> LawCurves:
        curves = {
            condition: _roll(path, condition, initial, seed, config, progress) for condition in conditions
        }
        answer = responses(law, of.config, initial, conditions[0].grid, seed)
        return LawCurves(label, curves, answer, twin)

    twins: dict[str, LawCurves] = {}
    trained = []
    with tempfile.TemporaryDirectory() as folder:
        for law, key in zip(found, keys, strict=True):
            if key not in twins:
                untrained, path = fresh_law(law.config), Path(folder) / f"{len(twins)}.pt"
                _export(untrained, law, path)
                label = _untrained_label(law, [twin.label for twin in twins.values()])
                twins[key] = evaluated(label, path, untrained, law, None)
            trained.append(evaluated(law.label, law.path, law.trained(), law, twins[key]))
    progress.close()
    return trained


def _untrained_label(law: _Law, taken: Sequence[str]) -> str:
    label = f"untrained {law.config['model']['name']}"
    return label if label not in taken else f"{label} {len(taken) + 1}"


def _export(law: Law, of: _Law, path: Path) -> None:
    """An untrained law as the engine takes it, under the same physics."""
    config = of.config
    origin = Origin(
        model=config["model"],
        physics=validate(PhysicsConfig, config["physics"]),
        grid=config["trainer"]["grid"],
        initial_state=validate(InitialStateConfig, config["initial_state"]),
        noise=config["noise"],
        seed=config["seed"],
    )
    export_law(law, origin, path)


def _roll(
    path: Path,
    condition: Condition,
    initial: InitialStateConfig,
    seed: int,
    config: EvaluateConfig,
    progress: Progress,
) -> Curves:
    """A law in a condition, natively; it ends early where the field is no longer finite."""
    with refusals.of_engine():
        engine = Engine(device=config.device, threads=config.threads)
        engine.load_model(path)
        engine.set_noise(condition.noise, condition.level)
        engine.start(initial, seed, condition.grid, config.universes)
    torus = engine.info()["boundary"] == "torus"
    start = engine.state()
    pictured = strip.spread(config.steps, PICTURES)
    frames: list[Frame] = []
    steps: list[int] = []
    values: list[dict[str, NDArray[np.float64]]] = []
    for mark in sorted({*strip.spread(config.steps, MOMENTS), *pictured}):
        before = engine.step_count
        try:
            with refusals.of_engine():
                engine.step_native(max(0, mark - before - 1))
                earlier = engine.observables()
                engine.step_native(mark - engine.step_count)
        except OverflowError:
            break
        now = engine.observables()
        native = {name: value[0] for name, value in series([now]).items()}
        found = {**measured(start, engine.state(before_noise=True), torus), **native}
        found["step_drift"] = step_drift(earlier, now)
        energy = values[0]["energy"] if values else found["energy"]
        found["survival"] = found["energy"] / np.maximum(energy, 1e-300)
        steps.append(mark)
        values.append(found)
        if mark in pictured:
            frames.append(Frame(mark, engine.state()[0].copy()))
        progress.advance({"survival": float(found["survival"].mean())}, mark - before)
    progress.advance({}, config.steps - steps[-1])
    arrays = {name: np.stack([found[name] for found in values]) for name in values[0]}
    return Curves(np.array(steps), arrays, frames, config.steps)


def _draw(evaluated: Sequence[LawCurves], conditions: Sequence[Condition], folder: Path) -> list[Path]:
    """The table and the pictures, written."""
    table = folder / "evaluation.csv"
    atomically(table, lambda file: file.write_text(comparison.csv(evaluated, conditions)))
    files = [table]
    for grid in dict.fromkeys(condition.grid for condition in conditions):
        files.append(folder / f"evaluation-{grid[0]}x{grid[1]}.png")
        shown = [condition for condition in conditions if condition.grid == grid]
        comparison.plot(evaluated, shown, files[-1])
    quiet = [condition for condition in conditions if condition.level == 0]
    files.append(folder / "laws.png")
    comparison.gallery(evaluated, quiet[-1], files[-1])
    return files


def _log(
    law: _Law,
    curves: LawCurves,
    files: Sequence[Path],
    settings: dict[str, Any],
    config: EvaluateConfig,
) -> str:
    """Logs a law's figures, and those of its untrained twin, as a child of its run."""
    assert law.run_id is not None
    tracking = replace(config.tracking, experiment=law.experiment or config.tracking.experiment)
    home = Path(config.output).absolute() / "evaluations"
    name = f"evaluation-{config.steps}-seed{config.seed}"
    with start_run(tracking, home, name, {KIND_TAG: "evaluation"}, law.run_id) as logged:
        logged.log_params(settings)
        for prefix, one in (("evaluation", curves), ("evaluation/untrained", curves.twin)):
            assert one is not None
            for condition, rolled in one.curves.items():
                for index, step in enumerate(rolled.steps):
                    values = {
                        f"{prefix}/{condition.key}/{name}": over_time[index].mean()
                        for name, over_time in rolled.values.items()
                    }
                    logged.log(values, int(step))
            logged.log({f"{prefix}/{name}": value for name, value in one.responses.items()}, 0)
        for file in files:
            logged.log_file(file, "evaluation" if file.suffix == ".csv" else "pictures")
        return logged.run_id
