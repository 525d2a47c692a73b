"""The work of ``python -m atheria.train``."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from omegaconf import OmegaConf
from PIL.Image import Image as Picture
from torch import Tensor, nn

from atheria import (
    artifact,
    checkpoint,
    endings,
    inline,
    journal,
    keeping,
    laws,
    observables,
    ranks,
    report,
    resume,
    strip,
)
from atheria.config import TrainConfig, UserError, as_override, check_noise
from atheria.exporting import Origin, export_law, log_law
from atheria.fetch import law_of_run
from atheria.files import atomically, check_writable, short
from atheria.film import Film
from atheria.keeping import Checkpoints
from atheria.launch import Place
from atheria.progress import Progress, warn
from atheria.provenance import git_commit
from atheria.ranks import Ranks
from atheria.resume import CONFIGURATION_TAG, Resumption
from atheria.runs import KIND_TAG, LoggedRun, reopen_run, send_rest, start_run
from atheria.stores import how_to_look, shown, store_uri, where
from atheria.trainer import Trainer
from atheria.transfer import initialise
from atheria.views import Density, Frame

PICTURE_FRAMES = 8
EVALUATION_FRAMES, EVALUATION_SIDE = 4, 128
"""Of the picture at each evaluation; MLflow shows it at 256 pixels first."""
EVALUATION_KEY = "rollout"
REPORT_FRAMES, REPORT_SIDE, REPORT_MOMENTS = 48, 256, 17
REPORT_STEPS = 256
"""Steps up to which the report looks beyond the evaluations' horizon, four times as far at most."""
PICTURE = "pictures/rollout.png"
CONFIG = "config.yaml"
PRUNED_TAG = "atheria.pruned"


class Part(Protocol):
    """The part of a run in a sweep.

    Attributes:
        name: What the run is called.
        parent: ID of the sweep's run; None where that is not tracked.
        tags: What the run is known by in the sweep.
    """

    name: str
    parent: str | None
    tags: dict[str, str]

    def started(self, run_id: str, folder: Path) -> None:
        """Hears which run it is."""

    def is_hopeless(self, episode: int, metrics: dict[str, float]) -> bool:
        """Hears the metrics ``eval/...`` after an episode; whether the run shall end there."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished training run.

    Attributes:
        run_id: Its ID in the store.
        tracking_uri: The store; None where nothing was tracked.
        folder: Its checkpoints, law and pictures on disk.
        law: The exported artifact, of the best checkpoint.
        untrained: Metrics ``eval/...`` before training.
        best: The same of the best checkpoint, that of the lowest ``eval/selection``.
    """

    run_id: str
    tracking_uri: str | None
    folder: Path
    law: Path
    untrained: dict[str, float]
    best: dict[str, float]

    def _repr_html_(self) -> str:
        """In a notebook: the evaluations before and after training, and the held-out universe's film."""
        rows = [[f"run {self.run_id}", "untrained", "trained (best)"]]
        for name in sorted(self.best.keys() & self.untrained.keys()):
            rows.append([name, f"{self.untrained[name]:.6g}", f"{self.best[name]:.6g}"])
        return inline.shown(rows, self.folder / PICTURE)


def check(config: TrainConfig) -> None:
    """Raises UserError where the run could not start, before anything is made."""
    with ranks.joined(config.device) as team:
        team.together(lambda: check_writable(Path(config.output), "output"))
        _build(config, team)


