"""The work of ``python -m atheria.train -m``: many trainings as one sweep, under one run that holds them."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atheria import artifact, checkpoint, delivery, endings, journal
from atheria.config import UserError, as_override
from atheria.files import atomically, short
from atheria.progress import Progress, warn
from atheria.runs import LoggedRun, fail_run
from atheria.stores import how_to_look, shown, where, without_credentials
from atheria.sweeps import pictures
from atheria.sweeps.launcher import Launcher
from atheria.sweeps.launchers import make_launcher
from atheria.sweeps.parent import log_sweep, stored_children
from atheria.sweeps.plan import Plan, plan
from atheria.sweeps.points import Outcome, Point, Started
from atheria.sweeps.report import STATUSES, Report, Row
from atheria.sweeps.search import Grid, OptunaSearch, make_search
from atheria.tables import as_markdown, as_text
from atheria.tracking import StoredRun

MOST_SHOWN, MOST_NOTED = 20, 50
"""Rows of the table on the terminal, and in the description of the sweep's run."""

_BETWEEN_REPORTS = 60.0
_LONGEST_GOODBYE = 60.0
"""Seconds that jobs have to save where the sweep itself has failed."""
_LONGEST_NOTE = 7500
"""Characters; MLflow takes 8,000 of a tag."""


class FailedSweepError(UserError):
    """Some of a sweep's points have failed, or were ended."""


def run(overrides: Sequence[str]) -> Report:
    """Trains every point that is left of a sweep, and reports on all of them.

    Raises:
        FailedSweepError: Some have failed, or were ended; the others have finished.
        UserError: The sweep could not start.
    """
    sweep = plan(overrides)
    # Interrupted in the midst of a change, the storage of a search, or its lock, would be left in pieces.
    with log_sweep(sweep) as logged, endings.at_step_boundary("what is being written") as stop:
        parent = logged.run_id if logged.uri else None
        print(f"sweep     {sweep.name}: {_described(sweep)}", flush=True)
        print(f"run       {logged.run_id}" + (f"  ({shown(logged.uri)})" if logged.uri else ""), flush=True)
        search = make_search(
            sweep.sweeper,
            sweep.base,
            sweep.name,
            sweep.folder,
            sweep.space,
            lambda varied, trial: sweep.point(varied, parent, trial),
        )
        under_way = _UnderWay(sweep, logged, search, stored_children(sweep, parent), stop)
        try:
            under_way.drive()
        finally:
            under_way.report()
        report = under_way.reported
        _print_end(sweep, report, logged)
        counts = under_way.of_this_command.counts
        not_finished = {s: n for s, n in counts.items() if s in (endings.FAILED, endings.KILLED)}
        if not_finished:
            said = " and ".join(f"{count} {status}" for status, count in not_finished.items())
            raise FailedSweepError(
                f"of {sum(counts.values())} points, {said}; the same command goes on with them"
            )
    return report


