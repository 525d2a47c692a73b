"""Noise channels, per cell and norm-keeping, and the curricula that raise their level.

A channel is a function ``(psi, level, draws, coin) -> psi``: `draws` gives each cell its own random
numbers, `coin` is one uniform number per universe, (B, 1, 1). Empty cells stay empty.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from atheria import registry
from atheria.config import CurriculumConfig
from atheria.philox import COIN, NOISE, Draws, Lattice

Channel = Callable[[Tensor, float, Draws, Tensor], Tensor]


def phase_flip(psi: Tensor, level: float, draws: Draws, coin: Tensor) -> Tensor:
    """With probability `level`, an independent phase U(0, 2 pi) on each component.

    On average the off-diagonals of psi psi^dagger are multiplied by 1 - level: it dephases.
    """
    re, im = psi.chunk(2, dim=1)
    uniform = draws.uniform(1 + re.shape[1])
    hit = (uniform[0] < level).unsqueeze(1)
    angle = 2 * math.pi * uniform[1:].transpose(0, 1).double()
    cos = torch.where(hit, torch.cos(angle).float(), 1.0)
    sin = torch.where(hit, torch.sin(angle).float(), 0.0)
    return torch.cat([re * cos - im * sin, re * sin + im * cos], dim=1)


def sign_flip(psi: Tensor, level: float, draws: Draws, coin: Tensor) -> Tensor:
    """With probability `level`, psi -> -psi: the identity on psi psi^dagger of a cell."""
    hit = draws.uniform(1)[0] < level
    return psi * torch.where(hit, -1.0, 1.0).unsqueeze(1)


def seed_mix(psi: Tensor, level: float, draws: Draws, coin: Tensor) -> Tensor:
    """The seed's QuantumNoiseInjector.

    A phase flip at the level each step and, in one step of five, a sign flip at a tenth of it.
    """
    psi = phase_flip(psi, level, draws, coin)
    flips = (coin < 0.2).unsqueeze(1)
    return torch.where(flips, sign_flip(psi, 0.1 * level, draws, coin), psi)


def channel(name: str) -> Channel | None:
    """The channel registered under `name` in ``atheria.noise``; None for ``none``.

    Raises:
        UserError: There is none of that name.
    """
    if name == "none":
        return None
    found: Channel = registry.load("atheria.noise", name)
    return found


def apply(noise: Channel, psi: Tensor, level: float, seed: int, step: int, first_universe: int = 0) -> Tensor:
    """One use of a channel: (B, 2d, H, W) -> (B, 2d, H, W).

    Args:
        noise: The channel.
        psi: The field.
        level: Rate of this step, a probability.
        seed: Key of the random numbers.
        step: Their counter.
        first_universe: Index of psi[0] among all universes.
    """
    if level == 0:
        return psi
    universes, _, height, width = psi.shape
    lattice = Lattice(universes, height, width, psi.device, first_universe)
    origin = Lattice(universes, 1, 1, psi.device, first_universe)
    coin = Draws(seed, origin, step, COIN).uniform(1)[0]
    return noise(psi, level, Draws(seed, lattice, step, NOISE), coin)


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
