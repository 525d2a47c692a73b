"""What a sweep costs: a job, by launcher and store; what a run leaves behind; the same command again.

    python benchmarks/sweeps.py [--points 64] [--rounds 3] [--launchers local ray slurm] [--docs DIR]

Every contender is a sweep of trainings that last an instant, as a user types it, two jobs at once, in a
folder of its own with an empty store that has its tables already. They take turns with the same trainings one
after another in one process, without tracking: what a job of a sweep takes beyond that is its overhead.
Launchers and databases that are not installed are left out. Writes DIR/sweeps.json and, into DIR/scaling.md,
the figures. With fewer points it tries everything for a moment; its figures mean nothing.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from first_run import processor
from mlflow import MlflowClient
from sqlalchemy import create_engine, inspect, text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from atheria import journal  # noqa: E402
from atheria.stores import ARTIFACTS  # noqa: E402
from atheria.sweeps import pictures  # noqa: E402
from atheria.sweeps.points import LOCK, LOG, OUTCOME, POINT, Outcome, Point  # noqa: E402
from atheria.sweeps.report import Report, Row  # noqa: E402
from atheria.tracking import Store  # noqa: E402
from tests.cluster import Slurm  # noqa: E402
from tests.servers import MlflowServer, PostgreSQL  # noqa: E402

EPISODES, SLOTS, NAME = 4, 2, "measured"
TINY = [
    "model=mlp", "model.d_state=2", "model.hidden_channels=4", f"trainer.episodes={EPISODES}",
    "trainer.steps=3", "trainer.batch_size=2", "trainer.grid=8", "trainer.eval_every=2",
    "trainer.eval_universes=2", "trainer.checkpoint_every=2",
]  # fmt: skip
LAUNCHERS = {
    "local": ["hydra.launcher.cores=1"],
    "ray": ["hydra.launcher.cores=1"],
    "slurm": [
        "hydra.launcher.cores=1", "hydra.launcher.memory_gb=1", "hydra.launcher.minutes=30",
        "hydra.launcher.notice_seconds=10",
    ],
}  # fmt: skip
STORES = {
    "off": "tracking=off",
    "sqlite": "an SQLite file",
    "server": "mlflow server on SQLite",
    "postgresql": "mlflow server on PostgreSQL",
}
_PACKAGES = {"ray": "ray", "slurm": "submitit"}
CONTENDERS = [*(("local", store) for store in STORES), ("ray", "sqlite"), ("slurm", "sqlite")]
FULL = 64
"""With fewer points, what a longer sweep would need is not measured."""
MANY = (10, 1_000, 100_000)
"""Runs that the figures of one are multiplied by."""

Numbers = dict[str, Any]


def grid(points: int) -> list[str]:
    return [*TINY, f"seed=range(0,{points})", f"sweep.name={NAME}"]


def work(points: int, result: Path) -> None:
    """The trainings of a sweep in this process, and what is computed for each before it starts."""
    from atheria.cli import compose_config, to_settings
    from atheria.config import TrainConfig
    from atheria.jobs import train
    from atheria.sweeps.plan import plan

    torch.set_num_threads(1)
    trained, checked = [], []
    for seed in range(points):
        start = time.perf_counter()
        settings = to_settings(TrainConfig, compose_config("train", [*TINY, f"seed={seed}", "tracking=off"]))
        ready = time.perf_counter()
        train.run(settings)
        trained.append(time.perf_counter() - ready)
        checked.append(ready - start)
    sweep = plan(grid(points))
    start = time.perf_counter()
    for varied in sweep.space.grid():
        sweep.point(varied, None, None)
    composed = (time.perf_counter() - start) / points
    # The first loads what the others use.
    measured = {"training": median(trained[1:]), "check": median(checked[1:]), "point": composed}
    result.write_text(json.dumps(measured))


def alone(folder: Path, points: int) -> Numbers:
    """The baseline: seconds of a training, of the check of its settings, of its point in a sweep."""
    result = folder / "alone.json"
    command = [sys.executable, __file__, "--work", str(points), str(result)]
    subprocess.run(command, cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL, check=True)
    measured: Numbers = json.loads(result.read_text())
    return measured


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return kept | {"ATHERIA_CACHE": str(folder / "cache")}


def typed(folder: Path, *overrides: str, more: dict[str, str] | None = None) -> tuple[float, float]:
    """When a command began and ended; ends the program where it fails."""
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "atheria.train", *overrides],
        cwd=folder,
        env=environment(folder) | (more or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ended = time.time()
    if done.returncode != 0:
        sys.exit(done.stdout)
    return began, ended


@dataclass(frozen=True)
class Tracked:
    """Where a sweep is tracked.

    Attributes:
        overrides: What says so.
        uri: The store; None where there is none.
        database: Its database, for SQLAlchemy.
        server: The server before it, if there is one.
    """

    overrides: list[str]
    uri: str | None = None
    database: str | None = None
    server: MlflowServer | None = None

    def size(self) -> int:
        """Bytes of the database."""
        if self.database is None:
            return 0
        if self.database.startswith("sqlite"):
            return Path(self.database.removeprefix("sqlite:///")).stat().st_size
        return int(self._ask("SELECT pg_database_size(current_database())"))

    def requests(self) -> int:
        """How many the server has answered."""
        lines = self.server.log().splitlines() if self.server else []
        return sum(bool(re.search(r'"[A-Z]+ /(?!health)', line)) for line in lines)

    def rows(self, run_id: str) -> dict[str, int]:
        """How many a run has in each table."""
        assert self.database is not None
        engine = create_engine(self.database)
        tables = inspect(engine).get_table_names()
        of_runs = [t for t in tables if "run_uuid" in {c["name"] for c in inspect(engine).get_columns(t)}]
        engine.dispose()
        counted = {t: self._ask(f"SELECT count(*) FROM {t} WHERE run_uuid = '{run_id}'") for t in of_runs}
        return {table: count for table, count in counted.items() if count}

    def _ask(self, query: str) -> Any:
        assert self.database is not None
        engine = create_engine(self.database)
        with engine.connect() as connection:
            answer = connection.execute(text(query)).scalar_one()
        engine.dispose()
        return answer


class Measured:
    """The measurement: servers, an empty store, and what was found.

    Args:
        folder: Where everything lies.
        points: Of a sweep.
        launchers: Those to measure.
    """

    def __init__(self, folder: Path, points: int, launchers: list[str]) -> None:
        self._folder = folder
        self._points = points
        self._launchers = launchers
        self._empty = folder / "empty.db"
        self._databases = 0
        self._stack = ExitStack()
        self.result: Numbers = {"facts": facts(launchers), "points": points, "slots": SLOTS, "tiny": TINY}

    def __enter__(self) -> "Measured":
        start = time.perf_counter()
        Store(f"sqlite:///{self._empty}", create=True)
        self.result["new_store"] = time.perf_counter() - start
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        """Starts what is installed of SLURM and PostgreSQL, and says what is left out."""
        self._slurm, self._postgresql, missing = None, None, set()
        if "slurm" in self._launchers and find_spec("submitit") and Slurm.programs():
            self._slurm = Slurm(cores=SLOTS)
            self._stack.callback(self._slurm.stop)
            self._slurm.start()
        if "local" in self._launchers and PostgreSQL.programs():
            self._postgresql = PostgreSQL()
            self._stack.callback(self._postgresql.remove)
            self._postgresql.start()
        if self._slurm is None:
            missing.add("slurm")
        if self._postgresql is None:
            missing.add("postgresql")
        if find_spec("ray") is None:
            missing.add("ray")
        wanted = [contender for contender in CONTENDERS if contender[0] in self._launchers]
        self.contenders = [contender for contender in wanted if not missing & set(contender)]
        for launcher, store in wanted:
            if (launcher, store) not in self.contenders:
                print(f"left out  {launcher}, {STORES[store]}: not installed", flush=True)

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def round(self, number: int) -> None:
        """One turn of each contender."""
        place = self._place(f"alone-{number}")
        self._note("alone", alone(place, self._points))
        for launcher, store in self.contenders:
            folder = self._place(f"{launcher}-{store}-{number}")
            with self._tracked(store, folder) as tracked:
                measured = self._sweep(folder, launcher, tracked)
            print(f"round {number + 1}  {launcher}, {STORES[store]}: {measured['wall']:.1f} s", flush=True)
            training = self.result["alone"]["training"][-1]
            measured["overhead"] = measured["wall"] * SLOTS / self._points - training
            self._note(f"{launcher} {store}", measured)

    def again(self, rounds: int) -> None:
        """The command once more, where all points have finished; and how long a report takes."""
        seconds = {}
        for points in sorted({1, max(1, self._points // 4), self._points}):
            folder, command = self._place(f"again-{points}"), ["-m", *grid(points), *options("local")]
            with self._tracked("sqlite", folder) as tracked:
                typed(folder, *command, *tracked.overrides)
                walls = [typed(folder, *command, *tracked.overrides) for _ in range(rounds)]
            seconds[points] = [ended - began for began, ended in walls]
        self.result["again"] = seconds
        sizes = [self._points] + ([1_000, 10_000] if self._points >= FULL else [])
        self.result["report"] = {size: report_seconds(folder, size) for size in sizes}

    def usual_run(self) -> None:
        """What a run of the defaults leaves behind; a short one where little is measured."""
        folder = self._place("usual")
        short = [] if self._points >= FULL else ["trainer.episodes=1"]
        with self._tracked("server", folder) as tracked:
            before, asked = tracked.size(), tracked.requests()
            typed(folder, *tracked.overrides, *short)
            grown, requests = tracked.size() - before, tracked.requests() - asked
            (run,) = (folder / "outputs/runs").iterdir()
            stored = folder / "server-artifacts"
            self.result["usual"] = {
                "database_bytes": grown,
                "requests": requests,
                "rows": tracked.rows(run.name),
                "artifacts": tree(stored),
                "run": tree(run),
            }

    def _sweep(self, folder: Path, launcher: str, tracked: Tracked) -> Numbers:
        more = self._slurm.environment if launcher == "slurm" and self._slurm else None
        before, asked = tracked.size(), tracked.requests()
        began, ended = typed(
            folder, "-m", *grid(self._points), *options(launcher), *tracked.overrides, more=more
        )
        requests, grown = tracked.requests() - asked, tracked.size() - before
        sweep = folder / "outputs/sweeps" / NAME
        queued, started, done = (times(sweep, name) for name in (POINT, LOCK, OUTCOME))
        rows = list(csv.DictReader((sweep / "summary.csv").open()))
        return {
            "wall": ended - began,
            "queued": min(queued) - began,
            "first_job": min(started) - began,
            "job": median(end - start for start, end in zip(started, done, strict=True)),
            "after": ended - max(done),
            "rows": len(rows),
            "complete": is_whole(sweep, rows, tracked, self._points),
            "requests": requests / self._points,
            "database_bytes": grown / self._points,
            "left": left_by_a_run(folder, sweep, rows, tracked),
        }

    @contextmanager
    def _tracked(self, store: str, folder: Path) -> Iterator[Tracked]:
        if store == "off":
            yield Tracked(["tracking=off"])
            return
        database = f"sqlite:///{folder}/outputs/mlflow.db"
        if store == "postgresql":
            assert self._postgresql is not None
            self._databases += 1
            database = self._postgresql.create(f"measured{self._databases}")
        else:
            (folder / "outputs").mkdir()
            shutil.copyfile(self._empty, folder / "outputs/mlflow.db")
        if store == "sqlite":
            yield Tracked([], database, database)
            return
        server = MlflowServer(folder, database)
        server.start()
        try:
            yield Tracked([f"tracking.uri={server.address}"], server.address, database, server)
        finally:
            server.kill()

    def _place(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def _note(self, name: str, measured: Numbers) -> None:
        """Adds what a round has found to what the rounds before have."""
        known = self.result.setdefault(name, {})
        for key, value in measured.items():
            known.setdefault(key, []).append(value)


def options(launcher: str) -> list[str]:
    return [f"hydra/launcher={launcher}", f"hydra.launcher.parallel={SLOTS}", *LAUNCHERS[launcher]]


def times(sweep: Path, name: str) -> list[float]:
    """When the points' files of that name were written, point by point."""
    return [(folder / name).stat().st_mtime for folder in sorted((sweep / "points").iterdir())]


