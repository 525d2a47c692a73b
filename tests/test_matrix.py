"""{v3, v4} x {all laws}: trained, checkpointed, exported, rolled out natively, in agreement with Python."""

import math
from pathlib import Path

import pytest
import torch
from atheria_core import Engine

from atheria import checkpoint, laws, registry
from atheria.artifact import read_description
from atheria.config import PhysicsConfig
from atheria.export import export
from atheria.physics import Dynamics
from atheria.train import train

from .conftest import SMALL
from .test_parity import SEED, compare

WITHOUT_WIDTH = ("quantum_walk",)


def options(trainer: str, model: str) -> list[str]:
    kept = [option for option in SMALL if "model." not in option]
    width = [] if model in WITHOUT_WIDTH else ["model.hidden_channels=4"]
    return [*kept, f"trainer={trainer}", f"model={model}", "model.d_state=2", *width, "trainer.lr=1e-2",
            "physics.fire_rate=0.5", "noise=seed", "noise/curriculum=constant",
            "noise.level=0.3", "tracking=off"]  # fmt: skip


@pytest.mark.parametrize("trainer", ["v3", "v4"])
@pytest.mark.parametrize("model", registry.names("atheria.laws"))
def test_a_trained_law_runs_in_the_engine_as_in_python(trainer: str, model: str) -> None:
    run = train(options(trainer, model))
    assert math.isfinite(run.best["eval/loss"])
    path = run.folder / "checkpoints/last.pth"
    export([f"checkpoint={path}", "output=law.pt"])
    description = read_description("law.pt")
    assert description is not None
    assert description.law == model
    assert description.physics.normalise == {"v3": "cell", "v4": "none"}[trainer]

    state = checkpoint.load(path)
    law = laws.build(state["config"]["model"], "torus").eval()
    law.load_state_dict(state["model_state_dict"], strict=True)
    engine = Engine()
    engine.load_model("law.pt")
    physics = PhysicsConfig(**state["config"]["physics"])
    psi = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        worst, _ = compare(engine, Dynamics(law, physics, SEED), psi)
    assert worst <= 1e-5


def test_the_export_does_not_know_which_trainer_made_a_checkpoint() -> None:
    run = train(options("v4", "mlp"))
    state = checkpoint.load(run.folder / "checkpoints/last.pth")
    sizes_alone = {"grid": state["config"]["trainer"]["grid"]}
    state["config"]["trainer"] = sizes_alone
    checkpoint.save(state, Path("stripped.pth"))
    for source, output in ((run.folder / "checkpoints/last.pth", "a.pt"), (Path("stripped.pth"), "b.pt")):
        export([f"checkpoint={source}", f"output={output}"])
    assert read_description("a.pt") == read_description("b.pt")
    first, second = (torch.jit.load(name).state_dict() for name in ("a.pt", "b.pt"))
    assert all(torch.equal(first[key], second[key]) for key in first)
