"""The seed's UNet; the names of its parameters are those of the seed's checkpoints."""

import torch
from torch import Tensor, nn

from atheria.laws import Law
from atheria.laws.blocks import ConvBlock, ConvolutionConfig, last_layer, receptive_radius

RADIUS = receptive_radius([2, "up", 2, "up", 2, 2, "down", 2, "down", 2], stride=4)
"""Of a UNet with a local norm: conv_up2, conv_up1, bot, down2, down1, inc."""


class UNetBody(Law):
    """The network that the laws of the UNet family share: two poolings on c, 2c, 4c and 8c channels.

    Ronneberger, Fischer & Brox, 2015.

    Args:
        config: Sizes and norm.
        boundary: Padding of the convolutions, ``torus`` or ``zeros``.
    """

    Config = ConvolutionConfig
    channels_last = True

    def __init__(self, config: ConvolutionConfig, boundary: str) -> None:
        super().__init__()
        self.stride = 4
        self.receptive_radius = RADIUS if config.norm == "pixel" else None
        self.d_state = config.d_state
        c = config.hidden_channels

        def block(channels_in: int, channels_out: int) -> ConvBlock:
            return ConvBlock(channels_in, channels_out, config.norm, config.bias, boundary)

        def up(channels_in: int, channels_out: int) -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2, bias=config.bias)

        self.inc = block(2 * config.d_state, c)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), block(c, 2 * c))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), block(2 * c, 4 * c))
        self.bot = block(4 * c, 8 * c)
        self.up1 = up(8 * c, 4 * c)
        self.conv_up1 = block(6 * c, 4 * c)
        self.up2 = up(4 * c, 2 * c)
        self.conv_up2 = block(3 * c, c)
        self.outc = last_layer(c, self.channels_out(config), config.bias)

    def channels_out(self, config: ConvolutionConfig) -> int:
        """Channels of the network's output."""
        return 2 * config.d_state

    def encode(self, psi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 2d, H, W) -> c channels at full, 2c at half, 4c at a quarter of the resolution."""
        full = self.inc(psi)
        half = self.down1(full)
        return full, half, self.down2(half)

    def decode(self, full: Tensor, half: Tensor, quarter: Tensor) -> Tensor:
        """What `encode` gives -> (B, channels_out, H, W)."""
        half = self.conv_up1(torch.cat([self.up1(self.bot(quarter)), half], dim=1))
        full = self.conv_up2(torch.cat([self.up2(half), full], dim=1))
        output: Tensor = self.outc(full)
        return output

    def network(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, channels_out, H, W), H and W multiples of 4."""
        full, half, quarter = self.encode(psi)
        return self.decode(full, half, quarter)


class UNet(UNetBody):
    """The network's output as it is."""

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W), H and W multiples of 4."""
        return self.network(psi)
