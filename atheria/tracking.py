"""Runs in MLflow; the only module that imports mlflow.

The training loop calls ``log(metrics, step)``. Without ``tracking.uri`` and ``MLFLOW_TRACKING_URI``,
the store is ``sqlite:///outputs/mlflow.db`` with artifacts in ``outputs/mlartifacts``.
"""

import fcntl
import logging
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Read when mlflow is imported, or at each request.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# MLflow's own limits let a dead server hold a command for four minutes without a word.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")

from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_USER,
)
from sqlalchemy.exc import SQLAlchemyError

from atheria.config import TrackingConfig, UserError
from atheria.files import short

DEFAULT_STORE = "outputs/mlflow.db"
ARTIFACTS = "mlartifacts"
"""Folder of the artifacts, beside an SQLite store."""
LAW_DIGEST_TAG = "atheria.law.sha256"

_SQLITE = "sqlite:///"
_BATCH = 1000
_PARAMS_BATCH = 100
_FLUSH_SECONDS = 5.0
_LONGEST_PARAM = 6000

logging.getLogger("alembic").setLevel(logging.WARNING)  # its migrations are no news to a user
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)


@dataclass
class LoggedRun:
    """A run that is being logged. Metrics are sent in batches; `flush` sends what is left.

    Attributes:
        client: MLflow's client.
        uri: The store's.
        run_id: The run's ID.
        experiment_id: Its experiment's.
    """

    client: MlflowClient
    uri: str
    run_id: str
    experiment_id: str

    def __post_init__(self) -> None:
        self._pending: list[Metric] = []
        self._flushed_at = time.monotonic()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs metrics at an integer step."""
        now = int(time.time() * 1000)
        self._pending += [Metric(key, float(value), now, step) for key, value in metrics.items()]
        if len(self._pending) >= _BATCH or time.monotonic() - self._flushed_at > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sends the metrics that wait."""
        for start in range(0, len(self._pending), _BATCH):
            self.client.log_batch(self.run_id, metrics=self._pending[start : start + _BATCH])
        self._pending.clear()
        self._flushed_at = time.monotonic()

    def log_params(self, settings: Mapping[str, Any]) -> None:
        """Logs nested settings as parameters with dotted keys."""
        params = [Param(key, str(value)[:_LONGEST_PARAM]) for key, value in flatten(settings).items()]
        for start in range(0, len(params), _PARAMS_BATCH):
            self.client.log_batch(self.run_id, params=params[start : start + _PARAMS_BATCH])

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Logs a file as an artifact."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def set_tag(self, key: str, value: str) -> None:
        """Sets a tag."""
        self.client.set_tag(self.run_id, key, value)


@contextmanager
def start_run(
    tracking: TrackingConfig, name: str, tags: Mapping[str, str], parent: str | None = None
) -> Iterator[LoggedRun]:
    """A new run, FINISHED at the end, KILLED by Ctrl-C, FAILED by any other exception.

    Args:
        tracking: Store, experiment and, perhaps, a name.
        name: The name otherwise.
        tags: Further tags.
        parent: ID of the run that it is a child of.

    Raises:
        UserError: The store cannot be reached or opened.
    """
    uri = store_uri(tracking.uri)
    with reported(uri):
        client = _client(uri, create=True)
        experiment_id = _experiment(client, uri, tracking.experiment)
        all_tags = {**_standard_tags(), **tags}
        if parent is not None:
            all_tags[MLFLOW_PARENT_RUN_ID] = parent
        created = client.create_run(experiment_id, tags=all_tags, run_name=tracking.run_name or name)
    run = LoggedRun(client, uri, created.info.run_id, experiment_id)
    with reported(uri):
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            try:
                run.flush()
            finally:
                client.set_terminated(run.run_id, status)


