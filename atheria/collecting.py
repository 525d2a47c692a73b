"""When a process looks for garbage: not while it imports, and never among what it has imported."""

import gc


def begin() -> None:
    """Collects from now on, among the objects that come after these."""
    gc.freeze()
    gc.enable()
