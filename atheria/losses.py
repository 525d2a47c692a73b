"""Objectives: weighted sums of named terms, each computed per universe.

A term is a function of a `Trajectory`, to minimise, that returns (B,). The trainers differ in which terms
they weigh, in the configuration.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from atheria import registry
from atheria.config import UserError
from atheria.field import energy_density, modulus, total_energy


class Trajectory(NamedTuple):
    """What terms may look at of a rollout of T steps; every field is (B, 2d, H, W).

    Attributes:
        initial: psi_0, where the universe began.
        previous: psi_{T-1}.
        final: psi_T.
        unnormalised: The last step before normalisation and noise.
    """

    initial: Tensor
    previous: Tensor
    final: Tensor
    unnormalised: Tensor


class Evaluation(NamedTuple):
    """An objective of each universe.

    Attributes:
        loss: (B,), the weighted sum.
        terms: Every term before its weight, (B,) each.
    """

    loss: Tensor
    terms: dict[str, Tensor]


Term = Callable[[Trajectory], Tensor]

SURVIVING_SHARE = 0.8
"""Share of its energy that the multi-objective loss wants a universe to keep."""

SURVIVAL_WIDTH = 0.1
"""Distance from that share within which the pull towards it weakens."""

AMPLITUDE_VARIANCE = 0.1
"""Variance of |psi| that the classic reward wants."""

OVERFLOW_BOUND = 3.0
"""Norm of a cell, before normalisation, above which it overflows; initial states have 1."""

_FLOOR = 1e-12
"""Added under roots and logarithms, so that gradients are finite."""


def survival(trajectory: Trajectory) -> Tensor:
    """|N_T - 0.8 N_0| / N_0; its gradient is that of Huber (1964), linear within 0.1 of the goal.

    The modulus' own gradient would never fade: near the goal its changes of sign drown all other terms.
    """
    before = total_energy(trajectory.initial)
    left = total_energy(trajectory.final)
    miss = (left - SURVIVING_SHARE * before) / before.clamp_min(_FLOOR)
    smooth = huber_loss(miss, torch.zeros_like(miss), reduction="none", delta=SURVIVAL_WIDTH) / SURVIVAL_WIDTH
    return smooth + (miss.abs() - smooth).detach()


def symmetry(trajectory: Trajectory) -> Tensor:
    """Mean of (|psi_T| - |rot90 psi_T|)^2 over components and cells.

    Raises:
        UserError: The grid is not square, so it has no rotation by 90 degrees.
    """
    height, width = trajectory.final.shape[-2:]
    if height != width:
        raise UserError(
            f"`trainer.loss.symmetry` needs a square `trainer.grid`, got {height} x {width}; "
            "drop the term with ~trainer.loss.symmetry"
        )
    amplitude = modulus(trajectory.final)
    return (amplitude - torch.rot90(amplitude, dims=(-2, -1))).square().mean(dim=(1, 2, 3))


def complexity(trajectory: Trajectory) -> Tensor:
    """-log of the standard deviation over cells of sum_i |psi_i|."""
    variance = modulus(trajectory.final).sum(dim=1).var(dim=(1, 2), correction=0)
    return -0.5 * torch.log(variance + _FLOOR)


def displacement(trajectory: Trajectory) -> Tensor:
    """Mean of |psi_T - psi_0| over components and cells: 0 for a law that does nothing."""
    return modulus(trajectory.final - trajectory.initial).mean(dim=(1, 2, 3))


def variance(trajectory: Trajectory) -> Tensor:
    """|Var |psi_T| - 0.1|, the variance over components and cells."""
    return (modulus(trajectory.final).var(dim=(1, 2, 3), correction=0) - AMPLITUDE_VARIANCE).abs()


def energy(trajectory: Trajectory) -> Tensor:
    """((N_T - N_0) / N_0)^2."""
    before = total_energy(trajectory.initial)
    return ((total_energy(trajectory.final) - before) / before.clamp_min(_FLOOR)).square()


def sparsity(trajectory: Trajectory) -> Tensor:
    """(sum_x ||psi_T(x)||)^2 / (M N_T): from 1/M for one occupied cell of M to 1 for equal ones.

    The square of Hoyer's ratio of norms (2004): it does not change with the scale of the field.
    """
    rho = energy_density(trajectory.final).flatten(1)
    total = torch.sqrt(rho + _FLOOR).sum(dim=1)
    return total.square() / (rho.shape[1] * rho.sum(dim=1).clamp_min(_FLOOR))


def total_variation(trajectory: Trajectory) -> Tensor:
    """Mean of ||psi_T(x + e) - psi_T(x)|| over neighbouring cells inside the grid, along both axes.

    The anisotropic form of Rudin, Osher & Fatemi (1992).
    """
    final = trajectory.final
    steps = [final.diff(dim=2), final.diff(dim=3)]
    norms = [torch.sqrt(energy_density(step) + _FLOOR).flatten(1) for step in steps]
    return torch.cat(norms, dim=1).mean(dim=1)


def overflow(trajectory: Trajectory) -> Tensor:
    """Mean of max(0, ||phi|| - 3)^2 over cells, phi the last step before normalisation."""
    norm = torch.sqrt(energy_density(trajectory.unnormalised) + _FLOOR)
    return (norm - OVERFLOW_BOUND).clamp_min(0).square().mean(dim=(1, 2))


def step_difference(trajectory: Trajectory) -> Tensor:
    """Mean of ||psi_T - psi_{T-1}||^2 over cells: 0 at a fixed point."""
    return energy_density(trajectory.final - trajectory.previous).mean(dim=(1, 2))


class Objective:
    """A weighted sum of terms.

    Args:
        weights: Name of each term and its weight.

    Raises:
        UserError: A term is not registered in ``atheria.losses``.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)
        self._terms: dict[str, Term] = {name: registry.load("atheria.losses", name) for name in weights}

    def __call__(self, trajectory: Trajectory) -> Evaluation:
        """The loss of each universe, and its terms."""
        terms = {name: term(trajectory) for name, term in self._terms.items()}
        weighted = [self.weights[name] * value for name, value in terms.items()]
        return Evaluation(torch.stack(weighted).sum(dim=0), terms)
