"""Things that are found by name: laws, losses, noise channels, from this package or any other.

A package adds its own by an entry point in the group ``atheria.laws``, ``atheria.losses`` or
``atheria.noise``.
"""

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any

from atheria.config import UserError


def names(group: str) -> list[str]:
    """The registered names of a group such as ``atheria.laws``, sorted."""
    return sorted(_registered(group).names)


def load(group: str, name: str) -> Any:
    """The object registered under `name`; only its own module is imported.

    Raises:
        UserError: Nothing is registered under that name, or it cannot be imported.
    """
    found: list[EntryPoint] = list(_registered(group).select(name=name))
    if not found:
        raise UserError(f"'{name}' is not registered in `{group}`; known: {', '.join(names(group))}")
    if len({entry.value for entry in found}) > 1:
        raise UserError(
            f"'{name}' is registered in `{group}` more than once: "
            f"{', '.join(sorted(entry.value for entry in found))}; rename or uninstall one"
        )
    try:
        return found[0].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"'{name}' of `{group}` cannot be imported: {error}") from error


def _registered(group: str) -> EntryPoints:
    places = [place for place in sys.path if Path(place).exists()]
    return _read(group, tuple((place, Path(place).stat().st_mtime_ns) for place in places))


@lru_cache(maxsize=8)
def _read(group: str, places: tuple[tuple[str, int], ...]) -> EntryPoints:
    """The entry points of a group, read again where a package may have come to the places, or left them."""
    return entry_points(group=group)
