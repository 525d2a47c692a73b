"""The tracking store; the only module that imports mlflow.

Without ``tracking.uri`` and ``MLFLOW_TRACKING_URI``, the store is ``sqlite:///outputs/mlflow.db`` with
artifacts in ``outputs/mlartifacts``.
"""

import logging
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import TypeVar

# Read when mlflow is imported, or at each request.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# MLflow's own limits let a dead server hold a command for four minutes without a word.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")

from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from PIL import Image
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

from atheria import journal
from atheria.config import UserError
from atheria.files import alone, short
from atheria.stores import SQLITE, artifacts_folder, shown, sqlite_file, store_uri, without_credentials

LAW_DIGEST_TAG = "atheria.law.sha256"
ID_TAG = "atheria.id"
"""The name that a run bears before a store has given it one; both find it."""
PARENT_TAG = str(MLFLOW_PARENT_RUN_ID)
_DESCRIPTION_TAG = "mlflow.note.content"
MOST_METRICS, MOST_PARAMS = 1000, 100
"""What a store takes in one request."""
LONGEST_VALUE = 6000
"""Characters of a parameter that a store takes."""

_LISTED = 20
"""Experiments that an error names."""

_REFUSALS = (
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
)
"""Error codes of a store that has understood a request and says no."""
_ASK_AGAIN = (401, 408, 429)
"""Statuses below 500 that may be another one later."""

Item = TypeVar("Item")

logging.getLogger("alembic").setLevel(logging.WARNING)  # its migrations are no news to a user
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what fails is reported by us
logging.getLogger("mlflow.store.artifact").setLevel(logging.CRITICAL)


class OutageError(UserError):
    """A store gives no answer now; it may give one later."""


class MissingRunError(UserError):
    """A store does not have a run, not even a deleted one."""


class MissingExperimentError(UserError):
    """A store has no experiment of a name."""


class MissingArtifactError(UserError):
    """A run has no artifact of a path."""


