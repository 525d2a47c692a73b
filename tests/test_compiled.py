"""The compiled backend: random laws, grids and physics; what it cannot compile; threads, universes, bf16."""

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from atheria_core import Engine
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from atheria.config import PhysicsConfig
from atheria.field import energy_density
from atheria.physics import Dynamics

from . import random_laws
from .conftest import plain_torchscript
from .test_parity import compare

SEED = 2**63 + 99
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
        worst, excepted = compare(engine, Dynamics(module, physics, SEED), psi, states=3)
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
def test_threads_and_universes_change_nothing_but_rounding(
    tmp_path: Path, chance: Random, physics: PhysicsConfig
) -> None:
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
        np.testing.assert_allclose(state, states[0], atol=1e-6 * max(1, np.abs(states[0]).max()))
    if physics.fire_rate < 1:  # which cells change is drawn for each universe of a batch
        return
    alone = loaded(path, law, physics, backend="compiled")
    for universe in range(6):
        alone.set_state(psi[universe : universe + 1])
        alone.step_native(2)
        np.testing.assert_allclose(
            alone.state()[0], states[0][universe], atol=1e-6 * max(1, np.abs(states[0]).max())
        )


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
