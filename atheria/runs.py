"""Runs that are being logged: into their journal at once, from there to their store."""

import shutil
import tempfile
import threading
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from atheria import endings, journal, provenance
from atheria.config import TrackingConfig, UserError
from atheria.delivery import Delivery, waiting
from atheria.files import atomically, room_in, short
from atheria.history import History
from atheria.journal import (
    Artifact,
    Identity,
    Image,
    Journal,
    LastSteps,
    Metrics,
    Params,
    Record,
    Status,
    Tags,
)
from atheria.progress import warn
from atheria.stores import how_to_send, shown, sqlite_file, store_uri, without_credentials
from atheria.tracking import (
    LONGEST_VALUE,
    MOST_METRICS,
    MOST_PARAMS,
    PARENT_TAG,
    OutageError,
    Store,
    StoredRun,
)

PROCESS_TAG = "atheria.process"
"""The process that logs a run, as `atheria.endings.this_process` marks it."""
ERROR_TAG = "atheria.error"
KIND_TAG = "atheria.kind"
"""What a run is of: training, rollout, evaluation, sweep or import."""
SWEEP_TAG = "atheria.sweep"
"""Of a sweep's run and of its children: the sweep's name."""
POINT_TAG = "atheria.sweep.point"
"""Of a child: digest of its settings."""
TRACEBACK = "error.txt"

_PATIENCE, _FILE_PATIENCE = 10.0, 60.0
"""Seconds that a store has to answer at the start; a new SQLite file is first filled with its tables."""
_SILENCE = 3.0
"""Seconds after which it is said what is waited for."""

Item = TypeVar("Item")


