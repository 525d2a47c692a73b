"""Pictures of fields: density, and phase by hue with brightness by density."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from atheria.files import atomically

DENSITY_COLOURS = "magma"
_CONTRAST = 0.5  # exponent of the density's scale: faint matter stays visible
_BRIGHTEST = 99.5  # percentile of matter's density that is shown brightest: a few hot cells hide no other
_SHOWN_ENERGY = 0.75  # share of the energy that is in cells as bright or brighter, lest faint tails decide


class Frame(NamedTuple):
    """A field at a step: psi is (2d, H, W) float32 of one universe."""

    step: int
    psi: NDArray[np.float32]


def spread(steps: int, frames: int) -> list[int]:
    """The steps of at most `frames` frames, evenly spread from 0 to `steps`, both included."""
    return sorted({round(i * steps / (frames - 1)) for i in range(frames)})


def strip(frames: Sequence[Frame], title: str, cells_a_pixel: int = 1) -> Figure:
    """A film strip: one column a frame, density above, phase below, a scale that all frames share.

    The phase is that of sum_i psi_i; its brightness is the cell's density.

    Args:
        frames: One column each.
        title: What they show.
        cells_a_pixel: Cells along a side of the block of which each pixel is the one with most energy.
    """
    figure = Figure(figsize=(1.9 * len(frames) + 1.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(frames), squeeze=False)
    densities = [density(frame.psi) for frame in frames]
    scale = PowerNorm(_CONTRAST, vmin=0.0, vmax=_brightest(np.stack(densities)), clip=True)
    for column, (frame, rho) in enumerate(zip(frames, densities, strict=True)):
        axes[0, column].imshow(rho, norm=scale, cmap=DENSITY_COLOURS, interpolation="nearest")
        axes[1, column].imshow(phase_image(frame.psi, scale), interpolation="nearest")
        axes[0, column].set_title(f"step {frame.step}", fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0, 0].set_ylabel("density")
    axes[1, 0].set_ylabel("phase")
    figure.colorbar(
        ScalarMappable(scale, DENSITY_COLOURS),
        ax=axes[0],
        label=r"$\rho$",
        pad=0.01,
        aspect=12,
        extend="max",
    )
    wheel = figure.colorbar(
        ScalarMappable(cmap=_phase_map()),
        ax=axes[1],
        label=r"$\arg \sum_i \psi_i$",
        pad=0.01,
        aspect=12,
    )
    wheel.set_ticks([0, 0.5, 1], labels=[r"$-\pi$", "0", r"$\pi$"])
    height, width = (side * cells_a_pixel for side in frames[0].psi.shape[1:])
    shown = "" if cells_a_pixel == 1 else f", a pixel the brightest of {cells_a_pixel} x {cells_a_pixel}"
    figure.suptitle(f"{title}, {height} x {width} cells{shown}", fontsize=10)
    return figure


def _brightest(density: NDArray[np.float64]) -> float:
    """The density that is shown brightest; 1 where there is no matter."""
    matter = np.sort(density[density > 0])
    if len(matter) == 0:
        return 1.0
    energy = np.cumsum(matter)
    dense = matter[np.searchsorted(energy, (1 - _SHOWN_ENERGY) * energy[-1])]
    return float(max(np.percentile(matter, _BRIGHTEST), dense))


def density(psi: NDArray[np.float32]) -> NDArray[np.float64]:
    """Energy of each cell: (2d, H, W) -> (H, W)."""
    rho: NDArray[np.float64] = np.square(psi, dtype=np.float64).sum(axis=0)
    return rho


def phase_image(psi: NDArray[np.float32], scale: PowerNorm) -> NDArray[np.float64]:
    """(2d, H, W) -> (H, W, 3) sRGB in 0..1."""
    re, im = np.split(psi, 2)
    phase = np.arctan2(im.sum(axis=0), re.sum(axis=0))
    brightness = np.asarray(scale(density(psi)))
    image: NDArray[np.float64] = phase_colours(phase) * brightness[..., None]
    return image


def phase_colours(phase: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colours of phases on a circle of equal lightness and chroma in Oklab (Ottosson, 2020).

    Args:
        phase: Angles in radians, any shape.

    Returns:
        sRGB in 0..1, shape (*phase.shape, 3).
    """
    lightness, chroma = 0.75, 0.125
    a, b = chroma * np.cos(phase), chroma * np.sin(phase)
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


def save(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Writes a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    atomically(path, lambda file: file.write_bytes(buffer.getvalue()))


def _phase_map() -> ListedColormap:
    return ListedColormap(phase_colours(np.linspace(-np.pi, np.pi, 256)))
