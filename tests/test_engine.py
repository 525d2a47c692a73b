"""The native engine by itself, and what it refuses."""

import contextlib
import json
import re
import subprocess
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from atheria_core import Engine

from atheria.artifact import loading_arguments

from .conftest import PHYSICS, heed_ctrl_c, make_law, plain_torchscript


def test_load_model_starts_the_universe_that_the_artifact_describes(exported: Callable) -> None:
    _, path = exported("mlp", grid=(8, 12), initial="particles", seed=3)
    engine = Engine(d_state=4, device="cpu")  # the seed's own snippet
    engine.load_model(str(path))
    assert engine.state().shape == (1, 8, 8, 12)
    assert engine.step_native() > 0
    by_hand = Engine()
    by_hand.load_model(path)
    by_hand.reset("particles", 3, (8, 12))
    by_hand.step_native()
    assert np.array_equal(engine.state(), by_hand.state())


def test_a_state_that_was_set_outlives_a_new_law(exported: Callable, engine: Engine) -> None:
    psi = np.ones((2, 8, 4, 4), np.float32)
    engine.set_state(psi)
    _, path = exported("mlp", grid=(8, 8))
    engine.load_model(path)
    assert np.array_equal(engine.state(), psi)


def test_the_state_is_a_copy_both_ways(engine: Engine) -> None:
    psi = np.ones((1, 8, 4, 4), np.float32)
    engine.set_state(psi)
    psi[:] = 7
    engine.state()[:] = 9
    assert (engine.state() == 1).all()


def test_torch_tensors_and_read_only_arrays_are_taken(engine: Engine) -> None:
    engine.set_state(torch.ones(1, 8, 4, 4))
    frozen = np.ones((1, 8, 4, 4), np.float32)
    frozen.flags.writeable = False
    engine.set_state(frozen)
    assert engine.step_count == 0


def test_particles_cells_and_windows(engine: Engine) -> None:
    engine.reset("zeros", 0, (6, 10), 2)
    amplitudes = np.array([1, 2j, -3, 4 - 4j], np.complex64)
    engine.add_particle(9, 2, amplitudes, universe=1)
    assert np.array_equal(engine.state_at(9, 2, universe=1), amplitudes)
    where, what = engine.cells(universe=1)
    assert where.tolist() == [[9, 2]]
    assert np.array_equal(what[0], amplitudes)
    assert len(engine.cells(universe=0)[0]) == 0
    window = engine.window(8, 1, 4, 3, universe=1)  # wraps: columns 8, 9, 0, 1
    assert window.shape == (8, 3, 4)
    assert np.array_equal(window[:4, 1, 1] + 1j * window[4:, 1, 1], amplitudes)
    assert np.count_nonzero(np.square(window).sum(axis=0)) == 1


def test_many_particles_are_put_at_once_as_one_by_one(engine: Engine) -> None:
    coordinates = np.array([[3, 1], [0, 9], [15, 15], [3, 1]], np.int64)
    amplitudes = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32).view(np.complex64)
    engine.reset("random", 0, (16, 16), 2)
    engine.step_native(2)
    kept = engine.snapshot()
    for (x, y), amplitude in zip(coordinates, amplitudes, strict=True):
        engine.add_particle(int(x), int(y), amplitude, universe=1)
    expected = engine.state()
    engine.restore(kept)
    engine.add_particles(coordinates, amplitudes, universe=1)
    assert np.array_equal(engine.state(), expected)
    assert np.array_equal(engine.state_at(3, 1, universe=1), amplitudes[3])
    assert engine.step_count == 2
    coordinates[2] = 16, 0
    with pytest.raises(ValueError, match="`x`, `y` must lie on the grid of 16 x 16, got x=16, y=0"):
        engine.add_particles(coordinates, np.zeros_like(amplitudes), universe=1)
    assert np.array_equal(engine.state(), expected)


def test_a_window_beyond_a_grid_with_zero_boundary_shows_vacuum(exported: Callable) -> None:
    _, path = exported("mlp", replace(PHYSICS, boundary="zeros"))
    engine = Engine()
    engine.load_model(path)
    engine.reset("random", 0, (4, 4))
    window = engine.window(-1, -1, 3, 3)
    assert (window[:, 0, :] == 0).all()
    assert np.array_equal(window[:, 1:, 1:], engine.state()[0, :, :2, :2])