class LoggedRun:
    """A run that is being logged.

    Args:
        folder: Its folder, with its identity.
        uri: Its store; None where it goes to none.
        store: The store where it has answered.
        deliver: Whether what is logged is sent while the run lasts.

    Attributes:
        folder: Its folder.
        uri: Its store's URI, or None.
        run_id: The store's ID of it, or the run's own where the store has not answered yet; both find it.
        history: Its curves, as far as this machine knows them.
    """

    def __init__(self, folder: Path, uri: str | None, store: Store | None, deliver: bool) -> None:
        self.folder = folder
        self.uri = uri
        self.run_id = journal.delivered(folder).run_id or journal.identity(folder).id
        self._journal = Journal(folder)
        self._last = LastSteps.of(folder)
        self.history = History.of(folder)
        self._disk_is_full = False
        self._status: str | None = None
        self._error: str | None = None
        self._delivery = Delivery(folder, store, uri) if deliver and uri is not None else None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs metrics at an integer step; steps that a metric has had are left out."""
        news = self._last.new(metrics, step)
        self.history.add(news, step)
        if self.uri is None:
            return
        for chunk in _chunks(news, MOST_METRICS):
            self._append(Metrics(chunk, step, journal.now()))

    def log_params(self, settings: Mapping[str, Any]) -> None:
        """Logs nested settings as parameters with dotted keys."""
        values = {key: str(value)[:LONGEST_VALUE] for key, value in flatten(settings).items()}
        for chunk in _chunks(values, MOST_PARAMS):
            self._append(Params(chunk))

    def log_file(self, path: Path, folder: str = "") -> None:
        """Logs a file as an artifact; the state that it has when it is sent counts."""
        if not path.is_relative_to(self.folder):
            copied = self.folder / folder / path.name
            atomically(copied, lambda file: shutil.copyfile(path, file))
            path = copied
        self._append(Artifact(str(path.relative_to(self.folder)), folder))

    def log_image(self, content: bytes, key: str, step: int) -> None:
        """Logs a PNG as the picture of a key at a step; steps that it has had are left out.

        MLflow's UI shows the pictures of a key with a slider. Where the disk is full, training goes on.
        """
        if self.uri is None or not self._last.is_new_image(key, step):
            return
        path = self.image_path(key, step)
        try:
            atomically(path, lambda file: file.write_bytes(content))
        except OSError as error:
            warn(f"'{short(path)}' could not be written ({error}); the picture is left out")
            return
        self._append(Image(str(path.relative_to(self.folder)), key, step, journal.now()))

    def image_path(self, key: str, step: int) -> Path:
        """Where `log_image` writes."""
        return self.folder / "images" / f"{key}-{step}.png"

    def set_tag(self, key: str, value: str) -> None:
        """Sets a tag."""
        if key == ERROR_TAG:
            self._error = value
        self._append(Tags({key: value}))

    def set_status(self, status: str) -> None:
        """Says how the run is."""
        self._status = status
        self._append(Status(status, journal.now()), always=True)

    def close(self) -> None:
        """Delivers what is left; says what could not be, and what to type then."""
        journal.sync(self.folder)
        left = self._delivery.close() if self._delivery else 0
        lost = self._journal.close()
        if lost or (left and not self._has_room()):
            self._say_how_it_ended()
        if lost:
            warn(
                f"{lost} bytes of the journal in {short(self.folder)} found no room on the disk and are lost"
            )
        if left:
            assert self.uri is not None
            warn(
                f"{left} records of the run wait in {short(self.folder)}; once {shown(self.uri)} answers: "
                f"{how_to_send(self.uri, self.folder.parent.parent)}"
            )

    def _say_how_it_ended(self) -> None:
        """Tells the store itself, where the disk takes neither records nor notes of what was delivered."""
        run_id = journal.delivered(self.folder).run_id
        if self._delivery is None or self.uri is None or run_id is None or self._status is None:
            return
        with suppress(UserError):  # it may lie on the same disk
            _end(Store(self.uri, create=False), run_id, self._status, self._error)

    def _has_room(self) -> bool:
        """Whether the disk takes a note of what was delivered."""
        try:
            with tempfile.TemporaryFile(dir=self.folder, buffering=0) as file:
                file.write(b"-")
        except OSError:
            return False
        return True

    def _append(self, record: Record, always: bool = False) -> None:
        if self.uri is None and not always:
            return
        try:
            self._journal.append(record)
            self._disk_is_full = False
        except OSError as error:
            if not self._disk_is_full:
                warn(f"{short(self.folder)} takes no more ({error}); what is logged waits in memory")
            self._disk_is_full = True


@contextmanager
def start_run(
    tracking: TrackingConfig,
    home: Path,
    name: str,
    tags: Mapping[str, str],
    parent: str | None = None,
    folder_name: str | None = None,
) -> Iterator[LoggedRun]:
    """A new run; see `endings` for what it ends as.

    Args:
        tracking: Store, experiment and, perhaps, a name.
        home: The folder that the run's own will lie in.
        name: The name otherwise.
        tags: Further tags.
        parent: ID of the run that it is a child of.
        folder_name: Of its folder; None for its ID.

    Raises:
        UserError: The store cannot be used. One that gives no answer can: the run is logged locally.
    """
    uri = None if tracking.mode == "off" else store_uri(tracking.uri)
    all_tags = {**provenance.tags(), **tags, PROCESS_TAG: endings.this_process()}
    if parent is not None:
        all_tags[PARENT_TAG] = parent
    identity = Identity(
        id=uuid.uuid4().hex,
        store=None if uri is None else without_credentials(uri),
        experiment=tracking.experiment,
        name=tracking.run_name or name,
        started=journal.now(),
        tags=all_tags,
    )
    store, run_id = None, None
    with endings.at_step_boundary("the run has its folder") as stop:  # else its store alone would know it
        if uri is not None and tracking.mode == "online":
            store, run_id = _create(uri, identity)
        folder = home.absolute() / (folder_name or run_id or identity.id)
        try:
            with room_in(folder):
                journal.write_identity(folder, identity)
                journal.write_delivered(folder, journal.Delivered(run_id))
                begun = LoggedRun(folder, uri, store, deliver=tracking.mode == "online")
        except UserError as error:
            if store is not None and run_id is not None:
                with suppress(UserError):
                    _end(store, run_id, endings.FAILED, _as_tag(error))
            raise
    with _logged(begun) as run:
        endings.heed(stop.number)
        yield run


@contextmanager
def reopen_run(tracking: TrackingConfig, folder: Path) -> Iterator[LoggedRun]:
    """A run that was logged before, to log more to it: the same run, the same curves.

    Raises:
        UserError: Another process logs it now.
    """
    uri = None if tracking.mode == "off" else store_uri(tracking.uri)
    with _logged(LoggedRun(folder, uri, None, deliver=tracking.mode == "online")) as run:
        run.set_status(endings.RUNNING)
        run.set_tag(PROCESS_TAG, endings.this_process())
        yield run


def go_on_with(stored: StoredRun, folder: Path, tags: Sequence[str] = ()) -> None:
    """Begins a folder for a run that only its store knows, so that it can be reopened here.

    Args:
        stored: The run.
        folder: The folder.
        tags: Those of its tags that it shall be known by here too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = Journal(folder)
    records.append(journal.Earlier(stored.last_steps()))
    records.append(Status(stored.status, journal.now()))  # else a finished run would pass for one under way
    records.close()
    *_, (_, end) = journal.read(folder)
    journal.write_delivered(folder, journal.Delivered(stored.run_id, end))  # all of it is the store's
    known_by = {key: value for key in tags if (value := stored.tag(key)) is not None}
    store = without_credentials(stored.uri)
    identity = Identity(stored.id, store, stored.experiment, stored.name, stored.started, known_by)
    journal.write_identity(folder, identity)  # last: with it, the folder is the run's


