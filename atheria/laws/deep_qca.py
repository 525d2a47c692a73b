"""The seed's quantum cellular automaton: a perceptron on the sum of the neighbours."""

import torch
from torch import Tensor

from atheria.laws import Law
from atheria.laws.blocks import PerceptronConfig, fixed_filters, perceptron

COPIES = 8
"""How often each channel's sum is repeated, as in the seed's checkpoints."""


class DeepQCA(Law):
    """The sum of the 8 neighbours (fixed), then 1x1 convolutions with ELU: 16d -> h -> h -> 2d.

    Args:
        config: Sizes.
        boundary: What neighbours there are beyond the edge, ``torus`` or ``zeros``.
    """

    Config = PerceptronConfig

    def __init__(self, config: PerceptronConfig, boundary: str) -> None:
        super().__init__()
        self.stride = 1
        self.receptive_radius = 1
        channels = 2 * config.d_state
        neighbours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
        self.conv_neighbors = fixed_filters([neighbours] * COPIES, channels, boundary)
        self.processing_net = perceptron(COPIES * channels, config.hidden_channels, channels, config.bias)

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W)."""
        delta: Tensor = self.processing_net(self.conv_neighbors(psi))
        return delta
