"""Which checkpoints of a run are kept: the last, the one before it, and the best."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atheria import checkpoint
from atheria.config import UserError
from atheria.files import short
from atheria.progress import warn

Entry = tuple[float, int]
"""An evaluation, less is better, and its episode; one that is not finite is infinity, and so ranks last."""

FOLDER = "checkpoints"
LAST, PREVIOUS = "last.pth", "previous.pth"


def best_name(rank: int) -> str:
    """Name of the checkpoint of a rank, counted from 0."""
    return "best.pth" if rank == 0 else f"best-{rank + 1}.pth"


class Checkpoints:
    """The checkpoints in a run's folder.

    A disk that is full costs nothing but the newest state: what stood there stays, the best waits in memory.

    Args:
        folder: The run's.
        keep_best: How many of the best evaluations are kept.
    """

    def __init__(self, folder: Path, keep_best: int) -> None:
        self._folder = folder / FOLDER
        self._keep = keep_best
        self._best = self._arranged()
        self._is_uncertain = False  # whether a full disk has stopped the best from moving down
        self._waiting: list[tuple[Entry, bytes]] = []

    @property
    def has_best(self) -> bool:
        """Whether an evaluation has been kept."""
        return bool(self._best)

    def save_last(self, state: dict[str, Any]) -> list[Path]:
        """Saves a state to go on from; returns the files that changed."""
        last, previous = self._folder / LAST, self._folder / PREVIOUS
        content = checkpoint.encode(state)
        try:
            self._keep_previous(last, previous)
            checkpoint.write(content, last)
            return [last, checkpoint.digest_path(last), *self.write_waiting()]
        except OSError as error:
            warn(f"'{short(last)}' could not be written ({error}); the one before it stays, training goes on")
            return []

    def offer_best(self, state: dict[str, Any], selection: float) -> list[Path]:
        """Keeps a state if its evaluation is among the best; returns the files that changed."""
        entry = _entry(state, selection)
        if entry not in sorted([*self._best, entry])[: self._keep]:
            return []
        self._waiting.append((entry, checkpoint.encode(state)))
        try:
            return self.write_waiting()
        except OSError as error:
            warn(f"a best checkpoint could not be written yet ({error}); it waits in memory")
            return []

    def write_waiting(self) -> list[Path]:
        """Writes the best that wait for room on the disk; returns the files that changed.

        Raises:
            OSError: There still is none.
        """
        changed: list[Path] = []
        while self._waiting:
            changed += self._place(*self._waiting[0])
            del self._waiting[0]
        return changed

    def _place(self, entry: Entry, content: bytes) -> list[Path]:
        """Puts a checkpoint at its rank, and those below it one further down."""
        if self._is_uncertain:
            self._best = self._arranged()
            self._is_uncertain = False
        if entry in self._best:
            return []  # it was kept before the run was interrupted
        ranked = sorted([*self._best, entry])[: self._keep]
        if entry not in ranked:
            return []
        rank = ranked.index(entry)
        self._is_uncertain = True
        try:
            for below in range(len(ranked) - 1, rank, -1):
                checkpoint.copy(self._path(below - 1), self._path(below))
        except UserError:  # one is damaged: it is left out by arranging them anew
            return self._place(entry, content)
        checkpoint.write(content, self._path(rank))
        self._is_uncertain = False
        self._best = ranked
        changed = [self._path(below) for below in range(rank, len(ranked))]
        return [file for path in changed for file in (path, checkpoint.digest_path(path))]

    @staticmethod
    def _keep_previous(last: Path, previous: Path) -> None:
        if not last.is_file():
            return
        try:
            checkpoint.copy(last, previous)
        except UserError as error:
            warn(f"{error}; the one before it is kept")

    def _path(self, rank: int) -> Path:
        return self._folder / best_name(rank)

    def _arranged(self) -> list[Entry]:
        """Evaluation and episode of the best checkpoints there are, each once and at its rank."""
        found: dict[Entry, Path] = {}
        for path in sorted(self._folder.glob("best*.pth")):
            try:
                state = checkpoint.load(path)
            except UserError as error:
                warn(f"{error}; it is left out")
                continue
            found.setdefault(_entry(state, state["metrics"]["latest"]["eval/selection"]), path)
        ranked = sorted(found)[: self._keep]
        contents = [found[entry].read_bytes() for entry in ranked]
        for rank, (entry, content) in enumerate(zip(ranked, contents, strict=True)):
            if found[entry] != self._path(rank):
                checkpoint.write(content, self._path(rank))
        for path in set(self._folder.glob("best*.pth")) - {self._path(rank) for rank in range(len(ranked))}:
            path.unlink()
            checkpoint.digest_path(path).unlink(missing_ok=True)
        return ranked


def _entry(state: Mapping[str, Any], selection: float) -> Entry:
    return selection if math.isfinite(selection) else math.inf, state["episode"]


def to_go_on_from(folder: Path) -> Iterator[Path]:
    """The checkpoints in a run's folder that a training may go on from, the newest first."""
    for name in (LAST, PREVIOUS):
        path = folder / FOLDER / name
        if path.is_file():
            yield path
