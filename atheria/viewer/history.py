"""Observables since the universe was started: all of the time, at bounded length."""

from collections.abc import Mapping

SHOWN = ("energy", "occupancy", "position_entropy", "ipr", "radius_of_gyration")
MOST_POINTS = 512


class History:
    """Points over steps; when they become many, every other one goes, and new ones come half as often."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []
        self._every = 1

    def add(self, step: int, observables: Mapping[str, float]) -> dict[str, float]:
        """Adds what was observed; returns the point."""
        point = {"step": float(step), **{name: float(observables[name]) for name in SHOWN}}
        if not self.points or step >= self.points[-1]["step"] + self._every:
            self.points.append(point)
        if len(self.points) > MOST_POINTS:
            self.points = self.points[::2]
            self._every = max(1, int(self.points[-1]["step"] - self.points[-2]["step"]))
        return point
