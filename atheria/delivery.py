"""From the journal of a run to its store: in order, as often as needed, while nobody waits."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path

from atheria import journal
from atheria.config import UserError
from atheria.files import alone, short
from atheria.journal import Artifact, Delivered, Image, Metrics, Params, Record, Status, Tags
from atheria.progress import WARNING, warn
from atheria.stores import shown, without_credentials
from atheria.tracking import MOST_METRICS, MOST_PARAMS, MissingRunError, OutageError, Store

INTERVAL = 5.0
"""Seconds between deliveries."""
LONGEST_PAUSE = 60.0
"""Seconds between attempts at a store that gives no answer; they double up to here."""
CLOSING = 60.0
"""Seconds without progress after which the end of a run leaves the rest to ``atheria.sync``."""
MOST_BY_THREAD = 50
"""Records between two deliveries that a thread takes on."""
STORE = "ATHERIA_COURIER_STORE"
"""Where a courier is told the store's address: it may hold a password, which a command line would show."""
LOCK = "delivered.lock"
REFUSED = "refused.jsonl"
"""Records that the store has answered with no, with its reason."""


@dataclass
class _Batch:
    """Consecutive records that go into one request.

    Attributes:
        records: In order; a file, a picture or a status goes alone.
        end: Offset behind them.
        metrics: How many points they hold.
        others: How many parameters and tags.
    """

    records: list[Record] = field(default_factory=list)
    end: int = 0
    metrics: int = 0
    others: int = 0

    def takes(self, record: Record) -> bool:
        """Whether a record fits in."""
        alone = any(isinstance(r, Artifact | Image | Status) for r in [record, *self.records])
        metrics, others = _size(record)
        return not alone and self.metrics + metrics <= MOST_METRICS and self.others + others <= MOST_PARAMS

    def add(self, record: Record, end: int) -> None:
        metrics, others = _size(record)
        self.records.append(record)
        self.end, self.metrics, self.others = end, self.metrics + metrics, self.others + others


def deliver(folder: Path, store: Store) -> str:
    """Sends what a store does not have of a journal yet; makes the run where it never existed.

    Returns:
        The store's ID of the run.

    Raises:
        OutageError: The store gives no answer; what it has by then is noted.
        UserError: The run was deleted.
    """
    with alone(folder / LOCK):  # the courier of a process that was killed may still be at it
        journal.sync(folder)
        try:
            return _deliver(folder, store, journal.delivered(folder))
        except MissingRunError:  # its database was lost: the journal has everything
            run_id = _deliver(folder, store, Delivered())
            warn(f"{shown(store.uri)} has lost the run of {short(folder)}; it is there again as run {run_id}")
            return run_id


def _deliver(folder: Path, store: Store, done: Delivered) -> str:
    run_id = done.run_id
    if run_id is None:
        run_id = store.create_run(journal.identity(folder))
        journal.write_delivered(folder, Delivered(run_id, done.offset))
    for batch in _batches(folder, done.offset):
        _send(folder, store, run_id, batch.records)
        journal.write_delivered(folder, Delivered(run_id, batch.end))
    return run_id


def waiting(folder: Path) -> int:
    """How many records of a journal its store does not have."""
    return sum(1 for _ in journal.read(folder, journal.delivered(folder).offset))


def keep_delivering(
    folder: Path,
    uri: str,
    store: Store | None,
    closing: threading.Event,
    most: float = inf,
    first_pause: float = INTERVAL,
) -> bool:
    """Delivers a journal while it grows, and once more when the event is set.

    Args:
        folder: The run's folder.
        uri: The store's address.
        store: The store; None where it gave no answer so far.
        closing: Set when the journal is complete.
        most: Records that may wait for a delivery while the journal grows.
        first_pause: Seconds before the first delivery.

    Returns:
        Whether all was done; False where more records waited than `most`.
    """
    pause, is_out = first_pause, False
    while True:
        is_last = closing.wait(pause)
        try:
            if not is_last and waiting(folder) > most:
                return False
            store = store or Store(uri, create=True)
            deliver(folder, store)
            if is_out:
                warn(f"{shown(uri)} answers again")
            pause, is_out = INTERVAL, False
        except Exception as error:  # a thread's last frame: it must outlive whatever a client raises
            if not is_out:
                said = without_credentials(str(error) or type(error).__name__)
                warn(f"{said}; what is logged waits in {short(folder)}")
            pause, is_out = min(max(2 * pause, INTERVAL), LONGEST_PAUSE), True
        if is_last:
            return True


