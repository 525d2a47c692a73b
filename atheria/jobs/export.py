"""The work of ``python -m atheria.export``."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atheria import artifact, checkpoint, laws
from atheria.config import (
    ExportConfig,
    InitialStateConfig,
    PhysicsConfig,
    UserError,
    validate,
)
from atheria.exporting import Origin, export_law, log_law
from atheria.laws import Law
from atheria.tracking import find_run, git_commit

SEED_BOUNDARY = "zeros"
"""Padding of the seed's laws, whose checkpoints do not say."""

BEST_CHECKPOINT = "checkpoints/best.pth"


def run(config: ExportConfig) -> Path:
    """Exports what a configuration asks for; returns where the artifact is.

    Raises:
        UserError: The checkpoint cannot be used, or the settings contradict each other.
    """
    if config.run_id is not None:
        return _export_run(config, config.run_id)
    assert config.output is not None
    state = checkpoint.load(Path(config.checkpoint)) if config.checkpoint else {}
    law, origin = _law_of(state, config)
    return _written(export_law(law, origin, Path(config.output)), Path(config.output))


def check(config: ExportConfig) -> None:
    """Raises UserError where the settings contradict each other."""
    if config.run_id is not None and config.checkpoint is not None:
        raise UserError("give `run_id` or `checkpoint`, not both")
    if config.run_id is None and config.output is None:
        raise UserError("`output` is missing: where to write the artifact, as output=law.pt")
    if config.run_id is None and config.checkpoint is None and config.model is None:
        raise UserError("say what to export: run_id=..., checkpoint=..., or an untrained model=...")
    if config.model is not None:
        laws.check(config.model)


def _export_run(config: ExportConfig, run_id: str) -> Path:
    run = find_run(run_id, config.tracking.uri)
    with tempfile.TemporaryDirectory() as folder:
        state = checkpoint.load(run.download(BEST_CHECKPOINT, Path(folder)))
    law, origin = _law_of(state, config)
    path = Path(config.output or f"outputs/runs/{run_id}/law/{artifact.FILE_NAME}")
    description = export_law(law, origin, path)
    log_law(run.resume_logging(), path, description)
    return _written(description, path)


def _written(description: artifact.Description, path: Path) -> Path:
    print(f"law       {path} ({description.law}, d_state {description.d_state})")
    print(f"next      python -m atheria.rollout law={path}")
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
    physics = _physics(saved, config, bare=bool(state) and not saved)
    torch.manual_seed(config.seed)
    law = laws.build(model, physics.boundary)
    if state:
        _load_weights(law, state["model_state_dict"], config)
    origin = Origin(
        model=model,
        physics=physics,
        grid=saved["trainer"]["grid"] if saved else config.grid,
        initial_state=validate(InitialStateConfig, saved["initial_state"]) if saved else config.initial_state,
        noise=_noise(saved),
        seed=saved.get("seed", config.seed),
        run_id=state.get("run_id"),
        git_commit=git_commit(),
    )
    return law, origin


def _physics(saved: Mapping[str, Any], config: ExportConfig, bare: bool) -> PhysicsConfig:
    base = dict(saved.get("physics") or asdict(artifact.DEFAULT_PHYSICS))
    if bare:
        base["boundary"] = SEED_BOUNDARY
    given = {key: value for key, value in config.physics.items() if value is not None}
    return validate(PhysicsConfig, base | given, at="physics")


def _noise(saved: Mapping[str, Any]) -> dict[str, str | float]:
    noise = saved.get("noise") or {"name": "none", "level": 0.0}
    return {"name": noise["name"], "level": float(noise["level"])}


def _load_weights(law: Law, weights: Mapping[str, Tensor], config: ExportConfig) -> None:
    try:
        law.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        details = "\n".join(line.strip() for line in str(error).splitlines()[1:6])
        raise UserError(
            f"the weights of '{config.checkpoint or config.run_id}' do not fit the law; are "
            f"model.d_state, model.hidden_channels, model.norm and model.bias right?\n{details}"
        ) from None
