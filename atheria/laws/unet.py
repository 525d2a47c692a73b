"""The seed's UNet; the names of its parameters are those of the seed's checkpoints."""

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from atheria.config import SCHEMA
from atheria.laws import Law
from atheria.laws.blocks import ConvBlock, Norm, Width, last_layer


class UNet(Law):
    """A UNet of two poolings on c, 2c, 4c and 8c channels (Ronneberger et al., 2015).

    Args:
        config: Sizes and norm.
        boundary: Padding of the convolutions, ``torus`` or ``zeros``.
    """

    @dataclass(config=SCHEMA, frozen=True)
    class Config:
        """Sizes: `d_state` complex components, `hidden_channels` c; `norm`, `bias` of the blocks."""

        d_state: Width
        hidden_channels: Width
        norm: Norm
        bias: bool

    def __init__(self, config: Config, boundary: str) -> None:
        super().__init__()
        self.stride = 4
        self.receptive_radius = _RADIUS if config.norm == "pixel" else None
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
        self.outc = last_layer(c, 2 * config.d_state, config.bias)

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W), H and W multiples of 4."""
        full = self.inc(psi)
        half = self.down1(full)
        quarter = self.bot(self.down2(half))
        half = self.conv_up1(torch.cat([self.up1(quarter), half], dim=1))
        full = self.conv_up2(torch.cat([self.up2(half), full], dim=1))
        delta: Tensor = self.outc(full)
        return delta


def _receptive_radius() -> int:
    """How far the output at a cell reaches, over the four phases of the cell in its pooling block."""
    block = 2  # two 3x3 convolutions

    def widen(span: tuple[int, int]) -> tuple[int, int]:
        return span[0] - block, span[1] + block

    def coarse(span: tuple[int, int]) -> tuple[int, int]:
        return span[0] // 2, span[1] // 2

    def fine(span: tuple[int, int]) -> tuple[int, int]:
        return 2 * span[0], 2 * span[1] + 1

    radius = 0
    for phase in range(4):
        half = widen(coarse(widen((phase, phase))))  # conv_up2, up2, conv_up1
        quarter = widen(widen(coarse(half)))  # up1, bot, down2
        span = widen(fine(widen(fine(quarter))))  # pooling, down1, pooling, inc
        radius = max(radius, phase - span[0], span[1] - phase)
    return radius


_RADIUS = _receptive_radius()
