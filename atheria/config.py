"""What a command may be told: types and ranges, checked before anything happens.

Hydra composes the YAML files of ``conf/``, which hold the defaults; a field has one here only where some
options of its group leave it out.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

SCHEMA = ConfigDict(extra="forbid", strict=True)
"""Keys beyond the fields are refused, and nothing is converted but an integer to a float."""

Schema = TypeVar("Schema")
Positive = Annotated[int, Field(ge=1, lt=2**63)]
"""A number of things, which the engine counts in 64 bits."""
Components = Annotated[int, Field(ge=1, le=128)]
"""Complex components of a cell: more would run into the next stream of random numbers."""
Universes = Annotated[int, Field(ge=1, le=2**24)]
"""Universes of a batch: more would wrap around the counter of random numbers."""
Seed = Annotated[int, Field(ge=0, lt=2**64)]
Threads = Annotated[int, Field(ge=0, lt=2**31)]


class UserError(ValueError):
    """A fault of the caller's, whose message says what to do; commands print it alone."""


@dataclass(config=SCHEMA, frozen=True)
class PhysicsConfig:
    """The step around the law.

    Attributes:
        gamma: Amplitude decay per step, 0 <= gamma < 1.
        epsilon: Cells whose norm is at most this become vacuum.
        normalise: What is restored after a step: nothing, each cell's norm to 1, or the energy.
        fire_rate: Probability that a cell updates in a step.
        boundary: Padding of the law's convolutions; part of the law once it is built.
        harmonic: Root mean square norm of the harmonic vacuum, which local laws read in vacuum cells; 0 for
            none (`atheria.vacuum`).
    """

    gamma: Annotated[float, Field(ge=0, lt=1)]
    epsilon: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    normalise: Literal["none", "cell", "global"]
    fire_rate: Annotated[float, Field(gt=0, le=1)]
    boundary: Literal["torus", "zeros"]
    harmonic: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


@dataclass(config=SCHEMA, frozen=True)
class CurriculumConfig:
    """How the noise level grows during training; see `atheria.curriculum`."""

    name: Literal["constant", "linear", "cosine", "steps", "adaptive"]
    episodes: Positive | None = None
    off_below: Annotated[float, Field(ge=0)] = 0.0
    stages: Annotated[int, Field(ge=2)] = 5
    patience: Positive = 25
    surviving: Annotated[float, Field(ge=0, le=1)] = 0.3


@dataclass(config=SCHEMA, frozen=True)
class NoiseConfig:
    """A noise channel and its rate per step."""

    name: str
    level: Annotated[float, Field(ge=0, le=1)]


@dataclass(config=SCHEMA, frozen=True)
class TrainingNoiseConfig(NoiseConfig):
    """A noise channel, its highest rate per step, and the way there."""

    curriculum: CurriculumConfig


@dataclass(config=SCHEMA, frozen=True)
class InitialStateConfig:
    """A kind of initial state with its own option; see `atheria.initial_state`."""

    kind: Literal["soup", "random", "particles", "gaussian", "zeros", "file"]
    density: Annotated[float, Field(ge=0, le=1)] = 0.5
    count: Positive = 16
    width: Annotated[float, Field(gt=0)] = 4.0
    path: str | None = None


def _as_sides(grid: Any) -> list[int]:
    sides = grid if isinstance(grid, list) else [grid, grid]
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= 65536 for side in sides):
        raise ValueError("should be N or [height, width], each from 1 to 65536")
    return sides


Grid = Annotated[list[int], BeforeValidator(_as_sides)]


def _as_grid_or_unbounded(grid: Any) -> list[int] | str:
    if grid == "unbounded":
        return "unbounded"
    try:
        return _as_sides(grid)
    except ValueError as error:
        raise ValueError(f"{error}, or unbounded") from None


def _as_extent(extent: Any) -> list[int]:
    sides = extent if isinstance(extent, list) else [extent, extent]
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= 2**31 for side in sides):
        raise ValueError("should be N or [height, width], each from 1 to 2147483648")
    return sides


def _as_device(device: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]?))?", device):
        raise ValueError("should be cpu, cuda or cuda:N")
    return device


