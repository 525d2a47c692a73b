"""What the command line of a sweep says."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from atheria.cli import compose_config, to_settings
from atheria.config import (
    GridConfig,
    LauncherConfig,
    LocalLauncherConfig,
    OptunaConfig,
    RayLauncherConfig,
    SlurmLauncherConfig,
    SweeperConfig,
    TrainConfig,
    UserError,
    validate,
)
from atheria.files import check_writable
from atheria.resume import point_digest
from atheria.stores import without_credentials
from atheria.sweeps import space
from atheria.sweeps.launchers import check_launcher
from atheria.sweeps.points import Point, Trial

FOLDER = "sweeps"

_LAUNCHERS = {"local": LocalLauncherConfig, "slurm": SlurmLauncherConfig, "ray": RayLauncherConfig}
_SWEEPERS = {"grid": GridConfig, "optuna": OptunaConfig}


@dataclass(frozen=True)
class Plan:
    """What a sweep is told.

    Attributes:
        name: Its name.
        space: What its runs share, and what they differ in.
        base: Settings of one of its runs.
        launcher: Where its jobs run.
        sweeper: Which points it tries.
    """

    name: str
    space: space.Space
    base: TrainConfig
    launcher: LauncherConfig
    sweeper: SweeperConfig

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return Path(self.base.output).absolute() / FOLDER / self.name

    def point(self, varied: dict[str, str], parent: str | None, trial: Trial | None) -> Point:
        """The point of the settings that are its own.

        Raises:
            UserError: They do not fit the others.
        """
        overrides = self.space.overrides(varied)
        digest = point_digest(asdict(to_settings(TrainConfig, compose_config("train", overrides))))
        return Point(
            digest=digest,
            varied=varied,
            overrides=overrides,
            sweep=self.name,
            parent=parent,
            folder=str(self.folder / "points" / digest[:16]),
            working_directory=str(Path.cwd()),
            threads=self.launcher.cores,
            trial=trial,
        )


def plan(overrides: Sequence[str]) -> Plan:
    """Reads a command line.

    Raises:
        UserError: It makes no sweep, or a package is missing that it needs.
    """
    taken = space.read(overrides)
    first = {axis.key: axis.values[0] for axis in taken.axes}
    composed = compose_config("train", [*taken.ours, *taken.overrides(first)], with_hydra=True)
    launcher = _chosen(
        "hydra/launcher", _LAUNCHERS, OmegaConf.to_container(composed.hydra.launcher, resolve=True)
    )
    sweeper = _chosen(
        "hydra/sweeper", _SWEEPERS, OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
    )
    check_launcher(launcher)
    taken = space.read(overrides, sweeper.params)
    first = {axis.key: axis.values[0] for axis in taken.axes}
    base = to_settings(TrainConfig, compose_config("train", taken.overrides(first)))
    if base.trainer.resume is not None:
        raise UserError(
            "`trainer.resume` is for one run; a sweep goes on by the same command, or its `sweep.name`"
        )
    check_writable(Path(base.output), "output")
    return Plan(base.sweep.name or _name_of(taken), _without_secrets(taken, base), base, launcher, sweeper)


def _chosen(group: str, options: Mapping[str, type[Any]], values: Any) -> Any:
    """The settings of an option, checked."""
    name = str(values.get("name")) if isinstance(values, dict) else ""
    if name not in options:
        raise UserError(f"`{group}` must be one of {', '.join(options)} for a sweep of atheria.train")
    return validate(options[name], values, at=group.replace("/", "."))


def _name_of(taken: space.Space) -> str:
    """A name that the same settings have every time."""
    parts = [
        key.replace("/", ".").rpartition(".")[2].lstrip("+") for key in (axis.key for axis in taken.axes)
    ]
    what = [*taken.fixed, *(f"{axis.key}={sorted(axis.values)}" for axis in taken.axes)]
    kept = sorted(line for line in what if not line.startswith(("output=", "tracking.", "sweep.")))
    digest = hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:8]
    return "-".join([*parts[:4], digest])


def _without_secrets(taken: space.Space, base: TrainConfig) -> space.Space:
    """Passes a store's address that holds a password on by the environment, not in files."""
    uri = base.tracking.uri
    if uri is None or uri == without_credentials(uri):
        return taken
    os.environ["MLFLOW_TRACKING_URI"] = uri
    return replace(
        taken, fixed=[line for line in taken.fixed if not line.lstrip("+").startswith("tracking.uri=")]
    )
