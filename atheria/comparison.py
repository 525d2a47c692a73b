"""Laws side by side: a table and pictures of how each fared in the same conditions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from atheria import strip
from atheria.colours import CATEGORIES
from atheria.figures import save
from atheria.observables import LABELS
from atheria.tables import as_text
from atheria.views import Density, Frame, Phase

SHOWN = {
    "survival": "energy / energy at the start",
    **LABELS,
}
"""What tables and curves show of all that is measured."""
GREYS = ("#888888", "#aaaaaa", "#666666", "#bbbbbb", "#777777", "#999999", "#555555", "#cccccc")
_COLUMNS = 3


@dataclass(frozen=True)
class Condition:
    """Where a law is rolled out: grid (H, W), and noise at a level, 0 for none."""

    grid: tuple[int, int]
    noise: str
    level: float

    @property
    def key(self) -> str:
        """In the names of metrics."""
        return f"{self.grid[0]}x{self.grid[1]}" + ("-noise" if self.level > 0 else "")

    @property
    def name(self) -> str:
        """For people."""
        under = f"{self.noise} at {self.level:g}" if self.level > 0 else "no noise"
        return f"{self.grid[0]} x {self.grid[1]}, {under}"


@dataclass(frozen=True)
class Curves:
    """A rollout of several universes.

    Attributes:
        steps: (T,) when they were measured.
        values: (T, B) for each observable.
        frames: Universe 0 now and then.
        planned: The step that it should have come to; it stopped earlier if the field ceased to be finite.
    """

    steps: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    frames: list[Frame]
    planned: int


@dataclass(frozen=True)
class LawCurves:
    """A law in all conditions.

    Attributes:
        label: What it is called in tables and pictures.
        curves: By condition.
        responses: See `atheria.responses`.
        twin: The untrained law of its architecture; None for one that is untrained itself.
    """

    label: str
    curves: dict[Condition, Curves]
    responses: dict[str, float]
    twin: "LawCurves | None" = field(default=None, repr=False)


def with_twins(laws: Sequence[LawCurves]) -> list[LawCurves]:
    """The laws, and after them their untrained twins, each once."""
    twins = {id(law.twin): law.twin for law in laws if law.twin is not None}
    return [*laws, *twins.values()]


def tables(laws: Sequence[LawCurves], conditions: Sequence[Condition]) -> str:
    """Last values, mean ± standard deviation over universes: a table for each condition, a column a law."""
    columns = with_twins(laws)
    labels = [law.label for law in columns]
    parts = []
    for condition in conditions:
        rolled = [law.curves[condition] for law in columns]
        rows = [[name, *(_spread(curves.values[name][-1]) for curves in rolled)] for name in SHOWN]
        if any(curves.steps[-1] < curves.planned for curves in rolled):
            rows.append(["until step", *(str(curves.steps[-1]) for curves in rolled)])
        title = f"{condition.name}, step {max(curves.planned for curves in rolled)}"
        parts.append(as_text([[title, *labels], *rows], figures=True))
    names = list(columns[0].responses)
    rows = [[name, *(f"{law.responses[name]:.4g}" for law in columns)] for name in names]
    parts.append(as_text([["responses", *labels], *rows], figures=True))
    return "\n\n".join(parts)


def csv(laws: Sequence[LawCurves], conditions: Sequence[Condition]) -> str:
    """Last values of all that was measured, a line each; responses too."""
    lines = ["law,condition,step,observable,mean,standard_deviation"]
    for law in with_twins(laws):
        for condition in conditions:
            curves = law.curves[condition]
            for name, values in curves.values.items():
                last = values[-1]
                figures = f"{curves.steps[-1]},{name},{last.mean():.9g},{last.std():.9g}"
                lines.append(f'"{law.label}","{condition.name}",{figures}')
        lines += [f'"{law.label}",,,{name},{value:.9g},' for name, value in law.responses.items()]
    return "\n".join(lines) + "\n"


def plot(laws: Sequence[LawCurves], conditions: Sequence[Condition], path: Path) -> None:
    """Curves over the steps, means and standard deviations over universes; dashed under noise."""
    rows = -(-len(SHOWN) // _COLUMNS)
    figure = Figure(figsize=(3.7 * _COLUMNS, 2.5 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, sharex=True)
    for plot, (name, title) in zip(axes.flat, SHOWN.items(), strict=False):
        for law, colour in _coloured(laws):
            for condition in conditions:
                curves = law.curves[condition]
                mean, spread = curves.values[name].mean(axis=1), curves.values[name].std(axis=1)
                noisy = condition.level > 0
                label = law.label + (f", {condition.noise} {condition.level:g}" if noisy else "")
                style = "--" if noisy else "-"
                plot.plot(curves.steps, mean, style, color=colour, linewidth=1.5, label=label)
                plot.fill_between(
                    curves.steps, mean - spread, mean + spread, color=colour, alpha=0.13, linewidth=0
                )
        plot.set_title(title, fontsize=10)
        plot.spines[["right", "top"]].set_visible(False)
        plot.tick_params(labelsize=8)
    for plot in axes[-1]:
        plot.set_xlabel("step", fontsize=9)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), fontsize=8)
    height, width = conditions[0].grid
    universes = next(iter(laws[0].curves.values())).values["energy"].shape[1]
    figure.suptitle(f"{universes} unseen universes of {height} × {width} cells", fontsize=11)
    save(figure, path)


def gallery(laws: Sequence[LawCurves], condition: Condition, path: Path) -> None:
    """Universe 0 under each law, on scales that all share."""
    density, phase = Density(), Phase()
    rows = []
    heads: list[str] = []
    for law in with_twins(laws):
        frames = law.curves[condition].frames
        heads = max(heads, [f"step {frame.step}" for frame in frames], key=len)
        rows += [(law.label, density, frames), (law.label, phase, frames)]
    height, width = condition.grid
    title = f"one unseen universe of {height} × {width} cells, {condition.name.partition(', ')[2]}"
    strip.save(strip.sheet(rows, heads, title), path)


def _coloured(laws: Sequence[LawCurves]) -> list[tuple[LawCurves, str]]:
    trained = [(law, CATEGORIES[index % len(CATEGORIES)]) for index, law in enumerate(laws)]
    twins = with_twins(laws)[len(laws) :]
    return [*trained, *((twin, GREYS[index % len(GREYS)]) for index, twin in enumerate(twins))]


def _spread(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.4g} ± {values.std():.2g}"
