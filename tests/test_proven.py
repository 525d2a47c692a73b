"""Files of no known digest are opened by a child process first, which may die of them."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from atheria_core import Engine

from atheria import artifact, proven
from atheria.artifact import DEFAULT_PHYSICS, loading_arguments
from atheria.engine import from_run
from atheria.export import export
from atheria.jobs.train import TrainedRun
from atheria.probe import CrashError, Probe

from .conftest import make_law, plain_torchscript

PLAIN = loading_arguments(None, DEFAULT_PHYSICS) | {"d_state": 4}


class Endless(torch.nn.Module):
    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        while bool(psi.sum() < 1e9):
            psi = psi * 1.0
        return psi


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    return plain_torchscript(Endless(), tmp_path / "endless.pt")


@pytest.fixture
def without_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """No child can be started."""
    proven.probe.close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")


def nested(path: Path, source: Path) -> Path:
    """A law whose source returns its result in so many brackets that libtorch's parser runs out of stack."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w") as copy:
        for info in archive.infolist():
            record = archive.read(info)
            if re.search(r"/code/.*\.py$", info.filename):
                record = re.sub(
                    rb"return (\w+)", rb"return " + b"(" * 100_000 + rb"\1" + b")" * 100_000, record
                )
            copy.writestr(info.filename, record)
    return path


@pytest.mark.parametrize("described", [True, False])
def test_a_file_that_crashes_the_reader_is_refused(
    exported: Callable, tmp_path: Path, described: bool
) -> None:
    _, whole = exported("mlp")
    if not described:
        whole = plain_torchscript(make_law("mlp"), tmp_path / "plain.pt")
    path = nested(tmp_path / "nested.pt", whole)
    before = proven.probe.crashes
    engine = Engine(d_state=4)
    for number in (1, 2):  # it is not remembered as one that opens
        with pytest.raises(
            ValueError, match=r"nested.pt' was opened in a process of its own, and it died of SIG"
        ):
            engine.load_model(path)
        assert proven.probe.crashes == before + number
    if described:
        with pytest.raises(ValueError, match="it died of SIG"):
            export([f"law={path}", f"output={tmp_path}/again.pt"])
    engine.load_model(whole)  # by the next child
    engine.reset("soup", 0, (8, 8))
    assert engine.step_native() > 0


def test_a_content_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plain_torchscript(make_law("mlp"), tmp_path / "plain.pt")
    Engine(d_state=4).load_model(path)
    proven.probe.close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    Engine(d_state=4).load_model(path.rename(tmp_path / "moved.pt"))
    other = plain_torchscript(make_law("mlp", seed=1), tmp_path / "plain.pt")
    with pytest.raises(RuntimeError, match="the process that opens files first cannot start"):
        Engine(d_state=4).load_model(other)


def test_a_full_memory_forgets_its_oldest_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proven, "MOST", 4)
    for seed in range(5):
        path = plain_torchscript(make_law("mlp", seed=seed), tmp_path / "plain.pt")
        Engine(d_state=4).load_model(path)
    marks = list((tmp_path / "cache/proven").iterdir())
    assert len(marks) == 3
    proven.check(path, 4, PLAIN | {"d_state": None})
    assert list((tmp_path / "cache/proven").iterdir()) == marks  # the newest is remembered


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ATHERIA_CACHE", str(tmp_path / "file"))
    Engine(d_state=4).load_model(plain_torchscript(make_law("mlp"), tmp_path / "plain.pt"))


@pytest.mark.usefixtures("without_children")
def test_laws_of_runs_and_own_exports_need_no_child(exported: Callable, in_run_folder: TrainedRun) -> None:
    Engine().load_model(exported("unet")[1])
    assert from_run(in_run_folder.run_id).step_native() > 0
    assert artifact.as_checkpoint(in_run_folder.law)["run_id"] == in_run_folder.run_id


def test_ctrl_c_while_a_file_is_tried(endless: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            Engine(d_state=4).load_model(endless)
    finally:
        interrupt.cancel()
        signal.signal(signal.SIGINT, before)


def test_a_law_that_never_answers(endless: Path) -> None:
    with pytest.raises(CrashError, match="it took too long"):
        Probe(longest=1).open(str(endless), None, PLAIN)


def test_an_idle_child_ends_and_the_next_file_gets_another(exported: Callable) -> None:
    _, path = exported("mlp")
    probe = Probe(idle=1)
    assert probe.open(str(path), None, PLAIN) is None
    process = probe._child._process
    assert process.wait(30) == 0
    assert probe.open(str(path), None, PLAIN) is None
    assert probe.crashes == 0
    probe.close()


def test_the_child_ends_with_the_process_that_asks(exported: Callable, tmp_path: Path) -> None:
    path = plain_torchscript(make_law("mlp"), tmp_path / "plain.pt")
    code = f"""
from atheria import proven
proven.check({str(path)!r}, None, {PLAIN})
print(proven.probe._child._process.pid, flush=True)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 300
    while Path(f"/proc/{done.stdout.strip()}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{done.stdout.strip()}/exe").exists()


def _try_in_fork(path: Path, answers) -> None:
    mine = proven.probe._child
    proven.check(path, None, PLAIN)
    answers.put(mine is None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_has_a_child_of_its_own(tmp_path: Path) -> None:
    paths = [plain_torchscript(make_law("mlp", seed=n), tmp_path / f"{n}.pt") for n in range(3)]
    proven.check(paths[0], None, PLAIN)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    fork = context.Process(target=_try_in_fork, args=(paths[1], answers))
    fork.start()
    assert answers.get(timeout=600)
    fork.join(60)
    assert fork.exitcode == 0
    proven.check(paths[2], None, PLAIN)


@pytest.mark.slow
def test_a_short_fuzzing_finds_nothing(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "tools/fuzz.py"
    done = subprocess.run(
        [sys.executable, script, "--minutes=0.5", f"--output={tmp_path}/fuzz"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for mutation in ("description", "code", "pickles", "records", "container"):
        assert re.search(rf"^{mutation} +\w+", done.stdout, re.M), done.stdout
