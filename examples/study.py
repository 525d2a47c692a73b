"""What the studies share: arguments, trainings side by side, tables, and where the results go."""

import argparse
import contextlib
import io
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from atheria import figures
from atheria.files import atomically

DOCS = Path(__file__).parents[1] / "docs"

SMALL = (
    "trainer.episodes=4",
    "trainer.steps=3",
    "trainer.steps_min=2",
    "trainer.eval_every=2",
    "trainer.eval_universes=2",
    "trainer.eval_steps=3",
)
"""Overrides that make a training take a second."""


class Study:
    """One question, with its results.

    Args:
        script: The script's path, which names the study.
        question: The script's docstring.
    """

    def __init__(self, script: str, question: str) -> None:
        parser = argparse.ArgumentParser(
            description=question, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument(
            "--small", action="store_true", help="a trial of seconds, whose figures say nothing"
        )
        parser.add_argument("--output", default="outputs/examples", help="folder of runs, figure and table")
        parser.add_argument("--publish", action="store_true", help="put figure and table into docs/ too")
        arguments = parser.parse_args()
        self.name = Path(script).stem
        self.small: bool = arguments.small
        self.output = Path(arguments.output).absolute()
        self.publish: bool = arguments.publish
        self.started = time.monotonic()

    def figure(self, rows: int, columns: int) -> tuple[Figure, Any]:
        """A figure of that many panels, and its axes (rows, columns)."""
        figure = Figure(figsize=(3.3 * columns, 2.9 * rows + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)

    def finish(self, figure: Figure, table: str) -> None:
        """Prints the table, writes it and the figure."""
        text = f"{table}\n\n{facts(time.monotonic() - self.started)}\n"
        print(text)
        picture, page = self.output / f"{self.name}.png", self.output / f"{self.name}.md"
        figures.save(figure, picture, dpi=90)
        atomically(page, lambda file: file.write_text(text))
        print(f"figure    {picture}\ntable     {page}")
        if self.publish:
            figures.save(figure, DOCS / f"examples/{self.name}.png", dpi=90)
            quote(DOCS / "examples.md", self.name, text)


def in_parallel(function: Callable[..., Any], jobs: Iterable[Sequence[Any]]) -> list[Any]:
    """Results of a function for each job's arguments: a process of one thread for each core."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the children
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(function, *job) for job in jobs]]


def quietly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of the package without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments)


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    mean, deviation = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{mean:.3g} ± {deviation if deviation > 1e-6 * abs(mean) else 0.0:.2g}"  # less is rounding


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def facts(seconds: float) -> str:
    """What the figures were measured with."""
    import torch

    return (
        f"{os.cpu_count()} cores of an {processor()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, {date.today()}; {seconds:.0f} s in all."
    )


def processor() -> str:
    """The processor's model, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def quote(page: Path, name: str, text: str) -> None:
    """Puts a study's table between its marks on a page."""
    opening, closing = f"<!-- {name}: written by examples/{name}.py -->", f"<!-- /{name} -->"
    before, rest = page.read_text().split(opening)
    after = rest.split(closing)[1]
    whole = f"{before}{opening}\n{text}{closing}{after}"
    atomically(page, lambda file: file.write_text(whole))
