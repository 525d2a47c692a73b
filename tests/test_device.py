"""Grids on a device: whole steps that are recorded once and replayed, as a CUDA graph is.

What a device computes, and from what, is the same on the CPU: there a stand-in for the graph, which runs the
recorded step again, shows everything but the capture itself. On a machine with a CUDA device the same tests
run there too.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from atheria_core import Engine, _core
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from atheria import noise, registry
from atheria.config import PhysicsConfig
from atheria.physics import Dynamics

from .conftest import MODELS, PHYSICS, plain_torchscript
from .test_parity import SEED, compare

Step = Callable[[], None]


def run_again(step: Step) -> tuple[Step, str]:
    step()
    return step, "steps are run again"


class StandIn(Engine):
    """An engine that records on the CPU."""

    def __init__(
        self, recorder: Callable[[Step], tuple[Step, str]] = run_again, d_state: int | None = None
    ) -> None:
        _core.Engine.__init__(self, d_state, backend="torchscript", recorder=recorder)
        self._d_state = d_state


def on_device(**arguments) -> Engine:
    return Engine(device="cuda", **arguments)


@pytest.fixture(params=[pytest.param(StandIn, id="stand-in"), pytest.param(on_device, marks=pytest.mark.gpu)])
def make(request) -> Callable[..., Engine]:
    return request.param


@pytest.fixture
def loaded(make, exported: Callable) -> Callable[..., tuple[nn.Module, Engine]]:
    """A law of MODELS in Python and in an engine on a device."""

    def load(name: str, physics: PhysicsConfig = PHYSICS) -> tuple[nn.Module, Engine]:
        law, path = exported(name, physics)
        engine = make()
        engine.load_model(path)
        return law, engine

    return load


def random_field(name: str, batch: int = 2, height: int = 16, width: int = 24, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    psi = torch.randn(batch, 2 * MODELS[name]["d_state"], height, width, generator=generator) * 0.5
    psi[:, :, :3, :3] = 0
    return psi


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("normalise", ["none", "cell", "global"])
@pytest.mark.parametrize(("gamma", "epsilon", "fire_rate"), [(0.0, 0.0, 1.0), (0.05, 0.1, 0.5)])
@torch.inference_mode()
def test_a_device_agrees_with_python(
    loaded: Callable, name: str, normalise: str, gamma: float, epsilon: float, fire_rate: float
) -> None:
    boundary = "zeros" if gamma and name != "quantum_walk" else "torus"
    physics = PhysicsConfig(gamma, epsilon, normalise, fire_rate, boundary)
    law, engine = loaded(name, physics)
    dynamics = Dynamics(law, physics, SEED)
    if name == "snn_unet" and engine.info()["device"] != "cpu":
        spikes_agree(engine, dynamics, random_field(name))
        return
    cellwise = normalise == "cell" and engine.info()["device"] != "cpu"
    worst, excepted = compare(engine, dynamics, random_field(name), 8, before_normalising=cellwise)
    assert worst <= 1e-5
    assert excepted <= 4


def spikes_agree(engine: Engine, dynamics: Dynamics, psi: torch.Tensor) -> None:
    """A membrane within rounding of its threshold may spike on one device alone."""
    engine.seed = dynamics.seed
    engine.set_state(psi.numpy())
    engine.step_native()
    error = np.abs(engine.state() - dynamics.step(dynamics.start(psi)).psi.numpy())
    assert np.quantile(error, 0.9) <= 1e-5


@pytest.mark.parametrize("channel", registry.names("atheria.noise"))
@torch.inference_mode()
def test_noise_draws_the_same_numbers_on_a_device(loaded: Callable, channel: str) -> None:
    law, engine = loaded("mlp")
    engine.set_noise(channel, 0.4)
    dynamics = Dynamics(law, PHYSICS, SEED, noise.channel(channel), level=0.4)
    worst, _ = compare(engine, dynamics, random_field("mlp", batch=6), states=20)
    assert worst <= 1e-5
    engine.set_noise("none")
    quiet, _ = compare(engine, dynamics, random_field("mlp"), states=1)
    assert quiet > 0.01  # without noise they differ: the comparison above was not empty


@pytest.mark.parametrize("boundary", ["torus", "zeros"])
@torch.inference_mode()
def test_the_harmonic_vacuum_is_the_same_on_a_device(loaded: Callable, boundary: str) -> None:
    physics = replace(PHYSICS, harmonic=0.2, boundary=boundary, epsilon=0.05)
    law, engine = loaded("nca", physics)
    psi = random_field("nca", 3, 20, 24)
    psi *= torch.rand(3, 1, 20, 24, generator=torch.Generator().manual_seed(2)) < 0.03
    dynamics = Dynamics(law, physics, SEED)
    worst, _ = compare(engine, dynamics, psi, states=10)
    assert worst <= 1e-5
    still, _ = compare(engine, Dynamics(law, replace(physics, harmonic=0.0), SEED), psi, states=1)
    assert still > 1e-3


def test_a_step_is_recorded_anew_only_where_it_must(exported: Callable) -> None:
    recorded = []

    def count(step: Step) -> tuple[Step, str]:
        recorded.append(step)
        return run_again(step)

    _, path = exported("mlp")
    engine = StandIn(count)
    engine.load_model(path)
    assert "will be recorded" in engine.info()["why"]
    engine.step_native(5)
    kept = engine.snapshot()
    engine.restore(kept)
    engine.step_native(2)
    assert len(recorded) == 1
    assert "steps are run again" in engine.info()["why"]
    changes: list[Callable[[], object]] = [
        lambda: engine.set_noise("dephasing", 0.1),
        lambda: engine.reset("soup", 1, (16, 16)),  # another seed
        lambda: engine.reset("soup", 1, (8, 16)),
        lambda: engine.reset("soup", 1, (8, 16), 3),
        lambda: engine.load_model(path),
    ]
    for times, change in enumerate(changes, start=2):
        change()
        engine.step_native(2)
        assert len(recorded) == times


def test_what_is_outside_a_step_works_on_a_device(make, exported: Callable) -> None:
    """Against an engine on the CPU: cells by hand, windows, observables, snapshots, stops."""
    _, path = exported("unet pixel", grid=(8, 12))
    engines = [Engine(backend="torchscript"), make()]
    seen = []
    for engine in engines:
        engine.load_model(path)
        engine.reset("soup", 3, (8, 12), 2, density=0.4)
        engine.step_native()
        engine.add_particle(5, 6, [1, 2j, -0.5], universe=1)
        kept = engine.snapshot()
        history = engine.rollout(6, 2)
        after = engine.state()
        engine.restore(kept)
        assert engine.rollout(6, 2)[1:] == history[1:]  # bit for bit
        assert np.array_equal(engine.state(), after)
        coordinates, amplitudes = engine.cells(universe=1)
        seen.append((after, engine.window(-2, 5, 6, 6, 1), coordinates, amplitudes, engine.state_at(5, 6, 1)))
        assert len(engine.rollout(0, 1, stop=["fixed_point"])) == 1
    rounding = 1e-4 if engines[1].info()["device"] == "cpu" else 1e-3  # of seven steps
    for of_cpu, of_device in zip(*seen, strict=True):
        np.testing.assert_allclose(of_device, of_cpu, atol=rounding, rtol=0)
    for one, other in ((engines[0], engines[1]), (engines[1], engines[0])):
        one.restore(other.snapshot())
        state = one.state()
        assert np.array_equal(state, other.state())
        one.step_native()
        other.step_native()
        np.testing.assert_allclose(one.state(), other.state(), atol=1e-5, rtol=0)


def test_a_snapshot_is_not_what_the_next_step_writes(loaded: Callable) -> None:
    for channel in ("none", "bit_flip"):
        _, engine = loaded("unet_convlstm")
        engine.set_noise(channel, 0.5)
        engine.step_native(2)
        kept, then = engine.snapshot(), engine.state()
        measured = engine.observables()
        engine.step_native(3)
        later = engine.state()
        engine.restore(kept)
        assert np.array_equal(engine.state(), then)
        assert engine.observables() == measured
        engine.step_native(3)
        assert np.array_equal(engine.state(), later)  # the law's memory was kept too


class Exploding(nn.Module):
    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return psi * 1e30


def test_an_explosion_keeps_the_state_before_it_on_a_device(make, tmp_path: Path) -> None:
    engine = make(d_state=2)
    engine.load_model(plain_torchscript(Exploding(), tmp_path / "exploding.pt"))
    engine.set_state(np.ones((1, 4, 4, 4), np.float32))
    with pytest.raises(OverflowError, match="stopped being finite at step 2"):
        engine.step_native(5)
    assert engine.step_count == 1
    assert np.isfinite(engine.state()).all()
    assert engine.rollout(5, 1, stop=["blow_up"])[-1]["step"] == 1


class Hurried(TorchDispatchMode):
    """Notes every operator that would make the CPU wait for a device, or bring a number from one to it."""

    waiting = (
        r"(item|_local_scalar_dense|nonzero|is_nonzero|equal|scalar_tensor|lift_fresh|linalg_.*|matrix_exp"
        r"|index|masked_select|unique.*)\b|where\.Scalar"
    )

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function).removeprefix("aten."))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("channel", [*registry.names("atheria.noise"), "none"])
def test_a_recorded_step_never_waits(exported: Callable, channel: str) -> None:
    """A CUDA graph can be made of no step that does."""
    watch = Hurried()

    def watched(step: Step) -> tuple[Step, str]:
        for _ in range(3):
            step()  # TorchScript looks at the first ones
        with watch:
            step()
        return step, "watched"

    laws = [(name, 0.0) for name in (MODELS if channel == "none" else ["mlp"])]
    for name, harmonic in (*laws, ("nca", 0.1)):
        physics = PhysicsConfig(0.1, 0.05, "global", 0.5, "torus", harmonic)
        _, path = exported(name, physics)
        engine = StandIn(watched)
        engine.load_model(path)
        engine.set_noise(channel, 0.3 if channel != "none" else 0.0)
        engine.step_native()
    assert {"conv2d.default", "bitwise_xor.Tensor"} <= watch.names  # it does see what is done
    assert not [name for name in watch.names if re.match(Hurried.waiting, name)]


def test_a_law_that_cannot_be_stepped_says_why(make, tmp_path: Path) -> None:
    class Fickle(nn.Module):
        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            if psi.shape[3] == 8:
                return psi[:, :1]
            return psi

    engine = make(d_state=2)
    engine.load_model(plain_torchscript(Fickle(), tmp_path / "fickle.pt"))
    engine.set_state(np.ones((1, 4, 8, 8), np.float32))
    for _ in range(2):
        with pytest.raises(ValueError, match="a law must return float32 of its input's shape"):
            engine.step_native()
    engine.set_state(np.ones((1, 4, 4, 4), np.float32))
    assert engine.step_native() == 16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device_is_told() -> None:
    with pytest.raises(ValueError, match="libtorch finds no CUDA device"):
        Engine(device="cuda:1")


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "CUDA", ""])
def test_names_of_devices(name: str) -> None:
    with pytest.raises(ValueError, match="`device` must be cpu, cuda or cuda:N, got"):
        Engine(device=name)


@pytest.mark.gpu
def test_what_a_device_does_not_do(exported: Callable) -> None:
    _, path = exported("deep_qca")
    for arguments in ({"precision": "bf16"}, {"backend": "compiled"}):
        with pytest.raises(ValueError, match="leave it"):
            Engine(device="cuda", **arguments)
    with pytest.raises(ValueError, match="there are .* CUDA devices"):
        Engine(device="cuda:99")
    engine = Engine(device="cuda")
    engine.load_model(path)
    with pytest.raises(ValueError, match="unbounded universes run on the CPU alone"):
        engine.reset("particles", 0)
    with pytest.raises(ValueError, match="unbounded universes run on the CPU alone"):
        engine.set_cells(np.zeros((0, 2), np.int64), np.zeros((0, 2), np.complex64))


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_every_law_is_replayed_as_a_cuda_graph(exported: Callable, name: str) -> None:
    _, path = exported(name)
    engine = Engine(device="cuda")
    engine.load_model(path)
    engine.set_noise("amplitude_damping", 0.1)
    engine.step_native(3)
    assert engine.info()["device"] == f"cuda:{torch.cuda.current_device()}"
    assert "replayed as a CUDA graph" in engine.info()["why"]


@pytest.mark.gpu
def test_a_law_that_waits_is_stepped_without_a_graph(tmp_path: Path) -> None:
    class Waiting(nn.Module):
        def forward(self, psi: torch.Tensor) -> torch.Tensor:
            if bool(psi.sum() > 1e9):
                return -psi
            return 0.5 * psi

    engine = Engine(device="cuda", d_state=2)
    engine.load_model(plain_torchscript(Waiting(), tmp_path / "waiting.pt"))
    engine.set_state(np.ones((1, 4, 8, 8), np.float32))
    engine.step_native(2)
    np.testing.assert_allclose(engine.state(), 2.25)
    assert "launched one by one, as its step cannot be recorded" in engine.info()["why"]
    assert "called a synchronizing CUDA operation" in engine.info()["why"]
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.randn(3, device="cuda")  # as a capture that has begun and failed would not let it


@pytest.mark.gpu
def test_vacuum_beyond_a_laws_reach_stays_vacuum_on_a_device(exported: Callable) -> None:
    _, path = exported("unet pixel")
    engine = Engine(device="cuda")
    engine.load_model(path)
    engine.reset("zeros", 0, (128, 128))
    engine.add_particle(64, 64, [1, 2j, -1])
    engine.step_native()
    field = np.abs(engine.state()[0]).sum(axis=0)
    field[64 - 31 : 64 + 32, 64 - 31 : 64 + 32] = 0
    assert not field.any()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_two_devices_side_by_side(exported: Callable) -> None:
    _, path = exported("nca")
    engines = [Engine(device=f"cuda:{index}") for index in range(2)]
    for engine in engines:
        engine.load_model(path)
        engine.step_native(3)
        assert "replayed as a CUDA graph" in engine.info()["why"]
    assert np.array_equal(*(engine.state() for engine in engines))


@pytest.mark.gpu
def test_others_graphs_and_settings_are_left_alone(exported: Callable) -> None:
    """A graph of a caller's outside inference mode, and what torch rounds convolutions to."""
    _, path = exported("unet")
    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.deterministic
    engine = Engine(device="cuda")
    engine.load_model(path)
    engine.step_native(2)
    assert (torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.deterministic) == before
    graph, x = torch.cuda.CUDAGraph(), torch.zeros(4, device="cuda")
    with torch.cuda.graph(graph):
        y = x + torch.randn(4, device="cuda")
    graph.replay()
    assert y.abs().sum() > 0
    engine.step_native(2)