def fail_run(tracking: TrackingConfig, folder: Path, error: str) -> None:
    """Ends a run whose process was lost, as FAILED.

    Raises:
        UserError: A process logs it.
    """
    uri = None if tracking.mode == "off" else store_uri(tracking.uri)
    run = LoggedRun(folder, uri, None, deliver=tracking.mode == "online")
    run.set_tag(ERROR_TAG, error)
    run.set_status(endings.FAILED)
    run.close()


def send_rest(tracking: TrackingConfig, folder: Path) -> None:
    """Delivers what a run's process had no time to: it may have been killed after its last record."""
    if tracking.mode == "online" and waiting(folder):
        LoggedRun(folder, store_uri(tracking.uri), None, deliver=True).close()


@contextmanager
def _logged(run: LoggedRun) -> Iterator[LoggedRun]:
    error: BaseException | None = None
    try:
        yield run
    except BaseException as raised:
        error = raised
        raise
    finally:
        status = endings.status_of(error)
        if error is not None and status == endings.FAILED:
            _log_error(run, error)
        run.set_status(status)
        run.close()


def _log_error(run: LoggedRun, error: BaseException) -> None:
    text = without_credentials("".join(traceback.format_exception(error)))
    run.set_tag(ERROR_TAG, _as_tag(error))
    path = run.folder / TRACEBACK
    try:
        path.write_text(text)
        run.log_file(path)
    except OSError as full:
        warn(f"the traceback could not be written: {full}")


def _as_tag(error: BaseException) -> str:
    """An error as the tag of a run."""
    return without_credentials(f"{type(error).__name__}: {error}")[:LONGEST_VALUE]


def _end(store: Store, run_id: str, status: str, error: str | None) -> None:
    """Ends a run in its store, past its journal."""
    store.send(run_id, tags=[] if error is None else [(ERROR_TAG, error)])
    store.set_status(run_id, status, journal.now())


def _create(uri: str, identity: Identity) -> tuple[Store | None, str | None]:
    """The run in its store, or nothing where that gives no answer in time."""
    answer: list[tuple[Store, str] | Exception] = []

    def ask() -> None:
        try:
            store = Store(uri, create=True)
            answer.append((store, store.create_run(identity)))
        except Exception as error:  # raised again below, in the thread that waits
            answer.append(error)

    patience = _PATIENCE if sqlite_file(uri) is None else _FILE_PATIENCE
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SILENCE)
    if asking.is_alive():
        print(f"waiting   for {shown(uri)}, {patience:.0f} s at most", flush=True)
        asking.join(patience - _SILENCE)
    outcome = answer[0] if answer else OutageError(f"{shown(uri)} gave no answer in {patience:.0f} s")
    if isinstance(outcome, tuple):
        return outcome
    if not isinstance(outcome, OutageError) or _is_unusable_file(uri, outcome):
        raise outcome
    warn(f"{outcome}; the run is logged locally and sent once the store answers")
    return None, None


def _is_unusable_file(uri: str, outage: OutageError) -> bool:
    """An SQLite file that is not locked will not answer later either."""
    return sqlite_file(uri) is not None and "locked" not in str(outage)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _chunks(values: Mapping[str, Item], most: int) -> Iterator[dict[str, Item]]:
    items: Sequence[tuple[str, Item]] = list(values.items())
    for start in range(0, len(items), most):
        yield dict(items[start : start + most])
