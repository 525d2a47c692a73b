"""Writes the film of the README, docs/walk.gif: ``python tools/film.py [FOLDER]``."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from atheria.rollout import rollout  # noqa: E402
from atheria.train import train  # noqa: E402


def main(folder: Path) -> None:
    """Trains a quantum walk, whose waves are something to see, and films it natively."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        run = train(
            ["model=quantum_walk", "model.d_state=5", "physics.gamma=0", "noise=none", "trainer.grid=24",
             "trainer.episodes=150", "trainer.lr=2e-2", "tracking=off"]
        )  # fmt: skip
        rolled = rollout(
            [f"law={run.law}", "steps=80", "grid=128", "initial_state=particles", "initial_state.count=6",
             "film=gif", "film_every=2", "film_scale=0.02", "tracking=off"]
        )  # fmt: skip
        assert rolled.film is not None
        shutil.copyfile(rolled.film, folder / "walk.gif")
        os.chdir(ROOT)


if __name__ == "__main__":
    main((Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs").resolve())
