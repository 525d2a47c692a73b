"""A package of somebody else's, installed beside: its law, loss and channel are used by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from atheria import registry

from .conftest import SMALL

MODULE = """
from pydantic.dataclasses import dataclass
import torch
from atheria.config import SCHEMA
from atheria.laws import Law


class Drift(Law):
    @dataclass(config=SCHEMA, frozen=True)
    class Config:
        d_state: int
        speed: float = 0.5

    def __init__(self, config, boundary):
        super().__init__()
        self.speed = torch.nn.Parameter(torch.tensor(config.speed))

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return self.speed * (psi.roll([1], [3]) - psi)


def stillness(trajectory):
    return (trajectory.final - trajectory.initial).square().mean(dim=(1, 2, 3))


def conjugate(psi, level, draws, coin):
    re, im = psi.chunk(2, dim=1)
    return torch.cat([re, -im], dim=1)
"""

ENTRY_POINTS = """
[atheria.laws]
drift = somebody:Drift
[atheria.losses]
stillness = somebody:stillness
[atheria.noise]
conjugate = somebody:conjugate
"""


@pytest.fixture
def somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "packages"
    metadata = packages / "somebody-1.0.dist-info"
    metadata.mkdir(parents=True)
    (packages / "somebody.py").write_text(MODULE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.setenv("PYTHONPATH", str(packages))


def atheria(command: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"atheria.{command}", *overrides], capture_output=True, text=True, check=False
    )


@pytest.mark.usefixtures("somebody")
def test_a_foreign_law_loss_and_channel_are_used_by_name() -> None:
    sizes = [option for option in SMALL if "model." not in option]
    foreign = ["model=drift", "model.d_state=2", "+trainer.loss.stillness=1", "noise=conjugate"]
    trained = atheria("train", *sizes, *foreign)
    assert trained.returncode == 0, trained.stderr
    command = next(line.split() for line in trained.stdout.splitlines() if "atheria.rollout" in line)
    rolled = atheria("rollout", *command[3:], "steps=3", "grid=8")
    assert rolled.returncode == 0, rolled.stderr
    assert "law       drift, d_state 2" in rolled.stdout


@pytest.mark.usefixtures("somebody")
def test_a_sweep_holds_foreign_laws_and_ours() -> None:
    sizes = [option for option in SMALL if "model." not in option]
    swept = atheria("train", "-m", "model=drift,mlp", "model.d_state=2", *sizes)
    assert swept.returncode == 0, swept.stderr
    assert swept.stdout.count("\nfinished  ") == 2


@pytest.mark.usefixtures("somebody")
def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    entry_points = tmp_path / "packages/somebody-1.0.dist-info/entry_points.txt"
    entry_points.write_text("[atheria.laws]\nunet = somebody:Drift\n")
    result = atheria("train", "model=unet")
    assert (
        "'unet' is registered in `atheria.laws` more than once: atheria.laws.unet:UNet, somebody:Drift"
        in result.stderr
    )


@pytest.mark.usefixtures("somebody")
def test_a_law_that_cannot_be_imported_harms_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "packages/somebody.py").write_text("import missing_package\n")
    chosen = atheria("train", "model=drift")
    assert "'drift' of `atheria.laws` cannot be imported: No module named 'missing_package'" in chosen.stderr
    assert "Traceback" not in chosen.stderr
    assert atheria("train", "--cfg", "job", "model=mlp", "tracking.run_name=drift").returncode == 0


@pytest.mark.usefixtures("somebody")
def test_its_settings_are_checked_and_listed() -> None:
    assert "drift" in atheria("train", "--help").stdout
    missing = atheria("train", "model=drift")
    assert "`model.d_state` is missing; give it: model.d_state=..." in missing.stderr
    unknown = atheria("train", "model=drift", "model.d_state=2", "model.depth=3")
    assert "`model.depth` is not a key; allowed there: name, d_state, speed" in unknown.stderr


def test_a_package_that_is_installed_meanwhile_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert "late" not in registry.names("atheria.losses")
    metadata = tmp_path / "late-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[atheria.losses]\nlate = math:hypot\n")
    assert registry.load("atheria.losses", "late")(3, 4) == 5
