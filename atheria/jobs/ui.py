"""The work of ``python -m atheria.ui``."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from pathlib import Path

from atheria.config import UiConfig, UserError
from atheria.files import cache_folder
from atheria.stores import artifacts_folder, shown, store_uri
from atheria.tracking import Store

DESCRIPTION = """\
Laws for cellular universes, trained by Atheria: `docs/physics.md` defines what is measured.

| metric | what it means |
|---|---|
| `train/loss`, `train/<term>` | the objective of an episode's rollouts, and each of its terms |
| `train/noise_level` | the noise channel's rate per step in that episode |
| `eval/loss`, `eval/<observable>` | on states that are not trained on; under v4, lower is better |
| `best/...` | of the checkpoint that was exported as `law/law.pt` |
| `rollout/<observable>` | along a native rollout, which is a child of its law's run |

**To compare runs**: choose them, *Compare*, and look at `eval/loss` over steps first, then at `eval/survival`
and `eval/symmetry` together: a universe that dies is symmetric; `eval/symmetry_per_rho` is divided by its
mean density. Charts are grouped by prefix (`train/`, `eval/`). Of a sweep, open the parent's children.
Pictures are in a run's artifacts, under `pictures/`.
"""
_START_SECONDS = 60


def check(config: UiConfig) -> None:
    """Nothing here contradicts itself."""


def run(config: UiConfig) -> None:
    """Serves MLflow's UI until it is interrupted.

    Raises:
        UserError: There is no store, no such experiment, or the port is taken.
    """
    uri = store_uri(config.tracking.uri)
    experiment = Store(uri, create=False).describe(config.tracking.experiment, DESCRIPTION)
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    if uri.startswith("http"):
        _show(f"{shown(uri).rstrip('/')}/{page}", config.open)
        return
    port = _port(config.port)
    base = f"http://127.0.0.1:{port}"
    log = cache_folder() / "ui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--workers", "1", "--artifacts-destination", str(artifacts_folder(uri))],
            env={
                **os.environ,
                "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: it may hold a password
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        print(f"store     {shown(uri)}\nstarting  MLflow's UI, which takes some seconds", flush=True)
        _wait(base, server, log)
        _show(f"{base}/{page}", config.open)
        print("stop      Ctrl-C", flush=True)
        server.wait()
        raise UserError(f"MLflow's server has ended; what it said is in {log}")
    except KeyboardInterrupt:
        print("\nstopped")
    finally:
        _end(server)


def _show(address: str, opens: bool) -> None:
    print(f"open      {address}", flush=True)
    if opens:
        webbrowser.open(address)


def _port(port: int) -> int:
    """The port, or a free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"`port` {port} of 127.0.0.1 cannot be had ({error.strerror}); choose another, or port=0 for "
                "a free one"
            ) from None
        return int(probe.getsockname()[1])


def _wait(base: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Returns when it answers."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{base}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise UserError(f"MLflow's server does not start; what it said is in {log}")


def _end(server: "subprocess.Popen[bytes]") -> None:
    """Ends it with all its processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(timeout=10)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
