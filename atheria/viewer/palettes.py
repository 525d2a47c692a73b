"""Colours by which the page shows a byte: 256 colours a map, sRGB."""

from base64 import b64encode

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from atheria.film import DENSITY_COLOURS, phase_colours

_SIGNS = (-1.9, 1.1)
"""Hues of negative and positive numbers, in radians: blue and orange, which all eyes tell apart."""


def tables() -> dict[str, NDArray[np.uint8]]:
    """The colours of each view, (256, 3); perceptually uniform, and safe for colour-blind eyes."""
    rise = np.linspace(0, 1, 256) ** 0.4  # no change is black, as no density is
    signed = np.linspace(-1, 1, 256)
    hues = phase_colours(np.where(signed < 0, *_SIGNS))
    return {
        "density": _bytes(colormaps[DENSITY_COLOURS](np.arange(256))[:, :3]),
        "phase": _bytes(phase_colours(np.linspace(-np.pi, np.pi, 256, endpoint=False))),
        "component": _bytes(hues * np.abs(signed)[:, None]),
        "change": _bytes(colormaps["viridis"](np.arange(256))[:, :3] * rise[:, None]),
    }


def encoded() -> dict[str, str]:
    """The same in base 64, as JSON carries it."""
    return {name: b64encode(table.tobytes()).decode() for name, table in tables().items()}


def _bytes(colours: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.round(255 * colours.clip(0, 1)).astype(np.uint8)