class Store:
    """A tracking store.

    Args:
        uri: As `atheria.stores.store_uri` returns it.
        create: Whether to make an SQLite store that does not exist.

    Raises:
        OutageError: It gives no answer.
        UserError: It cannot be used.
    """

    def __init__(self, uri: str, create: bool) -> None:
        self.uri = uri
        with answering(uri):
            self._client = _client(uri, create)

    def create_run(self, identity: journal.Identity) -> str:
        """The ID of the run of that identity, which is made where the store does not have it."""
        with answering(self.uri):
            experiment = self._experiment(identity.experiment)
            if known := self._of_identity(identity.id, [experiment]):
                return str(known[0].info.run_id)
            tags = {**identity.tags, ID_TAG: identity.id}
            if (parent := tags.get(PARENT_TAG)) and (known_parent := self._run(parent)):
                tags[PARENT_TAG] = known_parent.info.run_id  # the child may know it by its own ID only
            created = self._client.create_run(
                experiment, start_time=identity.started, tags=tags, run_name=identity.name
            )
            return str(created.info.run_id)

    def delete_twins(self, run_id: str, identity: journal.Identity) -> None:
        """Deletes runs of the same identity: a request to make it that was thought lost may come through."""
        with answering(self.uri):
            experiment = self._experiment(identity.experiment)
            for run in self._of_identity(identity.id, [experiment]):
                if run.info.run_id != run_id:
                    self._client.delete_run(run.info.run_id)

    def send(
        self,
        run_id: str,
        metrics: Sequence[journal.Metrics] = (),
        params: Sequence[tuple[str, str]] = (),
        tags: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Logs what fits into one request; sending it again changes nothing."""
        points = [
            Metric(k, v, record.time, record.step) for record in metrics for k, v in record.values.items()
        ]
        with answering(self.uri):
            self._client.log_batch(
                run_id, points, [Param(*param) for param in params], [RunTag(*tag) for tag in tags]
            )

    def send_file(self, run_id: str, path: Path, folder: str) -> None:
        """Puts a file into an artifact folder of a run."""
        with answering(self.uri):
            self._client.log_artifact(run_id, str(path), folder or None)

    def send_image(self, run_id: str, path: Path, key: str, step: int, time: int) -> None:
        """Shows a PNG file in MLflow's slider of a key at a step; sending it again changes nothing."""
        with answering(self.uri):
            sent = [PurePosixPath(file.path).name for file in self._client.list_artifacts(run_id, "images")]
            # MLflow's names; the small copy goes last.
            beginning = f"{key.replace('/', '~')}+step+{step}+"
            if any(name.startswith(beginning) and name.endswith("+compressed.webp") for name in sent):
                return
            with Image.open(path) as image:
                self._client.log_image(run_id, image, key=key, step=step, timestamp=time, synchronous=True)

    def set_status(self, run_id: str, status: str, time: int) -> None:
        """Says how a run is; where it has ended, when."""
        with answering(self.uri):
            if status in ("RUNNING", "SCHEDULED"):
                self._client.update_run(run_id, status)
            else:
                self._client.set_terminated(run_id, status, time)

    def run(self, run_id: str) -> "StoredRun":
        """A run by the store's ID or by its own.

        Raises:
            MissingRunError: There is none.
            UserError: It was deleted.
        """
        with answering(self.uri):
            found = self._run(run_id)
            meant = self._beginning_with(run_id) if found is None else []
        if found is None:
            remedy = "another store is chosen by tracking.uri=... or MLFLOW_TRACKING_URI"
            if meant:
                remedy = f"did you mean {' or '.join(meant)}?"
            raise MissingRunError(f"`run_id`: there is no run '{run_id}' in {shown(self.uri)}; {remedy}")
        if found.info.lifecycle_stage == "deleted":
            raise UserError(
                f"`run_id`: run '{run_id}' was deleted; bring it back: mlflow runs restore --run-id {run_id}"
            )
        return StoredRun(self._client, self.uri, found)

    def runs(
        self, filter_string: str, order_by: Sequence[str] = (), experiment: str | None = None
    ) -> "list[StoredRun]":
        """The runs that MLflow's filter finds, in one experiment or in all.

        Raises:
            MissingExperimentError: There is no experiment of that name.
        """
        with answering(self.uri):
            experiments = [self._existing_experiment(experiment)] if experiment else self._experiments()
            found = self._search(experiments, filter_string, order_by)
        return [StoredRun(self._client, self.uri, run) for run in found]

    def promote(self, run: "StoredRun", name: str, alias: str) -> str:
        """Gives the law of a run an alias in the registry; returns the version that it names."""
        with answering(self.uri):
            if not any(
                model.name == name for model in self._client.search_registered_models(f"name = '{name}'")
            ):
                self._client.create_registered_model(name)
            source = f"runs:/{run.run_id}/law"
            versions = self._client.search_model_versions(f"name = '{name}' and run_id = '{run.run_id}'")
            version = versions[0] if versions else self._client.create_model_version(name, source, run.run_id)
            self._client.set_registered_model_alias(name, alias, version.version)
            return str(version.version)

    def run_of_alias(self, name: str, alias: str) -> str:
        """ID of the run whose law bears an alias.

        Raises:
            UserError: There is none.
        """
        with answering(self.uri):
            try:
                return str(self._client.get_model_version_by_alias(name, alias).run_id)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                raise UserError(
                    f"`law`: {shown(self.uri)} has no law '{name}@{alias}'; give a run's law that name: "
                    f"python -m atheria.promote run_id=RUN_ID name={name} alias={alias}"
                ) from None

    def describe(self, experiment: str, text: str) -> str:
        """Gives an experiment a description where it has none; returns its ID.

        Raises:
            MissingExperimentError: There is no experiment of that name.
        """
        with answering(self.uri):
            found = self._existing_experiment(experiment)
            if not self._client.get_experiment(found).tags.get(_DESCRIPTION_TAG):
                self._client.set_experiment_tag(found, _DESCRIPTION_TAG, text)
            return found

    def named_laws(self) -> list[str]:
        """The laws of the registry, as ``law=`` takes them: ``name@alias``."""
        with answering(self.uri):
            models = _all_pages(lambda token: self._client.search_registered_models(page_token=token))
            return sorted(f"{model.name}@{alias}" for model in models for alias in model.aliases)

    def _run(self, run_id: str) -> Run | None:
        try:
            return self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
        if not run_id.isalnum():
            return None
        return next(iter(self._of_identity(run_id, self._experiments())), None)

    def _beginning_with(self, prefix: str) -> list[str]:
        """IDs of runs that begin with a few letters, where these are not those of many."""
        if len(prefix) < 4 or not prefix.isalnum():
            return []
        found = self._search(self._experiments(), f"attributes.run_id LIKE '{prefix}%'", [])
        return [str(run.info.run_id) for run in found] if len(found) <= 3 else []

    def _of_identity(self, identity: str, experiments: list[str]) -> list[Run]:
        return self._search(experiments, f"tags.`{ID_TAG}` = '{identity}'", ["attributes.start_time ASC"])

    def _search(self, experiments: list[str], filter_string: str, order_by: Sequence[str]) -> list[Run]:
        if not experiments:
            return []
        return _all_pages(
            lambda token: self._client.search_runs(
                experiments, filter_string, order_by=list(order_by), page_token=token
            )
        )

    def _experiments(self) -> list[str]:
        return [str(experiment.experiment_id) for experiment in self._all_experiments()]

    def _all_experiments(self) -> list[Experiment]:
        return _all_pages(lambda token: self._client.search_experiments(page_token=token))

    def _existing_experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            names = sorted(experiment.name for experiment in self._all_experiments())
            close = get_close_matches(name, names, n=1)
            remedy = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names[:_LISTED])}"
            more = "" if close or len(names) <= _LISTED else f" and {len(names) - _LISTED} more"
            raise MissingExperimentError(
                f"there is no experiment '{name}' in {shown(self.uri)}; {remedy}{more}"
            )
        return str(found.experiment_id)

    def _experiment(self, name: str) -> str:
        """ID of the experiment of that name, made where there is none."""
        is_served = self.uri.startswith("http")  # and the server knows its own folder
        location = None if is_served else artifacts_folder(self.uri).as_uri()
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                    raise
                found = self._client.get_experiment_by_name(name)
        assert found is not None
        if found.lifecycle_stage == "deleted":
            raise UserError(
                f"`tracking.experiment`: '{name}' was deleted; choose another name, or bring it back: "
                f"mlflow experiments restore --experiment-id {found.experiment_id}"
            )
        return str(found.experiment_id)


