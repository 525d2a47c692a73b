"""The harmonic vacuum: a small field of plane waves that laws read where there is no matter.

Component i of the cell at (x, y) at step t, the same in every universe:

    h_i = level / sqrt(4 d) sum_k exp(2 pi i (a x + b y + c t + f)),  k = 0..3

with a, b, c, f of each i and k uniform in [0, 1): the words of the counter (k, i, 0, VACUUM) over 2^32. The
mean of ||h||^2 over places and times is level^2, and ||h|| <= 2 level. It is never stored: in place of
delta = law(psi), a step has

    delta = law(psi + h in vacuum cells)      within the law's radius of matter, 0 elsewhere

and goes on from psi. The engine computes the same.
"""

import math

import torch
from torch import Tensor, nn

from atheria.config import PhysicsConfig, UserError
from atheria.philox import VACUUM, philox

WAVES = 4
"""Of each component."""

_MASK = 0xFFFFFFFF


def check(law: nn.Module, physics: PhysicsConfig) -> None:
    """Raises UserError where the physics has a harmonic vacuum that the law has no finite reach in."""
    if physics.harmonic == 0:
        return
    if getattr(law, "receptive_radius", None) is None or hasattr(law, "initial_memory"):
        raise UserError(
            "`physics.harmonic` needs a local law without memory: what vacuum does counts only within the "
            "law's radius of matter; choose a local one, as model.norm=pixel, or leave it 0"
        )


def waves(level: float, d_state: int, size: tuple[int, int], seed: int, step: int, like: Tensor) -> Tensor:
    """The field of the vacuum on a grid: (1, 2d, H, W), of the type and on the device of another tensor.

    Args:
        level: Root mean square of ||h||.
        d_state: Complex components of a cell.
        size: Height and width.
        seed: Key of the random numbers.
        step: Time.
        like: Any tensor.
    """
    index = torch.arange(WAVES, device=like.device)[:, None, None]
    component = torch.arange(d_state, device=like.device)[None, :, None]
    zero = torch.zeros_like(index)
    along_x, along_y, along_time, phase = philox((index, component, zero, zero + VACUUM), seed)
    height, width = (torch.arange(side, device=like.device) for side in size)
    columns = _phases(along_x * width)[:, :, None, :]
    rows = _phases(along_y * height + (along_time * (step & _MASK) + phase))[..., None]
    total = torch.view_as_real((columns * rows).sum(dim=0))
    field = level / math.sqrt(WAVES * d_state) * torch.cat([total[..., 0], total[..., 1]])
    return field.unsqueeze(0).to(like.dtype)


def near(occupied: Tensor, radius: int, torus: bool) -> Tensor:
    """Whether a cell is at most `radius` cells along x and y from an occupied one: bool (B, 1, H, W).

    Args:
        occupied: bool (B, 1, H, W).
        radius: 0 or more.
        torus: Whether the grid wraps.
    """
    return _any_along(_any_along(occupied, 2, radius, torus), 3, radius, torus)


def _phases(turns: Tensor) -> Tensor:
    """exp(2 pi i turns / 2^32): int64 -> complex128; products that overflow are right modulo 2^32."""
    angle = 2 * math.pi * ((turns & _MASK).double() * 2.0**-32)
    return torch.complex(angle.cos(), angle.sin())


def _any_along(present: Tensor, axis: int, radius: int, torus: bool) -> Tensor:
    size = present.shape[axis]
    if torus and 2 * radius + 1 >= size:
        return present.any(dim=axis, keepdim=True).expand_as(present)
    margin = min(radius, size)
    before, after = present.narrow(axis, size - margin, margin), present.narrow(axis, 0, margin)
    if not torus:
        before, after = torch.zeros_like(before), torch.zeros_like(after)
    sums = torch.cat([before, present, after], dim=axis).cumsum(dim=axis)
    sums = torch.cat([torch.zeros_like(sums.narrow(axis, 0, 1)), sums], dim=axis)
    return sums.narrow(axis, 2 * margin + 1, size) > sums.narrow(axis, 0, size)
