"""The seed's quantum cellular automaton: a perceptron on the sum of the neighbours."""

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from atheria.config import SCHEMA, Components
from atheria.laws import Law
from atheria.laws.blocks import Width, fixed_filters, last_layer

COPIES = 8
"""How often each channel's sum is repeated, as in the seed's checkpoints."""


class DeepQCA(Law):
    """The sum of the 8 neighbours (fixed), then 1x1 convolutions with ELU: 16d -> h -> h -> 2d.

    Args:
        config: Sizes.
        boundary: What neighbours there are beyond the edge, ``torus`` or ``zeros``.
    """

    @dataclass(config=SCHEMA, frozen=True)
    class Config:
        """Sizes: `d_state` complex components, `hidden_channels` h; `bias` keeps additive terms."""

        d_state: Components
        hidden_channels: Width
        bias: bool

    def __init__(self, config: Config, boundary: str) -> None:
        super().__init__()
        self.stride = 1
        self.receptive_radius = 1
        channels, hidden = 2 * config.d_state, config.hidden_channels
        neighbours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
        self.conv_neighbors = fixed_filters([neighbours] * COPIES, channels, boundary)
        self.processing_net = nn.Sequential(
            nn.Conv2d(COPIES * channels, hidden, 1, bias=config.bias),
            nn.ELU(),
            nn.Conv2d(hidden, hidden, 1, bias=config.bias),
            nn.ELU(),
            last_layer(hidden, channels, config.bias),
        )

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W)."""
        delta: Tensor = self.processing_net(self.conv_neighbors(psi))
        return delta