def run(config: TrainConfig, part: Part | None = None) -> TrainedRun:
    """Trains a law, logs the run, exports the best law.

    Where several processes train it, all return the same; the first alone finds, prints, logs and saves.

    Args:
        config: The settings.
        part: The run's part in a sweep, where it has one; in the first process alone.

    Raises:
        UserError: The configuration does not fit together, the store cannot be used, or the loss
            diverged.
    """
    _check_threads(config.trainer.threads)  # not with a sweep's points, whose jobs may run on other machines
    with ranks.joined(config.device) as team:
        found = _find(config, team, part)
        if found is not None and found.is_finished:
            return team.from_first(lambda: _finished(found, config, part))
        trainer, origin_of_weights = _build(config, team, found)
        with ExitStack() as stack:
            logged = team.by_first(lambda: stack.enter_context(_start(config, found, part)))
            if logged is None:
                for _ in _episodes(trainer, config, team):
                    pass
            else:
                _lead(trainer, config, team, logged, found, origin_of_weights, part)
            result = team.from_first(lambda: _finish(trainer, config, logged))
        if team.is_first:
            _print_end(config, result)
        return result


def _check_threads(threads: int | None) -> None:
    most = 4 * (os.cpu_count() or 1)
    if threads is not None and threads > most:
        raise UserError(f"`trainer.threads` must be 1 to {most}, or null for torch's number, got {threads}")


def _find(config: TrainConfig, team: Ranks, part: Part | None) -> Resumption | None:
    """What to go on with. The first process alone looks for it; the others get the state."""
    found = team.by_first(lambda: resume.find(config, part.tags if part else None))
    sent = team.broadcast(None if found is None else replace(found, run=None))
    return found if team.is_first else sent


def _lead(
    trainer: Trainer,
    config: TrainConfig,
    team: Ranks,
    logged: LoggedRun,
    found: Resumption | None,
    origin_of_weights: str | None,
    part: Part | None,
) -> None:
    """Trains, and says and keeps what happens."""
    if part is not None:
        part.started(logged.run_id, logged.folder)
    at = f"  ({shown(logged.uri)})" if logged.uri else "  (not tracked)"
    print(f"run       {logged.run_id}{at}", flush=True)
    print(f"training  {_summary(config, trainer.law, team)}", flush=True)
    if origin_of_weights:
        print(f"          starting with {origin_of_weights}", flush=True)
    if found is not None:
        _log_resumption(logged, found, _settings(config))
    checkpoints = Checkpoints(logged.folder, config.trainer.keep_best)
    try:
        untrained = found.state["metrics"]["untrained"] if found is not None else None
        _fit(trainer, config, team, logged, checkpoints, untrained, part)
    except KeyboardInterrupt as end:
        if isinstance(end, endings.Pruned):
            logged.set_tag(PRUNED_TAG, f"at episode {trainer.episode}")
        if isinstance(end, endings.Stopped):
            print(f"saved     episode {trainer.episode}")
        print(f"to go on  the same command with trainer.resume={logged.run_id}, or =auto", flush=True)
        raise
    try:
        _log_files(logged, checkpoints.write_waiting())
    except OSError as error:
        raise UserError(
            f"the run has trained to its end, but its best checkpoint could not be written: {error}\n"
            f"make room, then give the same command with trainer.resume={logged.run_id}: it goes on from the "
            "last checkpoint that there was room for"
        ) from error


def _finish(trainer: Trainer, config: TrainConfig, logged: LoggedRun | None) -> TrainedRun:
    """Exports the best law and draws it."""
    assert logged is not None  # only the first process finishes a run
    best = checkpoint.load(logged.folder / checkpoint.BEST)
    try:
        law_path = _export(best, trainer, config, logged)
        _log_picture(trainer, logged)
    except OSError as error:
        kept = short(logged.folder / checkpoint.BEST)
        raise UserError(
            f"the run has trained to its end, but its law could not be written: {error}\n"
            f"its best checkpoint is safe in '{kept}'; make room, then give the same command with "
            f"trainer.resume={logged.run_id}, or: python -m atheria.export {as_override('checkpoint', kept)} "
            "output=law.pt"
        ) from error
    try:
        _log_report(best, trainer, config, logged)
    except OSError as error:
        warn(f"the report could not be written ({error}); the law and all that was logged are whole")
    return _result(best, logged, law_path)


