"""Noise channels, per cell.

A channel is a function ``(psi, level, draws, coin) -> psi``: `draws` gives each cell its own random
numbers, `coin` is one uniform number per universe, (B, 1, 1). Empty cells stay empty. All but `thermal`
keep the norm of a cell.
"""

import math
from collections.abc import Callable
from copy import copy
from typing import Any

import atheria_core._core as _core
import torch
from torch import Tensor

from atheria import registry
from atheria.config import UserError
from atheria.field import energy_density
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
    cos = torch.where(hit, torch.cos(angle).to(psi.dtype), 1.0)
    sin = torch.where(hit, torch.sin(angle).to(psi.dtype), 0.0)
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


def dephasing(psi: Tensor, level: float, draws: Draws, coin: Tensor) -> Tensor:
    """With probability `level`, Z^k with k uniform in 0..d-1; the same mean map as `phase_flip`."""
    d = psi.shape[1] // 2
    hit = draws.uniform(1)[0] < level
    k = _below(draws.words(1)[0], d)
    return _clock(psi, torch.where(hit, k, 0))


def bit_flip(psi: Tensor, level: float, draws: Draws, coin: Tensor) -> Tensor:
    """With probability `level`, X^k with k uniform in 1..d-1: cyclic shifts of the components.

    On average rho -> (1 - p) rho + p / (d - 1) sum_k X^k rho X^-k.
    """
    d = _several_components("bit_flip", psi)
    hit = draws.uniform(1)[0] < level
    k = 1 + _below(draws.words(1)[0], d - 1)
    return _shift(psi, torch.where(hit, k, 0))


def depolarising(psi: Tensor, level: float, draws: Draws, coin: Tensor) -> Tensor:
    """With probability `level`, X^a Z^b with a and b uniform in 0..d-1 (Nielsen & Chuang, 8.3.4).

    On average rho -> (1 - p) rho + p (tr rho) I / d.
    """
    d = psi.shape[1] // 2
    hit = draws.uniform(1)[0] < level
    a, b = (torch.where(hit, _below(word, d), 0) for word in draws.words(2))
    return _shift(_clock(psi, b), a)


def amplitude_damping(psi: Tensor, level: float, draws: Draws, coin: Tensor) -> Tensor:
    """Decay to component 0: K_0 = diag(1, sqrt(1-g), ...), K_i = sqrt(g) |0><i| (Nielsen & Chuang, 8.3.5).

    A cell jumps from i > 0 with probability g |psi_i|^2 / ||psi||^2 to (psi_i / |psi_i|) ||psi|| e_0; else
    its components i > 0 shrink by sqrt(1-g) and the cell's norm is restored.
    """
    re, im = psi.chunk(2, dim=1)
    d = re.shape[1]
    if d == 1:
        return psi  # nothing above the ground
    energy = (re.detach().square() + im.detach().square()).double()
    threshold = draws.uniform(1)[0].unsqueeze(1) * energy.sum(dim=1, keepdim=True)
    reached = level * energy[:, 1:].cumsum(dim=1)  # the jumps from 1..i
    jumps = threshold < reached[:, -1:]
    source = 1 + (threshold >= reached).sum(dim=1, keepdim=True).clamp_max(d - 2)
    ground = torch.zeros_like(psi)
    ground[:, :1], ground[:, d : d + 1] = re.gather(1, source), im.gather(1, source)
    shrink = torch.full((1, 2 * d, 1, 1), math.sqrt(1 - level), dtype=psi.dtype, device=psi.device)
    shrink[:, [0, d]] = 1.0
    moved = torch.where(jumps, ground, psi * shrink)
    return moved * _norm_ratio(psi, moved)


def mixed(psi: Tensor, level: float, draws: Draws, coin: Tensor) -> Tensor:
    """One of dephasing, bit flip, depolarising and amplitude damping, each with probability 1/4.

    On average the mean of their four maps.
    """
    _several_components("mixed", psi)
    which = _below(draws.words(1)[0].unsqueeze(1), len(_PARTS))
    changed = psi
    for index, part in enumerate(_PARTS):
        changed = torch.where(which == index, part(psi, level, copy(draws), coin), changed)
    return changed


_PARTS = (dephasing, bit_flip, depolarising, amplitude_damping)


