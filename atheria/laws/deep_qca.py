"""The seed's quantum cellular automaton: a perceptron on the sum of the neighbours."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from atheria.config import UserError
from atheria.laws import Law
from atheria.laws.blocks import PerceptronConfig, fixed_filters, perceptron

COPIES = 8
"""How often the seed repeats each channel's sum."""


class DeepQCA(Law):
    """The sum of the 8 neighbours (fixed), then 1x1 convolutions with ELU: 16d -> h -> h -> 2d.

    The first layer sees eight copies of each channel's sum. They are computed once, and its weights are
    summed over them: the same function. `conv_neighbors` stands for the sum in checkpoints.

    Args:
        config: Sizes.
        boundary: What neighbours there are beyond the edge, ``torus`` or ``zeros``.
    """

    Config = PerceptronConfig

    def __init__(self, config: PerceptronConfig, boundary: str) -> None:
        super().__init__()
        self.stride = 1
        self.receptive_radius = 1
        self.torus = boundary == "torus"
        self.copies = COPIES  # scripting sees no globals
        channels = 2 * config.d_state
        neighbours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
        self.conv_neighbors = fixed_filters([neighbours] * COPIES, channels, boundary)
        self.processing_net = perceptron(COPIES * channels, config.hidden_channels, channels, config.bias)

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W)."""
        weight, bias = self.processing_net[0].weight, self.processing_net[0].bias
        assert isinstance(weight, Tensor)
        folded = weight.view(weight.shape[0], -1, self.copies, 1).sum(dim=2, keepdim=True)
        x = F.conv2d(self.sum_neighbours(psi), folded, bias)  # type: ignore[arg-type]
        for index, layer in enumerate(self.processing_net):
            if index > 0:
                x = layer(x)
        return x

    def sum_neighbours(self, psi: Tensor) -> Tensor:
        """Sum of each cell's 8 neighbours, (B, 2d, H, W): what `conv_neighbors` repeats eight times."""
        vertical = self.shift(psi, 1, 2) + self.shift(psi, -1, 2)
        column = vertical + psi
        return vertical + self.shift(column, 1, 3) + self.shift(column, -1, 3)

    def shift(self, x: Tensor, by: int, axis: int) -> Tensor:
        """The field moved by one cell, 1 or -1, along axis 2 or 3."""
        if self.torus:
            return x.roll([by], [axis])
        side = x.shape[axis]
        kept = x.narrow(axis, 0 if by > 0 else 1, side - 1)
        edge = torch.zeros_like(x.narrow(axis, 0, 1))
        return torch.cat([edge, kept] if by > 0 else [kept, edge], dim=axis)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        name = f"{prefix}conv_neighbors.weight"
        filters = state_dict.get(name)
        own = self.conv_neighbors.weight
        if filters is not None and filters.shape == own.shape and not torch.equal(filters.to(own), own):
            raise UserError(
                f"`{name}` of the checkpoint is not the sum of the 8 neighbours, which is all that "
                "model=deep_qca computes: its filters are fixed"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)
