"""A spiking UNet."""

import math
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from atheria.config import SCHEMA
from atheria.laws import Law
from atheria.laws.blocks import (
    Conv3x3,
    ConvolutionConfig,
    last_layer,
    make_norm,
    receptive_radius,
)

BETA = 0.85
"""Share of its membrane potential that a neuron keeps from one inner time step to the next."""

THRESHOLD = 1.0
"""Potential at which a neuron fires; it is lowered by as much when it does."""


class SNNUNet(Law):
    """Leaky integrate-and-fire units on a UNet of one pooling, read out from a membrane that never fires.

    Each step of the law runs `inner_steps` time steps on the constant input psi. The gradient of a
    spike is that of an arctangent (Fang et al., 2021). c channels at full, 2c at half resolution.

    Args:
        config: Sizes, norm and inner time steps.
        boundary: Padding of the convolutions, ``torus`` or ``zeros``.
    """

    @dataclass(config=SCHEMA, frozen=True)
    class Config(ConvolutionConfig):
        """Sizes, norm and bias, and `inner_steps` n."""

        inner_steps: Annotated[int, Field(ge=1, le=64)]

    channels_last = True

    def __init__(self, config: Config, boundary: str) -> None:
        super().__init__()
        self.stride = 2
        local = config.norm == "pixel"
        self.receptive_radius = receptive_radius([1, "up", 1, "down", 1], stride=2) if local else None
        self.inner_steps = config.inner_steps
        self.beta, self.threshold = BETA, THRESHOLD  # scripting sees no globals
        c = config.hidden_channels

        def synapses(channels_in: int, channels_out: int) -> nn.Sequential:
            norm = make_norm(config.norm, channels_out, config.bias)
            return nn.Sequential(Conv3x3(channels_in, channels_out, boundary), norm)

        self.encoder = synapses(2 * config.d_state, c)
        self.pool = nn.MaxPool2d(2)
        self.bottom = synapses(c, 2 * c)
        self.up = nn.ConvTranspose2d(2 * c, c, 2, stride=2, bias=config.bias)
        self.decoder = synapses(2 * c, c)
        self.outc = last_layer(c, 2 * config.d_state, config.bias)

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W), H and W multiples of 2."""
        current = self.encoder(psi)
        full = torch.zeros_like(current)
        half = torch.zeros_like(self.bottom(self.pool(current)))
        merged = torch.zeros_like(current)
        membrane = torch.zeros_like(psi)
        for _ in range(self.inner_steps):
            full, spikes = self.fire(self.beta * full + current)
            half, deep = self.fire(self.beta * half + self.bottom(self.pool(spikes)))
            merged, seen = self.fire(
                self.beta * merged + self.decoder(torch.cat([self.up(deep), spikes], dim=1))
            )
            membrane = self.beta * membrane + self.outc(seen)
        return membrane

    def fire(self, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """The membrane after firing, and the spikes: 0 or 1, with the arctangent's gradient."""
        excess = membrane - self.threshold
        smooth = torch.atan(math.pi * excess) / math.pi
        spikes = (excess > 0).to(membrane.dtype) + smooth - smooth.detach()
        return membrane - self.threshold * spikes.detach(), spikes
