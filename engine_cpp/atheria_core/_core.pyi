"""Atheria's native engine. Use it through the package `atheria_core`."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy
from numpy.typing import NDArray


def words(seed: int, universes: int, height: int, width: int, first_universe: int, step: int, first_word: int, count: int) -> NDArray[numpy.int64]:
    """
    Words of every cell at one step, as `atheria.philox.words`: (count, B, H, W).
    """

def unitary_noise(psi: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order='C', device='cpu', writable=False)], inverse: bool, name: str, level: float, seed: int, step: int, first_universe: int) -> NDArray[numpy.float32]:
    """
    A channel that acts by unitaries, or its inverse at the same random numbers: (B, 2d, H, W).
    """

class Snapshot:
    """
    A whole universe, kept by Engine.snapshot(); it can be pickled, and see `atheria_core.save_snapshot`.
    """

    def __getstate__(self) -> dict[str, Any]: ...

    def __setstate__(self, state: dict[str, Any]) -> None: ...

class Engine:
    def __init__(self, d_state: int | None = None, device: str = 'cpu', threads: int = 0, precision: str = 'fp32', backend: str = 'fastest', recorder: Callable[[Callable[[], None]], tuple[Callable[[], None], str]] | None = None) -> None: ...

    def _load_model(self, path: str, *, d_state: int | None, receptive_radius: int | None, training_grid: tuple[int, int] | None, gamma: float, epsilon: float, fire_rate: float, normalise: str, boundary: str, harmonic: float) -> None: ...

    def set_state(self, state: object) -> None:
        """
        Starts a universe at step 0 from `state`: float32, C-contiguous, (B, 2*d_state, H, W). May change grid and batch.
        """

    def state(self, before_noise: bool = False) -> NDArray[numpy.float32]:
        """
        A copy of the field on a grid: float32, (B, 2*d_state, H, W). `before_noise`: what is measured, the field before the noise of the last step.
        """

    def reset(self, kind: str, seed: int, grid: tuple[int, int] | None = None, universes: int = 1, *, density: float = 0.5, count: int = 16, width: float = 4.0, extent: tuple[int, int] | None = None) -> None:
        """
        Starts `universes` universes at step 0 on `grid` (height, width), from the initial state `kind` (soup, random, particles, gaussian or zeros) drawn with `seed`. Without a grid they are unbounded, and start as on a grid of `extent` (height, width): the law's training grid, or else (64, 64).
        """

    def set_cells(self, coordinates: object, amplitudes: object, universe: int = 0) -> None:
        """
        Starts unbounded at step 0 from the cells at `coordinates`, int64 (n, 2) as (x, y), with `amplitudes`, complex64 (n, d_state). Other unbounded universes of the batch keep their cells.
        """

    def set_noise(self, name: str, level: float = 0.0) -> None:
        """
        Applies the channel `name` at rate `level` after every step; 'none' ends it.
        """

    def add_particle(self, x: int, y: int, amplitudes: Sequence[complex], universe: int = 0) -> None:
        """
        Puts d_state complex `amplitudes` into one cell, in place of what it held.
        """

    def add_particles(self, coordinates: object, amplitudes: object, universe: int = 0) -> None:
        """
        Puts `amplitudes`, complex64 (n, d_state), into the cells at `coordinates`, int64 (n, 2) as (x, y), in place of what they held; of a cell that is there twice, the last counts.
        """

    def state_at(self, x: int, y: int, universe: int = 0) -> NDArray[numpy.complex64]:
        """The amplitudes of one cell: complex64, (d_state,)."""

    def cells(self, universe: int = 0, before_noise: bool = False) -> tuple[NDArray[numpy.int64], NDArray[numpy.complex64]]:
        """
        The occupied cells: coordinates (n, 2) as (x, y), and amplitudes (n, d_state). `before_noise`: as of `state`.
        """

    def window(self, x: int, y: int, width: int, height: int, universe: int = 0) -> NDArray[numpy.float32]:
        """
        The field of the cells from (x, y) on: float32, (2*d_state, height, width). Wraps on a torus; vacuum outside a grid without one.
        """

    def step_native(self, steps: int = 1) -> int:
        """Steps, then returns the number of occupied cells of all universes."""

    def rollout(self, steps: int, observe_every: int, stop: Sequence[str] = ()) -> list[dict[str, Any]]:
        """
        Steps, observing at the start, every `observe_every` steps and at the end: a list of {'step', 'universes': [observables]}. `stop` names what ends it early: 'extinction', 'fixed_point', and 'blow_up', which keeps the last finite field instead of raising OverflowError.
        """

    def profile(self, steps: int = 100) -> list[dict[str, Any]]:
        """
        Steps, and says where the time of a step on a grid goes, of a compiled law: a list of {'what', 'seconds', 'operations'}, the law's parts in their order, the step around the law, and what is in none of them. Seconds are a step's, of the thread that steps, while the others are at their shares of the same part; operations are a step's multiplications and additions, of convolutions by their definition.
        """

    def observables(self) -> list[dict[str, float]]:
        """
        The observables of each universe, by name. Where it is unbounded, `occupancy` is the number of occupied cells, and centre and radius are plain means.
        """

    def snapshot(self) -> Snapshot:
        """A copy of the universe: field, memory, step count, noise and seed."""

    def restore(self, snapshot: Snapshot) -> None:
        """Brings the universe back, bit for bit."""

    @property
    def step_count(self) -> int:
        """Steps since the universe was started."""

    @property
    def seed(self) -> int:
        """Key of the random numbers: update mask and noise."""

    @seed.setter
    def seed(self, arg: int, /) -> None: ...

    @property
    def has_state(self) -> bool:
        """Whether a universe has been started."""

    def _info(self) -> dict[str, Any]: ...