def test_rollout_observes_and_stops(engine: Engine, exported: Callable) -> None:
    engine.set_state(np.ones((2, 8, 4, 4), np.float32))
    seen = engine.rollout(10, 4)
    assert [entry["step"] for entry in seen] == [0, 4, 8, 10]
    assert seen[-1]["universes"] == engine.observables()
    engine.set_state(np.zeros((1, 8, 4, 4), np.float32))
    assert [e["step"] for e in engine.rollout(10, 4, stop=["fixed_point"])][-1] < 11


def test_extinction_stops_a_rollout(tmp_path: Path) -> None:
    class Nothing(torch.nn.Module):
        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(psi)

    engine = Engine(d_state=2)
    engine.load_model(plain_torchscript(Nothing(), tmp_path / "law.pt"), {"gamma": 0.5, "epsilon": 0.2})
    engine.reset("random", 0, (4, 4))  # cells of norm 1 halve every step: 1/2, 1/4, vacuum
    assert [e["step"] for e in engine.rollout(100, 50, stop=["extinction"])] == [0, 3]


def test_snapshots_come_back_bit_for_bit(exported: Callable) -> None:
    _, path = exported("unet", replace(PHYSICS, fire_rate=0.5, normalise="global"))
    engine = Engine()
    engine.load_model(path)
    engine.set_noise("seed", 0.3)
    engine.step_native(3)
    kept = engine.snapshot()
    engine.step_native(5)
    expected = engine.state()
    engine.reset("random", 99, (32, 32), 2)
    engine.set_noise("none")
    engine.restore(kept)
    assert engine.step_count == 3
    engine.step_native(5)
    assert np.array_equal(engine.state(), expected)


def test_info_says_what_runs(exported: Callable) -> None:
    _, path = exported("unet pixel")
    engine = Engine()
    engine.load_model(path)
    info = engine.info()
    assert info["backend"] == "compiled"
    assert "differs from libtorch by" in info["why"]
    assert info["local"] is True
    assert info["receptive_radius"] == 31
    assert info["vacuum_stable"] is True
    assert info["evaluated_cells"] == 256


def test_other_python_threads_run_while_the_engine_computes(exported: Callable) -> None:
    _, path = exported("unet")
    engine = Engine()
    engine.load_model(path)
    engine.reset("soup", 0, (64, 64))
    worker = threading.Thread(target=engine.step_native, args=(50,))
    worker.start()
    turns = 0
    while worker.is_alive():
        turns += 1
    worker.join()
    assert turns > 1000
    assert engine.step_count == 50


def test_two_engines_in_two_threads_run_side_by_side(exported: Callable) -> None:
    """A long call in one holds nothing that the other needs, and both get the results that they get alone."""
    path, quick_path = exported("unet")[1], exported("mlp")[1]

    def engines() -> tuple[Engine, Engine]:
        long, quick = Engine(), Engine()
        long.load_model(path)
        quick.load_model(quick_path)
        long.reset("soup", 0, (64, 64))
        return long, quick

    long, quick = engines()
    worker = threading.Thread(target=long.step_native, args=(80,))
    worker.start()
    quick_worker = threading.Thread(target=quick.step_native, args=(5,))
    quick_worker.start()
    quick_worker.join()
    assert quick.step_count == 5
    assert worker.is_alive()  # the long call, begun before, still goes on
    worker.join()
    assert long.step_count == 80
    alone = engines()
    for engine, other, steps in ((long, alone[0], 80), (quick, alone[1], 5)):
        other.step_native(steps)
        assert np.array_equal(engine.state(), other.state())


