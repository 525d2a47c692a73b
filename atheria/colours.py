"""Colours of numbers: sRGB as uint8 (..., 3), from maps whose lightness in Oklab says the size.

Oklab is the perceptual space of Ottosson (2020), https://bottosson.github.io/posts/oklab. Light is more than
dark, black is nothing; sizes are told apart by lightness alone, so by every eye and in grey. Only the hue of
`phase` is more than some eyes see: to a colour-blind one, two phases look alike; the view ``components``
shows them by signs.
"""

from functools import cache

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

Colours = NDArray[np.uint8]

GAIN_HUE, LOSS_HUE = np.deg2rad(60.0), np.deg2rad(250.0)
"""Orange and blue: far apart for protan, deutan and tritan eyes."""
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#7f5f00")
"""For curves; the first six of Okabe & Ito (2008), told apart by colour-blind eyes."""
_STEPS = 256
_PHASE_LIGHTNESS, _PHASE_CHROMA = 0.75, 0.125  # the most chroma that every hue has in sRGB at this lightness
_DARKEST, _LIGHTEST = 0.12, 0.84  # lightness of 0 and of the ends of the signed map
_SIGNED_CHROMA = ([0.0, 0.5, 1.0], [0.0, 0.13, 0.085])  # at these sizes: what both hues have in sRGB there


def sequential(share: NDArray[np.floating]) -> Colours:
    """Colours of shares 0..1 of the largest value: matplotlib's magma (Smith & van der Walt, 2015).

    Its lightness grows evenly from black, also to colour-blind eyes. What lies outside is clipped.
    """
    return _magma()[_index(share)]


def signed(share: NDArray[np.floating]) -> Colours:
    """Colours of shares -1..1: blue below 0, orange above, lighter the larger, nearly black at 0.

    The two halves are equally light. What lies outside is clipped.
    """
    return _signed_table()[_index((np.asarray(share) + 1) / 2)]


def phase(angle: NDArray[np.floating], brightness: NDArray[np.floating] | float = 1.0) -> Colours:
    """Colours of phases: a circle of equal lightness and chroma in Oklab, dimmed to black.

    Args:
        angle: In radians, any shape.
        brightness: 0..1, of a shape that fits.
    """
    lightness = np.full(np.shape(angle), _PHASE_LIGHTNESS)
    colour = oklab_to_srgb(
        np.stack([lightness, _PHASE_CHROMA * np.cos(angle), _PHASE_CHROMA * np.sin(angle)], axis=-1)
    )
    return _as_bytes(colour * np.clip(brightness, 0, 1)[..., None])


def oklab_to_srgb(lab: NDArray[np.floating]) -> NDArray[np.float64]:
    """Oklab (..., 3) to sRGB 0..1; what the screen cannot show is clipped."""
    lightness, a, b = np.moveaxis(np.asarray(lab, dtype=np.float64), -1, 0)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    curved = 1.055 * linear ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curved)


def _as_bytes(colour: NDArray[np.floating]) -> Colours:
    table: Colours = np.rint(255 * np.nan_to_num(colour)).astype(np.uint8)
    return table


def _index(share: NDArray[np.floating]) -> NDArray[np.intp]:
    index: NDArray[np.intp] = np.rint((_STEPS - 1) * np.clip(np.nan_to_num(share), 0, 1)).astype(np.intp)
    return index


@cache
def _magma() -> Colours:
    return _as_bytes(colormaps["magma"](np.linspace(0, 1, _STEPS))[:, :3])


@cache
def _signed_table() -> Colours:
    share = np.linspace(-1, 1, _STEPS)
    hue = np.where(share > 0, GAIN_HUE, LOSS_HUE)
    size = np.abs(share)
    chroma = np.interp(size, *_SIGNED_CHROMA)
    lightness = _DARKEST + (_LIGHTEST - _DARKEST) * size
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    return _as_bytes(oklab_to_srgb(lab))
