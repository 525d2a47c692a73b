"""See and prune the cache of fetched laws: ``python -m atheria.cache``, or `cache` in a notebook."""

from collections.abc import Sequence
from pathlib import Path

from atheria.cli import configure, main
from atheria.config import CacheConfig

JOB = "atheria.jobs.cache"


def cache(overrides: Sequence[str] = ()) -> list[Path]:
    """Lists or prunes the cached laws, as the command does with the same overrides.

    Args:
        overrides: For example ``["prune=true"]``.

    Returns:
        The files that were removed.

    Raises:
        UserError: See `atheria.jobs.cache`.
    """
    result: list[Path] = configure("cache", CacheConfig, JOB, overrides)()
    return result


if __name__ == "__main__":
    main("cache", CacheConfig, JOB)
