"""Things that are found by name: laws, losses, noise channels, from this package or any other.

A package adds its own by an entry point in the group ``atheria.laws``, ``atheria.losses`` or
``atheria.noise``.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from atheria.config import UserError


def names(group: str) -> list[str]:
    """The registered names of a group such as ``atheria.laws``, sorted."""
    return sorted(entry_points(group=group).names)


def load(group: str, name: str) -> Any:
    """The object registered under `name`; only its own module is imported.

    Raises:
        UserError: Nothing is registered under that name, or it cannot be imported.
    """
    found: list[EntryPoint] = list(entry_points(group=group, name=name))
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
