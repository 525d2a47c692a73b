"""Laws by name: ``forward(psi) -> delta``, or with memory ``forward(psi, memory) -> (delta, memory)``.

A law is an `nn.Module` that `torch.jit.script` takes, with a frozen dataclass `Config` as the first
argument of its constructor and the boundary (``torus`` or ``zeros``) as the second, and these
attributes: ``stride`` (H and W must be multiples of it) and ``receptive_radius`` (cells, or None where
the output at a cell depends on all of them). A law with memory has a method
``initial_memory(batch, height, width)``. Packages register theirs as entry points in ``atheria.laws``.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from atheria import registry
from atheria.config import UserError, validate


def build(model: Mapping[str, Any], boundary: str) -> nn.Module:
    """The law that a configuration names, with fresh weights.

    Args:
        model: ``name`` and the fields of that law's `Config`.
        boundary: ``torus`` or ``zeros``, baked into the convolutions.

    Raises:
        UserError: See `check`.
    """
    law, config = _resolve(model)
    built: nn.Module = law(config, boundary)
    return built


def check(model: Mapping[str, Any]) -> None:
    """Raises UserError if the name is not registered, or a field is unknown, missing or out of range."""
    _resolve(model)


def has_memory(law: nn.Module) -> bool:
    """Whether the law is of the form (psi, memory) -> (delta, memory)."""
    return hasattr(law, "initial_memory")


def _resolve(model: Mapping[str, Any]) -> tuple[Any, Any]:
    """The class and the configuration of a law."""
    name = model.get("name")
    if not isinstance(name, str):
        raise UserError(f"`model.name` must be a law's name, got {name!r}; choose one: model=unet")
    law = registry.load("atheria.laws", name)
    return law, validate(law.Config, {k: v for k, v in model.items() if k != "name"}, at="model")
