"""Watch a law live in the browser: ``python -m atheria.view``, or `view` in a notebook."""

import os
from collections.abc import Sequence

from atheria.cli import configure, main
from atheria.config import ViewConfig

JOB = "atheria.jobs.view"


def view(overrides: Sequence[str]) -> None:
    """Serves the viewer until it is interrupted, as the command does with the same overrides.

    Args:
        overrides: For example ``["run_id=R", "grid=256"]``.

    Raises:
        UserError: See `atheria.jobs.view`.
    """
    configure("view", ViewConfig, JOB, overrides)()


if __name__ == "__main__":
    # Read when torch is loaded. The browser wants the cores too: OpenMP's threads, which spin while they wait
    # for each other, then take 30 ms for what takes one.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    main("view", ViewConfig, JOB)
