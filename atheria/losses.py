"""Objectives: weighted sums of named terms, each computed per universe and then averaged.

A term is a function ``(initial, final) -> (B,)`` of the field before and after a rollout, both
(B, 2d, H, W), to minimise. The trainers differ in which terms they weigh, in the configuration.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from atheria import registry
from atheria.config import UserError
from atheria.field import modulus, total_energy

Term = Callable[[Tensor, Tensor], Tensor]

SURVIVING_SHARE = 0.8
"""Share of its energy that the multi-objective loss wants a universe to keep."""

AMPLITUDE_VARIANCE = 0.1
"""Variance of |psi| that the classic reward wants."""


def survival(initial: Tensor, final: Tensor) -> Tensor:
    """|N_T - 0.8 N_0| / N_0."""
    before = total_energy(initial)
    return (total_energy(final) - SURVIVING_SHARE * before).abs() / before.clamp_min(1e-12)


def symmetry(initial: Tensor, final: Tensor) -> Tensor:
    """Mean of (|psi_T| - |rot90 psi_T|)^2 over components and cells.

    Raises:
        UserError: The grid is not square, so it has no rotation by 90 degrees.
    """
    if final.shape[-1] != final.shape[-2]:
        raise UserError(
            "`trainer.loss.symmetry` needs a square `trainer.grid`, got "
            f"{final.shape[-2]} x {final.shape[-1]}; drop the term with ~trainer.loss.symmetry"
        )
    amplitude = modulus(final)
    return (amplitude - torch.rot90(amplitude, dims=(-2, -1))).square().mean(dim=(1, 2, 3))


def complexity(initial: Tensor, final: Tensor) -> Tensor:
    """-log of the standard deviation over cells of sum_i |psi_i|."""
    variance = modulus(final).sum(dim=1).var(dim=(1, 2), correction=0)
    return -0.5 * torch.log(variance + 1e-12)


def displacement(initial: Tensor, final: Tensor) -> Tensor:
    """Mean of |psi_T - psi_0| over components and cells: 0 for a law that does nothing."""
    return modulus(final - initial).mean(dim=(1, 2, 3))


def variance(initial: Tensor, final: Tensor) -> Tensor:
    """|Var |psi_T| - 0.1|, the variance over components and cells."""
    return (modulus(final).var(dim=(1, 2, 3), correction=0) - AMPLITUDE_VARIANCE).abs()


class Objective:
    """A weighted sum of terms.

    Args:
        weights: Name of each term and its weight.

    Raises:
        UserError: A term is not registered in ``atheria.losses``.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._terms: dict[str, tuple[Term, float]] = {
            name: (registry.load("atheria.losses", name), weight) for name, weight in weights.items()
        }

    def __call__(self, initial: Tensor, final: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and every term before its weight: scalars, averaged over universes."""
        terms = {name: term(initial, final).mean() for name, (term, _) in self._terms.items()}
        loss = torch.stack([weight * terms[name] for name, (_, weight) in self._terms.items()])
        return loss.sum(), terms