@dataclass(frozen=True)
class StoredRun:
    """A run that a store has.

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
        """The store's ID of the run."""
        return str(self.run.info.run_id)

    @property
    def id(self) -> str:
        """The name that it bore before."""
        return self.tag(ID_TAG) or self.run_id

    @property
    def name(self) -> str:
        """What people call it."""
        return str(self.run.info.run_name)

    @property
    def status(self) -> str:
        """RUNNING, FINISHED, FAILED, KILLED or SCHEDULED."""
        return str(self.run.info.status)

    @property
    def started(self) -> int:
        """Milliseconds since 1970."""
        return int(self.run.info.start_time)

    @property
    def experiment(self) -> str:
        """Name of its experiment."""
        with answering(self.uri):
            return str(self.client.get_experiment(self.run.info.experiment_id).name)

    @property
    def parent(self) -> str | None:
        """ID of the run that it is a child of."""
        return self.tag(PARENT_TAG)

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric."""
        return dict(self.run.data.metrics)

    def tag(self, key: str) -> str | None:
        """A tag's value, or None."""
        value: str | None = self.run.data.tags.get(key)
        return value

    def last_steps(self) -> dict[str, int]:
        """The last step of each metric."""
        with answering(self.uri):
            histories = {
                key: self.client.get_metric_history(self.run_id, key) for key in self.run.data.metrics
            }
        return {key: max(point.step for point in history) for key, history in histories.items()}

    def download(self, path: str, folder: Path) -> Path:
        """Fetches an artifact into a folder.

        Raises:
            OutageError: It is there, but could not be fetched.
            MissingArtifactError: The run has none of that path.
        """
        try:
            return Path(self.client.download_artifacts(self.run_id, path, str(folder)))
        except (MlflowException, RequestException, OSError) as error:
            with answering(self.uri):
                beside = self.client.list_artifacts(self.run_id, str(PurePosixPath(path).parent))
            if path in [file.path for file in beside]:
                raise OutageError(
                    f"'{path}' of run '{self.run_id}' cannot be fetched: {_first_line(error)}"
                ) from None
            wanted = PurePosixPath(path)
            there = ", ".join(PurePosixPath(file.path).name for file in beside) or "nothing"
            raise MissingArtifactError(
                f"run '{self.run_id}' has no artifact '{path}' in {shown(self.uri)}, where "
                f"'{wanted.parent}' holds {there}: it was never written, or was lost; put a copy back: "
                f"MLFLOW_TRACKING_URI={shlex.quote(shown(self.uri))} mlflow artifacts log-artifact --run-id "
                f"{self.run_id} --local-file {wanted.name} --artifact-path {wanted.parent}"
            ) from None

    def log_file(self, path: Path, folder: str) -> None:
        """Puts a file into an artifact folder, at once."""
        with answering(self.uri):
            self.client.log_artifact(self.run_id, str(path), folder)

    def set_tag(self, key: str, value: str) -> None:
        """Sets a tag, at once."""
        with answering(self.uri):
            self.client.set_tag(self.run_id, key, value)


