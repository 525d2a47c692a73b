"""Laws by name: ``forward(psi) -> delta``, or with memory ``forward(psi, memory) -> (delta, memory)``.

A law is an `nn.Module` that `torch.jit.script` takes, with the attributes of `Law`. Its constructor takes
an instance of its own dataclass `Config`, and the boundary (``torus`` or ``zeros``). A law with memory has
a method ``initial_memory(batch, height, width)``, marked ``@torch.jit.export``. Packages register their
laws as entry points in ``atheria.laws``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from atheria import registry
from atheria.config import UserError, validate


class Law(nn.Module):
    """What every law has beside its weights; a module needs the attributes, not this base.

    Attributes:
        stride: H and W of a field must be multiples of it.
        receptive_radius: How far, in cells, the output at a cell looks; None for everywhere.
        channels_last: Whether the law trains faster with the channels innermost in memory, on a CPU in
            float32; a module may leave it out.
    """

    stride: int = 1
    receptive_radius: int | None = None
    channels_last: bool = False


def build(model: Mapping[str, Any], boundary: str) -> Law:
    """The law that a configuration names, with fresh weights.

    Args:
        model: ``name`` and the fields of that law's `Config`.
        boundary: ``torus`` or ``zeros``, baked into the convolutions.

    Raises:
        UserError: See `check`.
    """
    law, config = _resolve(model)
    built: Law = law(config, boundary)
    for attribute in ("stride", "receptive_radius"):
        if not hasattr(built, attribute):
            raise UserError(
                f"the law '{model['name']}' must have `{attribute}`; derive it from atheria.laws.Law"
            )
    return built


def check(model: Mapping[str, Any]) -> None:
    """Raises UserError if the name is not registered, or a field is unknown, missing or out of range."""
    _resolve(model)


def initial_memory(law: nn.Module, psi: Tensor) -> Tensor | None:
    """The memory that a law starts with on a field (B, 2d, H, W); None for a law without."""
    start: Callable[[int, int, int], Tensor] | None = getattr(law, "initial_memory", None)
    if start is None:
        return None
    batch, _, height, width = psi.shape
    return start(batch, height, width).to(psi)


def propose(law: nn.Module, psi: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What a law proposes, (B, 2d, H, W), and its next memory if it has one."""
    if memory is None:
        return law(psi), None
    delta, memory = law(psi, memory)
    return delta, memory


def _resolve(model: Mapping[str, Any]) -> tuple[Any, Any]:
    """The class and the configuration of a law."""
    name = model.get("name")
    if not isinstance(name, str):
        raise UserError(f"`model.name` must be a law's name, got {name!r}; choose one: model=unet")
    law = registry.load("atheria.laws", name)
    if "d_state" not in getattr(getattr(law, "Config", None), "__dataclass_fields__", {}):
        raise UserError(
            f"the law '{name}' must have a dataclass `Config` with a field `d_state`; it has none"
        )
    return law, validate(law.Config, {k: v for k, v in model.items() if k != "name"}, at="model")
