"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Mapping

from tqdm import tqdm

WARNING = "warning: "

_SECONDS_BETWEEN_LINES = 10.0


class _Bar(tqdm):  # type: ignore[type-arg]  # which only the stubs know
    """With a lock for threads alone: tqdm's own is a semaphore too, which a killed process leaves behind."""


_Bar.set_lock(threading.RLock())


class Progress:
    """Shows how far `total` units of work are, with values beside, and the time left.

    Args:
        total: Units of work.
        unit: What a unit is called.
        done: Units that are done already.
    """

    def __init__(self, total: int, unit: str, done: int = 0) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._bar = _Bar(
            total=total,
            initial=done,
            unit=unit,
            disable=not self._on_terminal,
            dynamic_ncols=True,
            leave=False,
        )
        self._total = total
        self._unit = unit
        self._done = done
        self._first = done
        self._started = self._said = time.monotonic()

    def advance(self, values: Mapping[str, float], units: int = 1) -> None:
        """Marks units as done and shows `values`."""
        self._done += units
        shown = {name: f"{value:.3g}" for name, value in values.items()}
        if self._on_terminal:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(units)
            return
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES and self._done > self._first:
            self._said = now
            left = (now - self._started) / (self._done - self._first) * (self._total - self._done)
            listed = "  ".join(f"{name} {value}" for name, value in shown.items())
            self.say(f"{self._unit} {self._done}/{self._total}  {listed}  {left:.0f} s left")

    def say(self, line: str) -> None:
        """Prints a line without disturbing the bar."""
        _Bar.write(line)
        sys.stdout.flush()

    def close(self) -> None:
        """Ends the display."""
        self._bar.close()


def warn(text: str) -> None:
    """Prints a warning to stderr without disturbing a bar; any thread may."""
    _Bar.write(f"{WARNING}{text}", file=sys.stderr)
    sys.stderr.flush()
