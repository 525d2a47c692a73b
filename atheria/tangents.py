"""How a step responds to infinitesimal perturbations.

Tangents are those of one step at a fixed draw of mask and noise, pushed forward through the law. Nothing
here keeps a graph.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from atheria.field import total_energy
from atheria.initial_state import random_states
from atheria.philox import Lattice
from atheria.physics import Dynamics, State
from atheria.probability import ratio

_TANGENT = 1 << 62
"""Flips a bit of the seed: a perturbation is never the state that a universe of that seed began with."""


@torch.inference_mode(False)  # in which tangents would be dropped without a word
@torch.no_grad()
def unitarity_error(dynamics: Dynamics, psi: Tensor, samples: int = 8) -> Tensor:
    """Mean over random tangents v of | ||Jv||^2 / ||v||^2 - 1 |, J the Jacobian of one step at psi.

    0 to rounding for every v when J is an isometry; of a linear law it does not depend on psi.

    Args:
        dynamics: Its law is an eager module: TorchScript loses tangents, which is refused.
        psi: (B, 2d, H, W).
        samples: How many tangents.

    Returns:
        float64 (B,), from 0; 0 for a universe without energy.

    Raises:
        ValueError: The law is scripted.
    """
    psi = psi.clone()  # an inference tensor becomes a plain one
    state = dynamics.start(psi)
    errors = []
    for sample in range(samples):
        tangent = _tangent(dynamics, psi, sample)
        _, pushed = _push(dynamics, state, tangent)
        growth = total_energy(pushed[0].double()) / total_energy(tangent[0].double())
        errors.append((growth - 1).abs())
    return torch.stack(errors).mean(dim=0) * (total_energy(psi.double()) > 0)


@torch.inference_mode(False)  # in which tangents would be dropped without a word
@torch.no_grad()
def lyapunov_exponent(dynamics: Dynamics, psi: Tensor, steps: int, transient: int = 0) -> Tensor:
    """The largest Lyapunov exponent along a trajectory, per step.

    The mean over steps of ln ||J v||, v carried along and normalised after each step (Benettin, Galgani,
    Giorgilli & Strelcyn, 1980). The tangent space is that of the field and of the law's memory. Jumps, as
    of the vacuum threshold, have no tangent: `damage_spreading` sees those. A spiking law's tangent is its
    surrogate's.

    Args:
        dynamics: Its law is an eager module: TorchScript loses tangents, which is refused.
        psi: The start, (B, 2d, H, W).
        steps: How many are averaged.
        transient: Steps before them in which v turns to where growth is largest.

    Returns:
        float64 (B,): above 0 for chaos, ln a for psi -> a psi, -inf where a tangent dies exactly; 0 for a
        universe without energy.

    Raises:
        ValueError: The law is scripted.
    """
    psi = psi.clone()  # an inference tensor becomes a plain one
    state = dynamics.start(psi)
    tangent = _normalise(_tangent(dynamics, psi, 0))[0]
    total = torch.zeros(len(psi), dtype=torch.float64, device=psi.device)
    for step in range(transient + steps):
        state, pushed = _push(dynamics, state, tangent)
        tangent, growth = _normalise(pushed)
        if step >= transient:
            total += growth.log()
    return torch.where(total_energy(psi.double()) > 0, total / steps, 0.0)


def _tangent(dynamics: Dynamics, psi: Tensor, sample: int) -> tuple[Tensor, ...]:
    """A random perturbation of the field, isotropic in each cell, and none of a memory."""
    batch, channels, height, width = psi.shape
    lattice = Lattice(batch, height, width, psi.device, dynamics.first_universe)
    field = random_states(channels // 2, lattice, dynamics.seed ^ _TANGENT, sample)
    memory = dynamics.start(psi).memory
    return (field,) if memory is None else (field, torch.zeros_like(memory))


def _push(dynamics: Dynamics, state: State, tangent: tuple[Tensor, ...]) -> tuple[State, tuple[Tensor, ...]]:
    """The state after one step, and where its Jacobian takes a tangent (of the field, of a memory)."""
    if isinstance(dynamics.law, torch.jit.ScriptModule):
        raise ValueError("TorchScript loses tangents; give the law itself, as atheria.laws.build makes it")
    # Not torch.func.jvp: its tensors have no storage, which the draws of random numbers read.
    with forward_ad.dual_level():
        fields = [
            forward_ad.make_dual(*pair)  # type: ignore[no-untyped-call]
            for pair in zip(_fields(state), tangent, strict=True)
        ]
        after = dynamics.step(_with_fields(state, fields))
        unpacked = [
            forward_ad.unpack_dual(field)  # type: ignore[no-untyped-call]
            for field in _fields(after)
        ]
    primals = [field.primal for field in unpacked]
    pushed = [
        torch.zeros_like(primal) if field.tangent is None else field.tangent
        for primal, field in zip(primals, unpacked, strict=True)
    ]
    return _with_fields(state, primals)._replace(step=after.step), tuple(pushed)


def _fields(state: State) -> tuple[Tensor, ...]:
    return (state.psi,) if state.memory is None else (state.psi, state.memory)


def _with_fields(state: State, fields: Sequence[Tensor]) -> State:
    return state._replace(psi=fields[0], memory=fields[1] if len(fields) > 1 else None)


def _normalise(tangent: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    """The tangent at length 1, and the length that it had, float64 (B,)."""
    squares = [part.double().square().flatten(start_dim=1).sum(dim=1) for part in tangent]
    length = torch.stack(squares).sum(dim=0).sqrt()
    unit = [ratio(part, length.float().view(-1, *[1] * (part.dim() - 1))) for part in tangent]
    return tuple(unit), length
