"""Training in float64: nothing is rounded to float32 on the way, and the exported law is float32."""

import pytest
import torch

from atheria import artifact, checkpoint, initial_state, noise, registry
from atheria.config import InitialStateConfig
from atheria.export import export
from atheria.philox import Lattice
from atheria.train import train

from .conftest import SMALL
from .test_trainer import trainer_of

LATTICE = Lattice(2, 8, 8, torch.device("cpu"), first=3)


def is_finer_than_float32(field: torch.Tensor) -> bool:
    return field.dtype == torch.float64 and not torch.equal(field, field.float().double())


@pytest.mark.parametrize("kind", ["soup", "random", "particles", "gaussian"])
def test_initial_states_are_those_of_float32_before_rounding(kind: str) -> None:
    config = InitialStateConfig(kind=kind)
    fine = initial_state.make(config, 3, LATTICE, seed=1, dtype=torch.float64)
    assert is_finer_than_float32(fine)
    assert torch.equal(fine.float(), initial_state.make(config, 3, LATTICE, seed=1))


@pytest.mark.parametrize("name", registry.names("atheria.noise"))
def test_noise_is_that_of_float32_before_rounding(name: str) -> None:
    channel = noise.channel(name)
    psi = initial_state.random_states(3, LATTICE, seed=1, step=0, dtype=torch.float64).requires_grad_()
    noisy = noise.apply(channel, psi, 0.3, seed=2, step=4, first_universe=3)
    assert is_finer_than_float32(noisy)
    assert not torch.equal(noisy, psi)
    rounded = noise.apply(channel, psi.detach().float(), 0.3, seed=2, step=4, first_universe=3)
    torch.testing.assert_close(noisy.float(), rounded, atol=1e-6, rtol=1e-6)
    if name != "thermal":  # the only one that changes the norm of a cell
        energies = [field.square().sum(dim=1) for field in (noisy, psi)]
        torch.testing.assert_close(*energies, atol=1e-14, rtol=0)
    (gradient,) = torch.autograd.grad(noisy.sum(), psi)
    assert gradient.dtype == torch.float64


@pytest.mark.parametrize(
    "options",
    [
        ("physics.fire_rate=0.5", "physics.normalise=cell"),
        ("noise=thermal", "trainer.pool=4", "trainer.damage=1", "physics.normalise=global"),
        ("noise=none", "noise.level=0", "trainer.gradient_checkpointing=true", "trainer.truncate=2"),
    ],
)
def test_an_episode_is_that_of_float32_before_rounding(options: tuple[str, ...]) -> None:
    fine, rounded = (trainer_of(*options, f"trainer.precision={name}") for name in ("fp64", "fp32"))
    for _ in range(2):
        metrics, expected = fine.train_episode(), rounded.train_episode()
        assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert torch.tensor(metrics["train/loss"]).item() != metrics["train/loss"]
    state = fine.state_dict()
    floats = [*state["model_state_dict"].values(), *(state["pool"] or {}).values()]
    assert {tensor.dtype for tensor in floats} == {torch.float64}
    assert fine.evaluate() == pytest.approx(rounded.evaluate(), rel=1e-3, abs=1e-3)


def test_a_run_goes_on_in_the_other_precision() -> None:
    options = ("trainer.pool=4", "model=unet_convlstm")
    states = {}
    for name, other in (("fp64", "fp32"), ("fp32", "fp64")):
        settings = trainer_of(*options, f"trainer.precision={name}")
        settings.train_episode()
        states[other] = settings.state_dict()
    for name, state in states.items():
        trainer = trainer_of(*options, f"trainer.precision={name}")
        trainer.load_state_dict(state)
        trainer.train_episode()
        dtypes = {tensor.dtype for tensor in trainer.state_dict()["pool"].values()}
        assert dtypes == {torch.float64 if name == "fp64" else torch.float32}


@pytest.mark.usefixtures("ready_store")
def test_the_exported_law_is_float32_and_the_checkpoint_serves_others() -> None:
    run = train([*SMALL, "model=mlp", "trainer.precision=fp64", "trainer.episodes=2"])
    exact = checkpoint.load(run.folder / checkpoint.BEST)["model_state_dict"]
    exported = artifact.as_checkpoint(run.law)["model_state_dict"]
    assert {weight.dtype for weight in exported.values()} == {torch.float32}
    for name, weight in exact.items():
        assert weight.dtype == torch.float64
        assert torch.equal(weight.float(), exported[name])
    again = export([f"checkpoint={run.folder / checkpoint.BEST}", "output=again.pt"])
    for name, weight in artifact.as_checkpoint(again)["model_state_dict"].items():
        assert torch.equal(weight, exported[name])
    source = f"trainer.init_from={run.folder / checkpoint.BEST}"
    goes_on = train([*SMALL, "model=mlp", "trainer.precision=fp64", "trainer.lr=1e-30", source])
    for name, weight in checkpoint.load(goes_on.folder / checkpoint.BEST)["model_state_dict"].items():
        torch.testing.assert_close(weight, exact[name], atol=1e-12, rtol=1e-12)
