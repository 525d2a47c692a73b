"""Writes the types of the native extension for mypy: ``make stubs``."""

import sys
from pathlib import Path

import torch  # noqa: F401  the extension links to the libraries that torch loads
from nanobind.stubgen import main

STUB = Path("engine_cpp/atheria_core/_core.pyi")


def write(path: Path) -> None:
    """Writes the stub of ``atheria_core._core``."""
    main(["-q", "-P", "-m", "atheria_core._core", "-o", str(path)])


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else STUB)
