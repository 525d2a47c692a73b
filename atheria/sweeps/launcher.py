"""What runs the jobs of a sweep somewhere."""

from collections.abc import Sequence
from typing import Protocol

from atheria.sweeps.points import Point

Ended = tuple[Point, str | None]
"""A point whose job has ended, and what is known of the end in case that the job has left no word."""


class Launcher(Protocol):
    """Runs `atheria.sweeps.worker` for points, in processes somewhere.

    Attributes:
        slots: How many jobs can run at once.
        how_to_end: What a user types to end jobs that outlive the sweep's command; None where none does.
    """

    slots: int
    how_to_end: str | None

    def submit(self, points: Sequence[Point]) -> None:
        """Starts jobs, or queues them."""

    def wait(self, seconds: float) -> list[Ended]:
        """Those that have ended since it was last asked; waits for one, so many seconds at most."""

    def stop(self) -> list[Point]:
        """Tells those that run to save and end, and returns them; what has not begun never will."""

    def close(self) -> None:
        """Ends at once whatever is left, where nothing else would."""
