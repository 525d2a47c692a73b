"""Progressive training: the first episodes on smaller problems."""

from collections.abc import Sequence
from typing import NamedTuple

from atheria.config import TrainerConfig


class Phase(NamedTuple):
    """What an episode is trained on.

    Attributes:
        number: Counted from 0.
        grid: [H, W].
        steps: Longest rollout.
        noise: Factor on the curriculum's level.
    """

    number: int
    grid: Sequence[int]
    steps: int
    noise: float


def phase_of(episode: int, settings: TrainerConfig) -> Phase:
    """The phase that an episode, counted from 0, belongs to; the last one is the trainer's own sizes."""
    phases = all_phases(settings)
    end = 0
    for beginning, phase in zip(settings.phases, phases, strict=False):
        end += beginning.episodes
        if episode < end:
            return phase
    return phases[-1]


def all_phases(settings: TrainerConfig) -> list[Phase]:
    """Every phase, the last one included."""
    beginnings = [Phase(n, phase.grid, phase.steps, phase.noise) for n, phase in enumerate(settings.phases)]
    return [*beginnings, Phase(len(beginnings), settings.grid, settings.steps, 1.0)]
