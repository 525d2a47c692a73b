"""The work of ``python -m atheria.export``."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from atheria import artifact, checkpoint, laws
from atheria.config import (
    ExportConfig,
    InitialStateConfig,
    PhysicsConfig,
    UserError,
    as_override,
    chosen_initial_state,
    chosen_physics,
    validate,
)
from atheria.exporting import Origin, export_law, log_law
from atheria.fetch import is_alias, run_named
from atheria.files import check_writable, short
from atheria.laws import Law
from atheria.stores import where
from atheria.tracking import MissingArtifactError, find_run

SEED_BOUNDARY = "zeros"
"""Padding of the seed's laws, whose checkpoints do not say."""


def run(config: ExportConfig) -> Path:
    """Exports what a configuration asks for; returns where the artifact is.

    Raises:
        UserError: The checkpoint cannot be used, or the settings contradict each other.
    """
    if any(name is not None for name in (config.run_id, config.law, config.best_of)):
        run_id = run_named(config.run_id, config.law, config.best_of, config.tracking.uri)
        if run_id is not None:
            return _export_run(config, run_id)
    state: Mapping[str, Any] = {}
    if config.checkpoint is not None:
        state = checkpoint.load(Path(config.checkpoint))
    elif config.law is not None:
        state = artifact.as_checkpoint(Path(config.law))
    assert config.output is not None
    law, origin = _law_of(state, config)
    path = Path(config.output).absolute()
    return _written(export_law(law, origin, path), path, as_override("law", config.output))


def check(config: ExportConfig) -> None:
    """Raises UserError where the settings contradict each other."""
    named = [name for name in ("run_id", "law", "best_of", "checkpoint") if getattr(config, name) is not None]
    if len(named) > 1:
        raise UserError(f"give one of {', '.join(f'`{name}`' for name in named)}, not {len(named)}")
    if not named and config.model is None:
        raise UserError(
            "say what to export: run_id=..., law=..., best_of=..., checkpoint=..., or an untrained model=..."
        )
    of_run = config.run_id is not None or config.best_of is not None or is_alias(config.law)
    if config.output is None and not of_run:
        raise UserError("`output` is missing: where to write the artifact, as output=law.pt")
    if config.model is not None:
        laws.check(config.model)
    if config.output is not None and Path(config.output).is_dir():
        raise UserError(f"`output` must be a file, got the folder '{config.output}'; as output=law.pt")
    check_writable(Path(config.output or ".").parent, "output")
    chosen_initial_state(config.initial_state)


def _export_run(config: ExportConfig, run_id: str) -> Path:
    run = find_run(run_id, config.tracking.uri)
    with tempfile.TemporaryDirectory() as folder:
        try:
            state = checkpoint.load(run.download(checkpoint.BEST, Path(folder)))
        except MissingArtifactError as error:
            other = "python -m atheria.export checkpoint=PATH output=law.pt"
            raise UserError(f"{error}\nor export another checkpoint of it: {other}") from None
    law, origin = _law_of(state, config)
    origin = replace(origin, git_commit=run.tag("git_commit"))
    path = Path(config.output or f"outputs/runs/{run_id}/{artifact.IN_RUN}").absolute()
    description = export_law(law, origin, path)
    log_law(run, path, description)
    return _written(description, path, f"run_id={run_id}{where(config.tracking.uri)}")


def _written(description: artifact.Description, path: Path, named: str) -> Path:
    print(f"law       {short(path)} ({description.law}, d_state {description.d_state})")
    print(f"next\n  python -m atheria.rollout {named}")
    return path


def _law_of(state: Mapping[str, Any], config: ExportConfig) -> tuple[Law, Origin]:
    """The law of a checkpoint (or, of an empty one, an untrained law) and where it comes from."""
    saved: Mapping[str, Any] = state.get("config") or {}
    model = config.model or saved.get("model")
    if model is None:
        raise UserError(
            f"'{config.checkpoint}' does not say its law; name it: model=unet model.d_state=... "
            "model.hidden_channels=..."
        )
    source = str(config.checkpoint or config.law or config.run_id)
    checkpoint.check_law(state, model, source)
    physics = _physics(saved, config, bare=bool(state) and not saved)
    torch.manual_seed(config.seed or 0)
    law = laws.build(model, physics.boundary)
    if state:
        checkpoint.load_weights(law, state, source)
    grid = config.grid or (saved["trainer"]["grid"] if saved else [64, 64])
    if any(side % law.stride for side in grid):
        raise UserError(f"`grid` must be multiples of the law's stride {law.stride}, got {grid}")
    origin = Origin(
        model=model,
        physics=physics,
        grid=grid,
        initial_state=_initial_state(saved, config),
        noise=_noise(saved),
        seed=saved.get("seed", 0) if config.seed is None else config.seed,
        run_id=state.get("run_id"),
    )
    return law, origin


def _initial_state(saved: Mapping[str, Any], config: ExportConfig) -> InitialStateConfig:
    return chosen_initial_state(config.initial_state) or validate(
        InitialStateConfig, saved.get("initial_state") or {"kind": "soup"}
    )


def _physics(saved: Mapping[str, Any], config: ExportConfig, bare: bool) -> PhysicsConfig:
    base = dict(saved.get("physics") or asdict(artifact.DEFAULT_PHYSICS))
    if bare:
        base["boundary"] = SEED_BOUNDARY
    return validate(PhysicsConfig, base | chosen_physics(config.physics), at="physics")


def _noise(saved: Mapping[str, Any]) -> dict[str, str | float]:
    noise = saved.get("noise") or {"name": "none", "level": 0.0}
    return {"name": noise["name"], "level": float(noise["level"])}
