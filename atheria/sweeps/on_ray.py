"""Jobs as Ray tasks, on this machine or on a cluster that shares its files."""

import os
import signal
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from atheria.config import RayLauncherConfig, UserError
from atheria.sweeps.launcher import Ended
from atheria.sweeps.points import Point

_STOP = "stop"
"""A file in a point's folder that tells its process to save and end."""
_PASSED_ON = ("MLFLOW_", "AWS_", "ATHERIA_", "OMP_")
"""What the environment of a job has from that of the sweep."""


class RayLauncher:
    """See `atheria.sweeps.launcher.Launcher`.

    Args:
        config: Which cluster, and what a job needs.

    Raises:
        UserError: There is no cluster at the address.
    """

    how_to_end: str | None = None

    def __init__(self, config: RayLauncherConfig) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if config.address is not None:
            _check_answers(config.address)
        environment = {key: value for key, value in os.environ.items() if key.startswith(_PASSED_ON)}
        try:
            ray.init(
                address=config.address,
                include_dashboard=None if config.address else False,
                log_to_driver=False,
                configure_logging=False,
                runtime_env={"env_vars": {"OMP_WAIT_POLICY": "passive"} | environment},
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"`hydra.launcher.address`: Ray cannot be reached at '{config.address}' ({error})"
            ) from None
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        fitting = int(resources.get("CPU", 1) // config.cores)
        self.slots = config.parallel or max(1, fitting)
        self._job = ray.remote(
            num_cpus=config.cores,
            num_gpus=config.gpus,
            memory=int((config.memory_gb or 0) * 2**30),
            max_retries=0,
        )(_job)
        self._waiting: list[Point] = []
        self._running: dict[Any, Point] = {}

    def submit(self, points: Sequence[Point]) -> None:
        """Queues them."""
        for point in points:
            point.begin()
            (Path(point.folder) / _STOP).unlink(missing_ok=True)
        self._waiting += points
        self._start()

    def wait(self, seconds: float) -> list[Ended]:
        """Those that have ended."""
        ready, _ = ray.wait(list(self._running), timeout=seconds)
        found = [(self._running.pop(reference), _how(reference)) for reference in ready]
        self._start()
        return found

    def stop(self) -> list[Point]:
        """A file for each, which its process looks for: Ray's own word bears no task that cleans up first."""
        self._waiting.clear()
        for point in self._running.values():
            (Path(point.folder) / _STOP).touch()
        return list(self._running.values())

    def close(self) -> None:
        """Leaves the cluster; on this machine, ends it."""
        ray.shutdown()

    def _start(self) -> None:
        while self._waiting and len(self._running) < self.slots:
            point = self._waiting.pop(0)
            self._running[self._job.remote(point.folder)] = point


def _check_answers(address: str) -> None:
    """Raises UserError where nobody listens; Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"`hydra.launcher.address`: Ray cannot be reached at '{address}' ({error})") from None


def _job(folder: str) -> None:
    from atheria.sweeps import worker

    ended = threading.Event()
    threading.Thread(target=_end_when_told, args=[Path(folder) / _STOP, ended], daemon=True).start()
    rays_own = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        worker.run(Path(folder))
    finally:
        ended.set()
        for number, handler in rays_own.items():
            signal.signal(number, handler)


def _end_when_told(told: Path, ended: threading.Event) -> None:
    while not ended.wait(1.0):
        if told.exists():
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _how(reference: Any) -> str | None:
    try:
        ray.get(reference)
    except RayError as error:
        return f"Ray: {(str(error).splitlines() or [type(error).__name__])[0]}"
    return None
