"""Plots by matplotlib, written as PNG."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from atheria.files import atomically


def save(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Writes a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    atomically(path, lambda file: file.write_bytes(buffer.getvalue()))
