"""The form of growing neural cellular automata."""

import torch
from torch import Tensor, nn

from atheria.laws import Law
from atheria.laws.blocks import PerceptronConfig, elu, fixed_filters, last_layer

IDENTITY = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
SOBEL_X = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
LAPLACIAN = torch.tensor([[1.0, 2.0, 1.0], [2.0, -12.0, 2.0], [1.0, 2.0, 1.0]]) / 16


class NCA(Law):
    """Fixed perception of each channel (identity, Sobel x and y, Laplacian), then a 1x1 update.

    Mordvintsev et al., Growing neural cellular automata (Distill, 2020): 8d -> h with ELU -> 2d.

    Args:
        config: Sizes.
        boundary: What neighbours there are beyond the edge, ``torus`` or ``zeros``.
    """

    Config = PerceptronConfig

    def __init__(self, config: PerceptronConfig, boundary: str) -> None:
        super().__init__()
        self.stride = 1
        self.receptive_radius = 1
        channels, hidden = 2 * config.d_state, config.hidden_channels
        filters = [IDENTITY, SOBEL_X, SOBEL_X.T, LAPLACIAN]
        self.perceive = fixed_filters(filters, channels, boundary)
        self.update = nn.Sequential(
            nn.Conv2d(len(filters) * channels, hidden, 1, bias=config.bias),
            elu(),
            last_layer(hidden, channels, config.bias),
        )

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W)."""
        delta: Tensor = self.update(self.perceive(psi))
        return delta
