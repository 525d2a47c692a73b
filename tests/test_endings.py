"""Signals, statuses, and processes that are gone."""

import os
import signal
import subprocess
import sys

import pytest

from atheria import endings
from atheria.stores import without_credentials

MARK = "from atheria import endings; print(endings.this_process(), flush=True); input()"


def test_a_process_is_gone_when_it_is_gone() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", MARK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    mark = process.stdout.readline().strip()
    assert not endings.is_gone(mark)
    process.kill()
    while not endings.is_gone(mark):  # a process that ended and was not waited for is gone too
        pass
    process.wait()
    assert endings.is_gone(mark)


def test_what_cannot_be_known_is_not_gone() -> None:
    host, boot, namespace, pid, start = endings.this_process().split()
    assert int(pid) == os.getpid()
    assert not endings.is_gone(f"elsewhere {boot} {namespace} {pid} 1")
    assert not endings.is_gone(f"{host} {boot} another-container {pid} 1")
    assert not endings.is_gone("")
    assert endings.is_gone(f"{host} {boot} {namespace} {pid} {int(start) + 1}")  # its number was given again
    assert endings.is_gone(f"{host} another-boot {namespace} {pid} {start}")
    assert endings.host_of(f"{host} x") == host


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (ValueError(), "FAILED"),
        (SystemExit(0), "FAILED"),
        (MemoryError(), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (endings.Stopped("SCHEDULED"), "SCHEDULED"),
    ],
)
def test_how_a_run_ended(error: BaseException | None, status: str) -> None:
    assert endings.status_of(error) == status


def test_a_first_signal_waits_for_the_boundary_and_a_second_does_not() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with endings.at_step_boundary("this step") as stop:
        endings.heed(stop.number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.status == "KILLED"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(endings.Stopped, match="KILLED"):
            endings.heed(stop.number)
    assert signal.getsignal(signal.SIGTERM) is before


def test_under_nohup_a_closed_terminal_is_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with endings.at_step_boundary("this step") as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.status is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ada:secret@host:5000/x", "http://***@host:5000/x"),
        ("postgresql://ada:se@cret@host/x", "postgresql://***@host/x"),
        (
            "cannot reach http://ada:secret@host and http://b:secret@c",
            "cannot reach http://***@host and http://***@c",
        ),
        (
            "postgresql://host/x?user=ada&password=secret&port=1",
            "postgresql://host/x?user=***&password=***&port=1",
        ),
        ("postgresql://ada:se/cret@host/x", "postgresql://***@host/x"),
        ("http://host/a@b", "http://host/a@b"),
        ("sqlite:////home/a@b/c.db", "sqlite:////home/a@b/c.db"),
    ],
)
def test_credentials_are_masked(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