def find_run(run_id: str, tracking_uri: str | None) -> StoredRun:
    """A run by its ID.

    Raises:
        UserError: The store does not exist or cannot be reached, or has no such run.
    """
    return Store(store_uri(tracking_uri), create=False).run(run_id)


def _all_pages(search: Callable[[str | None], PagedList[Item]]) -> list[Item]:
    """What a search finds, which takes the token of a page and answers with that page."""
    page = search(None)
    found = [*page]
    while page.token:
        page = search(page.token)
        found += page
    return found


def _client(uri: str, create: bool) -> MlflowClient:
    file = sqlite_file(uri)
    if file is None:
        return MlflowClient(tracking_uri=uri)
    if create:
        _check_writable(file)
        file.parent.mkdir(parents=True, exist_ok=True)
    elif not file.is_file():
        raise UserError(
            f"there is no store '{short(file)}' here; run from the folder that holds it, or give "
            "tracking.uri=... or MLFLOW_TRACKING_URI"
        )
    with alone(file.parent):  # MLflow's making of the tables of a new file races
        return MlflowClient(tracking_uri=uri)


def _check_writable(file: Path) -> None:
    """Raises UserError where an SQLite file cannot be written, which MLflow takes a minute to find.

    Its folder must take files too: SQLite makes its journal beside the file.
    """
    folder = file.parent
    while not folder.exists():
        folder = folder.parent
    for place in (folder, *([file] if file.exists() else [])):
        if not os.access(place, os.W_OK):
            raise UserError(
                f"the tracking store {SQLITE}{short(file)} cannot be written to: '{short(place)}' is "
                "read-only; choose another: tracking.uri=... or MLFLOW_TRACKING_URI"
            )


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turns what goes wrong on the way to a store into an OutageError, or a UserError where it says no."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError, RequestException) as error:
        kind = UserError if _is_refusal(error) else OutageError
        # Not chained: the causes that a traceback would print hold the address with its password.
        raise kind(f"the tracking store {shown(uri)} cannot be used: {_first_line(error)}") from None
    except ImportError as error:
        raise UserError(f"the tracking store {shown(uri)} needs a package: {error}") from error


def _is_refusal(error: Exception) -> bool:
    """Whether a store has understood a request and says no; asking again will not help."""
    response = getattr(error, "response", None)
    if response is not None:  # of an artifact's transfer
        return 400 <= response.status_code < 500 and response.status_code not in _ASK_AGAIN
    return isinstance(error, CommandError) or getattr(error, "error_code", None) in _REFUSALS


def _first_line(error: Exception) -> str:
    """What an error says, or the cause that a failed request names within."""
    line = (str(error).splitlines() or [""])[0]
    if cause := re.search(r"Caused by \w+\((['\"])(.*)\1\)", line):
        line = cause[2].rpartition(": ")[2]
    return without_credentials(line)
