"""Curricula: how the noise level grows during training."""

import math
from typing import Any, Protocol

from atheria.config import CurriculumConfig


class Curriculum(Protocol):
    """The noise level of each episode, with a state that checkpoints keep."""

    def level(self, episode: int) -> float:
        """The level of an episode, counted from 0."""

    def update(self, loss: float, surviving: float) -> None:
        """Tells how an episode went.

        Args:
            loss: Its training loss.
            surviving: Share of the initial energy that was left, N_T / N_0.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up the state of a checkpoint."""


def make(config: CurriculumConfig, highest: float, episodes: int) -> Curriculum:
    """The curriculum that a configuration names.

    Args:
        config: Which curriculum.
        highest: The level that it reaches.
        episodes: Where it is reached if the configuration leaves that open.
    """
    if config.name == "adaptive":
        return Adaptive(config, highest)
    return Schedule(config, highest, config.episodes or episodes)


class Schedule:
    """A level that depends on the episode alone.

    ``constant`` holds the highest level; ``linear`` and ``cosine`` rise from 0 and reach it at
    `episodes`; ``steps`` rises from 0 in `stages` stages of equal length, the last at the highest.
    Levels below `off_below` are 0.
    """

    def __init__(self, config: CurriculumConfig, highest: float, episodes: int) -> None:
        self._config = config
        self._highest = highest
        self._episodes = episodes

    def level(self, episode: int) -> float:
        """The level of an episode, counted from 0."""
        level = self._highest * self._rise(min(1.0, episode / self._episodes))
        return level if level >= self._config.off_below else 0.0

    def _rise(self, progress: float) -> float:
        stages = self._config.stages
        match self._config.name:
            case "linear":
                return progress
            case "cosine":
                return 0.5 * (1 - math.cos(math.pi * progress))
            case "steps":
                return min(math.floor(progress * stages), stages - 1) / (stages - 1)
        return 1.0

    def update(self, loss: float, surviving: float) -> None:
        """Changes nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the level is a function of the episode."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up nothing."""


class Adaptive:
    """A level that follows the law's progress, in steps of `highest` / `stages` from 0.

    It rises when the running mean of the loss has not reached a new minimum for `patience` episodes,
    and falls back when the running mean of the surviving energy drops below `surviving`. Both means
    forget over `patience` episodes, and a new level starts them anew.
    """

    def __init__(self, config: CurriculumConfig, highest: float) -> None:
        self._config = config
        self._highest = highest
        self._stage = 0
        self._restart()

    def _restart(self) -> None:
        self._loss: float | None = None
        self._surviving: float | None = None
        self._lowest = math.inf
        self._waited = 0

    def level(self, episode: int) -> float:
        """The level now; the episode does not matter."""
        return self._highest * self._stage / self._config.stages

    def update(self, loss: float, surviving: float) -> None:
        """Tells how an episode went; see `Curriculum.update`."""
        patience = self._config.patience
        self._loss = _mean(self._loss, loss, patience)
        self._surviving = _mean(self._surviving, surviving, patience)
        self._waited = 0 if self._loss < self._lowest else self._waited + 1
        self._lowest = min(self._lowest, self._loss)
        if self._surviving < self._config.surviving and self._stage > 0:
            self._move(-1)
        elif self._waited >= patience and self._stage < self._config.stages:
            self._move(1)

    def _move(self, stages: int) -> None:
        self._stage += stages
        self._restart()

    def state_dict(self) -> dict[str, Any]:
        """The stage and the running means."""
        return {
            "stage": self._stage,
            "loss": self._loss,
            "surviving": self._surviving,
            "lowest": self._lowest,
            "waited": self._waited,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up the state of a checkpoint."""
        self._stage = state["stage"]
        self._loss = state["loss"]
        self._surviving = state["surviving"]
        self._lowest = state["lowest"]
        self._waited = state["waited"]


def _mean(before: float | None, value: float, memory: int) -> float:
    """An exponential running mean that forgets over `memory` values."""
    return value if before is None else before + (value - before) / memory
