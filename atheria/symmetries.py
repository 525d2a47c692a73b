"""D4 and translations of the grid, and U(1): what acts on a field, and whether a map heeds it."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from atheria.field import from_complex, to_complex, total_energy
from atheria.probability import ratio

Action = Callable[[Tensor], Tensor]
"""Maps a field (B, C, H, W) to one of the same shape."""

PHASES = (1.0, 2.0, 3.0)
"""Angles in radians that stand for U(1): no finite group of phases contains them."""


def grid_symmetries(height: int, width: int) -> dict[str, Action]:
    """The elements of D4, the identity aside, that map an H x W grid onto itself.

    All seven on a square grid; on any other only the half turn and the two mirrors along the axes. They
    act about the middle of the grid on the last two axes and move cells alone: the components of a cell
    are scalars to them.
    """
    actions: dict[str, Action] = {
        "half_turn": partial(torch.flip, dims=(-2, -1)),
        "mirror_y": partial(torch.flip, dims=(-2,)),
        "mirror_x": partial(torch.flip, dims=(-1,)),
    }
    if height == width:
        actions |= {
            "quarter_turn": partial(torch.rot90, k=1, dims=(-2, -1)),
            "three_quarter_turn": partial(torch.rot90, k=3, dims=(-2, -1)),
            "diagonal": partial(torch.transpose, dim0=-2, dim1=-1),
            "antidiagonal": lambda field: field.transpose(-2, -1).flip(-2, -1),
        }
    return actions


def translation(dy: int, dx: int) -> Action:
    """The shift by (dy, dx) cells on a torus."""
    return partial(torch.roll, shifts=(dy, dx), dims=(-2, -1))


def global_phase(angle: float) -> Action:
    """U(1): psi -> exp(i angle) psi on a planar field (B, 2d, H, W); the angle is in radians."""
    factor = complex(math.cos(angle), math.sin(angle))
    return lambda psi: from_complex(to_complex(psi) * factor)


def equivariance_error(step: Action, psi: Tensor, act: Action) -> Tensor:
    """||F(g psi) - g F(psi)|| / ||F(psi)|| of a map F and a symmetry g, from 0: float64 (B,).

    0 where F(psi) has no energy.
    """
    image = step(psi)
    difference = step(act(psi)) - act(image)
    return ratio(total_energy(difference.double()).sqrt(), total_energy(image.double()).sqrt())


@torch.no_grad()
def equivariance_errors(step: Action, psi: Tensor, shift: int = 1) -> dict[str, Tensor]:
    """`equivariance_error` averaged over sampled elements of three groups: float64 (B,) each.

    ``d4``: the grid's point symmetries but the identity; of a grid that is not square only the half turn
    and the mirrors along its axes. ``translation``: by `shift` cells along y, along x and along both, on a
    torus. ``u1``: global phases of 1, 2 and 3 radians.

    Args:
        step: F, as ``lambda psi: dynamics.step(dynamics.start(psi)).psi``. A random mask or noise belongs
            to places, so it counts as an error of D4 and translations.
        psi: (B, 2d, H, W).
        shift: In cells; a law that pools is equivariant to multiples of its stride at most.
    """
    groups = {
        "d4": [*grid_symmetries(*psi.shape[-2:]).values()],
        "translation": [translation(shift, 0), translation(0, shift), translation(shift, shift)],
        "u1": [global_phase(angle) for angle in PHASES],
    }
    return {
        name: torch.stack([equivariance_error(step, psi, act) for act in actions]).mean(dim=0)
        for name, actions in groups.items()
    }
