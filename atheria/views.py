"""Views of a field: which number of a cell is shown, and by which colours.

An image has a pixel a cell, y down and x to the right as in the field's last two axes. A scale's top is the
value that is shown lightest; one top serves all the frames that are to be compared.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atheria import colours
from atheria.colours import Colours

Field = NDArray[np.float32]
Values = NDArray[np.float64]

_CONTRAST = 0.5  # exponent of the density's scale: faint matter stays visible
_BRIGHTEST = 99.5  # percentile of matter that is shown lightest: a few hot cells hide no other
_SMALLEST = 1e-12
_GUTTER = 110  # grey between panels, which no map of colours has


class Frame(NamedTuple):
    """A field at a step.

    Attributes:
        step: The step.
        psi: (2d, H, W) float32 of one universe.
        before: The field one step earlier, of the same shape; None at the start.
    """

    step: int
    psi: Field
    before: Field | None = None


class View(ABC):
    """A way to look at a field.

    Attributes:
        name: What it is called.
        quantity: What its colours measure, for the legend.
        needs_before: Whether it looks at the field one step earlier, too.
    """

    name: str
    quantity: str
    needs_before = False

    @abstractmethod
    def values(self, frame: Frame) -> Values:
        """The numbers, of any shape, that the scale is chosen for."""

    @abstractmethod
    def image(self, frame: Frame, top: float) -> Colours:
        """The field (2d, H, W) as sRGB (H', W', 3)."""

    @abstractmethod
    def bar(self, places: Values) -> Colours:
        """Colours along the legend, whose ends are at places 0 and 1."""

    @abstractmethod
    def ticks(self, top: float) -> list[tuple[float, str]]:
        """Places on the legend, 0..1, and what stands there."""

    def palette(self, most: int) -> Colours:
        """At most so many colours, (N, 3), that images are made of, or nearly."""
        return self.bar(np.linspace(0, 1, most))

    def top(self, frames: Sequence[Frame]) -> float:
        """The top that suits some frames: all but the largest half per cent of what is not 0 is below it."""
        sizes = np.abs(np.stack([self.values(frame) for frame in frames]))
        finite = sizes[np.isfinite(sizes) & (sizes > 0)]
        return max(float(np.percentile(finite, _BRIGHTEST)), _SMALLEST) if finite.size else 1.0


class Density(View):
    """Energy of each cell, rho, on a square-root scale from black."""

    name, quantity = "density", "ρ"

    def values(self, frame: Frame) -> Values:
        """(H, W)."""
        return density(frame.psi)

    def image(self, frame: Frame, top: float) -> Colours:
        """(H, W, 3)."""
        return colours.sequential((self.values(frame) / top).clip(0, 1) ** _CONTRAST)

    def bar(self, places: Values) -> Colours:
        """Black to the lightest."""
        return colours.sequential(places)

    def ticks(self, top: float) -> list[tuple[float, str]]:
        """The middle of a square-root scale is a quarter of its top."""
        return [(0.0, "0"), (0.5, number(top / 4)), (1.0, "≥" + number(top))]


class Phase(Density):
    """arg sum_i psi_i by hue, of equal lightness in Oklab; brightness is the cell's density."""

    name, quantity = "phase", "arg Σ ψᵢ"

    def image(self, frame: Frame, top: float) -> Colours:
        """(H, W, 3)."""
        re, im = np.split(frame.psi, 2)
        brightness = (self.values(frame) / top).clip(0, 1) ** _CONTRAST
        return colours.phase(np.arctan2(im.sum(axis=0), re.sum(axis=0)), brightness)

    def palette(self, most: int) -> Colours:
        """Hues at several brightnesses."""
        shades = 10
        angle, shade = np.meshgrid(
            np.linspace(-np.pi, np.pi, most // shades, endpoint=False), np.arange(1, shades + 1) / shades
        )
        return colours.phase(angle.ravel(), shade.ravel())

    def bar(self, places: Values) -> Colours:
        """Once around."""
        return colours.phase(2 * np.pi * places - np.pi)

    def ticks(self, top: float) -> list[tuple[float, str]]:
        """Radians."""
        return [(0.0, "−π"), (0.5, "0"), (1.0, "π")]


class Signed(View):
    """What is below and above 0: blue and orange, alike in lightness."""

    def bar(self, places: Values) -> Colours:
        """From the lowest to the highest."""
        return colours.signed(2 * places - 1)

    def ticks(self, top: float) -> list[tuple[float, str]]:
        """Symmetric about 0."""
        return [(0.0, "≤−" + number(top)), (0.5, "0"), (1.0, "≥" + number(top))]


class Flow(Signed):
    """Net inflow of energy into each cell in the last step: rho(x, t) - rho(x, t - 1).

    This is the continuity equation, rho(x, t) - rho(x, t - 1) = s(x) - div j(x) (Landau & Lifshitz, *Quantum
    Mechanics*, section 19), with the current j and the source s left together. No current is drawn: Im psi*
    grad psi is the current of Schroedinger's equation, which a trained law does not obey, and the densities
    of two steps tell j from s only where a law is known to conserve. Orange gains, blue loses; at the start,
    before any step, nothing flows.
    """

    name, quantity = "flow", "Δρ in a step"
    needs_before = True

    def values(self, frame: Frame) -> Values:
        """(H, W)."""
        now = density(frame.psi)
        return np.zeros_like(now) if frame.before is None else now - density(frame.before)

    def image(self, frame: Frame, top: float) -> Colours:
        """(H, W, 3)."""
        return colours.signed(self.values(frame) / top)


class Components(Signed):
    """Each amplitude on its own: Re psi_i in the upper row of panels, Im psi_i below, i to the right."""

    name, quantity = "components", "Re ψᵢ / Im ψᵢ"

    def values(self, frame: Frame) -> Values:
        """(2d, H, W)."""
        return frame.psi.astype(np.float64)

    def image(self, frame: Frame, top: float) -> Colours:
        """(2 H + gutter, d W + gutters, 3)."""
        channels, height, width = frame.psi.shape
        gutter = max(1, min(height, width) // 32)
        rows, columns = 2, channels // 2
        panels = np.full(
            (rows * (height + gutter) - gutter, columns * (width + gutter) - gutter, 3), _GUTTER, np.uint8
        )
        for channel, values in enumerate(colours.signed(self.values(frame) / top)):
            y = (channel // columns) * (height + gutter)
            x = (channel % columns) * (width + gutter)
            panels[y : y + height, x : x + width] = values
        return panels


class Difference(View):
    """||psi(x) - phi(x)|| of each cell, on a linear scale from black.

    Args:
        reference: phi, (2d, H, W); None for the first field that is shown.
    """

    name, quantity = "difference", "‖ψ − ψ₀‖"

    def __init__(self, reference: Field | None = None) -> None:
        self._reference = reference

    def values(self, frame: Frame) -> Values:
        """(H, W)."""
        if self._reference is None:
            self._reference = frame.psi.copy()
        return np.sqrt(density(frame.psi - self._reference))

    def image(self, frame: Frame, top: float) -> Colours:
        """(H, W, 3)."""
        return colours.sequential(self.values(frame) / top)

    def bar(self, places: Values) -> Colours:
        """Black to the lightest."""
        return colours.sequential(places)

    def ticks(self, top: float) -> list[tuple[float, str]]:
        """Linear."""
        return [(0.0, "0"), (1.0, "≥" + number(top))]


VIEWS: dict[str, type[View]] = {view.name: view for view in (Density, Phase, Flow, Components, Difference)}


def density(psi: Field) -> Values:
    """Energy of each cell: (2d, H, W) -> (H, W)."""
    rho: Values = np.square(psi, dtype=np.float64).sum(axis=0)
    return rho


def number(value: float) -> str:
    """A number with two digits that count, as a legend has room for."""
    return f"{value:.2g}".replace("-", "−")
