"""Progressive training: the first episodes on smaller problems."""

from collections.abc import Sequence
from typing import NamedTuple

from atheria.config import PhaseConfig, TrainerConfig


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
    end = 0
    for index, phase in enumerate(settings.phases):
        end += phase.episodes
        if episode < end:
            return _phase(index, phase)
    return Phase(len(settings.phases), settings.grid, settings.steps, 1.0)


def all_phases(settings: TrainerConfig) -> list[Phase]:
    """Every phase, the last one included."""
    beginnings = [_phase(index, phase) for index, phase in enumerate(settings.phases)]
    return [*beginnings, Phase(len(settings.phases), settings.grid, settings.steps, 1.0)]


def _phase(index: int, phase: PhaseConfig) -> Phase:
    return Phase(index, phase.grid, phase.steps, phase.noise)
