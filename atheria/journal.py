"""The journal of a run: its logging, appended to a file before anything is sent anywhere.

The folder of a run holds ``run.json`` (who it is), ``journal.jsonl`` (one record a line, in order) and
``delivered.json`` (how much of the journal its store has). A process that logs holds a lock on the
journal, which ends with the process however that ends.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from atheria.config import UserError
from atheria.files import atomically, short
from atheria.progress import warn

_IMAGE = "image:"  # no metric's name begins so
IDENTITY, RECORDS, DELIVERED = "run.json", "journal.jsonl", "delivered.json"


@dataclass(frozen=True)
class Identity:
    """Who a run is, before any store knows it.

    Attributes:
        id: A name of its own, 32 hexadecimal digits.
        store: URI of the store it belongs to, without credentials; None where it goes to none.
        experiment: Name of its experiment.
        name: The run's name.
        started: Milliseconds since 1970.
        tags: What it is known by from the beginning.
    """

    id: str
    store: str | None
    experiment: str
    name: str
    started: int
    tags: dict[str, str]


@dataclass(frozen=True)
class Metrics:
    """Values at a step, logged at a time in milliseconds since 1970."""

    values: dict[str, float]
    step: int
    time: int


@dataclass(frozen=True)
class Params:
    """Parameters by name."""

    values: dict[str, str]


@dataclass(frozen=True)
class Tags:
    """Tags by name."""

    values: dict[str, str]


@dataclass(frozen=True)
class Artifact:
    """A file, relative to the run's folder, that shall stand in an artifact folder of the run."""

    file: str
    folder: str


@dataclass(frozen=True)
class Image:
    """A PNG file, relative to the run's folder, that is the picture of a key at a step."""

    file: str
    key: str
    step: int
    time: int


@dataclass(frozen=True)
class Status:
    """That the run is, from a time on, RUNNING, FINISHED, FAILED, KILLED or SCHEDULED."""

    status: str
    time: int


@dataclass(frozen=True)
class Earlier:
    """The last step of each metric that the store has from elsewhere; never sent."""

    steps: dict[str, int]


Record = Metrics | Params | Tags | Artifact | Image | Status | Earlier
_KINDS: dict[str, type[Record]] = {
    kind.__name__: kind for kind in (Metrics, Params, Tags, Artifact, Image, Status, Earlier)
}


@dataclass(frozen=True)
class Delivered:
    """How much of a journal its store has.

    Attributes:
        run_id: The store's ID of the run; None before the store has made it.
        offset: Bytes of the journal that it has.
    """

    run_id: str | None = None
    offset: int = 0


class Journal:
    """The journal of a run that is being logged; one process at a time holds it.

    Args:
        folder: The run's folder, with its identity written.

    Raises:
        UserError: Another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = os.open(folder / RECORDS, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise UserError(f"the run in {short(folder)} is being logged by another process") from None
        self._end = _end_of_whole_lines(folder / RECORDS)
        self._unwritten = b""

    def append(self, record: Record) -> None:
        """Adds a record.

        Raises:
            OSError: The disk takes no more; the record is kept in memory and written with the next.
        """
        self._unwritten += (json.dumps({type(record).__name__: asdict(record)}) + "\n").encode()
        try:
            written = os.pwrite(self._file, self._unwritten, self._end)
            if written < len(self._unwritten):
                raise OSError(f"only {written} of {len(self._unwritten)} bytes were written")
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += written
        self._unwritten = b""

    def close(self) -> int:
        """Lets other processes take it up; returns how many bytes a full disk has kept from being written."""
        os.close(self._file)
        return len(self._unwritten)


@dataclass
class LastSteps:
    """The last step of each metric and picture, so that none is logged twice after a resume."""

    steps: dict[str, int] = field(default_factory=dict)

    def new(self, values: Mapping[str, float], step: int) -> dict[str, float]:
        """Those of the values that are news; they are remembered."""
        fresh = {key: float(value) for key, value in values.items() if step > self.steps.get(key, -1)}
        self.steps |= dict.fromkeys(fresh, step)
        return fresh

    def is_new_image(self, key: str, step: int) -> bool:
        """Whether a picture is news; it is remembered."""
        return bool(self.new({_IMAGE + key: 0.0}, step))

    @classmethod
    def of(cls, folder: Path) -> "LastSteps":
        """Those of a journal."""
        last = cls()
        for record, _ in read(folder):
            if isinstance(record, Metrics):
                last.steps |= dict.fromkeys(record.values, record.step)
            elif isinstance(record, Image):
                last.is_new_image(record.key, record.step)
            elif isinstance(record, Earlier):
                last.steps |= record.steps
        return last


def read(folder: Path, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """The records of a journal from an offset on, each with the offset behind it.

    A last line that was cut is left out.
    """
    path = folder / RECORDS
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield _parse(line, path), offset


def sync(folder: Path) -> None:
    """Makes what was appended survive a loss of power."""
    with (folder / RECORDS).open("rb") as file:
        os.fsync(file.fileno())


def status(folder: Path) -> str:
    """What the journal says last of the run's status."""
    found = "RUNNING"
    for record, _ in read(folder):
        if isinstance(record, Status):
            found = record.status
    return found


def is_held(folder: Path) -> bool:
    """Whether a process logs to the journal now."""
    try:
        Journal(folder).close()
    except UserError:
        return True
    return False


def write_identity(folder: Path, identity: Identity) -> None:
    """Begins a run's folder."""
    text = json.dumps(asdict(identity), indent=2) + "\n"
    atomically(folder / IDENTITY, lambda file: file.write_text(text))


def identity(folder: Path) -> Identity:
    """Who the run in a folder is."""
    values = _json(folder / IDENTITY)
    try:
        return Identity(**values)
    except TypeError as error:
        raise UserError(f"'{short(folder / IDENTITY)}' does not say who the run is: {error}") from None


def write_delivered(folder: Path, delivered: Delivered) -> None:
    """Notes how much of a journal has been delivered."""
    text = json.dumps(asdict(delivered)) + "\n"
    atomically(folder / DELIVERED, lambda file: file.write_text(text))


def delivered(folder: Path) -> Delivered:
    """How much of a journal has been delivered."""
    path = folder / DELIVERED
    return Delivered(**_json(path)) if path.is_file() else Delivered()


def folders(output: Path) -> list[Path]:
    """The folders, absolute, below an output folder that hold a journal, oldest first."""
    started = {}
    for path in output.absolute().glob(f"*/*/{IDENTITY}"):
        try:
            started[path.parent] = identity(path.parent).started
        except UserError as error:
            warn(f"{error}; it is left out")
    return sorted(started, key=lambda folder: started[folder])


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def _end_of_whole_lines(path: Path) -> int:
    """Length of a file up to its last line break; what a crash left behind it will be overwritten."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    return end


def _parse(line: bytes, path: Path) -> Record:
    try:
        ((kind, values),) = json.loads(line).items()
        return _KINDS[kind](**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{short(path)}' holds a line that is no record ({error}): {line[:80]!r}") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
        assert isinstance(values, dict)
        return values
    except (OSError, ValueError, AssertionError) as error:
        raise UserError(f"'{short(path)}' cannot be read: {error}") from None
