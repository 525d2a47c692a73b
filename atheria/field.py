"""The field ``psi``: shape (B, 2d, H, W), float32 (float64 in a training that wants it), planar.

Channels 0..d-1 are Re, d..2d-1 are Im of the d complex components of each cell; B counts independent
universes. Nothing in a step needs a complex tensor.
"""

import torch
from torch import Tensor


def to_complex(psi: Tensor) -> Tensor:
    """(B, 2d, H, W) float32 -> (B, d, H, W) complex64; of float64, complex128."""
    re, im = psi.chunk(2, dim=1)
    return torch.complex(re, im)


def from_complex(amplitudes: Tensor) -> Tensor:
    """(B, d, H, W) complex64 -> (B, 2d, H, W) float32; of complex128, float64."""
    return torch.cat([amplitudes.real, amplitudes.imag], dim=1)


def energy_density(psi: Tensor) -> Tensor:
    """Energy of each cell, rho = sum_i |psi_i|^2: (B, H, W)."""
    return psi.square().sum(dim=1)


def total_energy(psi: Tensor) -> Tensor:
    """Energy of each universe, N = sum_x rho(x): (B,)."""
    return energy_density(psi).sum(dim=(1, 2))


def modulus(psi: Tensor, floor: float = 1e-12) -> Tensor:
    """|psi_i| of each component: (B, d, H, W).

    Args:
        psi: (B, 2d, H, W).
        floor: Added under the root, so that the gradient is finite at 0.
    """
    re, im = psi.chunk(2, dim=1)
    return torch.sqrt(re.square() + im.square() + floor)
