"""The UNet with a memory."""

import torch
from torch import Tensor

from atheria.laws.blocks import Conv3x3, ConvolutionConfig
from atheria.laws.unet import UNetBody


class UNetConvLSTM(UNetBody):
    """The UNet with a ConvLSTM (Shi et al., 2015) at a quarter of the resolution, before the bottom.

    memory is (B, 8c, H/4, W/4): h and c of 4c channels each. Gates come from one 3x3 convolution of
    the input and h, in the order f, i, o, g.
    """

    def __init__(self, config: ConvolutionConfig, boundary: str) -> None:
        super().__init__(config, boundary)
        self.receptive_radius = None  # what a cell remembers has come from ever further away
        self.memory_channels = 8 * config.hidden_channels
        self.conv_gates = Conv3x3(
            8 * config.hidden_channels, 16 * config.hidden_channels, boundary, bias=config.bias
        )

    @torch.jit.export
    def initial_memory(self, batch: int, height: int, width: int) -> Tensor:
        """Nothing remembered: h = c = 0 for a field (batch, 2d, height, width)."""
        weight = self.conv_gates.weight
        return torch.zeros(
            [batch, self.memory_channels, height // 4, width // 4], dtype=weight.dtype, device=weight.device
        )

    def forward(self, psi: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2d, H, W) and memory -> (B, 2d, H, W) and the next memory."""
        full, half, quarter = self.encode(psi)
        hidden, cell = memory.chunk(2, dim=1)
        forget, write, show, candidate = self.conv_gates(torch.cat([quarter, hidden], dim=1)).chunk(4, dim=1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(write) * torch.tanh(candidate)
        hidden = torch.sigmoid(show) * torch.tanh(cell)
        return self.decode(full, half, hidden), torch.cat([hidden, cell], dim=1)
