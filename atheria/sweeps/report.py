"""What came of a sweep: a table, the best, the failures."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from atheria import endings
from atheria.sweeps.points import Outcome, Point

UNFINISHED = "-"
STATUSES = ("FINISHED", "PRUNED", "FAILED", "KILLED", "MISSING")


@dataclass(frozen=True)
class Row:
    """A point, and what became of it; None where nothing has yet."""

    point: Point
    outcome: Outcome | None

    @property
    def status(self) -> str:
        """One of `STATUSES`."""
        if self.outcome is None:
            return "MISSING"
        return "PRUNED" if self.outcome.is_pruned else self.outcome.status


@dataclass(frozen=True)
class Report:
    """The rows of a sweep.

    Attributes:
        rows: One for each point.
        metric: What they are compared by.
        maximize: Whether more is better.
    """

    rows: Sequence[Row]
    metric: str
    maximize: bool

    @property
    def best(self) -> Row | None:
        """The finished point with the best value."""
        return next((row for row in self.ranked if self.value(row) is not None), None)

    @property
    def ranked(self) -> list[Row]:
        """The rows, the best first, those without a value last."""
        return sorted(self.rows, key=self._rank)

    @property
    def failed(self) -> list[Row]:
        """Those that failed."""
        return [row for row in self.rows if row.status == endings.FAILED]

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each status that occurs."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.status] = found.get(row.status, 0) + 1
        return found

    @property
    def varied(self) -> list[str]:
        """The keys that points differ in."""
        keys = {key: None for row in self.rows for key in row.point.varied}
        return list(keys)

    def value(self, row: Row) -> float | None:
        """What a row is compared by; None where it did not finish."""
        if row.status != endings.FINISHED or row.outcome is None:
            return None
        value = row.outcome.metrics.get(self.metric)
        return value if value is not None and math.isfinite(value) else None

    def csv(self) -> str:
        """All of it, a line for each point, the best first."""
        metrics = sorted({key for row in self.rows if row.outcome for key in row.outcome.metrics})
        metrics = [self.metric, *(key for key in metrics if key != self.metric)]
        text, varied = io.StringIO(), self.varied
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow([*varied, "status", *metrics, "seconds", "run_id", "error", "log"])
        for row in self.ranked:
            outcome = row.outcome or Outcome("MISSING")
            lines.writerow(
                [
                    *(row.point.varied.get(key, "") for key in varied),
                    row.status,
                    *(outcome.metrics.get(key, "") for key in metrics),
                    round(outcome.seconds, 1),
                    outcome.run_id or "",
                    outcome.error or "",
                    row.point.log if outcome.error else "",
                ]
            )
        return text.getvalue()

    def table(self, most: int) -> list[list[str]]:
        """The head of the table, for people: its title line and at most so many rows, the best first."""
        varied = self.varied
        title = [*varied, "status", self.metric, "run"]
        return [
            title,
            *(
                [
                    *(brief(row.point.varied.get(key, "")) for key in varied),
                    row.status,
                    UNFINISHED if (value := self.value(row)) is None else f"{value:.4g}",
                    (row.outcome.run_id if row.outcome else None) or UNFINISHED,
                ]
                for row in self.ranked[:most]
            ),
        ]

    def _rank(self, row: Row) -> tuple[bool, float]:
        value = self.value(row)
        if value is None:
            return True, 0.0
        return False, -value if self.maximize else value


def brief(value: str) -> str:
    """A value as there is room for it: numbers to four digits, the beginning of what is long."""
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value if len(value) <= 24 else f"{value[:23]}…"