Device = Annotated[str, AfterValidator(_as_device)]
"""What the engine takes too; torch knows more, which nobody has tried."""
GridOrUnbounded = Annotated[list[int] | Literal["unbounded"], BeforeValidator(_as_grid_or_unbounded)]
Extent = Annotated[list[int], BeforeValidator(_as_extent)]


@dataclass(config=SCHEMA, frozen=True)
class PhaseConfig:
    """The beginning of a training, on a smaller problem.

    Attributes:
        episodes: How long it lasts.
        grid: Grid of its universes.
        steps: Longest rollout.
        noise: Factor on the curriculum's level, 0 to 1.
    """

    episodes: Positive
    grid: Grid
    steps: Positive
    noise: Annotated[float, Field(ge=0, le=1)] = 1.0


@dataclass(config=SCHEMA, frozen=True)
class TrainerConfig:
    """The training loop; what the trainers v3 and v4 differ in is here.

    Attributes:
        steps: Longest rollout, in steps.
        steps_min: Shortest: each episode's length is drawn uniformly from there to `steps`; None for
            `steps` always.
        truncate: Steps that a gradient reaches back; the objective is evaluated at the end of every
            such segment. None for the whole rollout.
        scheduler: Of the learning rate: ``plateau`` divides it by 10 when `patience` evaluations brought no
            improvement, ``cosine`` lowers it to a hundredth by the last episode.
        pool: Universes that outlive their episode; 0 for none.
        damage: Universes of a batch from the pool that lose a disk of matter first.
        precision: ``bf16`` for the law's network alone, ``fp64`` for law, field and noise; the exported law
            is float32 always.
        gradient_checkpointing: Whether activations are computed anew instead of kept.
        normalise_gradients: Whether each parameter's gradient is scaled to norm 1, before clipping.
        channels_last: Whether the law works with the channels innermost in memory; None for where
            that is faster.
        compile: Whether torch.compile compiles the law.
        threads: Threads of torch in an episode; None for one where a law is too small to gain from more,
            else torch's own number.
        phases: Beginnings on smaller problems; afterwards `grid`, `steps` and the noise as they are.
        resume: ``auto`` for the latest unfinished run of the same configuration, a run's ID, or the path of a
            checkpoint: what to go on with; None starts a new run.
        init_from: ``run:RUN_ID`` or the path of a checkpoint whose weights the law starts with.
        init_strict: Whether all of these weights must fit; else those of equal name and shape are taken.
        eval_steps: Horizon of evaluations; None for `steps`.
        keep_best: Checkpoints that are kept of the best evaluations: ``best.pth``, ``best-2.pth``, ...
    """

    name: Literal["v3", "v4"]
    episodes: Positive
    steps: Positive
    steps_min: Positive | None
    truncate: Positive | None
    batch_size: Universes
    pool: Annotated[int, Field(ge=0)]
    damage: Annotated[int, Field(ge=0)]
    grid: Grid
    phases: list[PhaseConfig]
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    optimizer: Literal["adam", "adamw"]
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    scheduler: Literal["none", "plateau", "cosine"]
    patience: Annotated[int, Field(ge=0)]
    clip: Annotated[float, Field(gt=0)]
    normalise_gradients: bool
    precision: Literal["fp32", "bf16", "fp64"]
    gradient_checkpointing: bool
    channels_last: bool | None
    compile: bool
    threads: Positive | None
    resume: str | None
    init_from: str | None
    init_strict: bool
    eval_every: Positive
    eval_steps: Positive | None
    eval_universes: Universes
    checkpoint_every: Positive
    keep_best: Positive
    loss: Annotated[dict[str, Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1)]


@dataclass(config=SCHEMA, frozen=True)
class TrackingConfig:
    """Where runs are logged; see `atheria.runs`.

    Attributes:
        mode: ``online`` sends what is logged while the run lasts, ``offline`` leaves it in the run's folder
            for ``atheria.sync``, ``off`` logs nothing.
        uri: The store; None for MLFLOW_TRACKING_URI, or else ``sqlite:///outputs/mlflow.db``.
        experiment: Name of the experiment.
        run_name: The run's name; None for one that is made of the settings.
    """

    mode: Literal["online", "offline", "off"]
    uri: str | None
    experiment: Annotated[str, Field(min_length=1)]
    run_name: str | None


