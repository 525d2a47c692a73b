"""Colours by which the page shows a byte: 256 colours a map, sRGB."""

from base64 import b64encode

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from atheria import colours


def tables() -> dict[str, NDArray[np.uint8]]:
    """The colours of each view, (256, 3); perceptually uniform, and safe for colour-blind eyes."""
    share = np.linspace(0, 1, 256)
    change = (
        colormaps["viridis"](np.arange(256))[:, :3] * share[:, None] ** 0.4
    )  # none is black, as no density is
    return {
        "density": colours.sequential(share),
        "phase": colours.phase(np.linspace(-np.pi, np.pi, 256, endpoint=False)),
        "component": colours.signed(np.linspace(-1, 1, 256)),
        "change": np.rint(255 * change).astype(np.uint8),
    }


def encoded() -> dict[str, str]:
    """The same in base 64, as JSON carries it."""
    return {name: b64encode(table.tobytes()).decode() for name, table in tables().items()}
