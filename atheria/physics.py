"""One step of the model; the engine's ``advance`` in C++ does exactly this.

delta   = law(psi)                     of `atheria.vacuum` too, where vacuum is harmonic
phi     = (1 - gamma) psi + delta
phi     = psi + m (phi - psi)          m: Bernoulli mask per cell, rate fire_rate
phi(x)  = 0                            where ||phi(x)|| <= epsilon
psi'    = normalise(phi)
psi'    = noise(psi')
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from atheria import noise, vacuum
from atheria.config import PhysicsConfig
from atheria.field import energy_density, total_energy
from atheria.laws import initial_memory, propose
from atheria.philox import FIRE, Draws, Lattice


class State(NamedTuple):
    """A batch of universes between two steps.

    Attributes:
        psi: (B, 2d, H, W).
        memory: What a law with memory carries along, or None.
        reference_energy: (B,), the energy that ``global`` normalisation restores.
        step: Counter of the randomness of the next step.
        unnormalised: psi as the last step left it before normalisation and noise.
    """

    psi: Tensor
    memory: Tensor | None
    reference_energy: Tensor
    step: int
    unnormalised: Tensor

    def detached(self) -> "State":
        """The same state, through which no gradient flows back."""
        memory = None if self.memory is None else self.memory.detach()
        return State(
            self.psi.detach(), memory, self.reference_energy.detach(), self.step, self.unnormalised.detach()
        )


@dataclass(frozen=True)
class Dynamics:
    """A law with its physics and noise: maps a state to the next one.

    Attributes:
        law: (B, 2d, H, W) -> (B, 2d, H, W), and memory if it has one.
        physics: Decay, mask, threshold and normalisation.
        seed: Key of the mask's and the noise's random numbers.
        channel: Noise channel, or None.
        level: Its rate per step.
        half_precision: Whether the law's network runs in bfloat16; the field stays as it is.
        channels_last: Whether the law gets the field with the channels innermost in memory.
        gradient_checkpointing: Whether a step's activations are computed anew for the gradient instead
            of kept (Chen et al., 2016): memory for a field a step, time for one more forward.
        first_universe: Index of psi[0] among all universes.
    """

    law: nn.Module
    physics: PhysicsConfig
    seed: int
    channel: noise.Channel | None = None
    level: float = 0.0
    half_precision: bool = False
    channels_last: bool = False
    gradient_checkpointing: bool = False
    first_universe: int = 0

    def __post_init__(self) -> None:
        """Raises UserError where the law does not suit the physics."""
        vacuum.check(self.law, self.physics)

    def start(self, psi: Tensor, step: int = 0) -> State:
        """The state that begins with the field psi (B, 2d, H, W)."""
        memory = initial_memory(self.law, psi)
        return State(psi, memory, total_energy(psi), step, psi)

    def step(self, state: State) -> State:
        """One step."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            following: State = checkpoint(self._step, state, use_reentrant=False)
            return following
        return self._step(state)

    def _step(self, state: State) -> State:
        delta, memory = self._in_vacuum(state) if self.physics.harmonic > 0 else self._propose(state)
        mask = None
        if self.physics.fire_rate < 1:
            mask = fire_mask(state, self.physics.fire_rate, self.seed, self.first_universe)
        phi = combine(state.psi, delta, self.physics, mask)
        psi = normalise(phi, self.physics.normalise, state.reference_energy)
        if self.channel is not None:
            psi = noise.apply(self.channel, psi, self.level, self.seed, state.step, self.first_universe)
        return State(psi, memory, state.reference_energy, state.step + 1, phi)

    def rollout(self, state: State, steps: int) -> State:
        """`steps` steps."""
        for _ in range(steps):
            state = self.step(state)
        return state

    def _in_vacuum(self, state: State) -> tuple[Tensor, Tensor | None]:
        """As `_propose`, where vacuum cells are read as harmonic."""
        psi = state.psi
        _, channels, *size = psi.shape
        occupied = (psi != 0).any(dim=1, keepdim=True)
        level, place = self.physics.harmonic, (size[0], size[1])
        field = vacuum.waves(level, channels // 2, place, self.seed, state.step, psi)
        delta, memory = self._propose(state._replace(psi=torch.where(occupied, psi, field)))
        radius = int(self.law.receptive_radius)  # type: ignore[arg-type]
        near = vacuum.near(occupied, radius, self.physics.boundary == "torus")
        return torch.where(near, delta, 0.0), memory

    def _propose(self, state: State) -> tuple[Tensor, Tensor | None]:
        device = state.psi.device.type
        cast = torch.autocast(device, torch.bfloat16) if self.half_precision else nullcontext()
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        with cast:
            delta, memory = propose(self.law, state.psi.contiguous(memory_format=order), state.memory)
        dtype = state.psi.dtype
        return delta.to(dtype).contiguous(), None if memory is None else memory.to(dtype)


def fire_mask(state: State, rate: float, seed: int, first_universe: int = 0) -> Tensor:
    """1 where a cell updates in this step, else 0: (B, 1, H, W)."""
    batch, _, height, width = state.psi.shape
    lattice = Lattice(batch, height, width, state.psi.device, first_universe)
    uniform = Draws(seed, lattice, state.step, FIRE).uniform(1)
    return (uniform < rate).to(state.psi.dtype).transpose(0, 1)


def combine(psi: Tensor, delta: Tensor, physics: PhysicsConfig, mask: Tensor | None) -> Tensor:
    """The field phi after decay, law, mask and threshold, before normalisation: (B, 2d, H, W).

    Args:
        psi: The field, (B, 2d, H, W).
        delta: What the law proposes, of the same shape.
        physics: Decay and threshold.
        mask: Which cells update, (B, 1, H, W) of 0 and 1; None for all.
    """
    phi = (1 - physics.gamma) * psi + delta
    if mask is not None:
        phi = psi + mask * (phi - psi)
    if physics.epsilon > 0:
        norm = energy_density(phi.detach()).sqrt().unsqueeze(1)
        phi = phi * (norm > physics.epsilon)
    return phi


def normalise(phi: Tensor, kind: str, reference_energy: Tensor) -> Tensor:
    """``none``: phi. ``cell``: phi / ||phi(x)||. ``global``: phi sqrt(N0 / N). Vacuum stays vacuum."""
    if kind == "none":
        return phi
    if kind == "cell":
        return phi * _inverse_root(energy_density(phi)).unsqueeze(1)
    scale = _inverse_root(total_energy(phi)) * reference_energy.sqrt()
    return phi * scale[:, None, None, None]


def _inverse_root(energy: Tensor) -> Tensor:
    """1 / sqrt(energy), and 0 where there is none; its gradient is finite.

    An energy beyond the field's type gives NaN, lest an explosion pass for vacuum.
    """
    occupied = energy > 0
    root = torch.where(occupied, torch.where(occupied, energy, 1.0).rsqrt(), 0.0)
    return root.masked_fill(energy.isinf(), torch.nan)
