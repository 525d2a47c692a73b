"""The law of isolated cells."""

from torch import Tensor

from atheria.laws import Law
from atheria.laws.blocks import PerceptronConfig, perceptron


class MLP(Law):
    """A 1x1 multilayer perceptron with ELU: 2d -> h, h -> h, h -> 2d.

    Args:
        config: Sizes.
        boundary: Without effect, since no cell sees another.
    """

    Config = PerceptronConfig

    def __init__(self, config: PerceptronConfig, boundary: str) -> None:
        super().__init__()
        self.stride = 1
        self.receptive_radius = 0
        channels = 2 * config.d_state
        self.net = perceptron(channels, config.hidden_channels, channels, config.bias)

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W)."""
        delta: Tensor = self.net(psi)
        return delta