def thermal(psi: Tensor, level: float, draws: Draws, coin: Tensor) -> Tensor:
    """Adds Gaussians of standard deviation `level` to Re and Im of occupied cells.

    On average rho -> rho + 2 level^2 I: energy is added, so it is no Kraus map.
    """
    occupied = (psi != 0).any(dim=1, keepdim=True)
    re, im = draws.complex_normal(psi.shape[1] // 2)
    kick = torch.cat([re, im]).transpose(0, 1) * level
    return psi + torch.where(occupied, kick.to(psi.dtype), 0.0)


def _several_components(name: str, psi: Tensor) -> int:
    """d, which must be 2 or more for the channel `name`."""
    d = psi.shape[1] // 2
    if d < 2:
        raise UserError(f"noise={name} needs `model.d_state` of at least 2, got 1")
    return d


def _below(words: Tensor, count: int) -> Tensor:
    """Words as integers, uniform in 0..count-1."""
    return (words * count) >> 32


def _clock(psi: Tensor, k: Tensor) -> Tensor:
    """Z^k: component j times exp(2 pi i j k / d); k: (B, H, W)."""
    re, im = psi.chunk(2, dim=1)
    d = re.shape[1]
    j = torch.arange(d, device=psi.device)[None, :, None, None]
    angle = 2 * math.pi / d * ((j * k.unsqueeze(1)) % d).double()
    cos, sin = torch.cos(angle).to(psi.dtype), torch.sin(angle).to(psi.dtype)
    return torch.cat([re * cos - im * sin, re * sin + im * cos], dim=1)


def _shift(psi: Tensor, k: Tensor) -> Tensor:
    """X^k: component j moves to (j + k) mod d; k: (B, H, W)."""
    d = psi.shape[1] // 2
    j = torch.arange(d, device=psi.device)[None, :, None, None]
    source = (j - k.unsqueeze(1)) % d
    return psi.gather(1, torch.cat([source, source + d], dim=1))


def _norm_ratio(wanted: Tensor, got: Tensor) -> Tensor:
    """||wanted(x)|| / ||got(x)||, 1 at vacuum: (B, 1, H, W). Constant for the gradient of vacuum."""
    before, after = energy_density(wanted).unsqueeze(1), energy_density(got).unsqueeze(1)
    occupied = after > 0
    return torch.sqrt(torch.where(occupied, before, 1.0) / torch.where(occupied, after, 1.0))


def channel(name: str) -> Channel | None:
    """The channel registered under `name` in ``atheria.noise``; None for ``none``.

    Raises:
        UserError: There is none of that name.
    """
    if name == "none":
        return None
    found: Channel = registry.load("atheria.noise", name)
    return found


_UNITARY: dict[Channel, str] = {
    phase_flip: "phase_flip",
    sign_flip: "sign_flip",
    seed_mix: "seed",
    dephasing: "dephasing",
    bit_flip: "bit_flip",
    depolarising: "depolarising",
}
"""Channels that act on a cell by a unitary that depends on the draws alone, and the extension's names."""


class _NativeUnitary(torch.autograd.Function):
    """Such a channel by the extension: linear in psi, and its adjoint is its inverse at the same draws."""

    @staticmethod
    def forward(ctx: Any, psi: Tensor, inverse: bool, use: tuple[Any, ...]) -> Tensor:
        ctx.inverse, ctx.use = inverse, use
        return _unitary(psi.detach(), inverse, use)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        change = _NativeUnitary.apply if gradient.requires_grad else _unitary
        return change(gradient, not ctx.inverse, ctx.use), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        pushed: Tensor = _NativeUnitary.apply(tangent, ctx.inverse, ctx.use)  # type: ignore[no-untyped-call]
        return pushed


def _unitary(psi: Tensor, inverse: bool, use: tuple[Any, ...]) -> Tensor:
    array = psi.resolve_neg().contiguous().numpy()
    return torch.from_numpy(_core.unitary_noise(array, inverse, *use))


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
    name = _UNITARY.get(noise)
    several = psi.shape[1] > 2  # with one component a channel may have to refuse, as it does in Python
    if name is None or psi.device.type != "cpu" or psi.dtype != torch.float32 or not several:
        return by_torch(noise, psi, level, seed, step, first_universe)
    use = name, level, seed, step, first_universe
    changed: Tensor = _NativeUnitary.apply(psi, False, use)  # type: ignore[no-untyped-call]
    return changed


def by_torch(
    noise: Channel, psi: Tensor, level: float, seed: int, step: int, first_universe: int = 0
) -> Tensor:
    """As `apply`, by the channel's own function: on any device, in float32 or float64; slower on the CPU."""
    universes, _, height, width = psi.shape
    lattice = Lattice(universes, height, width, psi.device, first_universe)
    origin = Lattice(universes, 1, 1, psi.device, first_universe)
    coin = Draws(seed, origin, step, COIN).uniform(1)[0]
    return noise(psi, level, Draws(seed, lattice, step, NOISE), coin)
