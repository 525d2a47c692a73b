"""A coined quantum walk: linear, unitary on the whole grid, and it transports."""

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from atheria.config import SCHEMA, Components, UserError
from atheria.laws import Law


class QuantumWalk(Law):
    """delta = (S C - 1) psi: a learned unitary coin C on each cell, then a shift S of the components.

    Component i moves one cell: right, left, down, up for i mod 4 = 0, 1, 2, 3 (Aharonov et al., 2001).
    C = exp(A) with A anti-Hermitian, in the real form [[X, -Y], [Y, X]] of X + iY: X antisymmetric,
    Y symmetric. The total norm is conserved to rounding; the law is linear and has no bias.

    Args:
        config: `d_state`, at least 2 so that something can move both ways.
        boundary: ``torus``; a wall would absorb what moves into it.

    Raises:
        UserError: The boundary is ``zeros``.
    """

    @dataclass(config=SCHEMA, frozen=True)
    class Config:
        """`d_state` complex components."""

        d_state: Components

    def __init__(self, config: Config, boundary: str) -> None:
        super().__init__()
        if boundary != "torus":
            raise UserError(
                f"`physics.boundary` must be torus for model=quantum_walk, got '{boundary}': its shift "
                "conserves the norm only where nothing can leave the grid"
            )
        self.stride = 1
        self.receptive_radius = 1
        self.d_state = config.d_state
        self.generator_re = nn.Parameter(0.5 * torch.randn(config.d_state, config.d_state))
        self.generator_im = nn.Parameter(0.5 * torch.randn(config.d_state, config.d_state))

    def coin(self) -> Tensor:
        """The coin as a real orthogonal matrix (2d, 2d)."""
        x = self.generator_re.double()
        y = self.generator_im.double()
        x, y = (x - x.t()) / 2, (y + y.t()) / 2
        generator = torch.cat([torch.cat([x, -y], dim=1), torch.cat([y, x], dim=1)], dim=0)
        unitary: Tensor = torch.linalg.matrix_exp(generator)
        return unitary

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W)."""
        turned = torch.einsum("ij,bjhw->bihw", self.coin().to(psi.dtype), psi)
        moved = torch.empty_like(turned)
        for direction, (step, axis) in enumerate([(1, 3), (-1, 3), (1, 2), (-1, 2)]):
            for half in range(2):
                first = half * self.d_state + direction
                end = (half + 1) * self.d_state
                moved[:, first:end:4] = turned[:, first:end:4].roll([step], [axis])
        return moved - psi
