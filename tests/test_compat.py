"""Every snippet of the seed's document on the compatibility of v3 and v4, from its own text.

Only import lines are replaced, and in the long example the number of steps.
"""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from atheria import checkpoint, compat, laws
from atheria.artifact import read_description
from atheria.config import UserError
from atheria.files import sha256
from atheria.jobs.train import TrainedRun
from atheria.rollout import rollout
from atheria.stores import DEFAULT_STORE
from atheria.tracking import LAW_DIGEST_TAG
from atheria.train import train

from .conftest import MODELS, SMALL, put_store, store_folder

CHECKPOINT = """
   {
       'model_state_dict': {...},  # Pesos del modelo
       'episode': ...,             # Episodio actual
       'optimizer_state_dict': {...},  # Estado del optimizador
       ...
   }
"""

WORKFLOW = """
1. Entrenar modelo con v3 o v4
   ↓
   output/training_checkpoints/<exp_name>/checkpoint_ep*.pth

2. Exportar a TorchScript
   ↓
   python scripts/export_model_to_jit.py checkpoint.pth --experiment_name <exp_name>
   ↓
   output/training_checkpoints/<exp_name>/model_jit.pt

3. Usar en motor nativo
   ↓
   engine = atheria_core.Engine(d_state=4, device="cpu")
   engine.load_model("model_jit.pt")
   engine.step_native()  # 250-400x más rápido!
"""

EXAMPLE = """
import atheria_core
import torch
from src.utils import get_latest_checkpoint, get_latest_jit_model

# 1. Buscar checkpoint (v3 o v4, no importa)
experiment_name = "MiExperimento"
checkpoint_path = get_latest_checkpoint(experiment_name)

# 2. Exportar a JIT (solo una vez)
if not get_latest_jit_model(experiment_name, silent=True):
    from scripts.export_model_to_jit import export_model_to_jit
    from src.utils import load_experiment_config
    
    exp_config = load_experiment_config(experiment_name)
    d_state = exp_config.MODEL_PARAMS.d_state
    hidden_channels = exp_config.MODEL_PARAMS.hidden_channels
    model_type = exp_config.MODEL_ARCHITECTURE
    
    export_model_to_jit(
        checkpoint_path,
        experiment_name=experiment_name,
        d_state=d_state,
        hidden_channels=hidden_channels,
        model_type=model_type
    )

# 3. Usar en motor nativo
jit_path = get_latest_jit_model(experiment_name)
engine = atheria_core.Engine(d_state, "cpu")
engine.load_model(jit_path)

# ¡Ahora tienes 250-400x más rendimiento!
for _ in range(1000):
    count = engine.step_native()
"""  # noqa: W293  as the seed has it

HERE = re.sub(r"from (src\.utils|scripts\.export_model_to_jit) import", "from atheria.compat import", EXAMPLE)
"""The example with this project's import lines."""


