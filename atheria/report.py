"""A run's report: one HTML file with everything in it, which MLflow's UI shows and a phone can read."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from atheria.chart import Line, chart
from atheria.history import Curve
from atheria.observables import LABELS

FILE_NAME = "report.html"
_TYPES = {".png": "image/png", ".gif": "image/gif"}
_OBSERVED = {"energy": "energy", **LABELS}


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        title: The run's name.
        summary: A line on what was trained.
        run_id: Its ID.
        commit: Commit of the code, or None.
        config: Its settings as YAML.
        steps: Of a rollout in training.
        untrained: Metrics ``eval/...`` before training.
        best: The same of the exported law.
        curves: Metrics over episodes.
        observed: Observables over the steps of the film's universe.
        film: A GIF.
        film_steps: Its last step.
        pictures: PNG files, by caption.
        commands: What to type next.
    """

    title: str
    summary: str
    run_id: str
    commit: str | None
    config: str
    steps: int
    untrained: Mapping[str, float]
    best: Mapping[str, float]
    curves: Mapping[str, Curve]
    observed: Sequence[tuple[int, Mapping[str, float]]]
    film: Path
    film_steps: int
    pictures: Mapping[str, Path]
    commands: Sequence[str]


def html(report: Report) -> str:
    """The report's file."""
    result, measured = _results(report)
    template = Path(__file__).with_name(FILE_NAME).read_text()
    environment = Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(template).render(
        title=report.title,
        summary=report.summary,
        run_id=report.run_id,
        commit=report.commit,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        result=result,
        measured=measured,
        film=inline(report.film),
        film_steps=report.film_steps,
        steps=report.steps,
        pictures=[(caption, inline(path)) for caption, path in report.pictures.items()],
        sections=[
            ("Training", _training(report.curves)),
            ("Evaluations", _evaluations(report.curves)),
            ("Observables over time", _over_time(report)),
        ],
        commands=report.commands,
        config=report.config,
    )


def inline(path: Path) -> str:
    """A picture as the URL of itself."""
    return f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


Row = tuple[str, str, str]


def _results(report: Report) -> tuple[list[Row], list[Row]]:
    """The objective's part of what was evaluated, untrained and trained, and the rest of it."""
    terms = [name.rpartition("/")[2] for name in report.curves if name.startswith("train/weighted/")]
    ours: list[Row] = []
    others: list[Row] = []
    for name, value in report.best.items():
        short = name.removeprefix("eval/")
        row = (short, _figure(report.untrained.get(name)), _figure(value))
        is_ours = short.rpartition("/")[2] in ("loss", *terms)
        (ours if is_ours else others).append(row)
    return ours, others


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _training(curves: Mapping[str, Curve]) -> list[tuple[str, Markup]]:
    weighted = [name for name in curves if name.startswith("train/weighted/")]
    lines = {
        "loss": {"train/loss": "training", "eval/loss": "held-out", "eval/noisy/loss": "held-out, noise"},
        "terms of the loss, weighted": {name: name.rpartition("/")[2] for name in weighted},
        "noise level": {"train/noise_level": "noise level"},
        "gradient norm": {"train/gradient_norm": "gradient norm"},
        "learning rate": {"train/lr": "learning rate"},
    }
    logarithmic = ("gradient norm", "learning rate")
    return _charts(curves, lines, "episode", logarithmic)


def _evaluations(curves: Mapping[str, Curve]) -> list[tuple[str, Markup]]:
    lines = {title: {f"eval/{name}": "held-out"} for name, title in _OBSERVED.items()}
    return _charts(curves, lines, "episode")


def _over_time(report: Report) -> list[tuple[str, Markup]]:
    steps = [step for step, _ in report.observed]
    charts = []
    for name, title in _OBSERVED.items():
        values = [observed[name] for _, observed in report.observed]
        charts.append((title, Markup(chart([Line("trained law", steps, values)], "step"))))
    return [(title, drawing) for title, drawing in charts if drawing]


def _charts(
    curves: Mapping[str, Curve],
    wanted: Mapping[str, Mapping[str, str]],
    axis: str,
    logarithmic: Sequence[str] = (),
) -> list[tuple[str, Markup]]:
    charts = []
    for title, names in wanted.items():
        lines = [
            Line(label, curves[name].steps, curves[name].values)
            for name, label in names.items()
            if name in curves
        ]
        charts.append((title, Markup(chart(lines, axis, title in logarithmic))))
    return [(title, drawing) for title, drawing in charts if drawing]