def is_whole(sweep: Path, rows: list[dict[str, str]], tracked: Tracked, points: int) -> bool:
    """Whether every point is in the table, and the table and every run's curve are in the store."""
    run_ids = {row["run_id"] for row in rows}
    seeds = sorted(int(row["seed"]) for row in rows)
    if seeds != list(range(points)) or {row["status"] for row in rows} != {"FINISHED"}:
        return False
    if tracked.uri is None:
        return len(run_ids) == points
    client, parent = MlflowClient(tracked.uri), journal.delivered(sweep).run_id
    assert parent is not None
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(client.download_artifacts(parent, "summary.csv", folder)).read_text()
    experiment = client.get_run(parent).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=50_000)
    curves = [
        [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] for run in children
    ]
    return (
        stored == (sweep / "summary.csv").read_text()
        and {run.info.run_id for run in children if run.info.status == "FINISHED"} == run_ids
        and curves == [list(range(1, EPISODES + 1))] * points
    )


def tree(*folders: Path) -> dict[str, int]:
    """Files and bytes below folders."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def left_by_a_run(folder: Path, sweep: Path, rows: list[dict[str, str]], tracked: Tracked) -> Numbers:
    """What a run leaves behind, on average, of its own and in the sweep's folder."""
    run_ids = [row["run_id"] for row in rows]
    points = sorted((sweep / "points").iterdir())

    def each(total: dict[str, int]) -> dict[str, float]:
        return {key: value / len(rows) for key, value in total.items()}

    return {
        "rows": tracked.rows(run_ids[0]) if tracked.database else {},
        "artifacts": each(tree(*(folder / "outputs" / ARTIFACTS / run_id for run_id in run_ids))),
        "run": each(tree(folder / "outputs/runs")),
        "point": each(tree(*points)),
        "log_bytes": mean((point / LOG).stat().st_size for point in points),
        "slurm": each(tree(sweep / "slurm")),
    }


