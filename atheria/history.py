"""The curves of a run, kept in bounded memory while it lasts."""

from array import array
from collections.abc import Mapping
from pathlib import Path

from atheria import journal

MOST_POINTS = 4096


class Curve:
    """Values over steps; of a long curve every 2nd, 4th, ... point is kept.

    Attributes:
        steps: Of the points that are kept.
        values: At these steps.
    """

    def __init__(self) -> None:
        self.steps, self.values = array("q"), array("d")
        self._stride = 1
        self._seen = 0

    def add(self, step: int, value: float) -> None:
        """Adds a point; steps do not fall."""
        if self._seen % self._stride == 0:
            self.steps.append(step)
            self.values.append(value)
        self._seen += 1
        if len(self.steps) > MOST_POINTS:
            self.steps, self.values = self.steps[::2], self.values[::2]
            self._stride *= 2


class History:
    """The curves of a run by the names of its metrics."""

    def __init__(self) -> None:
        self.curves: dict[str, Curve] = {}

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds a point to some curves."""
        for name, value in metrics.items():
            self.curves.setdefault(name, Curve()).add(step, float(value))

    @classmethod
    def of(cls, folder: Path) -> "History":
        """The curves that the journal in a run's folder holds."""
        history = cls()
        for record, _ in journal.read(folder):
            if isinstance(record, journal.Metrics):
                history.add(record.values, record.step)
        return history
