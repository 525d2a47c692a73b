"""The law of isolated cells."""

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from atheria.config import SCHEMA, Components
from atheria.laws import Law
from atheria.laws.blocks import Width, last_layer


class MLP(Law):
    """A 1x1 multilayer perceptron with ELU: 2d -> h, h -> h, h -> 2d.

    Args:
        config: Sizes.
        boundary: Without effect, since no cell sees another.
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
        self.receptive_radius = 0
        channels, hidden = 2 * config.d_state, config.hidden_channels
        self.net = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=config.bias),
            nn.ELU(),
            nn.Conv2d(hidden, hidden, 1, bias=config.bias),
            nn.ELU(),
            last_layer(hidden, channels, config.bias),
        )

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W)."""
        delta: Tensor = self.net(psi)
        return delta
