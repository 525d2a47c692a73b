"""The compiled backend: random laws, grids and physics; what it cannot compile; threads, universes, bf16."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from atheria_core import Engine
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

from atheria.config import PhysicsConfig
from atheria.field import energy_density
from atheria.physics import Dynamics

from . import random_laws
from .conftest import MODELS, PHYSICS, plain_torchscript
from .test_parity import compare

SEED = 2**63 + 99
CPU = Path("/proc/cpuinfo").read_text()
GAINS_FROM_BF16 = "avx512_bf16" in CPU and ("amx_bf16" in CPU or "GenuineIntel" not in CPU)
LEAVES_BF16 = "avx512_bf16" in CPU and not GAINS_FROM_BF16 and "ATHERIA_CPU" not in os.environ
LEAVES_BF16_ON_LARGE_GRIDS = GAINS_FROM_BF16 and "amx_bf16" not in CPU and "ATHERIA_CPU" not in os.environ
TAKES_BF16 = "bfloat16" in os.environ["ATHERIA_CPU"] if "ATHERIA_CPU" in os.environ else GAINS_FROM_BF16
in_bf16 = pytest.mark.skipif(not TAKES_BF16, reason="the CPU does not gain from bfloat16")
many = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
luck = st.randoms(use_true_random=False)


@st.composite
def physics(draw: st.DrawFn) -> PhysicsConfig:
    """The parameters of a step, the boundary aside."""
    return PhysicsConfig(
        gamma=draw(st.sampled_from([0.0, 0.05])),
        epsilon=draw(st.sampled_from([0.0, 0.1])),
        normalise=draw(st.sampled_from(["none", "cell", "global"])),
        fire_rate=draw(st.sampled_from([1.0, 0.5])),
        boundary="torus",
    )


def loaded(path: Path, law: random_laws.RandomLaw, physics: PhysicsConfig, **settings) -> Engine:
    engine = Engine(d_state=law.d_state, **settings)
    given = {key: getattr(physics, key) for key in ("gamma", "epsilon", "normalise", "fire_rate")}
    engine.load_model(path, {**given, "boundary": law.boundary})
    engine.seed = SEED
    return engine


def field(law: random_laws.RandomLaw, chance: Random, universes: int) -> torch.Tensor:
    """Matter in half of the cells of a random grid."""
    height, width = (law.unit * chance.randrange(8 // law.unit, 40 // law.unit) for _ in range(2))
    generator = torch.Generator().manual_seed(chance.randrange(2**32))
    psi = torch.randn(universes, 2 * law.d_state, height, width, generator=generator)
    return psi * (torch.rand(universes, 1, height, width, generator=generator) < 0.5)


@given(luck, physics())
@many
@torch.inference_mode()
def test_random_laws_run_alike(tmp_path: Path, chance: Random, physics: PhysicsConfig) -> None:
    law = random_laws.draw(chance)
    note(law.source)
    module = law.module()
    path = plain_torchscript(module, tmp_path / "law.pt")
    psi = field(law, chance, universes=chance.choice([1, 1, 2, 5]))
    physics = replace(physics, boundary=law.boundary)
    for backend in ("compiled", "torchscript"):
        engine = loaded(path, law, physics, backend=backend)
        assert engine.info()["backend"] == backend
        dynamics = Dynamics(module, physics, SEED)
        worst, excepted = compare(
            engine, dynamics, psi, states=3, before_normalising=physics.normalise == "cell"
        )
        assert worst <= 1e-5
        assert excepted <= 5


@given(luck, physics())
@many
def test_random_local_laws_run_alike_unbounded(
    tmp_path: Path, chance: Random, physics: PhysicsConfig
) -> None:
    law = random_laws.draw(chance, is_local=True)
    note(law.source)
    path = plain_torchscript(law.module(), tmp_path / "law.pt")
    dense, unbounded = (loaded(path, law, physics, backend="compiled") for _ in range(2))
    steps = 2
    radius = dense.info()["receptive_radius"]
    side = 8 * law.unit
    margin = (-(-(steps * radius + 1) // law.unit) + 1) * law.unit
    size = side + 2 * margin
    where = np.argwhere(np.random.default_rng(chance.randrange(2**32)).random((side, side)) < 0.1) + margin
    amplitudes = np.random.default_rng(1).standard_normal((len(where), law.d_state, 2))
    psi = np.zeros((1, 2 * law.d_state, size, size), np.float32)
    psi[0][:, where[:, 0], where[:, 1]] = np.concatenate([amplitudes[..., 0], amplitudes[..., 1]], 1).T
    dense.set_state(psi)
    unbounded.set_cells(where[:, ::-1].copy(), (amplitudes @ [1, 1j]).astype(np.complex64))
    for _ in range(steps):
        before = dense.state()
        dense.step_native()
        unbounded.step_native()
        got, expected = unbounded.window(0, 0, size, size), dense.state()[0]
        scale = max(1.0, np.abs(before).max())
        wrong = np.abs(got - expected).max(axis=0) > 1e-5 * scale
        norm = np.sqrt(energy_density(torch.from_numpy(np.maximum(abs(got), abs(expected))[None]))[0].numpy())
        # What lies within rounding of the threshold may be gone here and there not.
        assert not (wrong & (abs(norm - physics.epsilon) > 1e-4)).any()
        if wrong.any():
            return


@given(luck, physics())
@settings(many, max_examples=15)
def test_threads_and_universes_change_nothing(tmp_path: Path, chance: Random, physics: PhysicsConfig) -> None:
    """Not one bit: sums are taken in an order of their own, whoever takes them."""
    law = random_laws.draw(chance)
    note(law.source)
    physics = replace(physics, epsilon=0.0)
    path = plain_torchscript(law.module(), tmp_path / "law.pt")
    psi = field(law, chance, universes=6).numpy()
    states = []
    for threads in (1, 2, 3):
        engine = loaded(path, law, physics, backend="compiled", threads=threads)
        engine.set_state(psi)
        engine.step_native(2)
        states.append(engine.state())
    for state in states[1:]:
        np.testing.assert_array_equal(state, states[0])
    if physics.fire_rate < 1:  # which cells change is drawn for each universe of a batch
        return
    alone = loaded(path, law, physics, backend="compiled")
    for universe in range(6):
        alone.set_state(psi[universe : universe + 1])
        alone.step_native(2)
        np.testing.assert_array_equal(alone.state()[0], states[0][universe])


@in_bf16
@pytest.mark.parametrize("grid", [(64, 64), (40, 24), (96, 128)])
def test_threads_change_nothing_in_bf16(exported: Callable, grid: tuple[int, int]) -> None:
    """Whether a thread has all outputs of a product, whose moments it then takes, or some of them."""
    _, path = exported("unet", replace(PHYSICS, normalise="global"))
    psi = np.random.default_rng(0).standard_normal((1, 4, *grid)).astype(np.float32)
    states = []
    for threads in (1, 2, 5):
        engine = Engine(threads=threads, precision="bf16", backend="compiled")
        engine.load_model(path)
        engine.set_state(psi)
        engine.step_native(3)
        states.append(engine.state())
    for state in states[1:]:
        np.testing.assert_array_equal(state, states[0])


class Decides(torch.nn.Module):
    """A law whose program depends on the field."""

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        if bool(psi.mean() > 0):
            return -0.5 * psi
        return 0.5 * psi


def test_a_law_that_decides_runs_by_libtorch_and_says_so(tmp_path: Path) -> None:
    path = plain_torchscript(Decides(), tmp_path / "decides.pt")
    engine = Engine(d_state=1)
    engine.load_model(path, {})
    assert engine.info()["backend"] == "torchscript"
    assert (
        "control flow that depends on the field" in engine.info()["why"]
        or "aten::mean" in engine.info()["why"]
    )
    engine.set_state(np.ones((1, 2, 4, 4), np.float32))
    engine.step_native()
    assert (engine.state() == 0.5).all()
    engine.set_state(-np.ones((1, 2, 4, 4), np.float32))
    engine.step_native()
    assert (engine.state() == -1.5).all()
    with pytest.raises(ValueError, match=r"`backend` .*compiled.*control flow|aten::mean"):
        Engine(d_state=1, backend="compiled").load_model(path, {})


def test_why_a_law_is_not_compiled_is_said_in_our_words(tmp_path: Path) -> None:
    path = plain_torchscript(module_of("return psi - psi.sum()"), tmp_path / "law.pt")
    engine = Engine(d_state=1)
    engine.load_model(path, {})
    assert "aten::sum over no dimensions in particular" in engine.info()["why"]


def module_of(body: str, **weights: torch.Tensor) -> torch.nn.Module:
    """A law whose forward() is `body`."""
    lines = body.strip().splitlines()
    text = "".join(f"        {line}\n" for line in lines)
    return random_laws.module(
        f"class Law(nn.Module):\n    def forward(self, psi: Tensor) -> Tensor:\n{text}", weights
    )


def both(module: torch.nn.Module, folder: Path, physics: dict | None = None) -> tuple[Engine, Engine]:
    """Engines of 2 components for a law: compiled, and by libtorch."""
    path = plain_torchscript(module, folder / "law.pt")
    engines = tuple(Engine(d_state=2, backend=backend) for backend in ("compiled", "torchscript"))
    for engine in engines:
        engine.load_model(path, physics or {})
    return engines  # type: ignore[return-value]


GROUPED = "return 0.1 * F.group_norm(F.conv2d(psi, self.w), 1, None, None, 1e-5)"


@pytest.mark.parametrize("place", [(0, 0), (5, 5)])
def test_one_hot_cell_does_not_spoil_the_statistics(tmp_path: Path, place: tuple[int, int]) -> None:
    psi = np.zeros((1, 4, 256, 256), np.float32)
    psi[0, :, place[0], place[1]] = 10 * np.array([1, 0.7, -0.3, 0.4])
    compiled, script = both(module_of(GROUPED, w=torch.randn(4, 4, 1, 1)), tmp_path)
    states = []
    for engine in (compiled, script):
        engine.set_state(psi)
        engine.step_native()
        states.append(engine.state())
    np.testing.assert_allclose(states[0], states[1], atol=1e-5 * np.abs(states[1]).max())


@pytest.mark.parametrize(("gamma", "height"), [(0.0, 1e10), (0.95, 2e19)])
def test_an_explosion_is_no_vacuum(tmp_path: Path, gamma: float, height: float) -> None:
    psi = np.zeros((1, 4, 8, 8), np.float32)
    psi[0, 0, 1, 1] = height
    physics = {"normalise": "global", "gamma": gamma}
    for engine in both(
        module_of("return psi * 1e10" if gamma == 0 else "return -psi * 0.0"), tmp_path, physics
    ):
        engine.set_state(psi)
        with pytest.raises(OverflowError, match="stopped being finite"):
            engine.step_native()


def test_without_reference_energy_nothing_is_occupied(tmp_path: Path) -> None:
    for engine in both(module_of("return psi + 0.3"), tmp_path, {"normalise": "global"}):
        engine.set_state(np.zeros((1, 4, 8, 8), np.float32))
        assert engine.step_native() == 0
        assert not engine.state().any()


BY_SIZE = "if psi.size({axis}) >= {size}:\n    return -0.5 * psi\nreturn 0.5 * psi"


@pytest.mark.parametrize(("axis", "size", "shape"), [(2, 64, (1, 4, 64, 64)), (0, 3, (3, 4, 8, 8))])
def test_a_law_that_goes_by_the_grids_size(
    tmp_path: Path, axis: int, size: int, shape: tuple[int, ...]
) -> None:
    path = plain_torchscript(module_of(BY_SIZE.format(axis=axis, size=size)), tmp_path / "law.pt")
    engine = Engine(d_state=2)
    engine.load_model(path, {})
    for universes, side, kept, backend in ((1, 8, 1.5, "compiled"), (*shape[::2][:2], 0.5, "torchscript")):
        engine.set_state(np.ones((universes, 4, side, side), np.float32))
        assert engine.info()["backend"] == backend
        engine.step_native()
        assert (engine.state() == kept).all()
    assert f"not compiled: what it computes for {shape[0]} of {shape[2]} x" in engine.info()["why"]
    demanding = Engine(d_state=2, backend="compiled")
    demanding.load_model(path, {})
    demanding.set_state(np.ones(shape, np.float32))
    with pytest.raises(ValueError, match=f"`backend` .*for {shape[0]} of {shape[2]} x .*leave them out"):
        demanding.step_native()


def test_what_a_law_computes_and_drops_asks_for_grids_of_its_own(tmp_path: Path) -> None:
    body = """