@dataclass(config=SCHEMA, frozen=True)
class SweepConfig:
    """What holds a sweep's runs together.

    Attributes:
        name: Its name, and that of its folder; the same command under the same name goes on with it. None
            for a name that is made of the command's settings.
        metric: What its runs are compared by, as their best checkpoint was evaluated.
        direction: Which of its values is the better one.
    """

    name: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")] | None
    metric: Annotated[str, Field(pattern=r"^eval/.+")]
    direction: Literal["minimize", "maximize"]


@dataclass(config=SCHEMA, frozen=True)
class LocalLauncherConfig:
    """Jobs of a sweep on this machine.

    Attributes:
        cores: Processor cores of a job.
        gpus: GPUs of a job, of those that this machine has.
        parallel: Jobs at once; None for as many as the cores and the GPUs are enough for.
    """

    name: Literal["local"]
    cores: Positive
    gpus: Annotated[int, Field(ge=0)]
    parallel: Positive | None


@dataclass(config=SCHEMA, frozen=True)
class SlurmLauncherConfig:
    """Jobs of a sweep as tasks of SLURM job arrays.

    Attributes:
        cores: Processor cores of a process.
        memory_gb: Memory of a job, GiB.
        gpus: GPUs of a job.
        processes: Processes of a job, which train one run together.
        minutes: Longest time of a job.
        parallel: Jobs at once.
        requeue: How often a job is queued again that was told to end in the last fifth, or the last ten, of
            its minutes; one that is preempted before that always is.
        notice_seconds: How long before its end a job is told to save.
        partition: Where it is queued; None for the cluster's default, as for the next three.
        account: Who pays.
        qos: Quality of service.
        constraint: Features that a node must have.
        setup: Lines of shell before each job.
        options: Further options of sbatch.
    """

    name: Literal["slurm"]
    cores: Positive
    memory_gb: Annotated[float, Field(gt=0)]
    gpus: Annotated[int, Field(ge=0)]
    processes: Positive
    minutes: Positive
    parallel: Positive
    requeue: Annotated[int, Field(ge=0)]
    notice_seconds: Positive
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    setup: list[str]
    options: dict[str, Any]


@dataclass(config=SCHEMA, frozen=True)
class RayLauncherConfig:
    """Jobs of a sweep as Ray tasks.

    Attributes:
        address: Of a Ray cluster, or ``auto``; None starts Ray on this machine.
        cores: Processor cores of a job.
        memory_gb: Memory that a job reserves, GiB; None for none.
        gpus: GPUs of a job, or a part of one.
        parallel: Jobs at once; None for as many as fit.
    """

    name: Literal["ray"]
    address: str | None
    cores: Positive
    memory_gb: Annotated[float, Field(gt=0)] | None
    gpus: Annotated[float, Field(ge=0)]
    parallel: Positive | None


LauncherConfig = LocalLauncherConfig | SlurmLauncherConfig | RayLauncherConfig


@dataclass(config=SCHEMA, frozen=True)
class GridConfig:
    """Every combination of the values that are swept over.

    Attributes:
        params: Further keys that are swept over, as on the command line.
    """

    name: Literal["grid"]
    params: dict[str, Any]


@dataclass(config=SCHEMA, frozen=True)
class OptunaConfig:
    """A search by Optuna; see `atheria.sweeps.search`.

    Attributes:
        params: Further keys that are searched over, as on the command line.
        trials: How many points are tried in all.
        sampler: How the next point is chosen.
        pruner: By which rule hopeless runs end early; ``none`` for never.
        startup: Trials that are drawn at random first; and that must have finished before the median prunes.
        storage: Where Optuna keeps the search, an SQLAlchemy URL; None for a file in the sweep's folder.
        seed: Of the sampler.
    """

    name: Literal["optuna"]
    params: dict[str, Any]
    trials: Positive
    sampler: Literal["tpe", "random", "gp"]
    pruner: Literal["median", "hyperband", "halving", "none"]
    startup: Annotated[int, Field(ge=0)]
    storage: str | None
    seed: Seed