@dataclass
class _UnderWay:
    """A sweep that is being worked on.

    Attributes:
        sweep: What it was told.
        logged: Its run.
        search: What proposes its points.
        stored: The runs of its points that the store has, by digest; None where it gave no answer.
        stop: Whether it has been told to end.
        rows: What is known of each point so far, by digest.
        running: The points whose jobs run or wait, by digest; a search may propose one twice.
        proposed: Digests of the points that this command is about.
    """

    sweep: Plan
    logged: LoggedRun
    search: Grid | OptunaSearch
    stored: dict[str, StoredRun] | None
    stop: endings.StopRequest
    rows: dict[str, Row] = field(default_factory=dict)
    running: dict[str, list[Point]] = field(default_factory=dict)
    proposed: set[str] = field(default_factory=set)

    def drive(self) -> None:
        """Runs what is proposed until nothing more is."""
        for point in _points_of(self.sweep.folder):  # of earlier commands
            self.rows[point.digest] = Row(point, Outcome.of(point))
        self._progress = Progress(len(self.search), "point")
        launcher = make_launcher(self.sweep.launcher, str(self.sweep.folder))
        try:
            self._drive(launcher)
        except KeyboardInterrupt as end:
            raise self._interrupted(launcher, end) from None
        except BaseException:
            self._end_jobs(launcher, _LONGEST_GOODBYE)
            raise
        finally:
            launcher.close()
            self._progress.close()

    @property
    def reported(self) -> Report:
        """What has come of it so far."""
        return self._report_on(list(self.rows.values()))

    @property
    def of_this_command(self) -> Report:
        """The same without the points of earlier commands that this one does not name."""
        return self._report_on([self.rows[digest] for digest in self.proposed])

    def _report_on(self, rows: list[Row]) -> Report:
        wanted = self.sweep.base.sweep
        return Report(rows, wanted.metric, wanted.direction == "maximize")

    def report(self) -> None:
        """Writes and logs what has come of it so far."""
        report, folder, logged = self.reported, self.sweep.folder, self.logged
        atomically(folder / "summary.csv", lambda file: file.write_text(report.csv()))
        pictures.parallel_coordinates(report, folder / "parallel_coordinates.png")
        pictures.bars(report, folder / "results.png")
        for name in ("summary.csv", "parallel_coordinates.png", "results.png"):
            logged.log_file(folder / name)
        counts = {f"sweep/{status.lower()}": float(report.counts.get(status, 0)) for status in STATUSES}
        logged.set_tag("mlflow.note.content", _note(report))
        if best := report.best:
            value = report.value(best)
            assert best.outcome is not None
            assert value is not None
            counts["sweep/best"] = value
            logged.set_tag("atheria.best_run", best.outcome.run_id or "")
            logged.set_tag("atheria.best_point", best.point.label)
        seconds = (journal.now() - journal.identity(folder).started) // 1000
        logged.log(counts | {"sweep/points": float(len(report.rows))}, step=seconds)

    def _drive(self, launcher: Launcher) -> None:
        reported = time.monotonic()
        while True:
            endings.heed(self.stop.number)
            proposed = self.search.propose(launcher.slots - len(self.running))
            fresh = [point for point in proposed if self._is_to_run(point)]
            if fresh:
                launcher.submit(fresh)
            if not self.running:
                if not proposed:
                    return
                continue
            for point, fault in launcher.wait(1.0):
                self._ended(point, Outcome.of(point) or self._lost(point, fault))
            if time.monotonic() - reported > _BETWEEN_REPORTS:
                try:
                    self.report()
                except (OSError, ValueError) as error:
                    warn(f"the report could not be written yet: {error}")
                reported = time.monotonic()

    def _is_to_run(self, point: Point) -> bool:
        """Whether there is anything to do for a point; what is known of it is noted."""
        if point.digest in self.running:
            self.running[point.digest].append(point)
            return False
        again = self.rows[point.digest].outcome if point.digest in self.proposed else None
        self.proposed.add(point.digest)
        outcome = again or self._known(point)
        self.rows[point.digest] = Row(point, outcome)
        if outcome is None:
            self.running[point.digest] = [point]
            return True
        self.search.tell(point, outcome)
        self._progress.advance({})
        self._progress.say(f"done      {point.label}")
        return False

    def _known(self, point: Point) -> Outcome | None:
        """What became of a point that is done with; None for one that is not."""
        outcome, stored = (
            Outcome.of(point),
            self.stored.get(point.digest) if self.stored is not None else None,
        )
        if outcome is not None and outcome.is_pruned:
            return outcome
        if outcome is not None and outcome.status == endings.FINISHED:
            return None if self._is_deleted(point) else outcome
        if outcome is None and stored is not None and stored.status == endings.FINISHED:
            best = {key.replace("best/", "eval/"): v for key, v in stored.metrics.items() if "best/" in key}
            outcome = Outcome(endings.FINISHED, stored.run_id, best)
            point.begin()
            outcome.save(point)
            return outcome
        return None

    def _is_deleted(self, point: Point) -> bool:
        """Whether the run of a point that has finished is not in the store any more."""
        started = Started.of(point)
        if self.stored is None or started is None or point.digest in self.stored:
            return False
        folder = Path(started.folder)
        return not (folder / journal.IDENTITY).is_file() or not delivery.waiting(folder)

    def _ended(self, point: Point, outcome: Outcome) -> None:
        """Notes what became of a point whose job has ended."""
        if outcome.status == endings.FAILED:
            self._mark_failed(point, outcome)
        self.rows[point.digest] = row = Row(point, outcome)
        for twin in self.running.pop(point.digest):
            self.search.tell(twin, outcome)
        metric = self.sweep.base.sweep.metric
        value = self.reported.value(row)
        said = outcome.error or ("" if value is None else f"{metric} {value:.4g}")
        self._progress.advance({} if value is None else {metric: value})
        self._progress.say(f"{row.status.lower():9} {point.label}  {said}  {outcome.run_id or ''}".rstrip())

    def _lost(self, point: Point, fault: str | None) -> Outcome:
        started = Started.of(point)
        if started is not None and journal.status(Path(started.folder)) == endings.FINISHED:
            best = checkpoint.load(Path(started.folder) / checkpoint.BEST)
            outcome = Outcome(endings.FINISHED, started.run_id, best["metrics"]["latest"])
            outcome.save(point)
            return outcome
        error = without_credentials(f"{fault or 'its job ended without a word'}")
        outcome = Outcome(endings.FAILED, started.run_id if started else None, error=error)
        outcome.save(point)
        return outcome

    def _mark_failed(self, point: Point, outcome: Outcome) -> None:
        """Sees that the run of a point that failed says so, whose process may have had no time to."""
        started = Started.of(point)
        if started is None or journal.status(Path(started.folder)) == endings.FAILED:
            return
        try:
            fail_run(self.sweep.base.tracking, Path(started.folder), outcome.error or "")
        except (UserError, OSError) as error:
            warn(f"run {started.run_id} could not be marked as failed: {error}")

    def _interrupted(self, launcher: Launcher, end: KeyboardInterrupt) -> KeyboardInterrupt:
        """Ends what runs, or leaves it to who runs it; returns what the sweep ends with."""
        if launcher.how_to_end is not None:
            print(
                f"\n{len(self.running)} jobs stay in the queue; the same command goes on with them, and "
                f"{launcher.how_to_end} ends them",
                flush=True,
            )
            return endings.Stopped(endings.REQUEUED)
        if not isinstance(end, endings.Stopped):
            return end  # told twice
        print("\ntelling the jobs that run to save and end; again to end at once", flush=True)
        self._end_jobs(launcher, math.inf)
        return end

    def _end_jobs(self, launcher: Launcher, seconds: float) -> None:
        """Tells jobs that do not outlive the command to save and end, and waits for that."""
        if launcher.how_to_end is not None:
            return
        still = {point.digest for point in launcher.stop()}
        self.running = {digest: points for digest, points in self.running.items() if digest in still}
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            for point, _ in launcher.wait(1.0):
                self._ended(point, Outcome.of(point) or Outcome(endings.KILLED))


