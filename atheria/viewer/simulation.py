"""An engine that steps in a thread of its own, as fast as it can or as it is told.

Steps run in batches without the GIL. A copy of the field is made only when a page has asked for one: pages
that are slow, many or asleep neither slow the engine down nor make it keep anything for them.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from atheria_core import Engine

from atheria.viewer.history import History
from atheria.viewer.pictures import Moment

Result = TypeVar("Result")

BATCH_SECONDS = 0.01
"""What a batch of steps takes: long, that Python between batches weighs little; short, that nobody waits."""
MOMENT_SECONDS = 1 / 60
OBSERVED_SECONDS = 0.1
OBSERVED_SHARE = 0.02
"""Of the time that observables may take."""
MOST_CALLS = 256
_RATE_SECONDS = 0.5
_LAG_SECONDS = 0.2
"""What may be caught up on where the engine falls behind the speed that it is told."""


class BusyError(RuntimeError):
    """More is asked of the engine than it gets done."""


class Status(NamedTuple):
    """How the simulation runs; `number` counts the changes."""

    number: int
    playing: bool
    steps_per_second: float | None
    fault: str | None


class Simulation:
    """Steps an engine's universe 0 and hands out what pages ask for.

    Args:
        engine: With a universe on a grid; from now on it belongs to the simulation's thread.
        on_news: Called from that thread when there is a new moment or status.
    """

    def __init__(self, engine: Engine, on_news: Callable[[], None] = lambda: None) -> None:
        self._engine = engine
        self._on_news = on_news
        self._changed = threading.Condition()
        self._calls: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._ended = self._wanted = False
        self._status = Status(0, playing=False, steps_per_second=None, fault=None)
        self._history = History()
        self._moment: Moment | None = None
        self._touched = True
        self._todo = 0
        self._steps_done = engine.step_count
        self._captured = 0.0
        self._due = time.monotonic()
        self._step_seconds = 0.0
        self._rate, self._rated = 0.0, (time.monotonic(), engine.step_count)
        self._observe_after = 0.0
        self._observed: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="atheria-engine", daemon=True)
        self._thread.start()

    @property
    def status(self) -> Status:
        """How it runs now."""
        return self._status

    @property
    def moment(self) -> Moment | None:
        """The newest copy of the universe; None before one was wanted."""
        return self._moment

    @property
    def steps_done(self) -> int:
        """The engine's step count."""
        return self._steps_done

    @property
    def points(self) -> list[dict[str, float]]:
        """Observables since the start."""
        return self._history.points

    def want(self) -> None:
        """Asks for a moment newer than the newest, as soon as there is one."""
        with self._changed:
            if not self._wanted:
                self._wanted = True
                self._changed.notify()

    def play(self, on: bool) -> None:
        """Lets it run, or stops it."""
        with self._changed:
            self._todo = 0
            self._due = time.monotonic()
            self._set(playing=on, fault=None)

    def step(self, steps: int) -> None:
        """Does so many steps and then pauses."""
        with self._changed:
            self._todo += steps
            self._set(playing=False, fault=None)

    def set_speed(self, steps_per_second: float | None) -> None:
        """Steps a second, or None for all that the engine can."""
        with self._changed:
            self._due = time.monotonic()
            self._set(steps_per_second=steps_per_second)

    def call(self, work: Callable[[Engine], Result], restarts: bool = False) -> "Future[Result]":
        """Has the engine's thread do something between two batches.

        Args:
            work: Given the engine; what it raises is in the future.
            restarts: Whether the universe is another one afterwards.

        Raises:
            BusyError: Too much waits already.
        """

        def done(engine: Engine) -> Result:
            try:
                return work(engine)
            finally:
                self._touch(restarts)

        return self._queue(done)

    def adopt(self, engine: Engine) -> "Future[None]":
        """Goes on with another engine."""

        def swap(_: Engine) -> None:
            self._engine = engine
            self._step_seconds = 0.0
            self._touch(restarts=True)

        return self._queue(swap)

    def end(self) -> None:
        """Ends the thread, after the batch that it is in."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _queue(self, work: Callable[[Engine], Result]) -> "Future[Result]":
        future: Future[Result] = Future()
        with self._changed:
            if len(self._calls) >= MOST_CALLS:
                raise BusyError(f"more than {MOST_CALLS} commands wait for the engine")
            self._calls.append((work, future))
            self._changed.notify()
        return future

    def _touch(self, restarts: bool) -> None:
        self._touched = True
        self._observe_after = 0.0
        self._steps_done = self._engine.step_count
        if restarts:
            self._history = History()
            self._todo = 0
            self._rated = (time.monotonic(), self._steps_done)
            with self._changed:
                self._set(fault=None)

    def _set(self, **changes: Any) -> None:
        """Changes the status; with the lock held."""
        changed = self._status._replace(**changes)
        if changed != self._status:
            self._status = changed._replace(number=self._status.number + 1)
            self._on_news()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not (self._ended or self._calls):
                    self._changed.wait(self._pause())
                if self._ended:
                    return
                calls = [self._calls.popleft() for _ in range(len(self._calls))]
            for work, future in calls:
                _resolve(future, work, self._engine)
            try:
                if steps := self._steps_due():
                    self._advance(steps)
                self._measure_rate()
                if self._wanted and self._is_new() and time.monotonic() >= self._next_moment():
                    self._capture()
            except (OverflowError, RuntimeError, ValueError, MemoryError) as error:  # the engine's faults
                with self._changed:
                    self._todo = 0
                    self._set(playing=False, fault=str(error))

    def _pause(self) -> float | None:
        """Seconds until there is something to do; None for no end."""
        waits = []
        if self._todo or (self._status.playing and self._status.steps_per_second is None):
            return 0.0
        if self._status.playing:
            waits.append(self._due - time.monotonic())
        if self._wanted and self._is_new():
            waits.append(self._next_moment() - time.monotonic())
        return max(0.0, min(waits)) if waits else None

    def _steps_due(self) -> int:
        most = max(1, min(100_000, int(BATCH_SECONDS / self._step_seconds))) if self._step_seconds else 1
        status = self._status
        if self._todo:
            return min(self._todo, most)
        if not status.playing:
            return 0
        if status.steps_per_second is None:
            return most
        now = time.monotonic()
        self._due = max(self._due, now - _LAG_SECONDS)
        steps = min(most, max(0, int((now - self._due) * status.steps_per_second + 1)))
        self._due += steps / status.steps_per_second
        return steps

    def _advance(self, steps: int) -> None:
        began = time.perf_counter()
        try:
            self._engine.step_native(steps)
        finally:
            self._steps_done = self._engine.step_count
        seconds = (time.perf_counter() - began) / steps
        self._step_seconds = 0.7 * self._step_seconds + 0.3 * seconds if self._step_seconds else seconds
        with self._changed:
            self._todo = max(0, self._todo - steps)

    def _measure_rate(self) -> None:
        now, steps = time.monotonic(), self._steps_done
        since, before = self._rated
        if now - since >= _RATE_SECONDS:
            self._rate = max(0.0, (steps - before) / (now - since))
            self._rated = now, steps

    def _is_new(self) -> bool:
        return self._touched or self._moment is None or self._moment.step != self._steps_done

    def _next_moment(self) -> float:
        return self._captured + MOMENT_SECONDS

    def _capture(self) -> None:
        self._wanted = self._touched = False
        engine = self._engine
        step, began = self._steps_done, time.monotonic()
        if began >= self._observe_after:
            self._observed = self._history.add(step, engine.observables()[0])
            seconds = time.monotonic() - began
            self._observe_after = began + max(OBSERVED_SECONDS, seconds / OBSERVED_SHARE)
        number = 0 if self._moment is None else self._moment.number + 1
        rate = self._rate if self._status.playing else 0.0
        self._moment = Moment(number, step, engine.state()[0], self._observed, rate)
        self._captured = time.monotonic()
        self._on_news()


def _resolve(future: "Future[Any]", work: Callable[[Engine], Any], engine: Engine) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work(engine))
    except Exception as error:  # whoever asked gets it
        future.set_exception(error)
