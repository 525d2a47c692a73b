"""Roll a law out natively: ``python -m atheria.rollout``, or `rollout` in a notebook."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atheria.cli import configure, main
from atheria.config import RolloutConfig

if TYPE_CHECKING:
    from atheria.rolling import Rollout

JOB = "atheria.jobs.rollout"


def rollout(overrides: Sequence[str]) -> "Rollout":
    """Rolls a law out, as the command does with the same overrides.

    Args:
        overrides: For example ``["run_id=R", "steps=1000", "grid=256"]``.

    Returns:
        Observables over time, the last field and where the files are.

    Raises:
        UserError: See `atheria.jobs.rollout`.
    """
    result: Rollout = configure("rollout", RolloutConfig, JOB, overrides)()
    return result


if __name__ == "__main__":
    main("rollout", RolloutConfig, JOB)
