"""The seed's "unitary" UNet, by the name of what it does."""

import torch
from torch import Tensor

from atheria.laws.unet import UNetBody


class UNetProduct(UNetBody):
    """The UNet's complex output times psi, component by component. It is not unitary.

    Its parameters are named as the UNet's, as in the seed's checkpoints.
    """

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W), H and W multiples of 4."""
        out_re, out_im = self.network(psi).chunk(2, dim=1)
        re, im = psi.chunk(2, dim=1)
        return torch.cat([out_re * re - out_im * im, out_re * im + out_im * re], dim=1)