def _settings(config: TrainConfig) -> dict[str, Any]:
    """What is kept of the settings: not the store's address, which may hold credentials, nor the sweep."""
    return {key: value for key, value in asdict(config).items() if key not in ("tracking", "sweep")}


@contextmanager
def _start(config: TrainConfig, found: Resumption | None, part: Part | None) -> Iterator[LoggedRun]:
    """The run, new or again, with its settings logged."""
    if found is not None and found.run is not None:
        with reopen_run(config.tracking, resume.local_copy(found.run, config)) as logged:
            yield logged
        return
    tags = None
    if part is not None:
        tags = part.tags
    elif config.trainer.resume == "auto":
        tags = {CONFIGURATION_TAG: resume.fingerprint(asdict(config))}
    folder = resume.begun(config, tags) if tags is not None else None
    if folder is None:
        with new_run(config, part) as logged:
            yield logged
        return
    with reopen_run(config.tracking, folder) as logged:
        if not (folder / CONFIG).is_file():  # it was ended before its settings were logged
            _log_settings(logged, config)
        yield logged


@contextmanager
def new_run(config: TrainConfig, part: Part | None) -> Iterator[LoggedRun]:
    """A new run with its settings logged."""
    name = f"{config.model['name']}-{config.trainer.name}-seed{config.seed}"
    tags = {KIND_TAG: "training", CONFIGURATION_TAG: resume.fingerprint(asdict(config))}
    tracking, parent = config.tracking, None
    if part is not None:
        name, parent = part.name, part.parent
        tags |= part.tags
        tracking = replace(tracking, run_name=None)
    with start_run(tracking, resume.home(config), name, tags, parent) as logged:
        _log_settings(logged, config)
        yield logged


def _log_settings(logged: LoggedRun, config: TrainConfig) -> None:
    settings = _settings(config)
    logged.log_params(settings)
    _log_config(logged, settings)


def _log_config(logged: LoggedRun, settings: dict[str, Any]) -> None:
    path = logged.folder / CONFIG
    atomically(path, lambda file: file.write_text(OmegaConf.to_yaml(settings)))
    logged.log_file(path)


def _log_resumption(logged: LoggedRun, found: Resumption, settings: dict[str, Any]) -> None:
    """Says from where the run goes on, and under which settings that are new to it."""
    episode = found.state["episode"]
    print(f"resumed   at episode {episode} from {found.source}", flush=True)
    changes = [f"{key}: {before} -> {now}" for key, (before, now) in found.changes(settings).items()]
    logged.set_tag(f"atheria.resumed.{episode}", "; ".join(changes) or "same settings")
    if found.run is None:
        logged.set_tag("atheria.resumed_from", found.source)
    for change in changes:
        print(f"          {change}", flush=True)
    if changes:
        _log_config(logged, settings)


def _finished(found: Resumption, config: TrainConfig, part: Part | None) -> TrainedRun:
    """The result of a run that has nothing left to do."""
    assert found.run is not None
    folder = resume.local_copy(found.run, config)
    if part is not None:
        part.started(found.run.run_id, folder)
    best = resume.best_checkpoint(found.run, folder)
    law = folder / artifact.IN_RUN
    if not law.is_file():
        law = law_of_run(found.run.run_id, config.tracking.uri)
    uri = None if config.tracking.mode == "off" else store_uri(config.tracking.uri)
    changes = found.changes(_settings(config))
    if changes:
        done = f"has finished its {found.state['episode']} episodes"
        print(f"run       {found.run.run_id} {done}; to go on, raise trainer.episodes")
        for key, (before, now) in changes.items():
            print(f"          not taken: {key}: {before} -> {now}")
    else:
        print(f"run       {found.run.run_id} has these settings and has finished")
    send_rest(config.tracking, folder)
    result = TrainedRun(found.run.run_id, uri, folder, law, **_losses_of(best))
    _print_end(config, result)
    return result


def _result(best: dict[str, Any], logged: LoggedRun, law: Path) -> TrainedRun:
    return TrainedRun(logged.run_id, logged.uri, logged.folder, law, **_losses_of(best))