def _points_of(folder: Path) -> list[Point]:
    return [Point.load(path.parent) for path in sorted(folder.glob("points/*/point.json"))]


def _described(sweep: Plan) -> str:
    axes = "; ".join(f"{axis.key} {axis}" for axis in sweep.space.axes) or "one point"
    return f"{axes}; by {sweep.sweeper.name}, on {sweep.launcher.name}"


def _note(report: Report) -> str:
    counts = ", ".join(f"{count} {status.lower()}" for status, count in report.counts.items())
    failures = [f"- {row.point.label}: {row.outcome.error}" for row in report.failed if row.outcome]
    parts = [counts, as_markdown(report.table(MOST_NOTED)), "\n".join(failures[:MOST_NOTED])]
    return "\n\n".join(part for part in parts if part)[:_LONGEST_NOTE]


def _print_end(sweep: Plan, report: Report, logged: LoggedRun) -> None:
    print()
    print(as_text(report.table(MOST_SHOWN)))
    if len(report.rows) > MOST_SHOWN:
        print(f"... {len(report.rows) - MOST_SHOWN} more in {short(sweep.folder / 'summary.csv')}")
    print()
    for row in report.failed:
        assert row.outcome is not None
        print(f"failed    {row.point.label}: {row.outcome.error}")
        print(f"          {short(row.point.log)}")
    print(f"table     {short(sweep.folder / 'summary.csv')}")
    print(f"pictures  {short(sweep.folder / 'parallel_coordinates.png')}")
    print(f"          {short(sweep.folder / 'results.png')}")
    best = report.best
    if best is None or best.outcome is None:
        return
    print(f"best      {best.point.label}  {report.metric} {report.value(best):.4g}")
    print("next")
    tracking, output = sweep.base.tracking, sweep.base.output
    named, store = f"run_id={best.outcome.run_id}", tracking.uri
    if tracking.mode != "online":  # no store knows the run yet
        started = Started.of(best.point)
        law = short(Path(started.folder) / artifact.IN_RUN) if started else ""
        named, store = as_override("law", law), None
    print(f"  python -m atheria.rollout {named} steps=1000 grid=128{where(store, output)}")
    for command in how_to_look(tracking, output) if logged.uri is not None else ():
        print(f"  {command}")
