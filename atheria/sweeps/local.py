"""Jobs on this machine: a process for each, forked from one that has torch and mlflow loaded already."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from atheria.config import LocalLauncherConfig, UserError
from atheria.sweeps.launcher import Ended
from atheria.sweeps.points import Point


class LocalLauncher:
    """See `atheria.sweeps.launcher.Launcher`.

    Args:
        config: Cores and GPUs of a job, jobs at once.

    Raises:
        UserError: This machine has fewer GPUs.
    """

    how_to_end: str | None = None

    def __init__(self, config: LocalLauncherConfig) -> None:
        gpus = _gpus() if config.gpus else []
        if config.gpus > len(gpus):
            raise UserError(
                f"`hydra.launcher.gpus` must be at most the {len(gpus)} of this machine, got {config.gpus}"
            )
        self.slots = config.parallel or max(1, len(os.sched_getaffinity(0)) // config.cores)
        self._free_gpus: list[list[str]] = []
        if config.gpus:
            jobs = len(gpus) // config.gpus
            self._free_gpus = [gpus[i * config.gpus : (i + 1) * config.gpus] for i in range(jobs)]
            self.slots = min(self.slots, jobs)
        self._waiting: deque[Point] = deque()
        self._running: dict[ForkServerProcess, tuple[Point, list[str]]] = {}
        # Spinning threads of other jobs would take the cores; read when torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ["OMP_NUM_THREADS"] = str(config.cores)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["atheria.sweeps.forkable"])

    def submit(self, points: Sequence[Point]) -> None:
        """Starts as many as fit, the others later."""
        for point in points:
            point.begin()
        self._waiting += points
        self._start()

    def wait(self, seconds: float) -> list[Ended]:
        """Those that have ended."""
        sentinels = {process.sentinel: process for process in self._running}
        ended = [sentinels[sentinel] for sentinel in wait(sentinels, seconds) if isinstance(sentinel, int)]
        found: list[Ended] = []
        for process in ended:
            process.join()
            point, gpus = self._running.pop(process)
            if gpus:
                self._free_gpus.append(gpus)
            found.append((point, _how(process.exitcode)))
        self._start()
        return found

    def stop(self) -> list[Point]:
        """SIGTERM to each."""
        self._waiting.clear()
        for process in self._running:
            process.terminate()
        return [point for point, _ in self._running.values()]

    def close(self) -> None:
        """SIGKILL to each."""
        for process in self._running:
            process.kill()

    def _start(self) -> None:
        while self._waiting and len(self._running) < self.slots:
            point = self._waiting.popleft()
            gpus = self._free_gpus.pop(0) if self._free_gpus else []
            process = self._context.Process(target=_job, args=(point.folder, gpus))
            process.start()
            self._running[process] = point, gpus


def _job(folder: str, gpus: list[str]) -> None:
    from atheria.sweeps import worker

    os.setsid()  # the terminal's Ctrl-C is for the sweep, which tells its jobs
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    worker.run(Path(folder))


def _end_with_the_sweep() -> None:
    sweep = multiprocessing.parent_process()
    assert sweep is not None
    sweep.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def _gpus() -> list[str]:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
