"""Pictures of a sweep: parallel coordinates, and bars of the results."""

from pathlib import Path

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from atheria.figures import save
from atheria.sweeps.report import Report, Row, brief

MOST_BARS = 40
_MAP = "viridis"


def parallel_coordinates(report: Report, path: Path) -> None:
    """Each finished point as a line through its settings, to its result, which colours it."""
    rows = [row for row in report.ranked if report.value(row) is not None]
    keys = [key for key in report.varied if len({row.point.varied.get(key) for row in rows}) > 1]
    axes = [_Axis([row.point.varied.get(key, "") for row in rows]) for key in keys]
    results = np.array([report.value(row) for row in rows], dtype=float)
    ends = (float(results.min()), float(results.max())) if len(results) else (0.0, 1.0)
    scale = Normalize(*ends)
    figure = Figure(figsize=(2.2 * (len(keys) + 1) + 1.5, 4.5), layout="constrained")
    plot = figure.subplots()
    for index in reversed(range(len(rows))):  # the best last, above the others
        heights = [axis.heights[index] for axis in axes] + [float(scale(results[index]))]
        plot.plot(heights, color=figure_colour(scale(results[index])), linewidth=1.5, alpha=0.8)
    for place, axis in enumerate(axes):
        plot.axvline(place, color="0.7", linewidth=1, zorder=0)
        for label, height in axis.ticks.items():
            plot.annotate(
                label, (place, height), xytext=(-4, 0), textcoords="offset points", ha="right", va="center",
                fontsize=8, bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8},
            )  # fmt: skip
    plot.axvline(len(keys), color="0.7", linewidth=1, zorder=0)
    for end in ends if len(results) else ():
        plot.annotate(
            f"{end:.4g}", (len(keys), float(scale(end))), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    plot.set_xticks(range(len(keys) + 1), [*(_short(key) for key in keys), report.metric])
    plot.set_xlim(-0.6, len(keys) + 0.5)
    plot.set_ylim(-0.06, 1.06)
    plot.set_yticks([])
    plot.spines[["left", "right", "top", "bottom"]].set_visible(False)
    plot.set_title(f"{len(rows)} of {len(report.rows)} points, {_better(report)}", fontsize=10)
    save(figure, path)


def bars(report: Report, path: Path) -> None:
    """The results of the best points, a bar each."""
    rows = [row for row in report.ranked if report.value(row) is not None][:MOST_BARS]
    values = [report.value(row) or 0.0 for row in rows]
    labels = [_label(row, report) for row in rows]
    figure = Figure(figsize=(8, 1.4 + 0.26 * max(len(rows), 1)), layout="constrained")
    plot = figure.subplots()
    plot.barh(range(len(rows)), values, color=["#21918c", *["#9fc8c8"] * (len(rows) - 1)][: len(rows)])
    for place, value in enumerate(values):
        plot.annotate(
            f"{value:.4g}", (value, place), xytext=(4 if value >= 0 else -4, 0), textcoords="offset points",
            va="center", ha="left" if value >= 0 else "right", fontsize=8,
        )  # fmt: skip
    plot.set_yticks(range(len(rows)), labels, fontsize=8)
    plot.invert_yaxis()
    plot.margins(x=0.12)
    plot.set_xlabel(report.metric)
    plot.spines[["right", "top"]].set_visible(False)
    shown = "" if len(rows) == len(report.rows) else f"{len(rows)} of {len(report.rows)} points, "
    plot.set_title(f"{shown}{_better(report)}", fontsize=10)
    save(figure, path)


class _Axis:
    """Where values stand on an axis from 0 to 1: numbers by their size, names in the order they come.

    Args:
        values: As they were written.
    """

    def __init__(self, values: list[str]) -> None:
        names = list(dict.fromkeys(values))
        try:
            places = {name: float(name) for name in names}
        except ValueError:
            places = {name: float(index) for index, name in enumerate(sorted(names))}
        else:
            if min(places.values()) > 0 and max(places.values()) > 30 * min(places.values()):
                places = {name: float(np.log(place)) for name, place in places.items()}
        low, high = min(places.values(), default=0.0), max(places.values(), default=1.0)
        spread = (high - low) or 1.0
        height = {name: (place - low) / spread for name, place in places.items()}
        self.heights = [height[value] for value in values]
        ordered = sorted(height, key=lambda name: height[name])
        labelled = ordered if len(ordered) <= 8 else [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
        self.ticks = {brief(name): height[name] for name in labelled}


def figure_colour(share: float) -> tuple[float, float, float, float]:
    """The colour of a share of the way from the lowest result to the highest."""
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps[_MAP](float(share) * 0.9)
    return red, green, blue, alpha


def _label(row: Row, report: Report) -> str:
    several = [key for key in report.varied if len({r.point.varied.get(key) for r in report.rows}) > 1]
    return (
        "  ".join(f"{_short(key)}={brief(row.point.varied.get(key, ''))}" for key in several)
        or row.point.label
    )


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _better(report: Report) -> str:
    return f"{'more' if report.maximize else 'less'} is better"