@pytest.fixture(scope="module", params=["v3", "v4"])
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> TrainedRun:
    """A small run of each trainer; d_state 4 as in the seed's workflow."""
    folder = tmp_path_factory.mktemp(request.param)
    put_store(empty_store, folder / DEFAULT_STORE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return train(
            [*SMALL, f"trainer={request.param}", "model.d_state=4", "tracking.experiment=MiExperimento"]
        )


@pytest.fixture
def run(seen: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainedRun:
    """The run, seen from the folder that holds its store."""
    monkeypatch.chdir(store_folder(seen))
    return seen


@pytest.fixture
def without_law(run: TrainedRun) -> TrainedRun:
    """The same, as one that was ended before its law was exported."""
    MlflowClient(run.tracking_uri).delete_tag(run.run_id, LAW_DIGEST_TAG)
    return run


def digest_on(run: TrainedRun) -> str:
    return MlflowClient(run.tracking_uri).get_run(run.run_id).data.tags[LAW_DIGEST_TAG]


def test_the_only_lines_replaced_are_imports() -> None:
    changed = [line for line, own in zip(EXAMPLE.splitlines(), HERE.splitlines(), strict=True) if line != own]
    assert len(changed) == 3
    assert all(" import " in line for line in changed)


def test_the_page_shows_the_example() -> None:
    page = (Path(__file__).parents[1] / "docs/seed.md").read_text()
    shown = page.partition("```python\n")[2].partition("```")[0]
    assert ast.dump(ast.parse(shown)) == ast.dump(ast.parse(HERE))


def test_the_checkpoint_has_the_seed_s_layout(run: TrainedRun) -> None:
    kinds = {"{...}": dict, "...": int}
    described = {key: kinds[kind] for key, kind in re.findall(r"'(\w+)': ([{}.]+),", CHECKPOINT)}
    assert described == {"model_state_dict": dict, "episode": int, "optimizer_state_dict": dict}
    for name in ("best", "last"):
        state = torch.load(run.folder / f"checkpoints/{name}.pth", weights_only=True)
        assert all(isinstance(state[key], kind) for key, kind in described.items())
        assert all(isinstance(weight, torch.Tensor) for weight in state["model_state_dict"].values())


def test_the_workflow_of_three_steps(run: TrainedRun, tmp_path: Path, monkeypatch) -> None:
    lines = [line.strip() for line in WORKFLOW.splitlines() if line.startswith("   ")]
    pth, command, pt, *snippet = [line for line in lines if line != "↓"]
    folder = tmp_path / Path(pth).parent.name.replace("<exp_name>", "MiExperimento")
    folder.mkdir()
    shutil.copyfile(run.folder / checkpoint.BEST, folder / "checkpoint.pth")
    script, file, option, experiment = command.replace("<exp_name>", "MiExperimento").split()[1:]
    assert (script, option) == ("scripts/export_model_to_jit.py", "--experiment_name")
    monkeypatch.chdir(folder)
    output = f"output={Path(pt).name}"
    subprocess.run([sys.executable, "-m", "atheria.export", f"checkpoint={file}", output], check=True)
    names: dict = {}
    exec("import atheria_core\n" + "\n".join(snippet), names)
    assert names["engine"].step_count == 1
    assert experiment == "MiExperimento"


def test_the_example_where_nothing_was_exported(without_law: TrainedRun, capsys) -> None:
    names: dict = {}
    exec(HERE.replace("range(1000)", "range(20)"), names)
    assert names["engine"].step_count == 20
    assert names["count"] == names["engine"].step_native(0)
    assert (names["d_state"], names["hidden_channels"], names["model_type"]) == (4, 4, "unet")
    assert names["checkpoint_path"] == str(without_law.folder / checkpoint.BEST)
    assert sha256(Path(names["jit_path"])) == digest_on(without_law)
    assert f"of run {without_law.run_id}" in capsys.readouterr().out
    described, first = read_description(names["jit_path"]), read_description(without_law.law)
    assert described.physics == first.physics
    assert described.run_id == first.run_id == without_law.run_id


def test_the_example_where_the_law_was_exported(run: TrainedRun) -> None:
    """The seed's text defines d_state only where it exports; None takes it from the law."""
    names: dict = {"d_state": None}
    exec(HERE.replace("range(1000)", "range(20)"), names)
    assert names["engine"].step_count == 20
    assert sha256(Path(names["jit_path"])) == digest_on(run)
    assert "exp_config" not in names


def test_the_settings_by_the_seed_s_names(run: TrainedRun) -> None:
    config = compat.load_experiment_config("MiExperimento")
    assert config.EXPERIMENT_NAME == "MiExperimento"
    assert run.run_id == config.RUN_ID
    assert vars(config.MODEL_PARAMS) == {"d_state": 4, "hidden_channels": 4, "norm": "group", "bias": True}
    assert config.config["trainer"]["grid"] == [8, 8]


@pytest.mark.usefixtures("ready_store")
def test_the_latest_run_that_has_it_is_meant(tmp_path: Path) -> None:
    first, second = (train([*SMALL, "model=mlp", "trainer.episodes=2", f"seed={seed}"]) for seed in (0, 1))
    rollout([f"run_id={second.run_id}", "steps=2"])
    assert compat.get_latest_checkpoint("atheria") == str(second.folder / checkpoint.BEST)
    MlflowClient(second.tracking_uri).delete_tag(second.run_id, LAW_DIGEST_TAG)
    assert sha256(Path(compat.get_latest_jit_model("atheria", silent=True))) == sha256(first.law)
    shutil.rmtree(second.folder)  # as on another machine
    latest = compat.load_experiment_config("atheria")
    assert second.run_id == latest.RUN_ID
    checkpoint.load(Path(compat.get_latest_checkpoint("atheria")))


# The seed's own checkpoints ---------------------------------------------------------------------------


def bare(path: Path, name: str, **state) -> laws.Law:
    """A checkpoint as the seed wrote it."""
    law = laws.build(MODELS[name], "zeros")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {"model_state_dict": law.state_dict(), "episode": 7, "optimizer_state_dict": {}, **state}, path
    )
    return law


def test_a_bare_checkpoint_becomes_a_run_of_the_experiment(tmp_path: Path, capsys) -> None:
    source = tmp_path / "output/training_checkpoints/Old/checkpoint_ep7.pth"
    bare(source, "unet_product")
    path = compat.export_model_to_jit(
        source, experiment_name="Old", d_state=2, hidden_channels=4, model_type="UNetUnitary"
    )
    assert path == str(source.with_name("model_jit.pt"))
    assert read_description(path).physics.boundary == "zeros"
    found = compat.get_latest_jit_model("Old")
    assert sha256(Path(found)) == sha256(Path(path))
    config = compat.load_experiment_config("Old")
    assert (config.MODEL_ARCHITECTURE, config.MODEL_PARAMS.d_state) == ("unet_product", 2)
    assert f"run       {config.RUN_ID}" in capsys.readouterr().out
    assert checkpoint.load(Path(compat.get_latest_checkpoint("Old")))["episode"] == 7
    rollout([f"run_id={config.RUN_ID}", "steps=2", "grid=8"])


def test_without_an_experiment_only_the_file_is_written(tmp_path: Path) -> None:
    bare(tmp_path / "seed.pth", "mlp")
    path = compat.export_model_to_jit("seed.pth", d_state=4, hidden_channels=16, model_type="MLP")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model_jit.pt", "seed.pth"]
    assert read_description(path).law == "mlp"


@pytest.mark.parametrize(
    ("seed", "own"),
    [
        ("UNet", "unet"), ("UNET", "unet"), ("UNetUnitary", "unet_product"), ("UNET_UNITARY", "unet_product"),
        ("DeepQCA", "deep_qca"), ("DEEP_QCA", "deep_qca"), ("MLP", "mlp"), ("UNetConvLSTM", "unet_convlstm"),
        ("UNET_CONVLSTM", "unet_convlstm"), ("SNNUNet", "snn_unet"), ("SNN_UNET", "snn_unet"),
        ("unet_unitary", "unet_unitary"), ("nca", "nca"),
    ],
)  # fmt: skip
def test_laws_by_the_seed_s_names(seed: str, own: str) -> None:
    assert compat.law_named(seed) == own


# What is refused --------------------------------------------------------------------------------------


def test_names_that_mean_nothing(run: TrainedRun, capsys) -> None:
    assert compat.get_latest_jit_model("nothing") is None
    assert "there is no experiment 'nothing'" in capsys.readouterr().out
    assert compat.get_latest_jit_model("nothing", silent=True) is None
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="there is no experiment 'nothing'"):
        compat.get_latest_checkpoint("nothing")
    MlflowClient(run.tracking_uri).create_experiment(f"empty{run.run_id}")
    with pytest.raises(UserError, match=r"`experiment_name`: no run of 'empty.* has a checkpoint; train one"):
        compat.load_experiment_config(f"empty{run.run_id}")
    assert compat.get_latest_jit_model(f"empty{run.run_id}") is None
    assert "has no run with an exported law" in capsys.readouterr().out


