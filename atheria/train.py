"""Train a law: ``python -m atheria.train``, or `train` in a notebook."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atheria.cli import configure, main
from atheria.config import TrainConfig
from atheria.launch import place

if TYPE_CHECKING:
    from atheria.jobs.train import TrainedRun

JOB = "atheria.jobs.train"


def train(overrides: Sequence[str] = ()) -> "TrainedRun":
    """Trains a law, as the command does with the same overrides.

    Args:
        overrides: For example ``["trainer=v4", "model=unet", "seed=7"]``.

    Returns:
        The run: its ID, its store, its last metrics and where its law is.

    Raises:
        UserError: See `atheria.jobs.train`.
    """
    run: TrainedRun = configure("train", TrainConfig, JOB, overrides)()
    return run


if __name__ == "__main__":
    main("train", TrainConfig, JOB, sweep="atheria.jobs.sweep", speaks=place().is_first)
