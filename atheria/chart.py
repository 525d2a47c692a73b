"""Line charts as SVG, for pages that fetch nothing."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from atheria.colours import CATEGORIES

WIDTH, HEIGHT = 400, 220
"""Of the drawing's own units; a page scales it."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 8, 34


class Line(NamedTuple):
    """A curve: its name, its steps and its values; those that are not finite are left out."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]


def chart(lines: Sequence[Line], axis: str, logarithmic: bool = False) -> str:
    """An SVG element with all lines that have a point, and a legend below it; empty where none has.

    Args:
        lines: The curves.
        axis: What the steps are, below the horizontal axis.
        logarithmic: Whether values stand by their logarithm; those not above 0 are left out.
    """
    drawn = [(line, _points(line, logarithmic)) for line in lines]
    drawn = [(line, points) for line, points in drawn if points]
    if not drawn:
        return ""
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    x_scale = _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    y_scale = _padded(min(ys), max(ys), 0.3 if logarithmic else 0.0)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(drawn[0][0].label)} by {axis}">'
    ]
    for value in (decades if logarithmic else ticks)(y_scale.low, y_scale.high, 5):
        y = y_scale(value)
        text = number(10**value if logarithmic else value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for value in ticks(x_scale.low, x_scale.high, 5):
        x = x_scale(value)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{number(value)}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">{escape(axis)}</text>')
    for index, (_, points) in enumerate(drawn):
        colour = CATEGORIES[index % len(CATEGORIES)]
        places = [(x_scale(x), y_scale(y)) for x, y in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="line" stroke="{colour}" d="M{path}"/>')
        if len(places) <= 32:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"/>' for x, y in places]
    names = [
        f'<span><i style="background:{CATEGORIES[index % len(CATEGORIES)]}"></i>{escape(line.label)}</span>'
        for index, (line, _) in enumerate(drawn)
    ]
    return "".join(parts) + "</svg>" + f'<p class="legend">{"".join(names)}</p>'


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most so many round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if (high - low) / (m * power) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)][:most]


def decades(low: float, high: float, most: int) -> list[float]:
    """Logarithms of at most so many round numbers between the powers of ten `low` and `high`."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for mantissas in ((1, 2, 5), (1,)):
        found = [power + math.log10(m) for power in powers for m in mantissas]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // most)]


def number(value: float) -> str:
    """A tick's value, short."""
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


class _Scale(NamedTuple):
    """Maps low..high to start..end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)


def _padded(low: float, high: float, least: float) -> _Scale:
    margin = max(0.04 * (high - low), least) or 0.05 * abs(high) or 1.0
    return _Scale(low - margin, high + margin, HEIGHT - _BOTTOM, _TOP)


def _points(line: Line, logarithmic: bool) -> list[tuple[int, float]]:
    points = [(x, y) for x, y in zip(line.steps, line.values, strict=True) if math.isfinite(y)]
    return [(x, math.log10(y)) for x, y in points if y > 0] if logarithmic else points
