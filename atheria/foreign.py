"""Laws and noise channels of other packages, as options of the groups ``model`` and ``noise``."""

from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from importlib.resources import files
from typing import Any

from hydra.core.config_store import ConfigStore

from atheria import registry


def offer(overrides: Iterable[str]) -> None:
    """Makes what other packages registered selectable: ``model=their_law``, ``noise=their_channel``.

    A law is imported, for the fields of its `Config`, only where an override chooses it.

    Raises:
        UserError: The law that was chosen cannot be imported.
    """
    chosen = {name for line in overrides if line.startswith("model=") for name in line[6:].split(",")}
    for name in _unshipped("atheria.laws", "model"):
        settings = _fields(registry.load("atheria.laws", name).Config) if name in chosen else {}
        ConfigStore.instance().store(name, {"name": name} | settings, group="model")
    for name in _unshipped("atheria.noise", "noise"):
        ConfigStore.instance().store(name, {"name": name, "level": 0.05}, group="noise")


def _unshipped(group: str, folder: str) -> list[str]:
    shipped = {file.name.removesuffix(".yaml") for file in (files("atheria.conf") / folder).iterdir()}
    return [name for name in registry.names(group) if name not in shipped]


def _fields(config: Any) -> dict[str, Any]:
    """Fields of a dataclass and their defaults; ``???``, which Hydra demands, where there is none."""
    return {field.name: _default(field) for field in fields(config)}


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return "???" if field.default is MISSING else field.default
