"""The points of a sweep and what became of them, in a folder each that every process of the sweep sees."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from atheria.files import atomically

POINT, STARTED, OUTCOME, LOG, LOCK = "point.json", "run.json", "outcome.json", "log.txt", "lock"


@dataclass(frozen=True)
class Trial:
    """The trial of a search that a point is.

    Attributes:
        number: Its number.
        search: The search's name.
        storage: Where Optuna keeps it; a path or an SQLAlchemy URL.
        metric: What the trials are compared by.
        pruner: The rule by which hopeless ones end early.
        startup: Trials before the first that may end early.
        first: Episode of the first evaluation.
        last: Episode of the last.
    """

    number: int
    search: str
    storage: str
    metric: str
    pruner: str
    startup: int
    first: int
    last: int


@dataclass(frozen=True)
class Point:
    """A configuration of a sweep.

    Attributes:
        digest: Of its settings: it is known by that, whatever its number.
        varied: The settings that it has of its own, by key, as a user writes them.
        overrides: All its settings.
        sweep: Name of the sweep.
        parent: ID of the sweep's run; None where that is not tracked.
        folder: The point's folder, absolute.
        working_directory: What paths in its settings are relative to.
        threads: Processor cores that it may use.
        trial: The trial that it is; None in a grid.
    """

    digest: str
    varied: dict[str, str]
    overrides: list[str]
    sweep: str
    parent: str | None
    folder: str
    working_directory: str
    threads: int
    trial: Trial | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        return " ".join(f"{key}={value}" for key, value in self.varied.items()) or self.sweep

    @property
    def log(self) -> Path:
        """What its process prints."""
        return Path(self.folder) / LOG

    @classmethod
    def load(cls, folder: Path) -> "Point":
        """The point of a folder."""
        values = json.loads((folder / POINT).read_text())
        trial = values.pop("trial")
        return cls(**values, trial=Trial(**trial) if trial else None)

    def begin(self) -> None:
        """Makes its folder, without the outcome of an earlier attempt."""
        (Path(self.folder) / OUTCOME).unlink(missing_ok=True)
        _write(Path(self.folder) / POINT, asdict(self))


@dataclass(frozen=True)
class Outcome:
    """What became of a point.

    Attributes:
        status: Of its run: FINISHED, FAILED, KILLED or SCHEDULED.
        run_id: Of its run; None where it came to none.
        metrics: ``eval/...`` of its best checkpoint.
        seconds: How long its last attempt took.
        error: Why it failed.
        is_pruned: Whether its search gave it up.
    """

    status: str
    run_id: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    is_pruned: bool = False

    @classmethod
    def of(cls, point: Point) -> "Outcome | None":
        """That of a point, if there is one yet."""
        path = Path(point.folder) / OUTCOME
        return cls(**json.loads(path.read_text())) if path.is_file() else None

    def save(self, point: Point) -> None:
        """Makes it known to every process of the sweep."""
        _write(Path(point.folder) / OUTCOME, asdict(self))


@dataclass(frozen=True)
class Started:
    """The run that a point came to.

    Attributes:
        run_id: Its ID.
        folder: Its folder.
    """

    run_id: str
    folder: str

    @classmethod
    def of(cls, point: Point) -> "Started | None":
        """That of a point, if there is one yet."""
        path = Path(point.folder) / STARTED
        return cls(**json.loads(path.read_text())) if path.is_file() else None

    def save(self, point: Point) -> None:
        """Makes it known to every process of the sweep."""
        _write(Path(point.folder) / STARTED, asdict(self))


def _write(path: Path, values: dict[str, Any]) -> None:
    atomically(path, lambda file: file.write_text(json.dumps(values, indent=2) + "\n"))
