"""Snapshots in files: a universe that goes on in another process, bit for bit."""

import os
from pathlib import Path

import numpy as np

from ._core import Snapshot

__all__ = ["load_snapshot", "save_snapshot"]

FORMAT = 1


def save_snapshot(snapshot: Snapshot, path: str | os.PathLike[str]) -> None:
    """Writes a snapshot to a file, which appears whole or not at all.

    It is NumPy's ``.npz``: `psi` (B, 2d, H, W) of a grid; of an unbounded universe its tiles of 8 x 8 cells.
    The law is not in it.

    Args:
        snapshot: What `Engine.snapshot` returned.
        path: The file; its folder is made.

    Raises:
        OSError: It cannot be written.
    """
    from atheria.files import atomically

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, format=FORMAT, **snapshot.__getstate__())

    atomically(Path(path), write)


def load_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """Reads a snapshot that `save_snapshot` wrote, for `Engine.restore`.

    Raises:
        ValueError: The file is missing, damaged, or no snapshot.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            state = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ValueError(
            f"`path` must be a snapshot's file, got '{os.fspath(path)}', which is not there"
        ) from None
    except Exception as error:  # zipfile and numpy raise nearly everything at what is damaged
        raise ValueError(f"'{os.fspath(path)}' is no snapshot, or damaged: {error}") from error
    if not np.array_equal(state.pop("format", None), FORMAT):
        raise ValueError(
            f"'{os.fspath(path)}' is no snapshot of this version; write one with atheria_core.save_snapshot"
        )
    snapshot = Snapshot.__new__(Snapshot)
    snapshot.__setstate__({name: array if array.ndim else array.item() for name, array in state.items()})
    return snapshot
