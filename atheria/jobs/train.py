"""The work of ``python -m atheria.train``."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from atheria import artifact, checkpoint, film, laws
from atheria.config import TrainConfig, UserError, as_override
from atheria.exporting import Origin, export_law, log_law
from atheria.files import check_writable, short
from atheria.progress import Progress
from atheria.tracking import LoggedRun, git_commit, how_to_look, shown, start_run
from atheria.trainer import Trainer
from atheria.transfer import initialise

PICTURE_FRAMES = 8


@dataclass(frozen=True)
class TrainedRun:
    """A finished training run.

    Attributes:
        run_id: Its ID in the store.
        tracking_uri: The store.
        folder: Its checkpoints, law and pictures on disk.
        law: The exported artifact, of the best checkpoint.
        untrained: Metrics ``eval/...`` before training.
        best: The same of the best checkpoint, that of the lowest ``eval/selection``.
    """

    run_id: str
    tracking_uri: str
    folder: Path
    law: Path
    untrained: dict[str, float]
    best: dict[str, float]


def check(config: TrainConfig) -> None:
    """Raises UserError where the run could not start, before anything is made."""
    check_writable(Path(config.output), "output")
    _build(config)


def run(config: TrainConfig) -> TrainedRun:
    """Trains a law, logs the run, exports the best law.

    Raises:
        UserError: The configuration does not fit together, the store cannot be used, or the loss
            diverged.
    """
    trainer, origin_of_weights = _build(config)
    settings = {key: value for key, value in asdict(config).items() if key != "tracking"}  # no credentials
    name = f"{config.model['name']}-{config.trainer.name}-seed{config.seed}"
    with start_run(config.tracking, name, {"atheria.kind": "training"}) as logged:
        folder = Path(config.output).absolute() / "runs" / logged.run_id
        _log_settings(logged, settings, folder)
        print(f"run       {logged.run_id}  ({shown(logged.uri)})", flush=True)
        print(f"training  {_summary(config, trainer.law)}", flush=True)
        if origin_of_weights:
            print(f"          starting with {origin_of_weights}", flush=True)
        try:
            untrained, best = _fit(trainer, config, logged, folder, settings)
        finally:
            _log_checkpoints(logged, folder)
        law_path = _export_best(trainer, config, logged, folder)
        _log_picture(trainer, config, logged, folder)
    result = TrainedRun(logged.run_id, logged.uri, folder, law_path, untrained, best)
    _print_end(config, result)
    return result


def _build(config: TrainConfig) -> tuple[Trainer, str | None]:
    """The trainer, and where its law's weights come from if they are not fresh."""
    if config.noise.name == "none" and config.noise.level > 0:
        raise UserError("`noise.level` needs a channel: choose one, as noise=seed")
    device = _device(config.device)
    torch.manual_seed(config.seed)
    law = laws.build(config.model, config.physics.boundary)
    plan, taken = config.trainer, None
    if plan.init_from is not None:
        taken = initialise(law, config.model, plan.init_from, plan.init_strict, config.tracking.uri)
    return Trainer(law.to(device), config, device), taken


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"`device`: '{name}' cannot be used: {reason}") from None
    return device


def _log_settings(logged: LoggedRun, settings: dict[str, Any], folder: Path) -> None:
    logged.log_params(settings)
    path = folder / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OmegaConf.to_yaml(settings))
    logged.log_file(path)


def _fit(
    trainer: Trainer,
    config: TrainConfig,
    logged: LoggedRun,
    folder: Path,
    settings: dict[str, Any],
) -> tuple[dict[str, float], dict[str, float]]:
    """Trains to the last episode; returns the evaluation before and the best one."""
    last, best = folder / "checkpoints/last.pth", folder / checkpoint.BEST
    plan = config.trainer

    def save(path: Path, metrics: dict[str, float]) -> None:
        state = trainer.state_dict()
        if path == best:
            state["pool"] = None  # for export and transfer; continuing needs the last one
        extra = {"config": settings, "run_id": logged.run_id, "metrics": metrics}
        checkpoint.save({**state, **extra, "schema": checkpoint.SCHEMA}, path)

    progress = Progress(plan.episodes, "episode")
    untrained = best_metrics = trainer.evaluate()
    logged.log(untrained, step=0)
    progress.say(f"episode 0/{plan.episodes}  {_losses(untrained)} (untrained)")
    save(best, untrained)
    while trainer.episode < plan.episodes:
        metrics = trainer.train_episode()
        logged.log(metrics, step=trainer.episode)
        progress.advance(_shown(metrics))
        ends = trainer.episode == plan.episodes
        if trainer.episode % plan.eval_every == 0 or ends:
            evaluated = trainer.evaluate()
            trainer.step_scheduler(evaluated["eval/selection"])
            logged.log(evaluated, step=trainer.episode)
            progress.say(f"episode {trainer.episode}/{plan.episodes}  {_losses(evaluated)}")
            if evaluated["eval/selection"] < best_metrics["eval/selection"]:
                best_metrics = evaluated
                save(best, evaluated)
        if trainer.episode % plan.checkpoint_every == 0 or ends:
            save(last, metrics)
    progress.close()
    return untrained, best_metrics


def _log_checkpoints(logged: LoggedRun, folder: Path) -> None:
    for path in sorted((folder / "checkpoints").glob("*.pth*")):
        logged.log_file(path, "checkpoints")


def _export_best(trainer: Trainer, config: TrainConfig, logged: LoggedRun, folder: Path) -> Path:
    best = checkpoint.load(folder / checkpoint.BEST)
    trainer.law.load_state_dict(best["model_state_dict"])
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
    path = folder / "law" / artifact.FILE_NAME
    log_law(logged, path, export_law(trainer.law, origin, path))
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


def _summary(config: TrainConfig, law: nn.Module) -> str:
    plan = config.trainer
    weights = sum(parameter.numel() for parameter in law.parameters())
    height, width = plan.grid
    return (
        f"{config.model['name']} ({weights:,} weights) under {plan.name}: {plan.episodes} episodes of "
        f"{plan.steps} steps, {plan.batch_size} universes of {height} x {width} cells, on {config.device}"
    )


def _log_picture(trainer: Trainer, config: TrainConfig, logged: LoggedRun, folder: Path) -> None:
    wanted = film.spread(config.trainer.steps, PICTURE_FRAMES)
    frames = [
        film.Frame(step, psi.cpu().numpy()) for step, psi in trainer.held_out_rollout() if step in wanted
    ]
    path = folder / "pictures/rollout.png"
    film.save(film.strip(frames, "held-out universe under the trained law"), path)
    logged.log_file(path, "pictures")


def _print_end(config: TrainConfig, trained: TrainedRun) -> None:
    before, after = trained.untrained["eval/loss"], trained.best["eval/loss"]
    print(f"eval/loss {before:.4f} untrained, {after:.4f} trained (best)")
    if trained.best is trained.untrained:
        print("          no evaluation beat the untrained law, which was exported; see checkpoints/last.pth")
    print(f"law       {short(trained.law)}")
    print(f"picture   {short(trained.folder / 'pictures/rollout.png')}")
    print("next")
    store = f" {as_override('tracking.uri', shown(config.tracking.uri))}" if config.tracking.uri else ""
    print(f"  python -m atheria.rollout run_id={trained.run_id} steps=1000 grid=128{store}")
    print(f"  {how_to_look(trained.tracking_uri)}")
