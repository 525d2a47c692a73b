"""Give a run's law a name in the registry: ``python -m atheria.promote``, or `promote` in a notebook."""

from collections.abc import Sequence

from atheria.cli import configure, main
from atheria.config import PromoteConfig

JOB = "atheria.jobs.promote"


def promote(overrides: Sequence[str] = ()) -> str:
    """Gives a run's law a name, as the command does with the same overrides.

    Args:
        overrides: For example ``["run_id=R", "alias=champion"]``.

    Returns:
        The name, as ``law=`` takes it: ``name@alias``.

    Raises:
        UserError: See `atheria.jobs.promote`.
    """
    result: str = configure("promote", PromoteConfig, JOB, overrides)()
    return result


if __name__ == "__main__":
    main("promote", PromoteConfig, JOB)