def test_a_store_that_does_not_exist() -> None:
    with pytest.raises(UserError, match="there is no store"):
        compat.get_latest_jit_model("atheria", silent=True)


def test_arguments_that_contradict_the_checkpoint(run: TrainedRun, tmp_path: Path) -> None:
    best = run.folder / checkpoint.BEST
    for wrong, message in (
        ({"d_state": 8}, r"`d_state` must be what '.*best.pth' says, 4, got 8; leave it out"),
        ({"hidden_channels": 5}, r"`hidden_channels` must be what .* says, 4, got 5"),
        ({"model_type": "MLP"}, r"`model_type` must be what .* says, 'unet', got 'mlp'"),
        ({"model_type": "GAN"}, r"`model_type` must be a law of the seed's .*, got 'GAN'"),
        ({"experiment_name": "Other"}, r"`experiment_name` must be 'MiExperimento', .* got 'Other'"),
    ):
        with pytest.raises(UserError, match=message):
            compat.export_model_to_jit(best, **wrong)
    bare(tmp_path / "seed.pth", "mlp")
    with pytest.raises(
        UserError, match=r"`model_type` must be given, since '.*seed.pth' does not say its law"
    ):
        compat.export_model_to_jit(tmp_path / "seed.pth", d_state=4)
    with pytest.raises(UserError, match="do not fit the law"):
        compat.export_model_to_jit(tmp_path / "seed.pth", d_state=3, model_type="MLP")
