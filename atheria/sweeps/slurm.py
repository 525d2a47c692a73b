"""Jobs as tasks of SLURM job arrays, by submitit."""

import json
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.helpers import DelayedSubmission
from submitit.slurm.slurm import SlurmInfoWatcher

from atheria import endings
from atheria.config import SlurmLauncherConfig, UserError
from atheria.files import atomically, short
from atheria.sweeps.launcher import Ended
from atheria.sweeps.points import Outcome, Point

FOLDER, JOBS = "slurm", "jobs.json"

_BETWEEN_LOOKS = 1.0
"""Seconds between looks for word from the jobs, which are files."""
_BETWEEN_QUESTIONS = 30
"""Seconds between questions to SLURM's accounting, at most; soon after a submission they are fewer."""
_BETWEEN_LISTS, _TIMEOUT = 5.0, 30.0
"""Seconds between lists of the queue, and that SLURM has for an answer."""
_PATIENCE = 30.0
"""Seconds that the word of a job may take to come through a network's file system."""
_LARGEST_ARRAY = 1000
"""Jobs; SLURM's own default is at most 1,001."""
_QUESTIONS = 10
"""To SLURM about a job, which says nothing for a moment after it was queued again."""
_UNFINISHED = ("PENDING", "RUNNING", "REQUEUED", "REQUEUE_HOLD", "COMPLETING", "CONFIGURING", "SUSPENDED")


class SlurmLauncher:
    """See `atheria.sweeps.launcher.Launcher`.

    Points whose jobs an earlier command has queued, and that are still there, are not queued again.

    Args:
        config: What sbatch is told.
        folder: The sweep's folder, which every node sees.

    Raises:
        UserError: There is no SLURM here, or it takes no such jobs.
    """

    def __init__(self, config: SlurmLauncherConfig, folder: str) -> None:
        self.slots = config.parallel
        self._folder = Path(folder) / FOLDER
        try:
            self._executor = submitit.SlurmExecutor(self._folder, max_num_timeout=config.requeue)
        except RuntimeError:
            raise UserError(
                "hydra/launcher=slurm needs SLURM's commands (sbatch, srun), which are not here; start the "
                "sweep on a login node of the cluster"
            ) from None
        self._name = f"atheria-{Path(folder).name}"
        self.how_to_end: str | None = f"scancel --name={self._name}"
        self._queued: set[str] = set()
        self._queue_asked = -math.inf
        wanted = {
            "job_name": self._name,
            "cpus_per_task": config.cores,
            "mem": f"{int(config.memory_gb * 1024)}MB",
            "gpus_per_node": config.gpus or None,
            "ntasks_per_node": config.processes,
            "time": config.minutes,
            "array_parallelism": config.parallel,
            "signal_delay_s": config.notice_seconds,
            "partition": config.partition,
            "account": config.account,
            "qos": config.qos,
            "constraint": config.constraint,
            "setup": config.setup or None,
            "stderr_to_stdout": True,
            "additional_parameters": {"requeue": True, **config.options},
        }
        self._executor.update_parameters(**{key: value for key, value in wanted.items() if value is not None})
        submitit.SlurmJob.watcher = SlurmInfoWatcher(delay_s=_BETWEEN_QUESTIONS)
        self._jobs: dict[str, tuple[Point, submitit.Job[Any]]] = {}
        self._silent_since: dict[str, float] = {}

    def submit(self, points: Sequence[Point]) -> None:
        """Queues them as arrays."""
        known = self._known_jobs()
        fresh = []
        for point in points:
            job = self._still_there(known.get(point.digest))
            if job is None:
                fresh.append(point)
            else:
                self._jobs[point.digest] = point, job
        for point in fresh:
            point.begin()
        if not fresh:
            return
        for start in range(0, len(fresh), _LARGEST_ARRAY):
            part = fresh[start : start + _LARGEST_ARRAY]
            try:
                with self._executor.batch():
                    jobs = [self._executor.submit(_Job(point.folder)) for point in part]
            except FailedJobError as error:
                raise UserError(f"SLURM takes no such job: {_last_line(error)}") from None
            for point, queued in zip(part, jobs, strict=True):
                self._jobs[point.digest] = point, queued
                known[point.digest] = queued.job_id
            self._remember(known)

    def wait(self, seconds: float) -> list[Ended]:
        """Those that have left word, or are gone without."""
        until = time.monotonic() + seconds
        while not (ended := self._ended()) and time.monotonic() < until:
            time.sleep(min(_BETWEEN_LOOKS, seconds))
        for point, _ in ended:
            del self._jobs[point.digest]
        return ended

    def stop(self) -> list[Point]:
        """Nothing: they stay in the queue."""
        return []

    def close(self) -> None:
        """Nothing: they stay in the queue."""

    def _ended(self) -> list[Ended]:
        found: list[Ended] = []
        for digest, (point, job) in self._jobs.items():
            if Outcome.of(point) is not None:
                found.append((point, None))
            elif not self._seems_gone(job):
                self._silent_since.pop(digest, None)
            elif time.monotonic() - self._silent_since.setdefault(digest, time.monotonic()) < _PATIENCE:
                continue
            elif self._is_back(job):
                del self._silent_since[digest]
            else:
                found.append(
                    (point, f"SLURM: job {job.job_id} is {job.state}; see {short(job.paths.stdout)}")
                )
        return found

    def _seems_gone(self, job: "submitit.Job[Any]") -> bool:
        """Whether a job has ended, by the accounting, and is not in the queue.

        Of one that is queued again, the accounting may tell for a while how it ended before.
        """
        if job.watcher.get_state(job.job_id) in _UNFINISHED:
            return False
        return job.job_id not in self._queue()

    def _is_back(self, job: "submitit.Job[Any]") -> bool:
        """Whether a job that seemed to have ended is queued again: after a node has failed, for example."""
        job.watcher.clear()  # which asks no more about what seemed to have ended
        return not self._seems_gone(job)

    def _queue(self) -> set[str]:
        """The jobs of the sweep that wait or run; asked now and then, and as before where none answers."""
        if time.monotonic() - self._queue_asked > _BETWEEN_LISTS:
            listed = ["squeue", "--noheader", "--array", f"--name={self._name}", "--format=%i"]
            with suppress(OSError, subprocess.SubprocessError):
                answer = subprocess.run(listed, capture_output=True, text=True, check=True, timeout=_TIMEOUT)
                self._queued = set(answer.stdout.split())
            self._queue_asked = time.monotonic()
        return self._queued

    def _remember(self, known: dict[str, str]) -> None:
        text = json.dumps(known, indent=2) + "\n"
        atomically(self._folder / JOBS, lambda file: file.write_text(text))

    def _known_jobs(self) -> dict[str, str]:
        path = self._folder / JOBS
        known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
        return known

    def _still_there(self, job_id: str | None) -> "submitit.Job[Any] | None":
        if job_id is None:
            return None
        job: submitit.Job[Any] = submitit.SlurmJob(self._folder, job_id)
        return None if self._seems_gone(job) else job


