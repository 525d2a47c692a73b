"""Laws and noise channels of other packages, as options of the groups ``model`` and ``noise``."""

from collections.abc import Iterable
from dataclasses import MISSING, fields
from importlib.resources import files
from typing import Any

from hydra.core.config_store import ConfigStore

from atheria import registry


def offer(overrides: Iterable[str]) -> None:
    """Makes what other packages registered selectable: ``model=their_law``, ``noise=their_channel``.

    A law is imported, for the fields of its `Config`, only where an override names it.
    """
    text = " ".join(overrides)
    for name in _unshipped("atheria.laws", "model"):
        settings = _fields(registry.load("atheria.laws", name).Config) if name in text else {}
        ConfigStore.instance().store(name, {"name": name} | settings, group="model")
    for name in _unshipped("atheria.noise", "noise"):
        ConfigStore.instance().store(name, {"name": name, "level": 0.05}, group="noise")


def _unshipped(group: str, folder: str) -> list[str]:
    shipped = {file.name.removesuffix(".yaml") for file in (files("atheria.conf") / folder).iterdir()}
    return [name for name in registry.names(group) if name not in shipped]


def _fields(config: Any) -> dict[str, Any]:
    """Fields of a dataclass and their defaults; ``???``, which Hydra demands, where there is none."""
    return {f.name: "???" if f.default is MISSING else f.default for f in fields(config)}