def test_ctrl_c_stops_between_steps(exported: Callable) -> None:
    _, path = exported("unet")
    code = f"""
import atheria_core, signal, threading, os
engine = atheria_core.Engine()
engine.load_model({str(path)!r})
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    engine.step_native(10**9)
except KeyboardInterrupt:
    print("stopped after", engine.step_count)
stopped = engine.step_count
other = atheria_core.Engine()
other.load_model({str(path)!r})
other.step_native(stopped)
print((engine.state() == other.state()).all())
engine.step_native(3)
other.step_native(3)
print(engine.step_count == stopped + 3, (engine.state() == other.state()).all())
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, preexec_fn=heed_ctrl_c
    )
    first, *whole = result.stdout.splitlines()
    assert first.startswith("stopped after"), result.stderr
    assert int(first.split()[-1]) > 0
    assert whole == ["True", "True True"]  # it stopped between two steps, and goes on as if it had not


class Scaled(torch.nn.Module):
    """delta = factor * psi."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return self.factor * psi


class Counts(torch.nn.Module):
    """A law whose memory counts its steps, and adds the count."""

    @torch.jit.export
    def initial_memory(self, batch: int, height: int, width: int) -> torch.Tensor:
        return torch.zeros([batch, 1, 1, 1])

    def forward(self, psi: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (memory + 1).expand_as(psi), memory + 1


def with_law(law: torch.nn.Module, folder: Path, d_state: int = 1, **physics) -> Engine:
    engine = Engine(d_state=d_state)
    engine.load_model(plain_torchscript(law, folder / "plain.pt"), physics)
    return engine


def test_memory_starts_anew_with_a_state_and_is_part_of_a_snapshot(tmp_path: Path) -> None:
    engine = with_law(Counts(), tmp_path)
    zeros = np.zeros((1, 2, 2, 2), np.float32)
    for _ in range(2):
        engine.set_state(zeros)
        engine.step_native(2)
        assert engine.state().max() == 1 + 2
    kept = engine.snapshot()
    engine.step_native(1)
    engine.restore(kept)
    engine.step_native(1)
    assert engine.state().max() == 1 + 2 + 3


def test_a_snapshot_of_another_kind_of_law_is_refused(tmp_path: Path, exported: Callable) -> None:
    plain = with_law(Scaled(0.0), tmp_path)
    plain.reset("random", 0, (6, 6))
    message = "the snapshot is of a law with another `d_state`, `stride` or memory"
    refused(ValueError, message, with_law(Counts(), tmp_path).restore, plain.snapshot())
    engine = Engine()
    engine.load_model(exported("mlp")[1])
    refused(ValueError, message, engine.restore, plain.snapshot())


def test_a_new_law_starts_from_the_field_of_the_old_one(tmp_path: Path, exported: Callable) -> None:
    engine = with_law(Scaled(0.0), tmp_path, d_state=2)
    engine.reset("random", 3, (6, 6))
    engine.step_native(4)
    before = engine.state()
    engine.load_model(plain_torchscript(Scaled(1.0), tmp_path / "other.pt"))
    assert engine.step_count == 0
    engine.step_native()
    assert np.array_equal(engine.state(), 2 * before)
    engine.load_model(exported("unet")[1])  # of stride 4: the field does not suit it
    assert engine.state().shape == (1, 4, 16, 16)


@pytest.mark.parametrize("grid", [(16, 16), None], ids=["grid", "unbounded"])
def test_what_is_measured_can_be_had(exported: Callable, grid: tuple[int, int] | None) -> None:
    _, path = exported("deep_qca" if grid else "quantum_walk", replace(PHYSICS, epsilon=0.01))
    engine = Engine()
    engine.load_model(path)
    engine.reset("particles", 0, grid, universes=2, count=5)
    quiet = engine.cells(1)[1]
    assert np.array_equal(engine.cells(1, before_noise=True)[1], quiet)
    engine.set_noise("dephasing" if grid is None else "thermal", 0.5)
    engine.step_native(3)
    for universe, observed in enumerate(engine.observables()):
        _, measured = engine.cells(universe, before_noise=True)
        assert np.square(np.abs(measured)).sum() == pytest.approx(observed["energy"], rel=1e-5)
        assert not np.array_equal(measured, engine.cells(universe)[1])
        if grid:
            psi = engine.state(before_noise=True)[universe]
            assert np.square(psi).sum() == pytest.approx(observed["energy"], rel=1e-5)
    assert engine.step_count == 3


def test_global_normalisation_restores_the_energy_of_the_start_even_under_thermal_noise(
    tmp_path: Path,
) -> None:
    engine = with_law(Scaled(0.5), tmp_path, normalise="global")
    engine.reset("random", 0, (16, 16))
    engine.set_noise("thermal", 0.1)
    engine.step_native(50)
    # Measured before noise, as the observables are: N0, not what noise has made of it.
    assert engine.observables()[0]["energy"] == pytest.approx(256, rel=1e-4)
    assert np.square(engine.state()).sum() > 258


def test_large_fields_are_not_mistaken_for_explosions_nor_explosions_for_vacuum(tmp_path: Path) -> None:
    huge = np.full((1, 2, 4, 4), 2e19, np.float32)
    still = with_law(Scaled(0.0), tmp_path)
    still.set_state(huge)
    assert still.step_native() == 16
    for normalise in ("cell", "global"):
        engine = with_law(Scaled(0.0), tmp_path, normalise=normalise)
        engine.set_state(huge)
        refused(OverflowError, "stopped being finite at step 1", engine.step_native)


def test_occupancy_has_one_meaning(tmp_path: Path) -> None:
    engine = with_law(Scaled(0.0), tmp_path)
    engine.reset("gaussian", 0, (32, 32), width=1.0)  # its tail underflows when squared in float32
    occupied = int((engine.state() != 0).any(axis=1).sum())
    assert engine.step_native() == occupied == len(engine.cells()[0])
    assert engine.observables()[0]["occupancy"] == occupied / 1024


def test_a_uniform_field_on_a_torus_has_the_middle_for_its_centre(tmp_path: Path) -> None:
    engine = with_law(Scaled(0.0), tmp_path)
    engine.set_state(np.ones((1, 2, 12, 16), np.float32))
    seen = engine.observables()[0]
    assert (seen["centre_x"], seen["centre_y"]) == (8, 6)


def test_vacuum_stability_follows_the_threshold_that_is_used(tmp_path: Path) -> None:
    class Source(torch.nn.Module):
        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            return torch.full_like(psi, 0.05)

    assert with_law(Source(), tmp_path, epsilon=0.1).info()["vacuum_stable"] is True
    assert with_law(Source(), tmp_path).info()["vacuum_stable"] is False


def test_the_array_may_vanish_as_soon_as_it_was_given(engine: Engine) -> None:
    class Lends:
        """Exports a temporary that nobody else holds."""

        def __dlpack__(self, **_: object) -> object:
            return np.full((1, 8, 64, 64), 5.0, np.float32).__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    for _ in range(20):
        engine.set_state(Lends())
        assert (engine.state() == 5).all()


def test_several_threads_share_an_engine(exported: Callable) -> None:
    engine = Engine()
    engine.load_model(exported("unet")[1])
    workers = [threading.Thread(target=engine.step_native, args=(25,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    seen = [engine.step_count for _ in range(20)]
    for worker in workers:
        worker.join()
    assert seen == sorted(seen)
    assert engine.step_count == 100


FORKS = """
import os, signal, sys, threading, time
import torch
from atheria_core import Engine

torch.set_num_threads(1)
engines = [Engine(threads=2) for _ in range(2)]
for engine in engines:
    engine.load_model(sys.argv[1])
    engine.reset("soup", 0, (256, 256))
    engine.step_native()
threading.Thread(target=engines[0].step_native, args=[10**9], daemon=True).start()
time.sleep(0.1)
for _ in range(10):
    if not (child := os.fork()):
        signal.alarm(60)
        engines[1].step_native(2)
        os._exit(len(os.listdir("/proc/self/task")))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), end=" ")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_a_child_forked_in_the_midst_of_a_step_has_all_its_threads(exported: Callable) -> None:
    _, path = exported("mlp")
    ended = subprocess.run([sys.executable, "-c", FORKS, str(path)], capture_output=True, text=True)
    assert ended.stdout == 10 * "2 ", ended.stderr


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not LARGE_PAGES.exists() or "[never]" in LARGE_PAGES.read_text(), reason="the system gives no large pages"
)
def test_large_fields_lie_in_large_pages(exported: Callable) -> None:
    def large_pages() -> int:
        return int(re.findall(r"AnonHugePages: *(\d+) kB", Path("/proc/self/smaps_rollup").read_text())[0])

    engine = Engine()
    engine.load_model(exported("mlp")[1])
    # What the allocator has had back, and gives away again, is in small pages.
    given_back = [np.ones(4 << 20, np.float32) for _ in range(4)]
    given_back.clear()
    engine.reset("soup", 0, (512, 1024))
    before = large_pages()
    for _ in range(2):  # a field of 16 MB each
        engine.step_native()
    assert large_pages() - before > 16 * 1024


def test_a_signal_handler_cannot_call_the_engine_that_it_interrupts(exported: Callable) -> None:
    """It is told so; it neither hangs nor changes a universe between two steps."""
    _, path = exported("unet")
    code = f"""
import atheria_core, os, signal, threading
engine = atheria_core.Engine()
engine.load_model({str(path)!r})
def handle(*_):
    try: engine.step_count
    except RuntimeError as error: print(error)
    raise KeyboardInterrupt
signal.signal(signal.SIGUSR1, handle)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1)).start()
try: engine.step_native(10**9)
except KeyboardInterrupt: print(engine.step_count > 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True
    )
    assert result.stdout.splitlines() == [
        "the engine is stepping; a signal handler or a callback cannot call it",
        "True",
    ]


# What is refused ------------------------------------------------------------------------------------


def refused(kind: type[Exception], message: str, call: Callable, *args, **kwargs) -> None:
    with pytest.raises(kind) as error:
        call(*args, **kwargs)
    assert message in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_artifact(exported: Callable, share: float) -> None:
    _, path = exported("mlp")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(ValueError, "is not a TorchScript file (.pt), or it was cut short", Engine().load_model, path)


def test_a_damaged_artifact(exported: Callable) -> None:
    """A flipped byte anywhere in a record is noticed, though torch checks no CRC."""
    _, path = exported("mlp")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        weights = [info for info in archive.infolist() if "/data/" in info.filename]
        largest = max(weights, key=lambda info: info.file_size)
    place = content.index(largest.filename.encode()) + len(largest.filename) + 200
    path.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
    refused(ValueError, "is damaged in", Engine().load_model, path)


def test_files_that_are_no_artifacts(tmp_path: Path) -> None:
    text = tmp_path / "text.pt"
    text.write_text("law: unet\n")
    refused(ValueError, "is not a TorchScript file", Engine().load_model, text)
    refused(ValueError, "there is no file", Engine().load_model, tmp_path / "none.pt")
    refused(ValueError, "there is no file", Engine().load_model, tmp_path)
    checkpoint = tmp_path / "weights.pt"
    torch.save({"w": torch.ones(3)}, checkpoint)
    refused(ValueError, "is a checkpoint or a pickled module", Engine(d_state=2).load_model, checkpoint)


def test_a_wrong_d_state(exported: Callable, tmp_path: Path) -> None:
    _, path = exported("mlp")
    refused(
        ValueError, "the law has `d_state`=4, the engine was made with 8", Engine(d_state=8).load_model, path
    )
    plain = plain_torchscript(make_law("mlp"), tmp_path / "plain.pt")
    refused(ValueError, "does not say its `d_state`", Engine().load_model, plain)
    refused(ValueError, "does not take a field with `d_state`=3", Engine(d_state=3).load_model, plain)
    Engine(d_state=4).load_model(plain)


def test_a_module_that_is_no_law(tmp_path: Path) -> None:
    class Sum(torch.nn.Module):
        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            return psi.sum()

    class Number(torch.nn.Module):
        def forward(self, psi: torch.Tensor) -> int:
            return 3

    class Raises(torch.nn.Module):
        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            if psi.dim() == 4:
                raise ValueError("no fields, please")
            return psi

    for law, message in (
        (Sum(), "must return float32 of its input's shape"),
        (Number(), "libtorch says"),
        (Raises(), "no fields, please"),
    ):
        path = plain_torchscript(law, tmp_path / "law.pt")
        refused(ValueError, message, Engine(d_state=2).load_model, path)


def test_laws_that_would_crash_or_lie(tmp_path: Path) -> None:
    class Stride(Scaled):
        def __init__(self, stride: int) -> None:
            super().__init__(0.0)
            self.stride = stride

    class Double(torch.nn.Module):
        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            return psi.double()

    class InPlace(torch.nn.Module):
        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            return psi.mul_(0.5)

    class Batch(torch.nn.Module):
        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            return psi if psi.shape[2] == 16 else psi.repeat([3, 1, 1, 1])

    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return psi * self.calls

    class Turns(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Identity()
            self.turn = 0
            self.gap = torch.tensor(float("nan"))

        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            if bool((psi > 0).all()):
                self.turn += 1
            return psi

    refused(ValueError, "changes its attribute `calls`", with_law, Counter(), tmp_path)
    refused(ValueError, "changes its attribute `turn`", with_law, Turns(), tmp_path)
    for stride in (0, -4, 2**40):
        refused(ValueError, "`stride` must be from 1 to 4096", with_law, Stride(stride), tmp_path)
    refused(ValueError, "must return float32 of its input's shape", with_law, Double(), tmp_path)
    refused(ValueError, "changes its arguments in place", with_law, InPlace(), tmp_path)
    engine = with_law(Batch(), tmp_path)
    engine.reset("random", 0, (4, 4))
    refused(ValueError, "It returned Float [3, 2, 4, 4]", engine.step_native)
    assert engine.state().shape == (1, 2, 4, 4)


def test_no_flipped_bit_ends_in_anything_but_a_value_error(exported: Callable) -> None:
    _, path = exported("mlp")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), 300):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(0, 8)
        path.write_bytes(changed)
        with contextlib.suppress(ValueError, RuntimeError):
            Engine().load_model(path)


def test_a_field_that_does_not_suit_another_law_is_not_dropped_in_silence(exported: Callable) -> None:
    engine = Engine()
    engine.load_model(exported("mlp")[1])
    engine.set_state(np.ones((1, 8, 6, 10), np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.load_model(exported("mlp", grid=(8, 8))[1])
    assert engine.state().shape == (1, 8, 6, 10)
    with pytest.warns(UserWarning, match="the field that .* does not suit '.*unet.pt'.*describes has begun"):
        engine.load_model(exported("unet")[1])
    assert engine.state().shape == (1, 4, 16, 16)


def test_the_extension_checks_what_it_is_given_by_itself(exported: Callable) -> None:
    """Kernels have room for so many channels, and a boundary that nobody knows would pass for another."""
    _, path = exported("mlp")
    load = partial(Engine()._load_model, str(path))
    known = loading_arguments(None, PHYSICS) | {"d_state": 4}
    refused(ValueError, "`d_state` must be 1 to 128, got 129", load, **known | {"d_state": 129})
    wrong = known | {"boundary": "torsu"}
    refused(ValueError, "`boundary` must be torus or zeros, got 'torsu'", load, **wrong)
    refused(ValueError, "`gamma` must be at least 0 and below 1, got 1e+20", load, **known | {"gamma": 1e20})


def test_arrays_that_are_no_fields(engine: Engine) -> None:
    good = np.ones((1, 8, 4, 4), np.float32)
    refused(TypeError, "must be float32, got float64", engine.set_state, good.astype(np.float64))
    refused(TypeError, "must be float32, got complex64", engine.set_state, good.astype(np.complex64))
    refused(TypeError, "must be float32, got bool", engine.set_state, good > 0)
    refused(TypeError, "must be an array", engine.set_state, [[1.0]])
    negative = torch.ones(1, 8, 4, 4, dtype=torch.complex64).conj().imag
    refused(TypeError, "call resolve_neg() first", engine.set_state, negative)
    refused(ValueError, "must be C-contiguous", engine.set_state, good.swapaxes(2, 3)[:, :, :, ::2])
    refused(
        ValueError, "must be C-contiguous", engine.set_state, np.asfortranarray(np.ones((1, 8, 4, 5), "f4"))
    )
    refused(ValueError, "must have the 4 axes", engine.set_state, good[0])
    refused(
        ValueError, "must have 2*`d_state` = 8 channels, got 6", engine.set_state, np.ones((1, 6, 4, 4), "f4")
    )
    refused(ValueError, "at least one universe", engine.set_state, np.ones((0, 8, 4, 4), "f4"))
    for bad in (np.nan, np.inf):
        wrong = good.copy()
        wrong[0, 5, 2, 3] = bad
        refused(ValueError, "the first in universe 0, channel 5, cell (x=3, y=2)", engine.set_state, wrong)
    assert engine.state().shape == (1, 8, 16, 16)  # what was refused changed nothing


def test_a_grid_that_the_stride_does_not_divide(exported: Callable) -> None:
    _, path = exported("unet")
    engine = Engine()
    engine.load_model(path)
    message = "`grid` must be positive multiples of the law's stride 4, got 6 x 8"
    refused(ValueError, message, engine.reset, "soup", 0, (6, 8))
    refused(ValueError, message, engine.set_state, np.ones((1, 4, 6, 8), np.float32))


def test_arguments_out_of_range(engine: Engine, exported: Callable) -> None:
    refused(ValueError, "`kind` of initial state must be soup", engine.reset, "broth", 0, (4, 4))
    refused(ValueError, "`density` must be between 0 and 1", engine.reset, "soup", 0, (4, 4), density=2.0)
    refused(ValueError, "`grid` must be 1 to 65536 a side, got 0 x 4", engine.reset, "soup", 0, (0, 4))
    refused(
        ValueError, "`name` of noise must be one of none, amplitude_damping", engine.set_noise, "hum", 0.1
    )
    refused(ValueError, "`level` of noise must be between 0 and 1", engine.set_noise, "seed", 1.5)
    refused(ValueError, "`steps` must be at least 0", engine.step_native, -1)
    refused(ValueError, "`steps` must be at least 1", engine.profile, 0)
    refused(ValueError, "`observe_every` must be at least 1", engine.rollout, 3, 0)
    refused(ValueError, "`stop` may hold", engine.rollout, 3, 1, stop=["doom"])
    refused(ValueError, "`x`, `y` must lie on the grid", engine.add_particle, 99, 0, [1, 0, 0, 0])
    refused(ValueError, "must have `d_state` = 4 components, got 1", engine.add_particle, 0, 0, [1])
    refused(ValueError, "`amplitudes` must be finite", engine.add_particle, 0, 0, [1, np.nan, 0, 0])
    place = np.zeros((1, 2), np.int64)
    refused(TypeError, "`amplitudes` must be complex64", engine.add_particles, place, np.zeros((1, 4)))
    refused(
        ValueError,
        "as many cells as `coordinates`, 1, got 2",
        engine.add_particles,
        place,
        np.zeros((2, 4), np.complex64),
    )
    refused(ValueError, "`universe` must be 0 to 0, got 1", engine.cells, 1)
    refused(ValueError, "`width` and `height` must be at least 1", engine.window, 0, 0, 0, 1)
    refused(
        ValueError, "`count` must be at most the 16 cells", engine.reset, "particles", 0, (4, 4), count=17
    )
    refused(
        ValueError,
        "`grid` must be 1 to 65536 a side, got 4 x 1099511627776",
        engine.reset,
        "zeros",
        0,
        (4, 2**40),
    )
    refused(ValueError, "must lie within 2^62", engine.window, 2**63 - 1, 0, 2, 2)
    refused(ValueError, "`threads` must be 0 (libtorch's number) to", Engine, threads=40000)
    refused(ValueError, "`d_state` must be 1 to 128, got 1000", Engine, d_state=1000)
    refused(ValueError, "`device` must be cpu", Engine, device="tpu")
    refused(ValueError, "`precision` must be fp32", Engine, precision="fp8")
    refused(ValueError, "`threads` must be 0", Engine, threads=-1)
    noisy = Engine()
    noisy.load_model(exported("mlp")[1])
    noisy.set_noise("seed", 0.1)
    refused(ValueError, "fixed_point needs a step without chance", noisy.rollout, 3, 1, stop=["fixed_point"])
    _, path = exported("mlp")
    refused(
        ValueError, "`physics.gamma` must be less than 1, got 1.5", engine.load_model, path, {"gamma": 1.5}
    )
    refused(ValueError, "`physics.gama` is not a key", engine.load_model, path, {"gama": 0.5})
    message = "is baked into the law as 'torus', got 'zeros'; keep it: physics.boundary=torus"
    refused(ValueError, message, engine.load_model, path, {"boundary": "zeros"})
    refused(ValueError, "`physics` must be a mapping", engine.load_model, path, "closed")
    refused(
        ValueError, "`precision` bf16 is of our own kernels", Engine, precision="bf16", backend="torchscript"
    )


def test_calls_out_of_order(exported: Callable, tmp_path: Path) -> None:
    refused(RuntimeError, "the engine has no law; call load_model", Engine().info)
    refused(RuntimeError, "the engine has no law", Engine().reset, "soup", 0, (4, 4))
    refused(RuntimeError, "the engine has no state; call set_state", Engine().step_native)
    engine = Engine(d_state=4)
    engine.load_model(plain_torchscript(make_law("mlp"), tmp_path / "plain.pt"))
    refused(RuntimeError, "the engine has no state", engine.step_native)
    refused(RuntimeError, "the engine has no state", engine.profile)
    _, path = exported("nca")
    unbounded, frozen = Engine(), Engine(backend="torchscript")
    for each in (unbounded, frozen):
        each.load_model(path)
    unbounded.reset("particles", 0)
    refused(ValueError, "`profile` is of steps on a grid", unbounded.profile)
    refused(ValueError, "`profile` tells the parts of compiled laws apart", frozen.profile)


def test_a_field_that_explodes_is_kept_at_its_last_finite_step(tmp_path: Path) -> None:
    engine = with_law(Scaled(9.0), tmp_path)
    engine.set_state(np.full((1, 2, 4, 4), 1e37, np.float32))  # 1e38 after a step, too large after two
    refused(OverflowError, "stopped being finite at step 2", engine.step_native, 5)
    assert engine.step_count == 1
    assert np.isfinite(engine.state()).all()
    engine.set_state(np.ones((1, 2, 4, 4), np.float32))
    refused(OverflowError, "stopped being finite at step 39", engine.rollout, 100, 30)
    assert engine.step_count == 38
    np.testing.assert_allclose(engine.state(), 1e38, rtol=1e-5)


TOO_LARGE = """
import resource, sys
from atheria_core import Engine
engine = Engine()
engine.load_model(sys.argv[1])
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, resource.RLIM_INFINITY))
try:
    engine.reset("zeros", 0, (16384, 16384))
except MemoryError as error:
    print(error)
engine.step_native()
print(engine.step_count)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read off /proc")
def test_a_grid_that_does_not_fit_the_memory(exported: Callable) -> None:
    _, path = exported("mlp")
    ended = subprocess.run([sys.executable, "-c", TOO_LARGE, str(path)], capture_output=True, text=True)
    assert ended.stdout.splitlines() == [
        "there is too little memory for this: a smaller `grid` or fewer `universes` need less; an unbounded "
        "universe, which has no `grid`, needs as much as its matter",
        "1",
    ], ended.stderr


def test_a_description_is_bounded(exported: Callable, tmp_path: Path) -> None:
    _, path = exported("mlp")

    def rewritten(change: dict) -> Path:
        target = tmp_path / "changed.pt"
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
            for info in source.infolist():
                content = source.read(info)
                if info.filename.endswith("atheria.json"):
                    content = json.dumps(json.loads(content) | change).encode()
                copy.writestr(info.filename, content)
        return target

    for change, message in (
        ({"training_grid": [10**9, 10**9]}, "`atheria.json.training_grid`"),
        ({"d_state": 10**9}, "`atheria.json.d_state`"),
        ({"schema": 99}, "`atheria.json.schema`"),
        ({"receptive_radius": 2**31}, "`atheria.json.receptive_radius` must be less than"),
        ({"initial_state": {"kind": "particles", "count": 2**63}}, "`atheria.json.initial_state.count` must"),
        ({"_target_": "os.system"}, "`atheria.json._target_` is not a key"),
    ):
        refused(ValueError, message, Engine().load_model, rewritten(change))
