"""A law that is unitary on every cell by construction."""

import torch
from torch import Tensor

from atheria.laws.blocks import ConvolutionConfig
from atheria.laws.unet import UNetBody


class UNetUnitary(UNetBody):
    """delta = (U(psi) - 1) psi with U unitary on the d components of each cell.

    A UNet predicts 2d - 1 angles a cell. U is a phase on each component, then rotations of the pairs
    (0, 1), (2, 3), ..., then of (1, 2), (3, 4), ...: a brick wall of Givens rotations. At gamma 0,
    epsilon 0 and without normalisation a step keeps each cell's norm to rounding.
    """

    channels_last = False  # the rotations cost what the convolutions gain

    def channels_out(self, config: ConvolutionConfig) -> int:
        """One angle for each component and for each pair of neighbours."""
        return 2 * config.d_state - 1

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W), H and W multiples of 4."""
        d = self.d_state
        angles = self.network(psi)
        re, im = psi[:, :d], psi[:, d:]
        cos, sin = torch.cos(angles[:, :d]), torch.sin(angles[:, :d])
        re, im = cos * re - sin * im, sin * re + cos * im
        even = d // 2
        re = self.rotate(re, angles[:, d : d + even], 0)
        im = self.rotate(im, angles[:, d : d + even], 0)
        re = self.rotate(re, angles[:, d + even :], 1)
        im = self.rotate(im, angles[:, d + even :], 1)
        return torch.cat([re, im], dim=1) - psi

    def rotate(self, part: Tensor, angles: Tensor, first: int) -> Tensor:
        """Rotates the pairs (first, first + 1), (first + 2, first + 3), ... of (B, d, H, W)."""
        pairs = angles.shape[1]
        end = first + 2 * pairs
        a, b = part[:, first:end:2], part[:, first + 1 : end : 2]
        cos, sin = torch.cos(angles), torch.sin(angles)
        turned = torch.stack([cos * a - sin * b, sin * a + cos * b], dim=2).flatten(1, 2)
        return torch.cat([part[:, :first], turned, part[:, end:]], dim=1)
