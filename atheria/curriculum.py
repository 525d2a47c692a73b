"""Curricula: how the noise level grows with the episode."""

import math
from typing import Any

from atheria.config import CurriculumConfig


class Curriculum:
    """The noise level as a function of the episode.

    ``constant`` holds the highest level; ``linear`` and ``cosine`` rise from 0 and reach it at
    `episodes`. Levels below `off_below` are 0.

    Args:
        config: Which curriculum.
        highest: The level that it reaches.
        episodes: Where it is reached if the configuration leaves that open.
    """

    def __init__(self, config: CurriculumConfig, highest: float, episodes: int) -> None:
        self._config = config
        self._highest = highest
        self._episodes = config.episodes or episodes

    def level(self, episode: int) -> float:
        """The level of an episode, counted from 0."""
        progress = min(1.0, episode / self._episodes)
        rise = {
            "constant": 1.0,
            "linear": progress,
            "cosine": 0.5 * (1 - math.cos(math.pi * progress)),
        }[self._config.name]
        level = self._highest * rise
        return level if level >= self._config.off_below else 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep: nothing, the level is a function of the episode."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up the state of a checkpoint."""