def _losses_of(best: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {"untrained": best["metrics"]["untrained"], "best": best["metrics"]["latest"]}


def _build(config: TrainConfig, team: Ranks, found: Resumption | None = None) -> tuple[Trainer, str | None]:
    """The trainer, and where its law's weights come from if they are not fresh."""
    settings = {key: value for key, value in _settings(config).items() if key != "output"}
    if team.highest(team.broadcast(settings) != settings):
        raise UserError("the processes of one run were given different settings; give all the same")
    trainer = team.together(lambda: _fresh(config, team))
    plan, taken = config.trainer, None
    if found is not None:
        trainer.load_state_dict(resume.adapted(found, config))
    elif plan.init_from is not None:
        source = plan.init_from
        taken = team.by_first(
            lambda: initialise(trainer.law, config.model, source, plan.init_strict, config.tracking.uri)
        )
        weights = {name: tensor.cpu() for name, tensor in trainer.law.state_dict().items()}
        trainer.law.load_state_dict(team.broadcast(weights))
    return trainer, taken


def _fresh(config: TrainConfig, team: Ranks) -> Trainer:
    """The trainer with fresh weights, on this process' device."""
    check_noise(config.noise)
    device = _device(config.device, team.place)
    torch.manual_seed(config.seed)
    law = laws.build(config.model, config.physics.boundary)
    return Trainer(law.to(device), config, device, team)


def _device(name: str, place: Place) -> torch.device:
    """The device of that name; of several processes on a machine, each has its own."""
    try:
        device = torch.device(name)
        # A scheduler may show each process its own device alone, which then is the first.
        if place.size > 1 and device.type == "cuda" and torch.cuda.device_count() > 1:
            device = torch.device("cuda", place.local_rank)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"`device`: '{name}' cannot be used: {reason}") from None
    return device


class Episode(NamedTuple):
    """What came of an episode.

    Attributes:
        metrics: ``train/...``.
        evaluated: ``eval/...`` where it was evaluated, else None.
        is_last: Whether the run ends with it.
    """

    metrics: dict[str, float]
    evaluated: dict[str, float] | None
    is_last: bool


def _episodes(
    trainer: Trainer, config: TrainConfig, team: Ranks, part: Part | None = None
) -> Generator[Episode, None, None]:
    """Trains to the last episode, or to the one in which one of the processes is told to end."""
    plan = config.trainer
    with endings.at_step_boundary("this episode, once it is saved") as stop:
        while trainer.episode < plan.episodes:
            metrics, evaluated = trainer.train_episode(), None
            is_last = trainer.episode == plan.episodes
            if trainer.episode % plan.eval_every == 0 or is_last:
                evaluated = team.from_first(trainer.evaluate)
                trainer.step_scheduler(evaluated["eval/selection"])
                if part is not None and not is_last and part.is_hopeless(trainer.episode, evaluated):
                    stop.prune()
            told = team.highest(stop.number)
            yield Episode(metrics, evaluated, is_last or told > 0)
            endings.heed(told)