around = F.conv_transpose2d(F.max_pool2d(psi, 2), self.w, None, 2)
dropped = F.group_norm(torch.cat([around, psi], 1), 1, None, None, 0.01)
return 0.1 * torch.tanh(psi)
"""
    module = module_of(body, w=torch.ones(4, 1, 2, 2))
    ours, _ = both(module, tmp_path)
    assert ours.info()["backend"] == "compiled"


def test_what_a_law_drops_counts_only_on_grids_that_it_does_not_take(tmp_path: Path) -> None:
    """The checks at load, too, leave such grids out where nothing but compiled will do."""
    body = "F.group_norm(F.max_pool2d(psi, 2), 1, None, None, 0.01)\nreturn 0.1 * torch.tanh(psi)"
    engine = Engine(d_state=2, backend="compiled")
    engine.load_model(plain_torchscript(module_of(body), tmp_path / "law.pt"), {"normalise": "none"})
    psi = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    engine.set_state(psi.numpy())
    engine.step_native()
    np.testing.assert_allclose(engine.state(), psi + 0.1 * torch.tanh(psi), atol=1e-6)
    engine.set_state(psi[..., :5, :9].contiguous().numpy())
    with pytest.raises(ValueError, match=r"cannot be compiled.*max_pool2d.* for 1 of 5 x 9 cells.*libtorch"):
        engine.step_native()


@pytest.mark.parametrize("grid", [(2, 274), (6, 770), (14, 34), (64, 2), (2, 2)])
def test_upsampling_in_parts_of_rows_and_of_grids(tmp_path: Path, grid: tuple[int, int]) -> None:
    body = "x = F.max_pool2d(psi, 2)\nreturn F.conv_transpose2d(x, self.w, self.b, 2)"
    engines = both(module_of(body, w=torch.randn(4, 4, 2, 2), b=torch.randn(4)), tmp_path, {"gamma": 0.5})
    psi = torch.randn(1, 4, *grid, generator=torch.Generator().manual_seed(0)).numpy()
    for engine in engines:
        engine.set_state(psi)
        engine.step_native()
    compiled, script = (engine.state() for engine in engines)
    assert engines[0].info()["backend"] == "compiled"
    assert np.allclose(compiled, script, rtol=1e-5, atol=1e-5)


def test_wide_padding_is_checked_on_wide_grids(tmp_path: Path) -> None:
    body = "return F.conv2d(F.pad(psi, [8] * 4, mode='circular'), self.w, None, 1, 0, 4)"
    compiled, _ = both(module_of(body, w=0.1 * torch.randn(4, 4, 5, 5)), tmp_path)
    assert compiled.info()["receptive_radius"] == 8


def test_a_law_whose_rounding_would_move_the_vacuum_is_not_compiled(tmp_path: Path) -> None:
    shifted = module_of(
        "return torch.sigmoid(psi + self.b) - torch.sigmoid(self.b)",
        b=torch.linspace(-3, 3, 32).view(1, 32, 1, 1),
    )
    engine = Engine(d_state=16)
    engine.load_model(plain_torchscript(shifted, tmp_path / "law.pt"), {})
    if engine.info()["vacuum_stable"]:
        assert engine.info()["backend"] == "torchscript"
        assert "vacuum" in engine.info()["why"]


NOTHING = (
    "return y + F.conv2d(F.group_norm(x, 2, None, self.bias), self.wide)",
    "return y + F.conv_transpose2d(F.max_pool2d(x, 2), self.up, self.bias, 2)",
    "return y + torch.cat([x[..., 1:], torch.zeros_like(x[..., :1])], 3)",
    "return y + torch.cos(F.conv2d(x, self.dense, self.bias, 1, 1))",
)


@pytest.mark.parametrize("body", NOTHING, ids=["norm", "pool", "shift", "convolution"])
@torch.inference_mode()
def test_channels_that_are_nothing_are_compiled(tmp_path: Path, body: str) -> None:
    body = "y = F.conv2d(psi, self.near, None, 1, 1, 1, 4)\nx = y - y\n" + body
    weights = {"near": 0.1 * torch.randn(4, 1, 3, 3), "wide": torch.ones(4, 4, 1, 1)}
    weights |= {"up": torch.ones(4, 4, 2, 2), "bias": torch.ones(4), "dense": torch.randn(4, 4, 3, 3)}
    compiled, script = both(module_of(body, **weights), tmp_path, {"boundary": "zeros"})
    for engine in (compiled, script):
        engine.reset("soup", 3, (8, 12))
        engine.step_native(2)
    np.testing.assert_allclose(compiled.state(), script.state(), atol=1e-5)


@torch.inference_mode()
def test_a_norm_of_each_channel_keeps_the_vacuum(tmp_path: Path) -> None:
    """A field that is the same everywhere is its mean, and the difference to it exactly nothing."""
    for seed in range(5):
        torch.manual_seed(seed)
        body = (
            "x = F.group_norm(F.conv2d(psi, self.w, self.bias), 1, None, None, 0.01)\n"
            "return 0.1 * F.conv2d(x, self.out)"
        )
        weights = {"w": torch.randn(1, 4, 1, 1), "bias": torch.randn(1), "out": torch.randn(4, 1, 1, 1)}
        compiled, _ = both(module_of(body, **weights), tmp_path)
        assert compiled.info()["backend"] == "compiled"
        assert compiled.info()["vacuum_stable"]


class Remembers(torch.nn.Module):
    """A law whose memory is made last, of nothing, or partly of nothing."""

    kind: torch.jit.Final[int]

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.kind = kind

    @torch.jit.export
    def initial_memory(self, batch: int, height: int, width: int) -> torch.Tensor:
        return torch.zeros(batch, 4, height, width)

    def forward(self, psi: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.kind == 0:
            late = torch.tanh(0.5 * memory + psi)
            return 0.1 * late, late
        if self.kind == 1:
            return 0.1 * (memory - psi), torch.zeros_like(psi)
        return 0.1 * (memory - psi), torch.cat([psi[:, :2], torch.zeros_like(psi[:, 2:])], 1)


@pytest.mark.parametrize("kind", [0, 1, 2])
@torch.inference_mode()
def test_memories(tmp_path: Path, kind: int) -> None:
    law = Remembers(kind)
    path = plain_torchscript(law, tmp_path / "law.pt")
    engine = Engine(d_state=2, backend="compiled")
    engine.load_model(path, {})
    quiet = PhysicsConfig(0.0, 0.0, "none", 1.0, "torus")
    worst, _ = compare(engine, Dynamics(law, quiet, SEED), torch.randn(3, 4, 8, 12), states=5)
    assert worst <= 1e-5


def test_two_engines_in_two_threads_with_other_numbers_of_threads(tmp_path: Path) -> None:
    """Loops are shared by all engines of a process; each result is what it is alone."""
    torch.manual_seed(0)
    body = (
        "x = F.group_norm(F.conv2d(psi, self.a, None, 1, 1), 4)\n"
        "return 0.1 * F.conv2d(F.elu(x), self.b, None, 1, 1)"
    )
    module = module_of(body, a=torch.randn(64, 4, 3, 3), b=0.05 * torch.randn(4, 64, 3, 3))
    path = plain_torchscript(module, tmp_path / "law.pt")
    fields = [
        np.random.default_rng(i).standard_normal((b, 4, 64, 64)).astype(np.float32)
        for i, b in ((0, 1), (1, 12))
    ]

    def run(index: int, steps: int) -> list[np.ndarray]:
        engine = Engine(d_state=2, backend="compiled", threads=(2, 3)[index])
        engine.load_model(path, {"boundary": "zeros"})
        states = []
        for _ in range(steps):
            engine.set_state(fields[index])
            engine.step_native(2)
            states.append(engine.state())
        return states

    before = torch.get_num_threads()
    alone = [run(index, 1)[0] for index in (0, 1)]
    with ThreadPoolExecutor(2) as both_at_once:
        results = list(both_at_once.map(run, (0, 1), (60, 12)))
    for expected, states in zip(alone, results, strict=True):
        for state in states:
            np.testing.assert_allclose(state, expected, atol=1e-5)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("backend", ["compiled", "torchscript"])
def test_an_engines_threads_are_its_own(tmp_path: Path, backend: str) -> None:
    """What else the process computes rounds as it did before."""
    path = plain_torchscript(random_laws.draw(Random(1)).module(), tmp_path / "law.pt")
    before = torch.get_num_threads()
    engine = Engine(d_state=random_laws.draw(Random(1)).d_state, threads=before + 1, backend=backend)
    engine.load_model(path, {})
    engine.reset("soup", 0, (8, 8))
    engine.step_native(2)
    assert engine.info()["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_an_unbounded_universe_survives_an_explosion(tmp_path: Path) -> None:
    """What a caught overflow leaves behind is the state before it, and nothing else."""
    body = "return F.conv2d(F.pad(psi, [1] * 4, mode='circular'), self.w)"
    path = plain_torchscript(module_of(body, w=0.3 * torch.randn(4, 4, 3, 3)), tmp_path / "law.pt")
    engines = [Engine(d_state=2) for _ in range(2)]
    for engine in engines:
        engine.load_model(path, {"normalise": "global", "epsilon": 0.05})
        engine.set_cells(np.array([[0, 0], [3, 3]]), np.ones((2, 2), np.complex64))
    engines[0].add_particle(1, 1, np.full(2, 1e30, np.complex64))
    with pytest.raises(OverflowError):
        engines[0].step_native()
    for engine in engines:
        engine.set_cells(np.array([[0, 0], [3, 3]]), np.ones((2, 2), np.complex64))
        engine.step_native(4)
    np.testing.assert_array_equal(engines[0].window(-9, -9, 24, 24), engines[1].window(-9, -9, 24, 24))


@pytest.mark.parametrize("grid", [(64, 64), (7, 33), (1, 5), (200, 310)])
@pytest.mark.parametrize("universes", [1, 4])
@pytest.mark.parametrize("name", ["mlp", "nca", "deep_qca"])
@pytest.mark.parametrize("normalise", ["cell", "none"])
def test_steps_at_once_are_steps_one_by_one(
    exported: Callable, grid: tuple[int, int], universes: int, name: str, normalise: str
) -> None:
    _, path = exported(name, replace(PHYSICS, gamma=0.01, epsilon=0.4, normalise=normalise))
    engines = [Engine(threads=2) for _ in range(2)]
    for engine in engines:
        engine.load_model(path)
        engine.reset("soup", 1, grid, universes)
    start = engines[0].snapshot()
    occupied = engines[0].step_native(37)
    one_by_one = [engines[1].step_native() for _ in range(37)]
    assert engines[0].step_count == 37
    assert occupied == one_by_one[-1]
    assert name != "mlp" or occupied < universes * grid[0] * grid[1], "the threshold has no part in it"
    np.testing.assert_array_equal(engines[0].state(), engines[1].state())
    engines[0].restore(start)
    seen = engines[0].rollout(37, 10)
    assert [entry["step"] for entry in seen] == [0, 10, 20, 30, 37]
    assert seen[-1]["universes"] == engines[1].observables()


@pytest.mark.parametrize("boundary", ["torus", "zeros"])
@pytest.mark.parametrize("name", ["nca", "deep_qca", "mlp"])
def test_rows_that_are_longer_than_what_is_run_together(exported: Callable, name: str, boundary: str) -> None:
    _, path = exported(name, replace(PHYSICS, boundary=boundary))
    generator = np.random.default_rng(0)
    for height, width in ((2, 1000), (37, 401)):
        psi = generator.standard_normal((2, 2 * MODELS[name]["d_state"], height, width)).astype(np.float32)
        states = []
        for backend in ("compiled", "torchscript"):
            engine = Engine(backend=backend)
            engine.load_model(path)
            engine.set_state(psi)
            engine.step_native(2)
            states.append(engine.state())
        np.testing.assert_allclose(*states, rtol=0, atol=2e-5 * np.abs(states[1]).max())


FILTERS = torch.tensor(
    [
        [[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]],
        [[-0.125, 0.0, 0.125], [-0.25, 0.0, 0.25], [-0.125, 0.0, 0.125]],
        [[-0.125, -0.25, -0.125], [0.0, 0.0, 0.0], [0.125, 0.25, 0.125]],
        [[0.0625, 0.125, 0.0625], [0.125, -0.75, 0.125], [0.0625, 0.125, 0.0625]],
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]],
        [[0.7, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, -0.3]],
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.3, 0.1, 0.9]],
        [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, -2.0, 0.0]],
    ]
)


class Sums(torch.nn.Module):
    """Some fixed sums over each channel's neighbours, mixed."""

    def __init__(self, chance: Random, channels: int, boundary: str) -> None:
        super().__init__()
        each = chance.randrange(1, 5)
        generator = torch.Generator().manual_seed(chance.randrange(2**32))
        filters = torch.cat([FILTERS, torch.randn(1, 3, 3, generator=generator)])
        # Those that share their columns, one that is a column, or all.
        kinds = chance.choice([range(4), [7], range(len(filters))])
        chosen = torch.tensor([chance.choice(kinds) for _ in range(channels * each)])
        self.filters = filters[chosen].unsqueeze(1)
        self.mix = torch.randn(channels, channels * each, 1, 1, generator=generator) / 8
        self.bias = torch.randn(channels * each, generator=generator) * chance.choice([0, 1])
        self.dilation = chance.choice([1, 1, 1, 2])
        self.channels = channels
        self.mode = "circular" if boundary == "torus" else "constant"

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        around = F.pad(psi, [self.dilation] * 4, mode=self.mode)
        sums = F.conv2d(around, self.filters, self.bias, 1, 0, self.dilation, self.channels)
        return F.conv2d(sums, self.mix)