class _Job:
    """The function of a job, as submitit wants it: one that can be queued again.

    Args:
        folder: The point's.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self) -> None:
        from atheria.sweeps import worker

        queue_again: Any = signal.getsignal(signal.SIGUSR2)  # submitit's
        outcome = worker.run(Path(self._folder), _is_preempted)
        if outcome.status == endings.REQUEUED:
            try:
                queue_again(signal.SIGUSR2, None)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                pass  # SLURM has done it itself; if not, the sweep finds the job gone
            except UncompletedJobError as error:
                given_up = replace(
                    outcome, status=endings.FAILED, error=f"{error}; see hydra.launcher.requeue"
                )
                given_up.save(Point.load(Path(self._folder)))

    def checkpoint(self) -> DelayedSubmission:
        """What is queued again: the same, since the run has its own checkpoints."""
        return DelayedSubmission(self)


def _is_preempted() -> bool:
    """Whether the SIGTERM that came is no end for good, which scancel's is.

    A preempted job runs on for its time of grace, or has been queued again by SLURM already.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{task}"
    for _ in range(_QUESTIONS):
        try:
            answer = subprocess.run(
                ["scontrol", "show", "job", job], capture_output=True, text=True, check=False, timeout=5
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        said = dict(re.findall(r"(\w+)=(\S+)", answer.stdout))
        if "JobState" in said:
            restarts = int(said["Restarts"]) > int(os.environ.get("SLURM_RESTART_COUNT", "0"))
            return said["JobState"] == "RUNNING" or restarts
        time.sleep(0.1)
    return False


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
