"""Atheria's native engine: laws rolled out in C++, fetched by run ID.

>>> engine = atheria_core.Engine.from_run(run_id)
>>> engine.step_native(1000)
"""

from ._torch_version import check as _check

_check()

import torch as _torch  # noqa: E402, F401  the extension links to the libraries that torch loads

from .engine import Engine, Snapshot  # noqa: E402

__all__ = ["Engine", "Snapshot"]
