import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from atheria_core import Engine

from atheria import checkpoint, exporting, laws
from atheria.artifact import read_description
from atheria.config import UserError
from atheria.export import export

from .conftest import MODELS, PHYSICS, make_law, origin_of, plain_torchscript


def test_the_artifact_describes_itself(exported: Callable) -> None:
    _, path = exported("unet", grid=(8, 12), initial="gaussian", seed=9)
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/extra/atheria.json"))
        raw = json.loads(archive.read(name))
    assert set(raw) == {
        "schema", "law", "config", "d_state", "stride", "has_memory", "physics", "receptive_radius",
        "vacuum_stable", "training_grid", "initial_state", "noise", "seed", "run_id", "git_commit",
        "torch_version",
    }  # fmt: skip
    description = read_description(path)
    assert description is not None
    assert (description.law, description.stride, description.training_grid) == ("unet", 4, [8, 12])
    assert description.receptive_radius is None  # group norm sees the whole grid
    assert description.config == {k: v for k, v in MODELS["unet"].items() if k != "name"}
    assert laws.build({"name": description.law, **description.config}, description.physics.boundary)


def test_vacuum_stability_is_measured(exported: Callable) -> None:
    assert read_description(exported("unet pixel")[1]).vacuum_stable
    law = make_law("mlp")
    torch.nn.init.constant_(law.net[-1].bias, 0.01)
    for epsilon, stable in ((0.0, False), (10.0, True)):
        path = Path("law.pt")
        exporting.export_law(law, origin_of("mlp", replace(PHYSICS, epsilon=epsilon)), path)
        assert read_description(path).vacuum_stable is stable


class FrozenSize(laws.Law):
    """Scripts to something else than it computes: it looks at a Python attribute that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.stride = 1
        self.factor = 1.0

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return self.factor * psi


def test_a_script_that_differs_from_its_law_is_not_written(tmp_path: Path, monkeypatch) -> None:
    law = FrozenSize()
    script = exporting.artifact.script

    def script_then_change(module):
        scripted = script(module)
        module.factor = 1.001
        return scripted

    monkeypatch.setattr(exporting.artifact, "script", script_then_change)
    with pytest.raises(UserError, match="differs from the Python law by"):
        exporting.export_law(law, origin_of("mlp"), tmp_path / "law.pt")
    assert list(tmp_path.iterdir()) == []


def test_plain_torchscript_has_no_description(tmp_path: Path) -> None:
    assert read_description(plain_torchscript(make_law("mlp"), tmp_path / "plain.pt")) is None


def seed_checkpoint(path: Path, **model) -> laws.Law:
    """A .pth as the seed wrote it: weights, episode, optimiser; neither config nor schema."""
    torch.manual_seed(3)
    law = laws.build(MODELS["unet"] | model, "zeros")
    torch.nn.init.normal_(law.outc.weight, std=0.1)
    optimizer = torch.optim.Adam(law.parameters())
    state = {
        "model_state_dict": law.state_dict(),
        "episode": 1999,
        "optimizer_state_dict": optimizer.state_dict(),
    }
    torch.save(state, path)
    return law.eval()


SEED_MODEL = ["model=unet", "model.d_state=2", "model.hidden_channels=8"]


def test_a_bare_seed_checkpoint_exports_without_a_store(tmp_path: Path) -> None:
    law = seed_checkpoint(tmp_path / "seed.pth")
    export(["checkpoint=seed.pth", *SEED_MODEL, "output=law.pt"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["law.pt", "seed.pth"]
    description = read_description("law.pt")
    assert description.physics.boundary == "zeros"
    assert (description.run_id, description.training_grid) == (None, [64, 64])
    engine = Engine()
    engine.load_model("law.pt")
    psi = torch.randn(1, 4, 8, 8)
    engine.set_state(psi)
    engine.step_native()
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(engine.state()), psi + law(psi), atol=1e-5, rtol=1e-5)


def test_a_bare_seed_checkpoint_needs_its_model(tmp_path: Path) -> None:
    seed_checkpoint(tmp_path / "seed.pth")
    with pytest.raises(UserError, match="'seed.pth' does not say its law; name it: model=unet"):
        export(["checkpoint=seed.pth", "output=law.pt"])
    with pytest.raises(UserError, match="do not fit the law; are model.d_state"):
        export(["checkpoint=seed.pth", "model=unet", "model.d_state=8", "output=law.pt"])
    with pytest.raises(UserError, match="do not fit the law"):
        export(["checkpoint=seed.pth", "model=mlp", "output=law.pt"])
    assert not Path("law.pt").exists()


def test_physics_can_be_given(tmp_path: Path) -> None:
    seed_checkpoint(tmp_path / "seed.pth")
    export(["checkpoint=seed.pth", *SEED_MODEL, "physics.boundary=torus", "physics.epsilon=0.1",
            "output=law.pt"])  # fmt: skip
    physics = read_description("law.pt").physics
    assert (physics.boundary, physics.epsilon, physics.gamma) == ("torus", 0.1, 0.0)


def test_where_a_universe_starts_can_be_given(in_run_folder) -> None:
    checkpoint_path = in_run_folder.folder / "checkpoints/best.pth"
    export(
        [f"checkpoint={checkpoint_path}", "initial_state=gaussian", "grid=16", "seed=5", "output=given.pt"]
    )
    given = read_description("given.pt")
    assert (given.initial_state.kind, given.training_grid, given.seed) == ("gaussian", [16, 16], 5)
    export([f"checkpoint={checkpoint_path}", "output=saved.pt"])
    saved = read_description("saved.pt")
    assert (saved.initial_state.kind, saved.training_grid, saved.seed) == ("soup", [8, 8], 0)


def test_an_untrained_law_exports(tmp_path: Path) -> None:
    export(["model=mlp", "output=new/law.pt"])
    assert read_description("new/law.pt").law == "mlp"


def test_a_trained_checkpoint_says_everything_itself(in_run_folder) -> None:
    run = in_run_folder
    state = checkpoint.load(run.folder / "checkpoints/best.pth")
    export([f"checkpoint={run.folder}/checkpoints/best.pth", "output=again.pt"])
    again, first = read_description("again.pt"), read_description(run.law)
    assert again.physics == first.physics
    assert again.config == first.config
    assert again.run_id == first.run_id == run.run_id
    engine, other = Engine(), Engine()
    engine.load_model("again.pt")
    other.load_model(run.law)
    engine.step_native(5)
    other.step_native(5)
    assert (engine.state() == other.state()).all()
    assert state["config"]["model"]["name"] == "unet"
