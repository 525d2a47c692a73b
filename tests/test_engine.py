"""The native engine by itself, and what it refuses."""

import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from atheria_core import Engine

from .conftest import PHYSICS, make_law, plain_torchscript


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
    assert info["backend"] == "torchscript"
    assert info["why"]
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
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("stopped after"), result.stderr
    assert int(result.stdout.split()[-1]) > 0


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
        largest = max(archive.infolist(), key=lambda info: info.file_size)
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
    refused(RuntimeError, "cannot be read as TorchScript", Engine(d_state=2).load_model, checkpoint)


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
        (Sum(), "must return a tensor of its input's shape"),
        (Number(), "libtorch says"),
        (Raises(), "no fields, please"),
    ):
        path = plain_torchscript(law, tmp_path / "law.pt")
        refused(ValueError, message, Engine(d_state=2).load_model, path)


def test_arrays_that_are_no_fields(engine: Engine) -> None:
    good = np.ones((1, 8, 4, 4), np.float32)
    refused(TypeError, "must be float32, got float64", engine.set_state, good.astype(np.float64))
    refused(TypeError, "must be float32, got complex64", engine.set_state, good.astype(np.complex64))
    refused(TypeError, "must be an array", engine.set_state, [[1.0]])
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
    refused(ValueError, "`grid` must be (height, width)", engine.reset, "soup", 0, None)
    refused(
        ValueError, "`name` of noise must be one of none, amplitude_damping", engine.set_noise, "hum", 0.1
    )
    refused(ValueError, "`level` of noise must be between 0 and 1", engine.set_noise, "seed", 1.5)
    refused(ValueError, "`steps` must be at least 0", engine.step_native, -1)
    refused(ValueError, "`observe_every` must be at least 1", engine.rollout, 3, 0)
    refused(ValueError, "`stop` may hold", engine.rollout, 3, 1, stop=["doom"])
    refused(ValueError, "`x`, `y` must lie on the grid", engine.add_particle, 99, 0, [1, 0, 0, 0])
    refused(ValueError, "must have `d_state` = 4 components, got 1", engine.add_particle, 0, 0, [1])
    refused(ValueError, "`universe` must be 0 to 0, got 1", engine.cells, 1)
    refused(ValueError, "`width` and `height` must be at least 1", engine.window, 0, 0, 0, 1)
    refused(ValueError, "`device` must be cpu", Engine, device="tpu")
    refused(ValueError, "`precision` must be fp32", Engine, precision="fp8")
    refused(ValueError, "`threads` must be at least 0", Engine, threads=-1)
    _, path = exported("mlp")
    refused(
        ValueError, "`physics.gamma` must be less than 1, got 1.5", engine.load_model, path, {"gamma": 1.5}
    )
    refused(ValueError, "`physics.gama` is not a key", engine.load_model, path, {"gama": 0.5})
    refused(ValueError, "is baked into the law", engine.load_model, path, {"boundary": "zeros"})


def test_calls_out_of_order(exported: Callable, tmp_path: Path) -> None:
    refused(RuntimeError, "the engine has no law; call load_model", Engine().info)
    refused(RuntimeError, "the engine has no law", Engine().reset, "soup", 0, (4, 4))
    refused(RuntimeError, "the engine has no state; call set_state", Engine().step_native)
    engine = Engine(d_state=4)
    engine.load_model(plain_torchscript(make_law("mlp"), tmp_path / "plain.pt"))
    refused(RuntimeError, "the engine has no state", engine.step_native)


def test_a_field_that_explodes_is_kept_at_its_last_finite_step(exported: Callable) -> None:
    _, path = exported("mlp")
    engine = Engine()
    engine.load_model(path)
    engine.set_state(np.full((1, 8, 4, 4), 1e38, np.float32))
    refused(RuntimeError, "stopped being finite at step 1", engine.step_native, 5)
    assert engine.step_count == 0
    assert np.isfinite(engine.state()).all()


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
        ({"_target_": "os.system"}, "`atheria.json._target_` is not a key"),
    ):
        refused(ValueError, message, Engine().load_model, rewritten(change))
