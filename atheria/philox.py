"""Counter-based random numbers, the same in Python and in the engine.

Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The key is a
64-bit seed, the counter is (x, y, step, universe * 256 + stream): a number depends on where and when it
is used, never on what was drawn before it, on which rank, or in which order.
"""

import math
from dataclasses import dataclass

import atheria_core._core as _core
import torch
from torch import Tensor

FIRE = 0
"""Stream of the update mask."""
NOISE = 64
"""First stream of a noise channel's draws."""
COIN = 159
"""Stream of the noise's one draw per universe, at the origin."""
INITIAL_STATE = 160
"""First stream of initial states."""
POOL = 240
"""Stream that chooses universes of a pool."""
DAMAGE = 241
"""Stream of damage."""
LENGTH = 242
"""Stream of the length of a rollout, at the origin."""
VACUUM = 243
"""Stream of the waves of the harmonic vacuum, of all universes."""
STREAMS = 256
"""Streams of a universe."""

_MASK = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: int) -> Tensor:
    """Random words of 32 bits.

    Args:
        counter: Four int64 tensors that broadcast to one shape, taken modulo 2^32.
        key: 64-bit seed.

    Returns:
        int64 tensor (4, *shape) of words in [0, 2^32).
    """
    c0, c1, c2, c3 = (word & _MASK for word in counter)
    k0, k1 = key & _MASK, (key >> 32) & _MASK
    for _ in range(10):
        # int64 products wrap modulo 2^64, which keeps all the bits that are wanted.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Lattice:
    """The cells that numbers are drawn for: universes `first`.. on a height x width grid."""

    universes: int
    height: int
    width: int
    device: torch.device
    first: int = 0

    def counter(self, step: int, stream: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Broadcastable counter of every cell: (B, H, W) once combined."""

        def along(axis: int, size: int, first: int = 0) -> Tensor:
            shape = [1, 1, 1]
            shape[axis] = size
            return torch.arange(first, first + size, device=self.device).view(shape)

        universe = along(0, self.universes, self.first)
        step_word = torch.full((1, 1, 1), step, device=self.device)
        return along(2, self.width), along(1, self.height), step_word, universe * STREAMS + stream


def words(seed: int, lattice: Lattice, step: int, first_word: int, count: int) -> Tensor:
    """Words of every cell at one step, by torch: int64 (count, B, H, W).

    Args:
        seed: Key.
        lattice: The cells.
        step: Counter.
        first_word: Counted from the first of stream 0, four to a stream.
        count: How many.
    """
    streams = range(first_word // 4, -(-(first_word + count) // 4))
    drawn = torch.cat([philox(lattice.counter(step, stream), seed) for stream in streams])
    return drawn[first_word % 4 :][:count]


def native_words(seed: int, lattice: Lattice, step: int, first_word: int, count: int) -> Tensor:
    """The same by the extension, which is faster but knows the CPU alone."""
    cells = lattice.universes, lattice.height, lattice.width, lattice.first
    return torch.from_numpy(_core.words(seed, *cells, step, first_word, count))


class Draws:
    """The words of every cell at one step, read in order across consecutive streams."""

    def __init__(self, seed: int, lattice: Lattice, step: int, first_stream: int) -> None:
        self._seed = seed
        self._lattice = lattice
        self._step = step
        self._next_word = 4 * first_stream

    def words(self, count: int) -> Tensor:
        """The next `count` words of each cell: int64 (count, B, H, W)."""
        draw = native_words if self._lattice.device.type == "cpu" else words
        drawn = draw(self._seed, self._lattice, self._step, self._next_word, count)
        self._next_word += count
        return drawn

    def uniform(self, count: int) -> Tensor:
        """The next `count` uniform numbers of each cell: float32 (count, B, H, W) in [0, 1)."""
        return to_uniform(self.words(count))

    def complex_normal(self, count: int) -> tuple[Tensor, Tensor]:
        """Re and Im of the next `count` standard complex normals: float64 (count, B, H, W) each.

        Re and Im have unit variance. Box and Muller, in float64 so that Python and C++ round alike.
        """
        words = self.words(2 * count).double()
        radius = torch.sqrt(-2 * torch.log((words[0::2] + 0.5) * 2.0**-32))
        angle = 2 * math.pi * (words[1::2] * 2.0**-32)
        return radius * torch.cos(angle), radius * torch.sin(angle)


def to_uniform(words: Tensor) -> Tensor:
    """Words as float32 in [0, 1), on a grid of 2^-24: exact."""
    return (words >> 8).float() * 2.0**-24