class Perceives(torch.nn.Module):
    """Several filters of each channel and a hidden layer, as `nca`: what runs by Winograd's algorithm."""

    def __init__(self, chance: Random, channels: int, boundary: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(chance.randrange(2**32))
        filters = torch.cat([FILTERS, torch.randn(2, 3, 3, generator=generator)])
        chosen = torch.tensor(chance.sample(range(len(filters)), chance.randrange(4, 7)))
        self.filters = filters[chosen].unsqueeze(1).repeat(channels, 1, 1, 1)
        hidden, inputs = chance.choice([1, 5, 8, 16, 35]), len(self.filters)
        self.mix = torch.randn(hidden, inputs, 1, 1, generator=generator) / inputs**0.5
        self.bias = torch.randn(hidden, generator=generator) * chance.choice([0, 1])
        self.out = torch.randn(channels, hidden, 1, 1, generator=generator) / hidden**0.5
        self.channels = channels
        self.mode = "circular" if boundary == "torus" else "constant"
        self.activation = chance.choice(["elu", "relu", "tanh", "none"])

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        around = F.pad(psi, [1, 1, 1, 1], mode=self.mode)
        hidden = F.conv2d(F.conv2d(around, self.filters, None, groups=self.channels), self.mix, self.bias)
        if self.activation == "elu":
            hidden = F.elu(hidden)
        elif self.activation == "relu":
            hidden = F.relu(hidden)
        elif self.activation == "tanh":
            hidden = torch.tanh(hidden)
        return F.conv2d(hidden, self.out)


@given(luck, st.sampled_from(["torus", "zeros"]))
@settings(many, max_examples=60)
@torch.inference_mode()
def test_random_filters_on_tiles(tmp_path: Path, chance: Random, boundary: str) -> None:
    """As float64 has it; cells that see nothing but zeros become what a bias makes of those, bit for bit."""
    d_state = chance.choice([1, 2, 3, 4, 8])
    law = Perceives(chance, 2 * d_state, boundary)
    path = plain_torchscript(law, tmp_path / "law.pt")
    engine = Engine(d_state=d_state, backend="compiled", threads=chance.choice([1, 2, 3]))
    engine.load_model(path, {"gamma": 0.0, "epsilon": 0.0, "normalise": "none", "boundary": boundary})
    assume("Winograd" in engine.info()["why"])  # but a few whose rounding is large
    # Blocks of tiles side by side and below each other, an odd number of them, more than run together.
    height, width = 4 * chance.randrange(1, 8), 64 * chance.randrange(1, 8)
    generator = torch.Generator().manual_seed(chance.randrange(2**32))
    psi = torch.randn(chance.choice([1, 1, 3]), 2 * d_state, height, width, generator=generator)
    psi *= torch.rand(len(psi), 1, height, width, generator=generator) < chance.choice(
        [1.0, 0.9, 0.02, 0.001]
    )
    engine.set_state(psi.numpy())
    engine.step_native()
    occupied = F.pad((psi != 0).any(1, keepdim=True).float(), [1, 1, 1, 1], mode=law.mode)
    sees_nothing = (F.max_pool2d(occupied, 3, 1) == 0)[:, 0]
    for name in ("filters", "mix", "bias", "out"):
        setattr(law, name, getattr(law, name).double())
    expected = psi.double() + law(psi.double())
    got = torch.from_numpy(engine.state())
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * expected.abs().max().clamp(min=1))
    for channel in got.transpose(0, 1):
        assert len(channel[sees_nothing].unique()) <= 1
    if not law.bias.any():
        assert not got.transpose(0, 1)[:, sees_nothing].any()


