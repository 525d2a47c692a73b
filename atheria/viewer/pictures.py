"""A field as the page needs it: planes of bytes, one or two, for what it shows."""

import json
import struct
from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atheria.viewer.commands import Look

MOST_CELLS_ASIDE = 1024
"""Of a longer side, only every second, third, ... cell is shown."""

_BRIGHTEST = 99.5
"""Percentile that is shown brightest: a few hot cells hide no other."""
_SAMPLES = 8192
_FADING = 0.9
"""Of the brightest, from picture to picture where it falls: else the picture would flicker."""

Plane = NDArray[np.uint8]


class Moment(NamedTuple):
    """A universe at a step.

    Attributes:
        number: Counts the moments, steps or none between them.
        step: The engine's.
        psi: (2d, H, W) float32, never written to.
        observed: Observables by name, with their ``step``; of an earlier step where that is.
        rate: Steps a second that the engine does.
    """

    number: int
    step: int
    psi: NDArray[np.float32]
    observed: dict[str, float]
    rate: float


class Camera:
    """Pictures of one view, each of which is made once however many pages want it.

    Args:
        look: What is shown.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._top = 0.0
        self._step, self._shape = 0, (0, 0, 0)
        self._before: NDArray[np.float32] | None = None
        self._number, self._message = -1, b""

    def take(self, moment: Moment) -> bytes:
        """The picture of a moment, as a message: see `docs/viewer.md`."""
        if moment.number != self._number:
            psi = _thinned(moment.psi)
            if moment.step < self._step or psi.shape != self._shape:
                self._top, self._before = 0.0, None  # another universe
            planes = self._planes(psi)
            self._step, self._shape = moment.step, psi.shape
            self._number, self._message = moment.number, _packed(planes, self._header(moment, psi))
        return self._message

    def _planes(self, psi: NDArray[np.float32]) -> list[Plane]:
        look = self._look
        if look.view == "component":
            d_state = len(psi) // 2
            values = psi[look.component % d_state + (d_state if look.part == "im" else 0)]
            top = self._expose(np.abs(values))
            return [np.round(127.5 + values * (127.5 / top)).clip(0, 255).astype(np.uint8)]
        if look.view == "change":
            before, self._before = psi if self._before is None else self._before, psi
            return [self._bright(_norm(psi - before))]
        bright = self._bright(_norm(psi))
        if look.view == "density":
            return [bright]
        re, im = psi.reshape(2, -1, *psi.shape[1:]).sum(axis=1)
        re, im = np.nan_to_num(re), np.nan_to_num(im)
        turns = np.arctan2(im, re) * np.float32(256 / (2 * np.pi)) + np.float32(128.5)
        return [turns.astype(np.int16).astype(np.uint8), bright]

    def _bright(self, amplitude: NDArray[np.float32]) -> Plane:
        """By the square root of the density: faint matter stays visible."""
        return (amplitude * (255 / self._expose(amplitude))).clip(0, 255).astype(np.uint8)

    def _expose(self, sizes: NDArray[np.float32]) -> float:
        """The size that is shown brightest."""
        sample = sizes.ravel()[:: max(1, sizes.size // _SAMPLES)]
        now = float(np.percentile(sample.astype(np.float64), _BRIGHTEST)) or float(sizes.max())
        self._top = max(now, _FADING * self._top, 1e-12)
        return self._top

    def _header(self, moment: Moment, psi: NDArray[np.float32]) -> dict[str, Any]:
        look = self._look
        return {
            "step": moment.step,
            "view": look.view,
            "component": look.component % (len(psi) // 2),
            "part": look.part,
            "shape": psi.shape[1:],
            "grid": moment.psi.shape[1:],
            "brightest": self._top,
            "observed": finite(moment.observed),
            "rate": moment.rate,
        }


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them: it knows no infinity."""
    return {name: value if isfinite(value) else None for name, value in values.items()}


def _thinned(psi: NDArray[np.float32]) -> NDArray[np.float32]:
    every = -(-max(psi.shape[1:]) // MOST_CELLS_ASIDE)
    return psi[:, ::every, ::every]


def _norm(psi: NDArray[np.float32]) -> NDArray[np.float32]:
    """||psi(x)|| of each cell."""
    norm: NDArray[np.float32] = np.sqrt(np.einsum("chw,chw->hw", psi, psi))
    if np.isfinite(norm.max()):
        return norm
    largest = np.abs(psi).max()  # whose square is beyond float32, though it is not
    scaled = psi / largest
    with np.errstate(over="ignore"):
        norm = np.sqrt(np.einsum("chw,chw->hw", scaled, scaled)) * largest
    return norm.clip(max=np.finfo(np.float32).max)


def _packed(planes: list[Plane], header: dict[str, Any]) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([struct.pack("<I", len(text)), text, *(plane.tobytes() for plane in planes)])
