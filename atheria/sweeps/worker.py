"""What a job of a sweep does: it trains one point, and leaves word of what became of it."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from atheria import endings, launch
from atheria.cli import compose_config, to_settings
from atheria.config import TrainConfig, UserError
from atheria.files import alone
from atheria.jobs import train
from atheria.runs import POINT_TAG, SWEEP_TAG
from atheria.stores import without_credentials
from atheria.sweeps.points import LOCK, Outcome, Point, Started


class Part:
    """The part of a point's run in its sweep; see `atheria.jobs.train.Part`.

    Args:
        point: The point.
    """

    def __init__(self, point: Point) -> None:
        self.name = point.label
        self.parent = point.parent
        self.tags = {SWEEP_TAG: point.sweep, POINT_TAG: point.digest}
        self._point = point

    def started(self, run_id: str, folder: Path) -> None:
        """Notes the run, so that it is known even if this process is killed."""
        Started(run_id, str(folder)).save(self._point)

    def is_hopeless(self, episode: int, metrics: dict[str, float]) -> bool:
        """Tells the search, which may give the run up."""
        if self._point.trial is None:
            return False
        from atheria.sweeps import trials

        return trials.is_hopeless(self._point.trial, episode, metrics)


def run(folder: Path, is_preempted: Callable[[], bool] = lambda: False) -> Outcome:
    """Trains the point of a folder, or goes on with its run.

    Args:
        folder: The point's.
        is_preempted: See `atheria.endings.StopRequest`.

    Returns:
        What became of it. One that will be started again, SCHEDULED, leaves no word in its folder.
    """
    point = Point.load(folder)
    endings.interrupt_on_signals(is_preempted)
    try:
        os.chdir(point.working_directory)
        torch.set_num_threads(point.threads)
        if not launch.place().is_first:
            return _follow(point)
        # Another process may have outlived the sweep that started it, and be at the same point.
        with _printing_to(point.log), alone(folder / LOCK):
            earlier = Outcome.of(point)
            if earlier is not None and earlier.status == endings.FINISHED:
                return earlier  # by a process that was thought lost
            outcome = _train(point)
    except KeyboardInterrupt as end:  # before the training had begun
        outcome = Outcome(endings.status_of(end))
    if outcome.status != endings.REQUEUED:
        outcome.save(point)
    return outcome


def _follow(point: Point) -> Outcome:
    """What a further process of a job does; the first one leaves the word."""
    if (earlier := Outcome.of(point)) is not None:
        return earlier
    settings = to_settings(TrainConfig, compose_config("train", point.overrides))
    try:
        train.check(settings)
        train.run(settings)
    except (KeyboardInterrupt, Exception) as end:  # the first process says what it was
        return Outcome(endings.status_of(end))
    return Outcome(endings.FINISHED)


def _train(point: Point) -> Outcome:
    began = time.monotonic()
    settings = to_settings(TrainConfig, compose_config("train", point.overrides))
    part = Part(point)
    metrics: dict[str, float] = {}
    error: BaseException | None = None
    try:
        train.check(settings)
        metrics = train.run(settings, part).best
    except BaseException as raised:  # the last frame of the job: whatever it was is its outcome
        error = raised
        if not isinstance(raised, KeyboardInterrupt):
            traceback.print_exc()
    status = endings.status_of(error)
    if error is not None and status == endings.FAILED and Started.of(point) is None:
        _log_failure(settings, part, error)
    started = Started.of(point)
    return Outcome(
        status,
        started.run_id if started else None,
        metrics,
        time.monotonic() - began,
        _first_line(error) if error is not None and status == endings.FAILED else None,
        isinstance(error, endings.Pruned),
    )


def _log_failure(settings: TrainConfig, part: Part, error: BaseException) -> None:
    """A run for a point that failed before it had one, so that it is seen beside its siblings."""
    try:
        with train.new_run(settings, part) as logged:
            part.started(logged.run_id, logged.folder)
            raise error
    except (type(error), UserError, OSError):
        return


def _first_line(error: BaseException) -> str:
    said = (str(error).splitlines() or [""])[0]
    return without_credentials(f"{type(error).__name__}: {said}")


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Sends what the process prints, libraries in other languages included, to the end of a file."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    before = [os.dup(number) for number in (1, 2)]
    try:
        _lead_to(log, log)
        yield
    finally:
        _lead_to(*before)
        for descriptor in (log, *before):
            os.close(descriptor)


def _lead_to(output: int, errors: int) -> None:
    for stream, target, number in ((sys.stdout, output, 1), (sys.stderr, errors, 2)):
        stream.flush()
        os.dup2(target, number)
