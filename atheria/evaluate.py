"""Evaluate laws on unseen states: ``python -m atheria.evaluate``, or `evaluate` in a notebook."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atheria.cli import configure, main
from atheria.config import EvaluateConfig

if TYPE_CHECKING:
    from atheria.jobs.evaluate import Evaluation

JOB = "atheria.jobs.evaluate"


def evaluate(overrides: Sequence[str]) -> "Evaluation":
    """Evaluates laws, as the command does with the same overrides.

    Args:
        overrides: For example ``["run_id=[R1,R2]", "steps=1000"]``.

    Returns:
        Observables over time of each law in each condition, its responses, and where the files are.

    Raises:
        UserError: See `atheria.jobs.evaluate`.
    """
    result: Evaluation = configure("evaluate", EvaluateConfig, JOB, overrides)()
    return result


if __name__ == "__main__":
    main("evaluate", EvaluateConfig, JOB)
