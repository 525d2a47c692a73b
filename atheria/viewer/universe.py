"""A law with its universe as the viewer starts it, and starts it again."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from atheria_core import Engine

from atheria import initial_state, refusals
from atheria.artifact import Description, described
from atheria.config import (
    InitialStateConfig,
    NoiseConfig,
    ViewConfig,
    chosen_initial_state,
    chosen_physics,
)
from atheria.philox import Lattice
from atheria.viewer.commands import Reset
from atheria.watch import engine_line


@dataclass(frozen=True)
class Beginning:
    """How a universe starts.

    Attributes:
        initial: Its initial state.
        seed: Of the initial state, the update mask and the noise.
        grid: (height, width).
    """

    initial: InitialStateConfig
    seed: int
    grid: tuple[int, int]

    def changed(self, reset: Reset) -> "Beginning":
        """What a page has asked for."""
        return Beginning(
            initial=self.initial if reset.kind is None else replace(self.initial, kind=reset.kind),
            seed=self.seed if reset.seed is None else reset.seed,
            grid=self.grid if reset.grid is None else (reset.grid[0], reset.grid[1]),
        )

    def start(self, engine: Engine, d_state: int) -> None:
        """Starts it.

        Raises:
            ValueError: The law or the file does not suit the grid.
        """
        if self.initial.kind != "file":
            engine.start(self.initial, self.seed, self.grid)
            return
        lattice = Lattice(1, *self.grid, torch.device("cpu"))
        engine.set_state(initial_state.make(self.initial, d_state, lattice, self.seed).numpy())
        engine.seed = self.seed


@dataclass(frozen=True)
class Universe:
    """An engine with its universe, and what people want to know of it.

    Attributes:
        choice: Which of the laws to choose from it is.
        info: The engine's, when it was loaded.
    """

    engine: Engine
    choice: str
    info: Mapping[str, Any]
    description: Description
    beginning: Beginning
    noise: NoiseConfig

    def facts(self) -> dict[str, Any]:
        """What the page shows of it."""
        info = self.info
        return {
            "choice": self.choice,
            "law": self.description.law,
            "d_state": self.description.d_state,
            "grid": self.beginning.grid,
            "initial_state": self.beginning.initial.kind,
            "seed": str(self.beginning.seed),  # of 64 bits, which a number of JavaScript's does not hold
            "noise": asdict(self.noise),
            "engine": {"computes": engine_line(info), "why": info["why"], "stride": info["stride"]},
            "physics": {key: info[key] for key in ("gamma", "epsilon", "normalise", "fire_rate", "boundary")},
        }


def open_universe(
    config: ViewConfig, law: Path, choice: str, noise: NoiseConfig, grid: tuple[int, int] | None = None
) -> Universe:
    """A law's engine with its universe at step 0.

    Args:
        config: What the viewer was told.
        law: The artifact.
        choice: Which of the laws to choose from it is.
        noise: After every step.
        grid: In place of the configuration's.

    Raises:
        UserError: The law cannot be loaded, or does not suit the grid, the noise or the initial state.
    """
    description = described(law)
    initial = chosen_initial_state(config.initial_state) or description.initial_state
    height, width = grid or config.grid or description.training_grid
    beginning = Beginning(initial, config.seed, (height, width))
    with refusals.of_engine():
        engine = Engine(device=config.device, threads=config.threads)
        engine.load_model(law, chosen_physics(config.physics))
        engine.set_noise(noise.name, noise.level)
        beginning.start(engine, description.d_state)
    return Universe(engine, choice, engine.info(), description, beginning, noise)


def disks(
    points: Iterable[tuple[int, int]], radius: int, grid: tuple[int, int], torus: bool
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The cells of disks around points, each once: (n, 2) as (x, y); wrapped on a torus, else cut off.

    Args:
        points: Centres, as (x, y).
        radius: Of the disks, in cells; 0 for the centre alone.
        grid: (height, width).
        torus: Whether the grid is one.
    """
    height, width = grid
    side = np.arange(-radius, radius + 1)
    y, x = np.meshgrid(side, side, indexing="ij")
    inside = x**2 + y**2 <= (radius + 0.5) ** 2 if radius else x == 0
    offsets = np.stack([x[inside], y[inside]], axis=1)
    cells = (np.array(list(points), np.int64)[:, None] + offsets).reshape(-1, 2)
    if torus:
        cells %= np.array([width, height])
    else:
        cells = cells[((cells >= 0) & (cells < np.array([width, height]))).all(axis=1)]
    return np.unique(cells, axis=0)


def matter(
    cells: int, d_state: int, norm: float, phase: float | None, random: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.complex64]]:
    """Amplitudes of painted cells, (n, d): of one phase in all components, or drawn at random."""
    if phase is not None:
        value = norm / np.sqrt(d_state) * np.exp(1j * phase)
        return np.full((cells, d_state), value, np.complex64)
    drawn = random.normal(size=(cells, d_state, 2)) @ np.array([1, 1j])
    scaled: np.ndarray[Any, np.dtype[np.complex64]] = (
        norm * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    ).astype(np.complex64)
    return scaled