def report_seconds(folder: Path, size: int) -> float:
    """How long a report on so many points takes, made of those of a sweep."""
    points = [Point.load(path.parent) for path in folder.glob(f"outputs/sweeps/*/points/*/{POINT}")]
    known = [Row(point, Outcome.of(point)) for point in points]
    rows = [
        replace(row, point=replace(row.point, varied={"seed": str(seed)}))
        for seed, row in enumerate((known * (size // len(known) + 1))[:size])
    ]
    start = time.perf_counter()
    report = Report(rows, "eval/loss", maximize=False)
    (folder / "summary.csv").write_text(report.csv())
    pictures.parallel_coordinates(report, folder / "lines.png")
    pictures.bars(report, folder / "bars.png")
    return time.perf_counter() - start


def facts(launchers: list[str]) -> Numbers:
    packages = ["mlflow", "hydra-core", *(_PACKAGES[name] for name in launchers if name in _PACKAGES)]
    commands = {"slurm": "slurmctld"} if "slurm" in launchers else {}
    if (folder := PostgreSQL.programs()) and "local" in launchers:
        commands["postgresql"] = str(folder / "postgres")
    found = {
        name: shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin")
        for name, command in commands.items()
    }
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        **{package: version(package) for package in packages if find_spec(package.partition("-")[0])},
        **{name: _version(program) for name, program in found.items() if program},
        "date": date.today().isoformat(),
    }


def _version(program: str) -> str:
    printed = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", printed)
    assert found is not None
    return found[0]


def both(values: list[float], digits: int = 2) -> str:
    """Least and median."""
    return f"{min(values):.{digits}f} / {median(values):.{digits}f}"


def size(count: float) -> str:
    """Bytes, for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB" if count < 1000 else f"{count / 1000:,.3g} TB"


def duration(seconds: float) -> str:
    """Seconds, for people."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def block(result: Numbers) -> str:
    """The figures as Markdown."""
    known = result["facts"]
    named = {key: value for key, value in known.items() if key not in ("cpu", "cores", "date")}
    return "\n".join(
        [
            "<!-- sweeps: written by benchmarks/sweeps.py -->",
            f"Measured: sweeps of {result['points']} runs, {EPISODES} episodes each of an `mlp` on 8 x 8 "
            f"cells, {result['slots']} jobs at once, on {known['cores']} cores of an {known['cpu']}; "
            f"{', '.join(f'{name} {value}' for name, value in named.items())}; {known['date']}. "
            "Two figures are the least and the median of "
            f"{len(result['alone']['training'])} rounds.",
            "",
            *_costs(result),
            "",
            *_growth(result),
            *_leavings(result),
            "<!-- /sweeps -->",
        ]
    )


def _contenders(result: Numbers) -> Iterator[tuple[str, str, Numbers]]:
    for launcher, store in CONTENDERS:
        if measured := result.get(f"{launcher} {store}"):
            yield launcher, store, measured


def _costs(result: Numbers) -> list[str]:
    lines = [
        "| launcher | tracked in | whole sweep, s | a job's overhead, s | points queued after, s "
        "| first job after, s | a job, s | after the last job, s | rows in the table |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for launcher, store, measured in _contenders(result):
        rows = min(measured["rows"])
        whole = "" if all(measured["complete"]) else ", not complete"
        lines.append(
            f"| {launcher} | {STORES[store]} | {both(measured['wall'], 1)} | {both(measured['overhead'])} "
            f"| {both(measured['queued'], 1)} | {both(measured['first_job'], 1)} | {both(measured['job'])} "
            f"| {both(measured['after'], 1)} | {rows} of {result['points']}{whole} |"
        )
    one = {key: median(values) for key, values in result["alone"].items()}
    lines += [
        "",
        "A job's overhead is wall time x jobs at once / runs, less what its training takes in one process "
        f"that trains all of them without tracking: {one['training']:.2f} s. The jobs share the cores with "
        "the command, the server and the database; a cluster's do not. A value on the command line takes "
        f"{1000 * one['check']:.0f} ms to compose and check, a point of the grid {1000 * one['point']:.0f} "
        f"ms. The tables of a new SQLite file take {result['new_store']:.1f} s, once.",
    ]
    off, online = result.get("local off"), result.get("local sqlite")
    if off and online:
        costs = [
            b - a for a, b in zip(off["overhead"], online["overhead"], strict=True)
        ]  # of the same rounds
        lines[-1] += f" Tracking in an SQLite file takes {both(costs)} s of a job (its rounds' differences)."
    return lines


def _growth(result: Numbers) -> list[str]:
    if "again" not in result:
        return []
    again = ", ".join(f"{both(seconds, 1)} s with {points}" for points, seconds in result["again"].items())
    report = ", ".join(f"{seconds:.1f} s on {int(points):,}" for points, seconds in result["report"].items())
    return [
        f"The same command again, where all points have finished: {again}. A report (table, pictures; once "
        f"a minute and at the end): {report} points.",
        "",
    ]


def _leavings(result: Numbers) -> list[str]:
    if "usual" not in result:
        return []
    rows = _rows(result)
    lines = ["A run leaves:", "", "| | of the sweep | by `python -m atheria.train` |", "|---|---|---|"]
    for name, unit, tiny, usual in rows:
        lines.append(f"| {name} | {_shown(tiny, unit)} | {_shown(usual, unit)} |")
    for what, column in (("those of the sweep", 2), ("that of `python -m atheria.train`", 3)):
        lines += ["", f"**Multiplied, not measured**, for runs like {what}:", ""]
        lines += [f"| runs | {' | '.join(f'{many:,}' for many in MANY)} |", "|---|---|---|---|"]
        for row in rows:
            if (value := row[column]) is not None:
                cells = [_shown(value * many, row[1]) for many in MANY]
                lines.append(f"| {row[0]} | {' | '.join(cells)} |")
        if column == 2:
            lines += _times(result)
    return lines


def _rows(result: Numbers) -> list[tuple[str, str, float | None, float | None]]:
    """What a run leaves: a name, its unit, the figure of a run of the sweep, and of one of the defaults."""
    tiny, usual = result["local sqlite"]["left"][0], result["usual"]
    rows: list[tuple[str, str, float | None, float | None]] = [
        ("requests to a server", "", _first(result, "local server", "requests"), usual["requests"]),
        ("rows in the database", "", sum(tiny["rows"].values()), sum(usual["rows"].values())),
        ("rows that are points of curves", "", tiny["rows"]["metrics"], usual["rows"]["metrics"]),
        ("SQLite", "B", _first(result, "local sqlite", "database_bytes"), usual["database_bytes"]),
        ("PostgreSQL", "B", _first(result, "local postgresql", "database_bytes"), None),
    ]
    for name, key in (("artifacts", "artifacts"), ("`outputs/runs`", "run")):
        for unit, measure in (("", "files"), ("B", "bytes")):
            rows.append((f"{name}, {measure}", unit, tiny[key][measure], usual[key][measure]))
    rows.append(("`outputs/sweeps`, files", "", tiny["point"]["files"], None))
    rows.append(("`outputs/sweeps`, bytes", "B", tiny["point"]["bytes"], None))
    rows.append(("what the job prints (in `outputs/sweeps`)", "B", tiny["log_bytes"], None))
    if slurm := result.get("slurm sqlite"):
        left = slurm["left"][0]["slurm"]
        rows.append(("more in `outputs/sweeps` on SLURM, files", "", left["files"], None))
        rows.append(("more in `outputs/sweeps` on SLURM, bytes", "B", left["bytes"], None))
    return rows


def _times(result: Numbers) -> Iterator[str]:
    """Rows of times, multiplied."""
    point = median(result["alone"]["point"])
    yield _row("composing the points of a grid", [point * many for many in MANY])
    again = {int(points): median(seconds) for points, seconds in result["again"].items()}
    if len(again) > 1:
        least, most = min(again), max(again)
        slope = (again[most] - again[least]) / (most - least)
        yield _row("the same command again", [again[least] + slope * (many - least) for many in MANY])
    for launcher, store, measured in _contenders(result):
        if store == "sqlite":
            seconds = [median(measured["overhead"]) * many for many in MANY]
            yield _row(f"overhead of all jobs, summed, {launcher}", seconds)


def _row(name: str, seconds: list[float]) -> str:
    return f"| {name} | {' | '.join(duration(value) for value in seconds)} |"


def _first(result: Numbers, name: str, key: str) -> float | None:
    return result[name][key][0] if name in result else None


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return size(value) if unit else f"{round(value):,}" if value >= 100 else f"{value:.3g}"


def quote(result: Numbers, page: Path) -> None:
    """Puts the figures into a page."""
    written = page.read_text()
    before, rest = written.split("<!-- sweeps", 1)
    after = rest.split("<!-- /sweeps -->", 1)[1]
    page.write_text(before + block(result) + after)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=FULL)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--launchers", nargs="+", choices=list(LAUNCHERS), default=list(LAUNCHERS))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Measured(Path(folder), arguments.points, arguments.launchers) as measured,
    ):
        for number in range(arguments.rounds):
            measured.round(number)
        if "local" in arguments.launchers:
            measured.again(arguments.rounds)
            measured.usual_run()
        result = json.loads(json.dumps(measured.result))  # as it is read again, keys included
    arguments.docs.mkdir(parents=True, exist_ok=True)
    (arguments.docs / "sweeps.json").write_text(json.dumps(result, indent=2) + "\n")
    print(block(result))
    if (page := arguments.docs / "scaling.md").is_file():
        quote(result, page)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