SweeperConfig = GridConfig | OptunaConfig


@dataclass(config=SCHEMA, frozen=True)
class TrainConfig:
    """Everything that a training run is told."""

    model: dict[str, Any]
    physics: PhysicsConfig
    noise: TrainingNoiseConfig
    initial_state: InitialStateConfig
    trainer: TrainerConfig
    tracking: TrackingConfig
    sweep: SweepConfig
    seed: Seed
    device: Device
    output: str


@dataclass(config=SCHEMA, frozen=True)
class ExportConfig:
    """What `atheria.export` is told."""

    run_id: str | None
    law: str | None
    best_of: str | None
    checkpoint: str | None
    physics: dict[str, Any]
    initial_state: dict[str, Any]
    tracking: TrackingConfig
    grid: Grid | None
    seed: Seed | None
    output: str | None
    model: dict[str, Any] | None = None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Stops = Annotated[list[Literal["extinction", "fixed_point"]], BeforeValidator(_as_list)]
"""One condition or a list of them."""


@dataclass(config=SCHEMA, frozen=True)
class RolloutConfig:
    """What `atheria.rollout` is told.

    Attributes:
        grid: Height and width, ``unbounded``, or None for the training grid.
        extent: Height and width of where an unbounded universe's initial state is drawn; None for the
            training grid.
        resume: The file of the universe that an earlier rollout ended with, or its folder, to go on with;
            None to start one.
        universes: None for one, or those that `resume` goes on with; `seed` likewise, for 0.
        stop: What ends it before its last step.
    """

    run_id: str | None
    law: str | None
    best_of: str | None
    steps: Positive
    resume: str | None
    grid: GridOrUnbounded | None
    extent: Extent | None
    universes: Universes | None
    seed: Seed | None
    physics: dict[str, Any]
    initial_state: dict[str, Any]
    noise: NoiseConfig
    stop: Stops
    observe_every: Positive
    frames: Annotated[int, Field(ge=2, le=32)]
    view: Literal["density", "phase", "flow", "components", "difference"]
    film: Literal["mp4", "gif"] | None
    film_every: Positive
    film_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    threads: Threads
    device: Device
    precision: Literal["fp32", "bf16"]
    backend: Literal["fastest", "compiled", "torchscript"]
    tracking: TrackingConfig
    output: str


def _as_names(names: Any) -> Any:
    listed = names if names is None or isinstance(names, list) else [names]
    if listed is not None and not 1 <= len(listed) <= 8:
        raise ValueError("should be 1 to 8 names")
    return listed


Names = Annotated[list[str] | None, BeforeValidator(_as_names)]
"""One name or a list of them."""


