"""How a law responds to symmetries and to perturbations, at the cost of a few hundred of its steps."""

from typing import Any

import torch

from atheria import initial_state, laws
from atheria.config import InitialStateConfig, PhysicsConfig, validate
from atheria.laws import Law
from atheria.philox import Lattice
from atheria.physics import Dynamics
from atheria.spreading import damage_spreading
from atheria.symmetries import equivariance_errors
from atheria.tangents import lyapunov_exponent, unitarity_error

UNIVERSES, STEPS, TRANSIENT = 2, 32, 8
_TANGENTS = 4


def fresh_law(config: dict[str, Any]) -> Law:
    """The law that a training began with, in evaluation mode: same architecture, same seed.

    Args:
        config: ``model``, ``physics`` and ``seed``, as `atheria.artifact.as_checkpoint` has them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        return laws.build(config["model"], config["physics"]["boundary"]).eval()


def responses(
    law: Law, config: dict[str, Any], initial: InitialStateConfig, grid: tuple[int, int], seed: int
) -> dict[str, float]:
    """Means over a few universes, without noise, from their initial states on.

    ``equivariance/d4``, ``/translation`` (by the law's stride), ``/u1``: see `atheria.symmetries`;
    ``unitarity_error``, ``lyapunov_exponent``: `atheria.tangents`; ``damage/fraction`` after STEPS steps and
    ``damage/speed``: `atheria.spreading`.

    Args:
        law: An eager module.
        config: Its ``model`` and ``physics``.
        initial: Kind of the initial states.
        grid: (H, W).
        seed: Of the states and of the update mask.
    """
    dynamics = Dynamics(law, validate(PhysicsConfig, config["physics"]), seed)
    lattice = Lattice(UNIVERSES, *grid, torch.device("cpu"))
    psi = initial_state.make(initial, int(config["model"]["d_state"]), lattice, seed)
    errors = equivariance_errors(lambda field: dynamics.step(dynamics.start(field)).psi, psi, law.stride)
    damage = damage_spreading(dynamics, psi, STEPS)
    values = {
        **{f"equivariance/{group}": error for group, error in errors.items()},
        "unitarity_error": unitarity_error(dynamics, psi, _TANGENTS),
        "lyapunov_exponent": lyapunov_exponent(dynamics, psi, STEPS, TRANSIENT),
        "damage/fraction": damage.fraction[-1],
        "damage/speed": damage.speed,
    }
    return {name: value.mean().item() for name, value in values.items()}