class Convolves(torch.nn.Module):
    """3x3 convolutions of many channels, and a norm of the whole grid: by Winograd on grids of any size."""

    def __init__(self, chance: Random, channels: int, boundary: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(chance.randrange(2**32))
        wide, wider = chance.choice([8, 13, 32]), chance.choice([8, 17, 40])
        sizes = [(wide, channels), (wider, wide), (channels, wider)]
        self.weights = torch.nn.ParameterList(
            torch.randn(*size, 3, 3, generator=generator) / (9 * size[1]) ** 0.5 for size in sizes
        )
        self.bias = torch.nn.Parameter(torch.randn(wider, generator=generator))
        self.mode = "circular" if boundary == "torus" else "constant"

    def around(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x, [1, 1, 1, 1], mode=self.mode)

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        x = F.group_norm(F.conv2d(self.around(psi), self.weights[0]), 1, None, None, 1e-5)
        x = F.elu(F.conv2d(self.around(x), self.weights[1], self.bias))
        return 0.3 * F.conv2d(self.around(x), self.weights[2])


@given(luck, st.sampled_from(["torus", "zeros"]))
@settings(many, max_examples=40)
@torch.inference_mode()
def test_random_convolutions_on_any_grid(tmp_path: Path, chance: Random, boundary: str) -> None:
    """As float64 has it, and whatever was in the memory before."""
    d_state = chance.choice([2, 4, 9])
    law = Convolves(chance, 2 * d_state, boundary)
    path = plain_torchscript(law, tmp_path / "law.pt")
    given = {"gamma": 0.0, "epsilon": 0.0, "normalise": "none", "boundary": boundary}
    engines = [Engine(d_state=d_state, backend="compiled", threads=threads) for threads in (2, 1)]
    grid = chance.choice([chance.randrange(1, 150), 64, 128]), chance.choice([chance.randrange(1, 150), 64])
    psi = torch.randn(1, 2 * d_state, *grid, generator=torch.Generator().manual_seed(chance.randrange(2**32)))
    for engine in engines:
        engine.load_model(path, given)
    engines[0].set_state(np.full(psi.shape, 3e38, np.float32))
    with suppress(OverflowError):
        engines[0].step_native()
    for engine in engines:
        engine.set_state(psi.numpy())
        engine.step_native()
    np.testing.assert_array_equal(engines[0].state(), engines[1].state())
    law.double()
    expected = psi.double() + law(psi.double())
    np.testing.assert_allclose(engines[0].state(), expected, rtol=0, atol=1e-5 * expected.abs().max())


HOPS = """
around = F.pad(psi, [1, 1, 1, 1], mode="circular")
return 0.1 * F.conv2d(F.elu(F.conv2d(F.conv2d(around, self.filters, None, groups=4), self.mix)), self.out)
"""


def test_what_no_filter_reaches_stays_vacuum(tmp_path: Path) -> None:
    """Filters without corners see none of what is there: no rounding may."""
    to_the_right = [[0.0, 0.0, 0.0], [-0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]
    cross = torch.tensor([to_the_right, [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]])
    filters = torch.cat([cross, cross[:1].mT, torch.eye(9)[4].view(1, 3, 3)]).repeat(4, 1, 1).unsqueeze(1)
    law = module_of(HOPS, filters=filters, mix=torch.randn(8, 16, 1, 1), out=torch.randn(4, 8, 1, 1))
    engine, other = both(
        law, tmp_path, {"gamma": 0.0, "epsilon": 0.0, "normalise": "cell", "boundary": "torus"}
    )
    psi = np.zeros((1, 4, 64, 64), np.float32)
    psi[0, :, 30, 30] = 0.5
    for each in (engine, other):
        each.set_state(psi)
        each.step_native(4)
    np.testing.assert_array_equal(engine.state() != 0, other.state() != 0)
    assert (engine.state() != 0).any(axis=1).sum() == 41


def test_filters_of_the_cell_alone(tmp_path: Path) -> None:
    body = """
own = F.conv2d(psi[:, :2], self.each, None, groups=2)
mixed = F.elu(F.conv2d(torch.cat([own, psi[:, 2:]], 1), self.mix))
return 0.1 * F.conv2d(F.pad(mixed, [1, 1, 1, 1], mode="circular"), self.out)
"""
    weights = {"each": torch.randn(8, 1, 1, 1), "mix": torch.randn(8, 10, 1, 1)}
    engines = both(module_of(body, **weights, out=torch.randn(4, 8, 3, 3)), tmp_path)
    psi = np.random.default_rng(0).standard_normal((1, 4, 12, 320)).astype(np.float32)
    for engine in engines:
        engine.set_state(psi)
        engine.step_native()
    np.testing.assert_allclose(*(engine.state() for engine in engines), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "activation",
    ["F.elu(x)", "F.elu(x, 0.3)", "F.silu(x)", "torch.tanh(x)", "F.leaky_relu(x, 0.1)", "torch.sin(x)"],
)
@torch.inference_mode()
def test_what_becomes_of_nearly_nothing(activation: str, tmp_path: Path) -> None:
    """Fields that fade, or cells that are normalised afterwards, show each digit of a small number."""
    body = f"x = F.conv2d(psi, self.first)\nreturn F.conv2d({activation}, self.last)"
    module = module_of(body, first=torch.randn(16, 4, 1, 1), last=torch.randn(4, 16, 1, 1))
    path = plain_torchscript(module, tmp_path / "law.pt")
    engine = Engine(d_state=2, backend="compiled")
    engine.load_model(path, {"gamma": 1 - 2**-20, "normalise": "none"})  # what the law says, nearly alone
    exact = deepcopy(module).double()
    for amplitude in (3.0, 0.3, 0.03, 1e-3, 1e-5, 1e-8, 1e-20):
        psi = amplitude * torch.randn(1, 4, 16, 20)
        engine.set_state(psi.numpy())
        engine.step_native()
        expected = exact(psi.double()) + psi.double() * 2**-20
        error = (torch.from_numpy(engine.state()) - expected).abs().max() / expected.abs().max()
        assert error < 2e-6, amplitude


@torch.inference_mode()
def test_faint_cells_are_normalised_alike(tmp_path: Path) -> None:
    """Of a law without biases, whose answer is the smaller the fainter the cell, and the whole of it."""
    body = "return F.conv2d(F.elu(F.conv2d(psi, self.first)), self.last)"
    module = module_of(body, first=torch.randn(16, 4, 1, 1), last=torch.randn(4, 16, 1, 1))
    states = []
    for engine in both(module, tmp_path, {"normalise": "cell"}):
        engine.reset("gaussian", 0, (64, 64))
        engine.step_native()
        states.append(engine.state())
    np.testing.assert_allclose(*states, rtol=0, atol=1e-5)


def test_a_scale_is_part_of_the_convolution_at_each_load(tmp_path: Path) -> None:
    """Libtorch folds it into some, at some loads: it is left to us."""
    body = """
sums = F.conv2d(F.pad(psi, [1, 1, 1, 1], mode="circular"), self.filters, None, groups=4)
a = F.elu(F.conv2d(sums, self.a, self.b))
b = torch.tanh(F.conv2d(sums, self.c))
return F.conv2d(torch.cat([a, b], 1), self.out) * 0.1
"""
    shapes = {
        "filters": (16, 1, 3, 3),
        "a": (9, 16, 1, 1),
        "b": (9,),
        "c": (7, 16, 1, 1),
        "out": (4, 16, 1, 1),
    }
    law = module_of(body, **{name: torch.randn(shape) for name, shape in shapes.items()})
    path = plain_torchscript(law, tmp_path / "law.pt")
    psi = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    states = []
    for _ in range(30):
        engine = Engine(d_state=2, backend="compiled")
        engine.load_model(path)
        engine.set_state(psi)
        engine.step_native()
        states.append(engine.state().tobytes())
    assert len(set(states)) == 1
    parts = [part["what"] for part in engine.profile(1)]
    assert not any("scale and shift" in part for part in parts), parts


@given(luck, physics())
@settings(many, max_examples=20)
@torch.inference_mode()
def test_random_filters_on_tiles_and_cell_by_cell(
    tmp_path: Path, chance: Random, physics: PhysicsConfig
) -> None:
    """A grid of tiles, the same on other threads, and an unbounded universe: rollouts of some cells."""
    law = Perceives(chance, 4, "zeros")
    law.bias *= 0
    path = plain_torchscript(law, tmp_path / "law.pt")
    given = {key: getattr(physics, key) for key in ("gamma", "epsilon")}
    given |= {"normalise": "cell", "boundary": "zeros"}
    engines = [Engine(d_state=2, backend="compiled", threads=threads) for threads in (2, 1, 2)]
    height, width = chance.choice([(64, 64), (60, 128), (64, 320)])
    psi = np.zeros((1, 4, height, width), np.float32)
    numbers = np.random.default_rng(chance.randrange(2**32))
    where = numbers.integers((6, 6), (height - 6, width - 6), size=(chance.randrange(1, 40), 2))
    psi[0][:, where[:, 0], where[:, 1]] = numbers.standard_normal((4, len(where)))
    for engine in engines:
        engine.load_model(path, given)
    engines[0].set_state(psi)
    engines[1].set_state(psi)
    cells = np.unique(where, axis=0)
    amplitudes = psi[0][:, cells[:, 0], cells[:, 1]].T
    engines[2].set_cells(
        cells[:, ::-1].copy(), (amplitudes[:, :2] + 1j * amplitudes[:, 2:]).astype(np.complex64)
    )
    for _ in range(3):
        engines[0].step_native()
        engines[1].step_native()
        engines[2].step_native()
        np.testing.assert_array_equal(engines[0].state(), engines[1].state())
        dense, cellwise = engines[0].state()[0], engines[2].window(0, 0, width, height)
        if physics.epsilon == 0:
            np.testing.assert_array_equal((dense != 0).any(axis=0), (cellwise != 0).any(axis=0))
        near = np.abs(dense - cellwise).max(axis=0) <= 1e-4
        assert near.mean() > 0.99  # what is within rounding of a threshold may differ


@given(luck, st.sampled_from(["torus", "zeros"]))
@many
@torch.inference_mode()
def test_random_sums_over_neighbours(tmp_path: Path, chance: Random, boundary: str) -> None:
    d_state = chance.randrange(1, 4)
    law = Sums(chance, 2 * d_state, boundary)
    path = plain_torchscript(law, tmp_path / "law.pt")
    engine = Engine(d_state=d_state, backend="compiled")
    engine.load_model(path, {"gamma": 0.0, "epsilon": 0.0, "normalise": "none", "boundary": boundary})
    # Whole vectors and not, a few rows at a time and parts of one.
    width = chance.choice([16, 32, 48, 64, 16 * chance.randrange(1, 70), chance.randrange(3, 700)])
    height = chance.randrange(3, 12)
    generator = torch.Generator().manual_seed(chance.randrange(2**32))
    psi = torch.randn(1, 2 * d_state, height, width, generator=generator)
    engine.set_state(psi.numpy())
    engine.step_native()
    for name in ("filters", "mix", "bias"):
        setattr(law, name, getattr(law, name).double())
    expected = psi.double() + law(psi.double())
    np.testing.assert_allclose(engine.state(), expected.numpy(), rtol=0, atol=3e-6 * expected.abs().max())


@given(luck, st.sampled_from(["torus", "zeros"]), st.sampled_from(["cell", "none"]))
@many
def test_random_steps_in_a_row(tmp_path: Path, chance: Random, boundary: str, normalise: str) -> None:
    """Neighbours near and far, more threads than rows, a field that explodes: as one step after the other."""
    d_state = chance.choice([1, 2, 3, 8])
    law = Sums(chance, 2 * d_state, boundary)
    path = plain_torchscript(law, tmp_path / "law.pt")
    grid = (chance.randrange(2, 80), 16 * chance.randrange(1, 6) - chance.choice([0, 0, 5]))
    universes, threads, steps = (
        chance.choice([1, 1, 2, 5]),
        chance.choice([1, 2, 3, 5]),
        chance.randrange(2, 40),
    )
    physics = {"gamma": 0.01, "epsilon": 0.05, "normalise": normalise, "boundary": boundary}
    engines = [Engine(d_state=d_state, backend="compiled", threads=n) for n in (threads, 1)]
    for engine in engines:
        engine.load_model(path, physics)
        engine.reset("soup", chance.randrange(100), grid, universes)
    engines[1].set_state(engines[0].state())

    def run(engine: Engine, pieces: list[int]) -> str:
        try:
            for piece in pieces:
                engine.step_native(piece)
        except OverflowError as error:
            return str(error)
        return ""

    assert run(engines[0], [steps]) == run(engines[1], [1] * steps)
    assert engines[0].step_count == engines[1].step_count
    np.testing.assert_array_equal(engines[0].state(), engines[1].state())
    assert engines[0].observables() == engines[1].observables()


ENDS_IN_A_PRODUCT = (
    "return F.conv2d(psi, self.last, self.bias)",
    "return F.conv2d(F.elu(F.conv2d(psi, self.first)), self.last, self.bias)",
    """
around = F.conv2d(F.pad(psi, [1, 1, 1, 1], mode="circular"), self.filters, None, groups=16)
return F.conv2d(F.elu(F.conv2d(around, self.first)), self.last, self.bias)
""",
)


@given(luck, physics(), st.sampled_from(ENDS_IN_A_PRODUCT))
@many
@torch.inference_mode()
def test_random_products_that_end_in_the_step(
    tmp_path: Path, chance: Random, physics: PhysicsConfig, body: str
) -> None:
    """Of 8 components: what such a law answers stays in registers, where they are enough."""
    hidden = chance.choice([1, 2, 7, 16, 33]) if "first" in body else 16
    generator = torch.Generator().manual_seed(chance.randrange(2**32))
    weights = {
        "first": torch.randn(hidden, 16, 1, 1, generator=generator) / 4,
        "last": torch.randn(16, hidden, 1, 1, generator=generator) / 16,
        "bias": torch.randn(16, generator=generator) * chance.choice([0, 0.1]),
        "filters": FILTERS[chance.choice([0, 1, 3])].expand(16, 1, 3, 3).contiguous(),
    }
    law = module_of(body, **weights)
    path = plain_torchscript(law, tmp_path / "law.pt")
    grid = chance.randrange(2, 40), chance.randrange(2, 90)
    psi = torch.randn(chance.choice([1, 2, 5]), 16, *grid, generator=generator)
    psi *= torch.rand(len(psi), 1, *grid, generator=generator) < 0.7
    engine = Engine(d_state=8, backend="compiled", threads=chance.choice([1, 2, 3]))
    engine.load_model(
        path, {name: getattr(physics, name) for name in ("gamma", "epsilon", "normalise", "fire_rate")}
    )
    worst, excepted = compare(
        engine, Dynamics(law, physics, SEED), psi, states=3, before_normalising=physics.normalise == "cell"
    )
    assert worst <= 1e-5
    assert excepted <= 5
    assert engine.step_native(0) == (engine.state() != 0).any(axis=1).sum()
    one_by_one = Engine(d_state=8, backend="compiled", threads=1)
    one_by_one.load_model(path, {"gamma": physics.gamma, "normalise": "cell"})
    at_once = Engine(d_state=8, backend="compiled")
    at_once.load_model(path, {"gamma": physics.gamma, "normalise": "cell"})
    for stepped, pieces in ((one_by_one, [1] * 7), (at_once, [7])):
        stepped.set_state(psi.numpy())
        for piece in pieces:
            stepped.step_native(piece)
    np.testing.assert_array_equal(one_by_one.state(), at_once.state())


class Far(torch.nn.Module):
    """A sum over 3 x 3 cells that are `dilation` apart."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.filters = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
        self.dilation = dilation

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        around = F.pad(psi, [self.dilation] * 4, mode="circular")
        return F.conv2d(around, self.filters, None, 1, 0, self.dilation, 2)


@pytest.mark.parametrize(("dilation", "rows"), [(1, 81), (2, 73), (2, 55)])
def test_threads_that_are_held_up_in_the_midst_of_steps_in_a_row(
    tmp_path: Path, dilation: int, rows: int
) -> None:
    """More threads than cores; shares of one piece each, the last of one row, which the law sees past."""
    path = plain_torchscript(Far(dilation), tmp_path / "law.pt")
    engines = [Engine(d_state=1, threads=threads, backend="compiled") for threads in (5, 1)]
    for engine in engines:
        engine.load_model(path, {"normalise": "cell", "gamma": 0.01, "epsilon": 0.0})
    for seed in range(20):
        for engine, pieces in zip(engines, ([320], [1] * 320), strict=True):
            engine.reset("soup", seed, (rows, 16))
            for steps in pieces:
                engine.step_native(steps)
        np.testing.assert_array_equal(engines[0].state(), engines[1].state())


def with_kernels_of(cpu: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs Python where the engine takes its kernels from `ATHERIA_CPU`."""
    environment = {**os.environ, "ATHERIA_CPU": cpu}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("cpu", ["portable", "AVX2", "AVX-512 with bfloat16"])
def test_the_kernels_of_other_cpus(cpu: str, tmp_path: Path) -> None:
    """What this CPU does not choose by itself is right, too."""
    if cpu == "AVX2" and not ("avx2" in CPU and "fma" in CPU):
        pytest.skip("the CPU has no AVX2")
    if cpu == "AVX-512 with bfloat16" and ("avx512_bf16" not in CPU or "GenuineIntel" not in CPU):
        pytest.skip("the CPU has none, or chooses them by itself")
    ended = with_kernels_of(
        cpu,
        "-m",
        "pytest",
        "-q",
        f"--basetemp={tmp_path / 'pytest'}",
        __file__,
        "-k",
        "random or nothing or vacuum or bf16",
    )
    assert ended.returncode == 0, ended.stdout[-4000:]


def test_kernels_that_this_cpu_cannot_run_are_refused() -> None:
    ended = with_kernels_of("Z80", "-c", "from atheria_core import Engine; Engine(d_state=2)")
    assert ended.returncode != 0
    assert "`ATHERIA_CPU` must be one of what this CPU can run, " in ended.stderr
    assert "portable; got 'Z80'" in ended.stderr


def products_in_bf16(
    psi: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor, boundary: str
) -> torch.Tensor:
    """A convolution, and an upsampling by some of the same weights, of operands rounded to bfloat16."""
    psi, weights = (x.bfloat16().double() for x in (psi, weights))
    padded = F.pad(psi, [1] * 4, mode="circular") if boundary == "torus" else F.pad(psi, [1] * 4)
    up = F.conv_transpose2d(F.max_pool2d(psi, 2), weights[..., :2, :2], None, 2)
    return F.conv2d(padded, weights, bias.double()) + up


@in_bf16
@settings(many, max_examples=10)
@given(st.sampled_from([1, 3, 8, 17, 24, 40]), st.integers(4, 40), st.integers(4, 40), luck)
@pytest.mark.parametrize("boundary", ["torus", "zeros"])
def test_products_of_bf16_pairs(boundary: str, d_state: int, rows: int, columns: int, chance: Random) -> None:
    """Whatever does not fill their tiles: exact but for the order of float32 sums."""
    generator = torch.Generator().manual_seed(chance.randrange(2**32))
    weights = 0.1 * torch.randn(2 * d_state, 2 * d_state, 3, 3, generator=generator)
    bias = torch.randn(2 * d_state, generator=generator)
    pad = ", mode='circular'" if boundary == "torus" else ""
    body = (
        f"around = F.conv2d(F.pad(psi, [1] * 4{pad}), self.w, self.b)\n"
        "return around + F.conv_transpose2d(F.max_pool2d(psi, 2), self.v, None, 2)"
    )
    module = module_of(body, w=weights, b=bias, v=weights[..., :2, :2].contiguous())
    psi = torch.randn(1, 2 * d_state, 2 * rows, 2 * columns, generator=generator)
    with TemporaryDirectory() as folder:
        path = plain_torchscript(module, Path(folder) / "law.pt")
        engine = Engine(d_state=d_state, precision="bf16", backend="compiled")
        engine.load_model(path, {"boundary": boundary, "normalise": "none", "gamma": 0.0, "epsilon": 0.0})
    engine.set_state(psi.numpy())
    engine.step_native()
    expected = (psi.double() + products_in_bf16(psi, weights, bias, boundary)).numpy()
    np.testing.assert_allclose(engine.state(), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@in_bf16
@given(luck)
@many
def test_random_laws_in_bf16_stay_near(tmp_path: Path, chance: Random) -> None:
    """What passes from product to product, and to and from all else, goes where it belongs."""
    law = random_laws.draw(chance, most_lines=16, operations=random_laws.OF_UNETS)
    note(law.source)
    path = plain_torchscript(law.module(), tmp_path / "law.pt")
    psi = field(law, chance, universes=chance.choice([1, 1, 3])).numpy()
    states = []
    for precision in ("fp32", "bf16"):
        engine = Engine(d_state=law.d_state, precision=precision, backend="compiled")
        engine.load_model(path, {"boundary": law.boundary, "normalise": "none", "gamma": 0.0, "epsilon": 0.0})
        engine.set_state(psi)
        engine.step_native()
        states.append(engine.state())
    np.testing.assert_allclose(*states, rtol=0, atol=0.05)  # a law proposes up to 0.3


@in_bf16
@pytest.mark.parametrize("activation", ["elu", "silu"])
@pytest.mark.parametrize("boundary", ["torus", "zeros"])
def test_a_norm_before_a_product_of_bf16(boundary: str, activation: str, tmp_path: Path) -> None:
    """It is applied where the product's operands are rounded, beside a channel of which nothing is asked."""
    torch.manual_seed(0)
    weights, after, scale, shift = (
        torch.randn(shape) for shape in [(33, 4, 3, 3), (4, 37, 3, 3), (33,), (33,)]
    )
    pad = ", mode='circular'" if boundary == "torus" else ""
    body = (
        f"x = F.conv2d(F.pad(psi, [1] * 4{pad}), self.a)\n"
        f"x = F.{activation}(F.group_norm(x, 3, self.scale, self.shift))\n"
        f"return F.conv2d(F.pad(torch.cat([psi, x], 1), [1] * 4{pad}), self.b)"
    )
    path = plain_torchscript(module_of(body, a=weights, b=after, scale=scale, shift=shift), tmp_path / "l.pt")
    engine = Engine(d_state=2, precision="bf16", backend="compiled")
    engine.load_model(path, {"boundary": boundary, "normalise": "none", "gamma": 0.0, "epsilon": 0.0})
    psi = torch.randn(1, 4, 12, 26)
    engine.set_state(psi.numpy())
    engine.step_native()

    def product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, [1] * 4, mode="circular") if boundary == "torus" else F.pad(x, [1] * 4)
        return F.conv2d(padded.bfloat16().double(), w.bfloat16().double())

    x = F.group_norm(product(psi, weights), 3, scale.double(), shift.double())
    x = getattr(F, activation)(x).float()
    error = np.abs(engine.state() - (psi + product(torch.cat([psi, x], 1), after)).numpy())
    assert np.median(error) < 1e-5  # what is rounded to its other neighbour is rare
    assert error.max() < 0.1


@in_bf16
def test_bf16_says_its_error_and_stays_near(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = "x = F.elu(F.conv2d(psi, self.a, None, 1, 1))\nreturn 0.1 * F.conv2d(x, self.b, None, 1, 1)"
    module = module_of(body, a=0.2 * torch.randn(64, 4, 3, 3), b=0.05 * torch.randn(4, 64, 3, 3))
    path = plain_torchscript(module, tmp_path / "law.pt")
    exact, rounded = Engine(d_state=2), Engine(d_state=2, precision="bf16")
    exact.load_model(path, {"boundary": "zeros"})
    rounded.load_model(path, {"boundary": "zeros"})
    assert "bfloat16; differs from libtorch by" in rounded.info()["why"]
    psi = np.random.default_rng(0).standard_normal((1, 4, 32, 32)).astype(np.float32)
    for engine in (exact, rounded):
        engine.set_state(psi)
        engine.step_native()
    error = np.abs(exact.state() - rounded.state()).max()
    assert 1e-6 < error < 0.02 * np.abs(exact.state()).max()


@pytest.mark.skipif(not LEAVES_BF16, reason="the CPU has no bfloat16, or gains from it")
def test_bf16_is_left_where_the_cpu_is_slower_at_it(exported: Callable) -> None:
    _, path = exported("unet")
    states = []
    for precision in ("fp32", "bf16"):
        engine = Engine(precision=precision)
        engine.load_model(path)
        engine.step_native(3)
        states.append(engine.state())
    assert ", in float32, which is faster on this CPU than bfloat16; differs" in engine.info()["why"]
    assert np.array_equal(*states)


@pytest.mark.skipif(not LEAVES_BF16_ON_LARGE_GRIDS, reason="the CPU has no bfloat16, or its tiles")
def test_bf16_is_left_on_large_grids_where_winograds_algorithm_is_faster(
    exported: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = exported("unet")
    exact, rounded = Engine(), Engine(precision="bf16")
    for engine in (exact, rounded):
        engine.load_model(path)
    assert ", but in float32 on grids of more than 60000 cells, " in rounded.info()["why"]
    monkeypatch.setenv("ATHERIA_CPU", "portable")  # chooses for laws that are loaded from here on
    for shape, is_exact in (((240, 248), False), ((240, 256), True), ((32, 32), False)):
        for engine in (exact, rounded):
            engine.reset("soup", 0, shape)
            engine.step_native(2)
        assert np.array_equal(exact.state(), rounded.state()) == is_exact


@pytest.mark.skipif(not LEAVES_BF16_ON_LARGE_GRIDS, reason="the CPU has no bfloat16, or its tiles")
@pytest.mark.parametrize("kernels", [(3, 3), (3, 5)], ids=["without a norm", "of 5x5"])
def test_bf16_stays_where_winograds_algorithm_does_not_serve(
    kernels: tuple[int, int], tmp_path: Path
) -> None:
    first, second = kernels
    norm = "" if second == 3 else "x = F.group_norm(x, 4)\n"
    body = (
        f"x = F.elu(F.conv2d(psi, self.a, None, 1, {first // 2}))\n{norm}"
        f"return 0.1 * F.conv2d(x, self.b, None, 1, {second // 2})"
    )
    weights = {"a": 0.1 * torch.randn(32, 4, first, first), "b": 0.1 * torch.randn(4, 32, second, second)}
    path = plain_torchscript(module_of(body, **weights), tmp_path / "law.pt")
    engine = Engine(d_state=2, precision="bf16")
    engine.load_model(path, {"boundary": "zeros"})
    assert "convolutions in bfloat16; differs" in engine.info()["why"]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=in_bf16)])
@pytest.mark.parametrize("universes", [1, 4])
def test_a_profile_tells_the_parts_of_a_step_apart(
    exported: Callable, precision: str, universes: int
) -> None:
    _, path = exported("unet")
    engines = [Engine(precision=precision, threads=2) for _ in range(2)]
    for engine in engines:
        engine.load_model(path)
        engine.reset("soup", 0, (32, 48), universes)
    began = time.perf_counter()
    parts = engines[0].profile(5)
    whole = time.perf_counter() - began
    engines[1].step_native(5)
    assert np.array_equal(engines[0].state(), engines[1].state())
    assert engines[0].step_count == 5
    names = [part["what"] for part in parts]
    assert names[0] == "convolution 3x3, 4 -> 8 channels"
    assert any(name.startswith("max pooling 2x2, ") and name.endswith(", grid/2") for name in names)
    assert names[-2:] == ["the step around the law", "between the parts: hand-over, waiting"]
    assert all(part["seconds"] >= 0 for part in parts)
    assert 0 < 5 * sum(part["seconds"] for part in parts[:-1]) <= whole
    assert parts[0]["operations"] == universes * 32 * 48 * 2 * 9 * 4 * 8


def test_a_law_with_memory_runs_compiled_at_every_step(exported: Callable) -> None:
    _, path = exported("unet_convlstm")
    engine = Engine(backend="compiled")
    engine.load_model(path)
    engine.reset("soup", 0, (32, 48))  # not of the sizes that it is tried at
    engine.step_native(2)
    assert all(part["seconds"] > 0 for part in engine.profile(2)[:-1])


def test_a_profile_is_of_what_was_asked_alone(exported: Callable) -> None:
    _, path = exported("nca")
    engine = Engine(threads=2)
    engine.load_model(path)
    engine.reset("soup", 0, (64, 64))
    once = engine.profile(1)
    engine.step_native(300)
    again = engine.profile(1)
    assert [part["what"] for part in once] == [part["what"] for part in again]
    assert once[0]["what"].startswith("sums over neighbours, ")
    assert all(part["seconds"] >= 0 for part in again)  # had the 300 steps counted, the last would be less