@dataclass(frozen=True)
class StoredRun:
    """A run that was logged before.

    Attributes:
        client: MLflow's client.
        uri: The store's.
        run: What the store knows of the run.
    """

    client: MlflowClient
    uri: str
    run: Run

    @property
    def run_id(self) -> str:
        """The run's ID."""
        return str(self.run.info.run_id)

    @property
    def experiment(self) -> str:
        """Name of its experiment."""
        return str(self.client.get_experiment(self.run.info.experiment_id).name)

    @property
    def parent(self) -> str | None:
        """ID of the run that it is a child of."""
        return self.tag(MLFLOW_PARENT_RUN_ID)

    def tag(self, key: str) -> str | None:
        """A tag's value, or None."""
        value: str | None = self.run.data.tags.get(key)
        return value

    def download(self, path: str, folder: Path) -> Path:
        """Fetches an artifact into a folder.

        Raises:
            UserError: The run has none of that path.
        """
        try:
            return Path(self.client.download_artifacts(self.run_id, path, str(folder)))
        except (MlflowException, OSError) as error:
            raise UserError(
                f"run '{self.run_id}' has no artifact '{path}' in {shown(self.uri)} ({_first_line(error)})"
            ) from None

    def resume_logging(self) -> LoggedRun:
        """The run again, to log more to it."""
        return LoggedRun(self.client, self.uri, self.run_id, str(self.run.info.experiment_id))


def find_run(run_id: str, tracking_uri: str | None) -> StoredRun:
    """A run by its ID.

    Raises:
        UserError: The store does not exist or cannot be reached, or has no such run.
    """
    uri = store_uri(tracking_uri)
    with reported(uri):
        client = _client(uri, create=False)
        try:
            found = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise UserError(
                f"`run_id`: there is no run '{run_id}' in {shown(uri)}; "
                "another store is chosen by tracking.uri=... or MLFLOW_TRACKING_URI"
            ) from None
    if found.info.lifecycle_stage == "deleted":
        raise UserError(
            f"`run_id`: run '{run_id}' was deleted; bring it back: mlflow runs restore --run-id {run_id}"
        )
    return StoredRun(client, uri, found)


def store_uri(uri: str | None) -> str:
    """The store that a configured URI means; the path of an SQLite file is made absolute.

    MLflow keeps one connection for each URI: a relative one would outlive a change of folder.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{DEFAULT_STORE}"
    if chosen.startswith(_SQLITE):
        return _SQLITE + str(Path(chosen.removeprefix(_SQLITE)).absolute())
    return chosen


def shown(uri: str) -> str:
    """A store's URI as a user would type it here."""
    if uri.startswith(_SQLITE):
        return _SQLITE + short(Path(uri.removeprefix(_SQLITE)))
    return re.sub(r"//[^/@]+@", "//***@", uri)  # credentials are nobody's to read


def how_to_look(uri: str) -> str:
    """What to type, or the address to open, to see the runs of a store in MLflow's UI."""
    if uri.startswith("http"):
        return f"{shown(uri).rstrip('/')}/?workflowType=machine_learning"
    return f"mlflow ui --backend-store-uri {shown(uri)}"


def git_commit() -> str | None:
    """Commit of the working directory, ``-dirty`` appended where it has changes; None outside git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _client(uri: str, create: bool) -> MlflowClient:
    if uri.startswith(_SQLITE):
        file = Path(uri.removeprefix(_SQLITE))
        if create:
            file.parent.mkdir(parents=True, exist_ok=True)
        elif not file.is_file():
            raise UserError(
                f"there is no store '{short(file)}' here; run from the folder that holds it, or give "
                "tracking.uri=... or MLFLOW_TRACKING_URI"
            )
        with _alone(file):
            return MlflowClient(tracking_uri=uri)
    return MlflowClient(tracking_uri=uri)


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    """Lets one process at a time make the tables of a new SQLite store: MLflow's making of them races."""
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _experiment(client: MlflowClient, uri: str, name: str) -> str:
    """ID of the experiment of that name, made where there is none."""
    location = None
    if uri.startswith(_SQLITE):
        location = (Path(uri.removeprefix(_SQLITE)).parent / ARTIFACTS).as_uri()
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
            found = client.get_experiment_by_name(name)
    assert found is not None
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"`tracking.experiment`: '{name}' was deleted; choose another name, or bring it back: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _standard_tags() -> dict[str, str]:
    packages = ("atheria", "torch", "mlflow", "hydra-core", "numpy")
    tags = {f"version.{package}": version(package) for package in packages}
    tags["version.python"] = platform.python_version()
    tags[MLFLOW_USER] = os.environ.get("USER") or "unknown"
    if commit := git_commit():
        tags["git_commit"] = commit
    return tags


@contextmanager
def reported(uri: str) -> Iterator[None]:
    """Turns what goes wrong on the way to a store into a UserError."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError) as error:
        raise UserError(f"the tracking store {shown(uri)} cannot be used: {_first_line(error)}") from error
    except ImportError as error:
        raise UserError(f"the tracking store {shown(uri)} needs a package: {error}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