def _fit(
    trainer: Trainer,
    config: TrainConfig,
    team: Ranks,
    logged: LoggedRun,
    checkpoints: Checkpoints,
    untrained: dict[str, float] | None,
    part: Part | None,
) -> None:
    """Trains, and logs and saves what comes of it."""
    plan = config.trainer

    def state(latest: dict[str, float]) -> dict[str, Any]:
        return {
            **trainer.state_dict(),
            "config": _settings(config),
            "run_id": logged.run_id,
            "metrics": {"latest": latest, "untrained": untrained},
            "schema": checkpoint.SCHEMA,
        }

    def log_evaluation(evaluated: dict[str, float]) -> None:
        logged.log(evaluated, step=trainer.episode)
        if logged.uri is not None:
            picture = _strip(trainer, f"episode {trainer.episode}", EVALUATION_FRAMES, EVALUATION_SIDE)
            logged.log_image(strip.encode(picture), EVALUATION_KEY, trainer.episode)

    def evaluate() -> dict[str, float]:
        evaluated = trainer.evaluate()
        log_evaluation(evaluated)
        return evaluated

    def keep_if_best(evaluated: dict[str, float]) -> None:
        for_export = {**state(evaluated), "pool": None}  # going on needs the last one
        _log_files(logged, checkpoints.offer_best(for_export, evaluated["eval/selection"]))

    progress = Progress(plan.episodes, "episode", trainer.episode)
    if untrained is None:
        _log_files(logged, checkpoints.save_last(state({})))
        untrained = evaluate()
        progress.say(f"episode 0/{plan.episodes}  {_losses(untrained)} (untrained)")
        keep_if_best(untrained)
    with closing(_episodes(trainer, config, team, part)) as episodes:
        for metrics, evaluated, is_last in episodes:
            logged.log(metrics, step=trainer.episode)
            progress.advance(_shown(metrics))
            if evaluated is not None:
                log_evaluation(evaluated)
                progress.say(f"episode {trainer.episode}/{plan.episodes}  {_losses(evaluated)}")
                keep_if_best(evaluated)
            if trainer.episode % plan.checkpoint_every == 0 or is_last:
                _log_files(logged, checkpoints.save_last(state(metrics)))
    progress.close()
    if not checkpoints.has_best:
        keep_if_best(evaluate())


def _log_files(logged: LoggedRun, paths: list[Path]) -> None:
    for path in paths:
        logged.log_file(path, keeping.FOLDER)


def _export(best: dict[str, Any], trainer: Trainer, config: TrainConfig, logged: LoggedRun) -> Path:
    trainer.law.load_state_dict(best["model_state_dict"])
    trainer.law.eval()
    law = deepcopy(trainer.law).float()  # the engine knows float32 alone
    origin = Origin(
        model=config.model,
        physics=config.physics,
        grid=config.trainer.grid,
        initial_state=config.initial_state,
        noise={"name": config.noise.name, "level": config.noise.level},
        seed=config.seed,
        run_id=logged.run_id,
        git_commit=git_commit(),
    )
    path = logged.folder / artifact.IN_RUN
    log_law(logged, path, export_law(law, origin, path))
    losses = {key.replace("eval/", "best/"): value for key, value in best["metrics"]["latest"].items()}
    logged.log(losses, step=best["episode"])
    return path


def _shown(metrics: dict[str, float]) -> dict[str, float]:
    """What the progress display shows: the loss, its terms, the noise level."""
    hidden = ("train/gradient_norm", "train/lr", "train/steps", "train/phase")
    return {
        key.removeprefix("train/").replace("noise_level", "noise"): value
        for key, value in metrics.items()
        if key not in hidden and not key.startswith("train/weighted/")
    }


def _losses(evaluated: dict[str, float]) -> str:
    """The losses of an evaluation, without noise and under it."""
    noisy = evaluated.get("eval/noisy/loss")
    under = "" if noisy is None else f", {noisy:.4f} under noise"
    return f"eval/loss {evaluated['eval/loss']:.4f}{under}"


def _summary(config: TrainConfig, law: nn.Module, team: Ranks) -> str:
    plan = config.trainer
    weights = sum(parameter.numel() for parameter in law.parameters())
    height, width = plan.grid
    processes = team.place.size
    devices = config.device if processes == 1 else f"{config.device}, in {processes} processes"
    return (
        f"{config.model['name']} ({weights:,} weights) under {plan.name}: {plan.episodes} episodes of "
        f"{plan.steps} steps, {plan.batch_size} universes of {height} x {width} cells, on {devices}"
    )


def _log_picture(trainer: Trainer, logged: LoggedRun) -> None:
    path = logged.folder / PICTURE
    strip.save(_strip(trainer, "held-out universe under the trained law", PICTURE_FRAMES), path)
    logged.log_file(path, "pictures")


