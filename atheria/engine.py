"""The native engine for a run, in one call.

>>> from atheria.engine import from_run
>>> engine = from_run(run_id)
>>> engine.step_native(1000)
"""

from typing import Any

from atheria_core import Engine


def from_run(run_id: str, tracking_uri: str | None = None, **engine_args: Any) -> Engine:
    """An engine with the law that a run exported; the universe that it describes has been started.

    Args:
        run_id: The run's ID.
        tracking_uri: MLflow store; None: ``MLFLOW_TRACKING_URI``, or the project's own.
        **engine_args: Passed to `atheria_core.Engine`: d_state, device, threads, precision, backend.

    Raises:
        UserError: There is no such run, it has no law, or the law does not match its digest.
    """
    return Engine.from_run(run_id, tracking_uri, **engine_args)
