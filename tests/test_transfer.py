"""Transfer: a run starts with the weights of another run, of a checkpoint, or of the parts that match."""

from pathlib import Path

import pytest
import torch

from atheria import checkpoint
from atheria.config import UserError
from atheria.jobs.train import TrainedRun
from atheria.laws import build
from atheria.train import train
from atheria.transfer import initialise

from .conftest import MODELS, SMALL, make_law

UNET = MODELS["unet"]


def saved(name: str = "unet", path: str = "law.pth", **extra) -> torch.nn.Module:
    law = make_law(name, seed=7)
    checkpoint.save({"model_state_dict": law.state_dict(), "episode": 3, "optimizer_state_dict": {}} | extra,
                    Path(path))  # fmt: skip
    return law


def fresh(**changes) -> torch.nn.Module:
    torch.manual_seed(1)
    return build(UNET | changes, "torus")


def test_strictly_all_weights_are_taken() -> None:
    source, law = saved(), fresh()
    assert initialise(law, UNET, "law.pth", True, None) == "all weights of law.pth"
    for name, weight in source.state_dict().items():
        assert torch.equal(weight, law.state_dict()[name])


def test_what_matches_by_name_and_shape_is_taken() -> None:
    source, law = saved(), fresh(d_state=3)
    before = {name: weight.clone() for name, weight in law.state_dict().items()}
    said = initialise(law, UNET | {"d_state": 3}, "law.pth", False, None)
    taken = {name for name, weight in law.state_dict().items() if not torch.equal(weight, before[name])}
    other = {"inc.conv_block.0.weight", "outc.weight", "outc.bias"}  # their shapes depend on d_state
    assert other.isdisjoint(taken)
    assert said == f"{len(before) - 3} of {len(before)} tensors from law.pth, which has {len(before)}"
    assert torch.equal(law.state_dict()["bot.conv_block.0.weight"],
                       source.state_dict()["bot.conv_block.0.weight"])  # fmt: skip


def test_what_does_not_fit_is_refused() -> None:
    saved()
    with pytest.raises(UserError, match="the weights of 'law.pth' do not fit the law; are model.d_state"):
        initialise(fresh(d_state=3), UNET | {"d_state": 3}, "law.pth", True, None)
    saved(config={"model": {"name": "unet"}})
    other = UNET | {"name": "unet_product"}  # its weights have the same names and shapes
    with pytest.raises(UserError, match="'law.pth' is of model=unet, not of model=unet_product"):
        initialise(build(other, "torus"), other, "law.pth", True, None)
    saved("mlp")
    with pytest.raises(UserError, match="nothing in 'law.pth' matches model=unet by name and shape"):
        initialise(fresh(), UNET, "law.pth", False, None)
    with pytest.raises(UserError, match="there is no file 'none.pth'"):
        initialise(fresh(), UNET, "none.pth", True, None)


def test_a_run_starts_where_another_ended(in_run_folder: TrainedRun, capsys) -> None:
    first = in_run_folder
    still = ["trainer.episodes=1", "trainer.lr=1e-12", "tracking.experiment=transfer"]
    for source in (f"run:{first.run_id}", str(first.folder / "checkpoints/best.pth")):
        second = train([*SMALL, *still, f"trainer.init_from='{source}'"])
        assert second.untrained["eval/loss"] == pytest.approx(first.best["eval/loss"], rel=1e-6)
        assert f"starting with all weights of {source}" in capsys.readouterr().out


def test_a_source_that_does_not_exist_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file 'none.pth'"):
        train([*SMALL, "trainer.init_from=none.pth"])
    with pytest.raises(UserError, match="there is no store"):
        train([*SMALL, "trainer.init_from='run:abc'"])
    assert list(tmp_path.iterdir()) == []
