"""Atheria's native engine: laws rolled out in C++, fetched by run ID.

>>> engine = atheria_core.Engine.from_run(run_id)
>>> engine.step_native(1000)
"""

from typing import TYPE_CHECKING

from ._torch_version import check as _check

_check()

import torch as _torch  # noqa: E402, F401  the extension links to the libraries that torch loads

from ._core import Snapshot  # noqa: E402
from .snapshots import load_snapshot, save_snapshot  # noqa: E402

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Engine", "Snapshot", "load_snapshot", "save_snapshot"]


def __getattr__(name: str) -> object:
    # Late, because `atheria`, which the engine's face builds on, draws its random numbers from the extension.
    if name == "Engine":
        from .engine import Engine

        return Engine
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
