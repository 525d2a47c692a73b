"""Send what waits in the journals of runs: ``python -m atheria.sync``, or `sync` in a notebook."""

from collections.abc import Sequence

from atheria.cli import configure, main
from atheria.config import SyncConfig

JOB = "atheria.jobs.sync"


def sync(overrides: Sequence[str] = ()) -> int:
    """Sends what waits, as the command does with the same overrides.

    Args:
        overrides: For example ``["output=outputs"]``.

    Returns:
        How many records still wait.

    Raises:
        UserError: See `atheria.jobs.sync`.
    """
    result: int = configure("sync", SyncConfig, JOB, overrides)()
    return result


if __name__ == "__main__":
    main("sync", SyncConfig, JOB)
