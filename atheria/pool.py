"""A sample pool: universes that outlive their episode, so that a law trains on its own later states.

Mordvintsev et al., Growing neural cellular automata (Distill, 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atheria.philox import DAMAGE, POOL, Draws, Lattice

SMALLEST_WOUND, LARGEST_WOUND = 0.1, 0.4
"""Radius of a damaged disk, as a share of the shorter side."""


@dataclass(frozen=True)
class Pool:
    """Universes between two rollouts; a batch is a small pool.

    Attributes:
        initial: (P, 2d, H, W), where each began.
        psi: (P, 2d, H, W), where each is now.
        memory: What a law with memory carries along, first axis P; None without.
        loss: (P,), of each one's last rollout; -inf for one that has not been rolled out.
    """

    initial: Tensor
    psi: Tensor
    memory: Tensor | None
    loss: Tensor

    @classmethod
    def fresh(cls, initial: Tensor, memory: Tensor | None) -> "Pool":
        """Universes at their beginning."""
        loss = torch.full((len(initial),), -torch.inf, dtype=initial.dtype, device=initial.device)
        return cls(initial, initial.clone(), memory, loss)

    def __len__(self) -> int:
        return len(self.initial)

    def sample(self, count: int, seed: int, episode: int) -> Tensor:
        """Places of `count` different universes, drawn for an episode: (count,)."""
        row = Lattice(1, 1, len(self), self.psi.device)
        return Draws(seed, row, episode, POOL).words(1).flatten().argsort()[:count]

    def take(self, places: Tensor) -> "Pool":
        """The universes at some places, as a batch of their own."""
        memory = None if self.memory is None else self.memory[places]
        return Pool(self.initial[places], self.psi[places], memory, self.loss[places])

    def put(self, places: Tensor, batch: "Pool") -> None:
        """Writes a batch over the universes at some places."""
        self.initial[places] = batch.initial
        self.psi[places] = batch.psi
        self.loss[places] = batch.loss
        if self.memory is not None and batch.memory is not None:
            self.memory[places] = batch.memory

    def damage(self, count: int, seed: int, episode: int, torus: bool) -> None:
        """Empties a disk in each of the `count` best universes that have been rolled out.

        Args:
            count: How many.
            seed: Key of the random numbers.
            episode: Their counter.
            torus: Whether a disk wraps around the grid.
        """
        rolled = self.loss > -torch.inf
        ranked = torch.where(rolled, self.loss, torch.inf).argsort()
        chosen = ranked[: min(count, int(rolled.sum()))]
        wounds = _disks(self.psi, seed, episode, torus)
        self.psi[chosen] *= ~wounds[chosen]

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> "Pool":
        """The pool that `state_dict` described."""
        return cls(state["initial"], state["psi"], state.get("memory"), state["loss"])


def _disks(psi: Tensor, seed: int, episode: int, torus: bool) -> Tensor:
    """A disk at a random place in every universe: bool (P, 1, H, W)."""
    universes, _, height, width = psi.shape
    origin = Lattice(universes, 1, 1, psi.device)
    centre_y, centre_x, size = Draws(seed, origin, episode, DAMAGE).uniform(3)
    share = SMALLEST_WOUND + (LARGEST_WOUND - SMALLEST_WOUND) * size
    dy = _distance(height, centre_y, torus)[:, :, None]
    dx = _distance(width, centre_x, torus)[:, None, :]
    inside: Tensor = dy.square() + dx.square() <= (share * min(height, width)).square()
    return inside.unsqueeze(1)


def _distance(size: int, centre: Tensor, torus: bool) -> Tensor:
    """Distance along an axis from a centre in [0, 1), (P, 1, 1) -> (P, size)."""
    away = (torch.arange(size, device=centre.device) - centre.flatten()[:, None] * size).abs()
    return torch.minimum(away, size - away) if torus else away