def _log_report(best: dict[str, Any], trainer: Trainer, config: TrainConfig, logged: LoggedRun) -> None:
    """The report, and the film in it, of a held-out universe beyond the evaluations' horizon."""
    steps = max(trainer.horizon, min(4 * trainer.horizon, REPORT_STEPS))
    filmed, measured = strip.spread(steps, REPORT_FRAMES), strip.spread(steps, REPORT_MOMENTS)
    torus = config.physics.boundary == "torus"
    observed: list[tuple[int, dict[str, float]]] = []
    fields: list[Tensor] = []
    with Film((logged.folder / PICTURE).with_name("film.gif"), Density(), side=REPORT_SIDE) as film:
        for step, psi in trainer.held_out_rollout(steps):
            if step in filmed:
                film.add(Frame(step, psi.float().cpu().numpy()))
            if step in measured:
                field = psi.float().cpu()[None]
                fields = [*fields[:1], field]  # the first, and this one
                values = observables.measure(field, torus) | observables.compare(fields[0], field)
                observed.append((step, {name: value.item() for name, value in values.items()}))
    untrained = logged.image_path(EVALUATION_KEY, 0)
    strips = {"under the untrained law": untrained} if untrained.is_file() else {}
    said = report.Report(
        title=journal.identity(logged.folder).name,
        summary=_summary(config, trainer.law, Ranks()),
        run_id=logged.run_id,
        commit=git_commit(),
        config=OmegaConf.to_yaml(_settings(config)),
        steps=config.trainer.steps,
        **_losses_of(best),
        curves=logged.history.curves,
        observed=observed,
        film=film.path,
        film_steps=steps,
        pictures={"A held-out universe under the trained law": logged.folder / PICTURE}
        | {f"The same {caption}": path for caption, path in strips.items()},
        commands=_next(config, logged.run_id, logged.uri, logged.folder / artifact.IN_RUN),
    )
    path = logged.folder / report.FILE_NAME
    text = report.html(said)
    atomically(path, lambda file: file.write_text(text))
    logged.log_file(film.path, "pictures")
    logged.log_file(path)


def _next(config: TrainConfig, run_id: str, uri: str | None, law: Path) -> list[str]:
    """What to type after a training."""
    named, store = f"run_id={run_id}", config.tracking.uri
    if config.tracking.mode != "online":  # no store knows the run yet
        named, store = as_override("law", short(law)), None
    return [
        f"python -m atheria.rollout {named} steps=1000 grid=128{where(store, config.output)}",
        f"python -m atheria.view {named} grid=128{where(store)}",
        f"python -m atheria.evaluate {named}{where(store, config.output)}",
        *(how_to_look(config.tracking, config.output) if uri is not None else ()),
    ]


def _strip(trainer: Trainer, title: str, count: int, side: int = strip.SIDE) -> Picture:
    """A held-out universe under the law as it is."""
    wanted = strip.spread(trainer.horizon, count)
    frames = [
        Frame(step, psi.float().cpu().numpy()) for step, psi in trainer.held_out_rollout() if step in wanted
    ]
    return strip.strip(frames, title, side=side)


def _print_end(config: TrainConfig, trained: TrainedRun) -> None:
    before, after = trained.untrained["eval/loss"], trained.best["eval/loss"]
    print(f"eval/loss {before:.4f} untrained, {after:.4f} trained (best)")
    if trained.best == trained.untrained:
        print("          no evaluation beat the untrained law, which was exported; see checkpoints/last.pth")
    print(f"law       {short(trained.law)}")
    print(f"picture   {short(trained.folder / PICTURE)}")
    if (trained.folder / report.FILE_NAME).is_file():
        print(f"report    {short(trained.folder / report.FILE_NAME)}")
    print("next")
    for command in _next(config, trained.run_id, trained.tracking_uri, trained.law):
        print(f"  {command}")