class Delivery:
    """Delivers a journal while its run lasts, without the run waiting for it.

    A thread does it for a run that logs little. One that logs much gets a courier, a process of its own: a
    store's client is busy for some 0.07 ms with every point, and a thread would take that from the run.

    Args:
        folder: The run's folder.
        store: Its store; None where it gave no answer so far.
        uri: The store's address.
    """

    def __init__(self, folder: Path, store: Store | None, uri: str) -> None:
        self._folder = folder
        self._store = store
        self._uri = uri
        self._closing = threading.Event()
        self._courier: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._work, name="atheria-delivery", daemon=True)
        self._thread.start()

    def close(self) -> int:
        """Delivers what is left, as long as that gets on; returns how many records wait after that."""
        self._closing.set()
        before, since = None, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < CLOSING:
            self._thread.join(0.1)
            now = journal.delivered(self._folder)
            if now != before:
                before, since = now, time.monotonic()
        if self._courier is not None:
            self._courier.kill()
        return waiting(self._folder)

    def _work(self) -> None:
        while not keep_delivering(self._folder, self._uri, self._store, self._closing, MOST_BY_THREAD):
            self._courier = _courier(self._folder, self._uri)
            threading.Thread(target=self._dismiss, args=[self._courier], daemon=True).start()
            assert self._courier.stderr is not None
            last = ""
            for line in self._courier.stderr:
                last = line.rstrip()
                if last.startswith(WARNING):
                    warn(last.removeprefix(WARNING))
            if self._courier.wait() == 0:
                return
            if not self._closing.is_set():
                warn(f"the courier of the run ended ({without_credentials(last)}); another one is sent")

    def _dismiss(self, courier: "subprocess.Popen[str]") -> None:
        """Closes the line to the courier when the journal is complete."""
        self._closing.wait()
        assert courier.stdin is not None
        courier.stdin.close()


def _courier(folder: Path, uri: str) -> "subprocess.Popen[str]":
    """The process; it ends with its stdin."""
    return subprocess.Popen(
        [sys.executable, "-m", "atheria.courier", str(folder), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {STORE: uri},
    )


def _batches(folder: Path, offset: int) -> Iterator[_Batch]:
    pending = list(journal.read(folder, offset))
    newest = {record: index for index, (record, _) in enumerate(pending) if isinstance(record, Artifact)}
    batch = _Batch()
    for index, (record, end) in enumerate(pending):
        if isinstance(record, Artifact) and newest[record] > index:
            continue  # the file comes later, in the state that it has then
        if batch.records and not batch.takes(record):
            yield batch
            batch = _Batch()
        batch.add(record, end)
    if batch.records:
        yield batch


def _size(record: Record) -> tuple[int, int]:
    """Metrics, and parameters and tags, of a record."""
    match record:
        case Metrics(values):
            return len(values), 0
        case Params(values) | Tags(values):
            return 0, len(values)
    return 0, 0


def _send(folder: Path, store: Store, run_id: str, records: Sequence[Record]) -> None:
    try:
        _request(folder, store, run_id, records)
    except FileNotFoundError as error:
        _refuse(folder, records[0], str(error))
    except UserError as error:
        if isinstance(error, OutageError):
            raise
        if len(records) > 1:
            for record in records:
                _send(folder, store, run_id, [record])
            return
        store.run(run_id)  # raises where the run is not there, or was deleted: then everything waits
        _refuse(folder, records[0], str(error))


def _request(folder: Path, store: Store, run_id: str, records: Sequence[Record]) -> None:
    match records[0]:
        case Artifact(file, target):
            path = folder / file
            path.stat()
            store.send_file(run_id, path, target)
        case Image(file, key, step, at):
            path = folder / file
            path.stat()
            store.send_image(run_id, path, key, step, at)
        case Status("RUNNING", at):
            # Nobody logs a run that has ended, though a full disk may have kept its journal from saying so.
            if journal.is_held(folder):
                store.set_status(run_id, "RUNNING", at)
        case Status(status, at):
            store.set_status(run_id, status, at)
            store.delete_twins(run_id, journal.identity(folder))
        case _:
            store.send(
                run_id,
                [record for record in records if isinstance(record, Metrics)],
                [item for record in records if isinstance(record, Params) for item in record.values.items()],
                [item for record in records if isinstance(record, Tags) for item in record.values.items()],
            )


def _refuse(folder: Path, record: Record, reason: str) -> None:
    """Keeps a record that its store will never take, and goes on."""
    line = json.dumps({type(record).__name__: asdict(record), "reason": reason})
    with (folder / REFUSED).open("a") as file:
        file.write(line + "\n")
    warn(f"{reason}; the record is kept in {short(folder / REFUSED)}")
