"""The seed's helpers, by the seed's names, on this project's runs: see docs/seed.md.

>>> from atheria.compat import get_latest_checkpoint, get_latest_jit_model, load_experiment_config
>>> from atheria.compat import export_model_to_jit

An experiment is MLflow's, in the store of ``MLFLOW_TRACKING_URI`` or else the project's own; of its runs, the
latest one that has what is asked for is meant.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from atheria import artifact, checkpoint, journal, keeping, registry
from atheria.cli import compose_config, to_settings
from atheria.config import ExportConfig, TrackingConfig, UserError
from atheria.exporting import log_law
from atheria.fetch import law_of_run
from atheria.files import short
from atheria.jobs import export as job
from atheria.runs import KIND_TAG, start_run
from atheria.stores import shown, store_uri
from atheria.tracking import (
    LAW_DIGEST_TAG,
    MissingArtifactError,
    MissingExperimentError,
    MissingRunError,
    Store,
    StoredRun,
)

FILE_NAME = "model_jit.pt"
"""What the seed called an exported law; it lay beside the checkpoint."""

LAWS = {
    "unet": "unet",
    "unetunitary": "unet_product",
    "deepqca": "deep_qca",
    "mlp": "mlp",
    "unetconvlstm": "unet_convlstm",
    "snnunet": "snn_unet",
}
"""Laws by the seed's names for them, in lower case and without underscores."""

_HOME = Path("outputs/runs")
_WITHOUT_CHECKPOINTS = ("rollout", "sweep")
"""Kinds of runs."""


@dataclass(frozen=True)
class ExperimentConfig:
    """The settings of a run, by the seed's names.

    Attributes:
        EXPERIMENT_NAME: The experiment.
        MODEL_ARCHITECTURE: The law, by this project's name.
        MODEL_PARAMS: The law's settings as attributes: d_state, hidden_channels (None for a law without), ...
        RUN_ID: The run.
        config: All settings, nested, by this project's names.
    """

    EXPERIMENT_NAME: str
    MODEL_ARCHITECTURE: str
    MODEL_PARAMS: SimpleNamespace
    RUN_ID: str
    config: dict[str, Any]


def get_latest_checkpoint(experiment_name: str) -> str:
    """Path of the best checkpoint of an experiment's latest run, which is fetched where it is not here.

    Raises:
        UserError: There is no such experiment, or none of its runs has a checkpoint.
    """
    return str(_latest_checkpoint(experiment_name)[1])


def get_latest_jit_model(experiment_name: str, silent: bool = False) -> str | None:
    """Path of the exported law of an experiment's latest run that has one, verified, in the user's cache.

    Args:
        experiment_name: The experiment.
        silent: Whether to say nothing of what was found.

    Returns:
        The path; None where nothing was exported yet, or there is no such experiment.

    Raises:
        UserError: The store cannot be used, or the law does not match its digest.
    """
    try:
        runs = _runs(experiment_name, f"tags.`{LAW_DIGEST_TAG}` LIKE '%'")
    except MissingExperimentError as error:
        runs, reason = [], str(error)
    else:
        reason = f"experiment '{experiment_name}' has no run with an exported law"
    if not runs:
        if not silent:
            print(f"no law    {reason}")
        return None
    path = law_of_run(runs[0].run_id)
    if not silent:
        print(f"law       {short(path)} of run {runs[0].run_id}")
    return str(path)


def load_experiment_config(experiment_name: str) -> ExperimentConfig:
    """The settings of the run whose checkpoint `get_latest_checkpoint` returns.

    Raises:
        UserError: See `get_latest_checkpoint`.
    """
    run, path = _latest_checkpoint(experiment_name)
    config = checkpoint.load(path)["config"]
    params = {"hidden_channels": None, **config["model"]}
    del params["name"]
    return ExperimentConfig(
        experiment_name, config["model"]["name"], SimpleNamespace(**params), run.run_id, config
    )


def export_model_to_jit(
    checkpoint_path: str | Path,
    experiment_name: str | None = None,
    d_state: int | None = None,
    hidden_channels: int | None = None,
    model_type: str | None = None,
) -> str:
    """Exports a checkpoint to ``model_jit.pt`` beside it and, in an experiment, onto a run.

    The run is the one that the checkpoint is of; for a bare checkpoint of the seed, or one of another store,
    a run is made that holds its weights and its law.

    Args:
        checkpoint_path: A checkpoint of this project or of the seed.
        experiment_name: The experiment; None for the file alone.
        d_state: Complex components of a cell; needed where the checkpoint does not say it.
        hidden_channels: Width of the law; the same.
        model_type: The law, by the seed's name or this project's; the same.

    Returns:
        Path of ``model_jit.pt``.

    Raises:
        UserError: The checkpoint cannot be used, says otherwise, or is of a run of another experiment.
    """
    source = Path(checkpoint_path)
    state = checkpoint.load(source)
    given = {"model_type": model_type, "d_state": d_state, "hidden_channels": hidden_channels}
    model = _model(given, (state.get("config") or {}).get("model"), source)
    run = _run_of(state, experiment_name) if experiment_name else None
    config = to_settings(ExportConfig, compose_config("export", model))
    config = replace(config, checkpoint=str(source), output=str(source.absolute().with_name(FILE_NAME)))
    job.check(config)
    path = job.run(config)
    if run is not None:
        log_law(run, path, _description(path))
        print(f"run       {run.run_id}  ({shown(run.uri)})")
    elif experiment_name:
        _import(path, state, experiment_name)
    return str(path)


