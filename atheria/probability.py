"""Shares and their entropy where there may be nothing to share."""

import torch
from torch import Tensor


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The ratio numerator / denominator, and 0 where the denominator is 0; shapes broadcast."""
    present = denominator != 0
    return torch.where(present, numerator / torch.where(present, denominator, 1.0), 0.0)


def entropy(p: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """-sum p ln p over `dim`, in nats; p = 0 adds nothing (Shannon, 1948)."""
    return -torch.xlogy(p, p).sum(dim=dim)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean over the cells that are chosen, 0 if none is: (B, H, W) and bool (B, H, W) -> (B,)."""
    total = torch.where(chosen, values, 0.0).sum(dim=(1, 2))
    return ratio(total, chosen.sum(dim=(1, 2)))
