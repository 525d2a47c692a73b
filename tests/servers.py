"""Real servers that tests start, stop, freeze and kill."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MlflowServer:
    """An ``mlflow server`` with its own database and proxied artifacts, on one port for all its lives."""

    def __init__(
        self,
        folder: Path,
        store: str | None = None,
        artifacts: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._port = free_port()
        self._store = store or f"sqlite:///{folder}/server.db"
        self._artifacts = artifacts or f"{folder}/server-artifacts"
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Returns when it answers."""
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port),
             "--workers", "1",
             "--backend-store-uri", self._store, "--artifacts-destination", self._artifacts],
            env=os.environ | quiet | self._environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_for(f"{self.address}/health", self._process)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to all its processes."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Ends it without a word, as a crash does."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(timeout=20)
            self._process = None


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Returns when a server answers."""
    for _ in range(240):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.25)
    raise AssertionError(f"{url} does not answer")