@dataclass(config=SCHEMA, frozen=True)
class EvaluateConfig:
    """What `atheria.evaluate` is told.

    Attributes:
        grid: The larger grid; None for twice the training grid of the first law.
        noise: What all laws are measured under, beside no noise.
    """

    run_id: Names
    law: Names
    best_of: str | None
    steps: Positive
    grid: Grid | None
    universes: Universes
    seed: Seed
    initial_state: dict[str, Any]
    noise: NoiseConfig
    threads: Threads
    device: Device
    tracking: TrackingConfig
    output: str


Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 for one that is free."""


@dataclass(config=SCHEMA, frozen=True)
class ViewConfig:
    """What `atheria.view` is told."""

    run_id: str | None
    law: str | None
    best_of: str | None
    grid: Grid | None
    seed: Seed
    physics: dict[str, Any]
    initial_state: dict[str, Any]
    noise: NoiseConfig
    play: bool
    speed: Annotated[float, Field(ge=0.1, le=1e6)] | None
    threads: Threads
    device: Device
    tracking: TrackingConfig
    port: Port
    open: bool


@dataclass(config=SCHEMA, frozen=True)
class UiConfig:
    """What `atheria.ui` is told."""

    tracking: TrackingConfig
    port: Port
    open: bool


@dataclass(config=SCHEMA, frozen=True)
class SyncConfig:
    """What `atheria.sync` is told."""

    reap: bool
    tracking: TrackingConfig
    output: str


@dataclass(config=SCHEMA, frozen=True)
class PromoteConfig:
    """What `atheria.promote` is told."""

    run_id: str | None
    law: str | None
    best_of: str | None
    alias: str
    name: str | None
    tracking: TrackingConfig


@dataclass(config=SCHEMA, frozen=True)
class CacheConfig:
    """What `atheria.cache` is told."""

    prune: bool
    keep: Annotated[int, Field(ge=0)]


def as_override(key: str, value: str) -> str:
    """A setting as a user would type it in a shell, quoted for Hydra and the shell where they need it."""
    if re.fullmatch(r"[\w./:@%+-]+", value):
        return f"{key}={value}"
    return shlex.quote(f"{key}='{value}'")


def validate(schema: type[Schema], values: Mapping[str, Any], at: str = "") -> Schema:
    """The values as an instance of `schema`.

    Args:
        schema: A dataclass made with `SCHEMA`.
        values: Nested mappings of YAML's types.
        at: Dotted path of `values` in the whole configuration, for messages.

    Raises:
        UserError: A key is unknown or missing, a type is wrong, or a value is out of range.
    """
    try:
        # JSON's types are YAML's: strict validation of Python objects would want dataclass instances.
        return TypeAdapter(schema).validate_json(json.dumps(values, default=_plain))
    except ValidationError as error:
        faults = [_describe(schema, dict(fault), at) for fault in error.errors()]
        raise UserError("\n".join(dict.fromkeys(faults))) from None


def check_noise(noise: NoiseConfig) -> None:
    """Raises UserError where a noise has a level and no channel."""
    if noise.name == "none" and noise.level > 0:
        raise UserError("`noise.level` needs a channel: choose one, as noise=phase_flip")


def chosen_initial_state(values: Mapping[str, Any]) -> InitialStateConfig | None:
    """The initial state that a command is told; None where it is left to the law.

    Raises:
        UserError: See `validate`.
    """
    return None if values["kind"] is None else validate(InitialStateConfig, values, at="initial_state")


def chosen_physics(values: Mapping[str, Any]) -> dict[str, Any]:
    """The physics that a command is told; what is left to the law is left out."""
    return {key: value for key, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    """A scalar of numpy's or torch's as Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no setting")


def _describe(schema: type, fault: dict[str, Any], at: str) -> str:
    path = [str(part) for part in fault["loc"]]
    name = ".".join([at, *path] if at else path)
    if fault["type"] == "unexpected_keyword_argument":
        return unknown_key(name, known_keys(schema, path[:-1]))
    if fault["type"] in ("missing", "missing_argument"):
        return f"`{name}` is missing; give it: {name}=..."
    rule = (
        fault["msg"]
        .removeprefix("Input ")
        .removeprefix("String ")
        .removeprefix("Value error, ")
        .replace("should", "must", 1)
    )
    hint = ""
    if fault["type"] in ("dataclass_type", "dict_type") and isinstance(fault["input"], str):
        group = "/".join(name.split("."))
        hint = f"; to choose from the group: {group}={fault['input']}"
    if fault["type"] == "string_type" and isinstance(fault["input"], int | float):
        hint = f"; quote it: {name}='\"...\"'"
    return f"`{name}` {rule}, got {fault['input']!r}{hint}"


def known_keys(schema: Any, path: list[str]) -> list[str]:
    """The keys that a schema allows below a path of keys."""
    for key in path:
        schema = next((field.type for field in fields(schema) if field.name == key), None)
        if not is_dataclass(schema):
            return []
    return [field.name for field in fields(schema)]


def unknown_key(name: str, known: list[str]) -> str:
    """The message for a key that does not exist."""
    close = get_close_matches(name.rpartition(".")[2], known, n=1)
    guess = f"; did you mean `{close[0]}`?" if close else ""
    return f"`{name}` is not a key; allowed there: {', '.join(known) or 'none'}{guess}"
