"""MLflow's UI on the project's store: ``python -m atheria.ui``, or `ui` in a notebook."""

from collections.abc import Sequence

from atheria.cli import configure, main
from atheria.config import UiConfig

JOB = "atheria.jobs.ui"


def ui(overrides: Sequence[str] = ()) -> None:
    """Serves the UI until it is interrupted, as the command does with the same overrides.

    Args:
        overrides: For example ``["port=5000"]``.

    Raises:
        UserError: See `atheria.jobs.ui`.
    """
    configure("ui", UiConfig, JOB, overrides)()


if __name__ == "__main__":
    main("ui", UiConfig, JOB)