def law_named(model_type: str) -> str:
    """This project's name of a law that the seed called ``UNet``, ``UNET``, ``UNetUnitary`` or the like.

    A registered name, as it is written, is this project's: ``unet_unitary`` is another law than the seed's
    ``UNetUnitary``, which was not unitary and is ``unet_product`` here.

    Raises:
        UserError: Neither knows it.
    """
    known = registry.names("atheria.laws")
    if model_type in known:
        return model_type
    name = LAWS.get(model_type.lower().replace("_", ""))
    if name is None:
        raise UserError(
            "`model_type` must be a law of the seed's (UNet, UNetUnitary, DeepQCA, MLP, UNetConvLSTM, "
            f"SNNUNet) or one of {', '.join(known)}, got '{model_type}'"
        )
    return name


def _model(given: Mapping[str, Any], saved: Mapping[str, Any] | None, source: Path) -> list[str]:
    """Overrides that name the law of a checkpoint; none where it says its law itself, which must agree."""
    if saved is None and given["model_type"] is None:
        raise UserError(f"`model_type` must be given, since '{source}' does not say its law; as 'UNet'")
    wanted = {key: value for key, value in given.items() if value is not None}
    if "model_type" in wanted:
        wanted["name"] = law_named(wanted.pop("model_type"))
    if saved is None:
        return [f"model={wanted.pop('name')}", *(f"model.{key}={value}" for key, value in wanted.items())]
    for key, value in wanted.items():
        if saved.get(key) != value:
            shown_key = "model_type" if key == "name" else key
            raise UserError(
                f"`{shown_key}` must be what '{source}' says, {saved.get(key)!r}, got {value!r}; leave it out"
            )
    return []


def _runs(experiment: str, filter_string: str = "") -> list[StoredRun]:
    """The runs of an experiment, the latest first."""
    store = Store(store_uri(None), create=False)
    return store.runs(filter_string, ["attributes.start_time DESC"], experiment)


def _latest_checkpoint(experiment: str) -> tuple[StoredRun, Path]:
    for run in _runs(experiment):
        if run.tag(KIND_TAG) not in _WITHOUT_CHECKPOINTS and (path := _checkpoint_of(run)):
            return run, path
    raise UserError(
        f"`experiment_name`: no run of '{experiment}' in {shown(store_uri(None))} has a checkpoint; "
        f"train one: python -m atheria.train tracking.experiment={experiment}"
    )


def _checkpoint_of(run: StoredRun) -> Path | None:
    """The best checkpoint of a run, in the run's own folder or fetched into one; None where it has none."""
    path = (_HOME / run.run_id / checkpoint.BEST).absolute()
    if path.is_file() and (_HOME / run.run_id / journal.IDENTITY).is_file():
        return path
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetched = run.download(checkpoint.BEST, Path(folder))
        except MissingArtifactError:
            return None
        checkpoint.load(fetched)
        checkpoint.write(fetched.read_bytes(), path)
    return path


def _run_of(state: Mapping[str, Any], experiment: str) -> StoredRun | None:
    """The run that a checkpoint is of, where the store has it."""
    if state.get("run_id") is None:
        return None
    try:
        run = Store(store_uri(None), create=True).run(state["run_id"])
    except MissingRunError:
        return None
    if run.experiment != experiment:
        raise UserError(
            f"`experiment_name` must be '{run.experiment}', in which the checkpoint's run '{run.run_id}' is, "
            f"got '{experiment}'"
        )
    return run


def _import(law: Path, state: Mapping[str, Any], experiment: str) -> None:
    """Makes a run that has a law and, as its best checkpoint, what the law says of itself."""
    description = _description(law)
    tracking = TrackingConfig(mode="online", uri=None, experiment=experiment, run_name=None)
    name, tags = f"{description.law}-imported", {KIND_TAG: "import"}
    with start_run(tracking, _HOME, name, tags) as run:
        described = artifact.as_checkpoint(law)
        best = run.folder / checkpoint.BEST
        checkpoint.save({**described, "episode": state.get("episode"), "run_id": run.run_id}, best)
        run.log_params(described["config"])
        run.log_file(best, keeping.FOLDER)
        log_law(run, law, description)
    print(f"run       {run.run_id}  ({shown(store_uri(None))})")


def _description(path: Path) -> artifact.Description:
    description = artifact.read_description(path)
    assert description is not None  # it was exported here
    return description
