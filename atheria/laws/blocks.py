"""Parts that laws share."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from atheria.config import SCHEMA, Components

Norm = Literal["group", "pixel"]
Width = Annotated[int, Field(ge=1, le=4096)]

PADDING: dict[str, Literal["circular", "zeros"]] = {"torus": "circular", "zeros": "zeros"}


@dataclass(config=SCHEMA, frozen=True)
class PerceptronConfig:
    """Of laws of 1x1 layers: `d_state` components, `hidden_channels` h; `bias` keeps additive terms."""

    d_state: Components
    hidden_channels: Width
    bias: bool


@dataclass(config=SCHEMA, frozen=True)
class ConvolutionConfig:
    """Of laws of 3x3 blocks: `d_state` components, `hidden_channels` c; `norm` and `bias` of blocks."""

    d_state: Components
    hidden_channels: Width
    norm: Norm
    bias: bool


def perceptron(channels_in: int, hidden: int, channels_out: int, bias: bool) -> nn.Sequential:
    """1x1 convolutions with ELU, channels_in -> hidden -> hidden -> channels_out, near zero at the end."""
    return nn.Sequential(
        nn.Conv2d(channels_in, hidden, 1, bias=bias),
        elu(),
        nn.Conv2d(hidden, hidden, 1, bias=bias),
        elu(),
        last_layer(hidden, channels_out, bias),
    )


def elu() -> nn.ELU:
    """ELU in place: its gradient follows from its output, so the input need not be kept or exp repeated."""
    return nn.ELU(inplace=True)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps H and W.

    It is `nn.Conv2d` with ``padding=1`` in parameters and values; on a torus it trains faster.

    Args:
        channels_in: C_in.
        channels_out: C_out.
        boundary: ``torus`` or ``zeros``.
        groups: Groups of channels that are convolved apart.
        bias: Whether to add one.
    """

    def __init__(
        self, channels_in: int, channels_out: int, boundary: str, groups: int = 1, bias: bool = False
    ) -> None:
        mode = PADDING[boundary]
        super().__init__(channels_in, channels_out, 3, 1, 1, 1, groups, bias, padding_mode=mode)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W)."""
        if not torch.jit.is_scripting() and self.own_padding():  # type: ignore[attr-defined]
            return F.conv2d(pad_torus(x), self.weight, self.bias, 1, 0, 1, self.groups)
        y: Tensor = self._conv_forward(x, self.weight, self.bias)
        return y

    @torch.jit.unused
    def own_padding(self) -> bool:
        """Whether to pad by `pad_torus`; a compiler fuses the plain padding and takes no other."""
        return self.padding_mode == "circular" and not torch.compiler.is_compiling()


def pad_torus(x: Tensor) -> Tensor:
    """One cell of circular padding on each side: (B, C, H, W) -> (B, C, H + 2, W + 2).

    As `F.pad`, but it keeps the memory format, and its gradient adds the four edges to one copy where that
    of `F.pad` makes a field of zeros for each.
    """
    padded: Tensor = _PadTorus.apply(x)  # type: ignore[no-untyped-call]
    return padded


class _PadTorus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        memory_format = torch.channels_last if last else torch.contiguous_format
        shape = [batch, channels, height + 2, width + 2]
        padded = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)
        inner = padded[:, :, 1:-1]
        inner[..., 1:-1], inner[..., 0], inner[..., -1] = x, x[..., -1], x[..., 0]
        padded[:, :, 0], padded[:, :, -1] = inner[:, :, -1], inner[:, :, 0]
        return padded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rows = gradient[..., 1:-1].clone()
        rows[..., -1] += gradient[..., 0]
        rows[..., 0] += gradient[..., -1]
        cells = rows[:, :, 1:-1]
        cells[:, :, -1] += rows[:, :, 0]
        cells[:, :, 0] += rows[:, :, -1]
        return cells

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return pad_torus(tangent)


def fixed_filters(filters: Sequence[Tensor], channels: int, boundary: str) -> nn.Conv2d:
    """Every 3x3 filter on every channel, not trained: C -> len(filters) * C, channel by channel."""
    conv = Conv3x3(channels, len(filters) * channels, boundary, groups=channels)
    conv.weight.requires_grad_(False).copy_(torch.stack([*filters]).repeat(channels, 1, 1).unsqueeze(1))
    return conv


def last_layer(channels_in: int, channels_out: int, bias: bool) -> nn.Conv2d:
    """The 1x1 convolution that ends a law: near zero, so that training starts from the identity."""
    layer = nn.Conv2d(channels_in, channels_out, 1, bias=bias)
    nn.init.normal_(layer.weight, std=1e-5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def make_norm(kind: str, channels: int, bias: bool) -> nn.Module:
    """``group``: GroupNorm with the seed's groups, over the whole grid. ``pixel``: `PixelNorm`."""
    if kind == "pixel":
        return PixelNorm(channels, bias)
    groups = max(1, channels // 8)
    norm = nn.GroupNorm(groups if channels % groups == 0 else 1, channels)
    if not bias:
        norm.register_parameter("bias", None)
    return norm


def receptive_radius(path: Sequence[int | str], stride: int) -> int:
    """How far the output at a cell looks, over the phases of the cell in its pooling block.

    Args:
        path: The longest way back from the output: cells that a convolution widens by, ``up`` where
            the way leads to a coarser level (half the resolution), ``down`` where it comes back.
        stride: Cells of a pooling block.
    """
    radius = 0
    for phase in range(stride):
        first = last = phase
        for part in path:
            if part == "up":
                first, last = first // 2, last // 2
            elif part == "down":
                first, last = 2 * first, 2 * last + 1
            else:
                first, last = first - int(part), last + int(part)
        radius = max(radius, phase - first, last - phase)
    return radius


class PixelNorm(nn.Module):
    """Root mean square normalisation over the channels of each cell: local.

    y = x / sqrt(mean_c x_c^2 + eps) * weight + bias (Zhang & Sennrich, 2019, on each cell alone).

    Args:
        channels: C of an input (B, C, H, W).
        bias: Whether to add one; without, vacuum stays vacuum.
    """

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-5) * self.weight
        if self.bias is not None:
            y = y + self.bias
        return y


class ConvBlock(nn.Module):
    """(3x3 convolution, norm, ELU) twice: (B, C_in, H, W) -> (B, C_out, H, W)."""

    def __init__(self, channels_in: int, channels_out: int, norm: Norm, bias: bool, boundary: str) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            Conv3x3(channels_in, channels_out, boundary),
            make_norm(norm, channels_out, bias),
            elu(),
            Conv3x3(channels_out, channels_out, boundary),
            make_norm(norm, channels_out, bias),
            elu(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W)."""
        y: Tensor = self.conv_block(x)
        return y
