"""The commands as a user types them: real processes, in an empty folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atheria.cli import compose_config, to_settings
from atheria.config import ExportConfig, RolloutConfig, TrainConfig, UserError


def run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


FORKING = """
import json, os, runpy, sys
import atheria.jobs.evaluate, atheria.jobs.export, atheria.jobs.rollout, atheria.jobs.train, atheria.jobs.view
from atheria import collecting
collecting.begin()
for line in sys.stdin:
    module, arguments, folder, environment = json.loads(line)
    said = os.memfd_create("stderr")
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(said, 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["-m", *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit()
    _, status = os.waitpid(child, 0)
    os.lseek(said, 0, os.SEEK_SET)
    print(json.dumps([os.waitstatus_to_exitcode(status), os.read(said, 1 << 20).decode()]), flush=True)
    os.close(said)
"""
"""Runs commands in processes of their own, forked from one that has imported for all of them."""


@pytest.fixture(scope="session")
def run_forked() -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs a command where the test is; returns its exit status and its stderr."""
    with subprocess.Popen(
        [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run_forked(module: str, *arguments: str) -> tuple[int, str]:
            request = [module, arguments, str(Path.cwd()), dict(os.environ)]
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            status, said = json.loads(process.stdout.readline())
            return status, said

        yield run_forked
        process.stdin.close()


MISTAKES = [
    (["trainer=v5"], "`trainer` has no option 'v5'; allowed: v3, v4"),
    (
        ["experiment=nope"],
        "has no option 'nope'; allowed: long_horizon, progressive, seed_v3, seed_v4, sweep_v3_v4",
    ),
    (
        ["noise/curriculum=exp"],
        "`noise/curriculum` has no option 'exp'; allowed: adaptive, constant, cosine, linear, steps",
    ),
    (["modle=unet"], "`modle` is not a key; allowed there: model, physics"),
    (["trainer.episode=3"], "`trainer.episode` is not a key; allowed there: name, episodes"),
    (["+trainer.foo=3"], "`trainer.foo` is not a key; allowed there: name, episodes"),
    (["model.depth=3"], "`model.depth` is not a key; allowed there: name, d_state, hidden_channels"),
    (["+model.depth=3"], "`model.depth` is not a key; allowed there: d_state, hidden_channels, norm, bias"),
    (["hydra.foo=1"], "`hydra.foo` is not a key of Hydra's"),
    (["trainer.episodes=many"], "`trainer.episodes` must be a valid integer, got 'many'"),
    (["trainer.episodes=0"], "`trainer.episodes` must be greater than or equal to 1, got 0"),
    (["trainer.lr=nan"], "`trainer.lr` must be a finite number, got nan"),
    (["trainer.grid=[8,8,8]"], "`trainer.grid` must be N or [height, width]"),
    (["trainer.grid=30"], "`trainer.grid` must be multiples of the law's stride 4, got [30, 30]"),
    (["trainer.grid=[8,16]"], "`trainer.loss.symmetry` needs a square `trainer.grid`, got 8 x 16"),
    (["trainer.loss.survivl=1"], "did you mean `survival`?"),
    (["+trainer.loss.foo=1"], "'foo' is not registered in `atheria.losses`; known: complexity"),
    (["physics.gamma=1"], "`physics.gamma` must be less than 1, got 1"),
    (["physics.gamma=-0.1"], "`physics.gamma` must be greater than or equal to 0, got -0.1"),
    (["model.d_state=0"], "`model.d_state` must be greater than or equal to 1, got 0"),
    (["noise=bit_flip", "model.d_state=1"], "noise=bit_flip needs `model.d_state` of at least 2, got 1"),
    (["noise=mixed", "model.d_state=1"], "noise=mixed needs `model.d_state` of at least 2, got 1"),
    (["model.hidden_channels=0"], "`model.hidden_channels` must be greater than or equal to 1, got 0"),
    (["trainer.init_from=none.pth"], "there is no file 'none.pth'"),
    (["trainer.pool=2"], "`trainer.pool` must be 0 or at least `trainer.batch_size` 4, got 2"),
    (["trainer.damage=1"], "`trainer.damage` needs a pool"),
    (["trainer.steps_min=99"], "`trainer.steps_min` must be at most `trainer.steps` 16, got 99"),
    (["physics.normalise=all"], "`physics.normalise` must be 'none', 'cell' or 'global', got 'all'"),
    (["model.norm=batch"], "`model.norm` must be 'group' or 'pixel', got 'batch'"),
    (["noise.curriculum=linear"], "to choose from the group: noise/curriculum=linear"),
    (["noise.level=2"], "`noise.level` must be less than or equal to 1, got 2"),
    (["initial_state=file"], "`initial_state.path` is missing; give it: initial_state.path=..."),
    (["initial_state=file", "initial_state.path=no.npy"], "`initial_state.path` must name a .npy or .npz"),
    (["tracking.run_name=12"], "quote it: tracking.run_name='\"...\"'"),
    (["device=tpu"], "`device` must be cpu, cuda or cuda:N, got 'tpu'"),
    (["device=meta"], "`device` must be cpu, cuda or cuda:N, got 'meta'"),
    (["-m", "device=cpu,mps"], "`device` must be cpu, cuda or cuda:N, got 'mps'"),
    (["device=cuda:0x"], "`device` must be cpu, cuda or cuda:N, got 'cuda:0x'"),
    (["seed=-1"], "`seed` must be greater than or equal to 0, got -1"),
    (["trainer=v3,v4"], "add -m to sweep over them"),
    (["-m", "trainer=v3,v9"], "`trainer` has no option 'v9'"),
    (["nonsense"], "missing EQUAL"),
    (["output=a=b"], "quote what holds spaces"),
    (["trainer.loss.displacement=1"], "add one of complexity, displacement,"),
    (["trainer.name=banana"], "`trainer.name` must be 'v3' or 'v4'"),
    (["--cfg", "job", "trainer=v5"], "`trainer` has no option 'v5'"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_ends_in_one_message_and_leaves_nothing(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    result = run("atheria.train", *overrides)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("atheria.train: ")
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["atheria.rollout"], "name the law by one of run_id=RUN_ID, law=name@alias, law=path.pt, best_of="),
        (["atheria.rollout", "run_id=a", "law=b"], "name the law by one of run_id=RUN_ID"),
        (["atheria.ui"], "there is no store 'outputs/mlflow.db' here"),
        (["atheria.view"], "name the law by one of run_id=RUN_ID"),
        (["atheria.view", "law=none.pt", "open=false"], "there is no file 'none.pt'"),
        (["atheria.view", "law=a.pt", "port=70000"], "`port` must be less than or equal to 65535, got 70000"),
        (["atheria.rollout", "law=a.pt", f"steps={2**63}"], "`steps` must be less than 9223372036854775808"),
        (["atheria.rollout", "law=a.pt", f"threads={2**31}"], "`threads` must be less than 2147483648"),
        (["atheria.view", "law=a.pt", "speed=0"], "`speed` must be greater than or equal to 0.1, got 0"),
        (["atheria.rollout", "law=a@b"], "there is no store 'outputs/mlflow.db' here"),
        (["atheria.rollout", "best_of=a"], "there is no store 'outputs/mlflow.db' here"),
        (["atheria.promote"], "`alias` is missing; give it: alias=..."),
        (["atheria.promote", "alias=champion"], "name the law by one of run_id=RUN_ID"),
        (["atheria.promote", "alias=champion", "run_id=a"], "there is no store 'outputs/mlflow.db' here"),
        (["atheria.sync", "repa=true"], "did you mean `reap`?"),
        (["atheria.sync", "reap=true"], "there is no store 'outputs/mlflow.db' here"),
        (["atheria.cache", "keep=-1"], "`keep` must be greater than or equal to 0, got -1"),
        (["atheria.train", "trainer.resume=f00"], "there is no store 'outputs/mlflow.db' here"),
        (["atheria.train", "trainer.resume=no.pth"], "there is no file 'no.pth'"),
        (["atheria.rollout", "run_id=a", "film=avi"], "`film` must be 'mp4' or 'gif', got 'avi'"),
        (["atheria.rollout", "run_id=a", "view=hue"], "`view` must be 'density', 'phase', 'flow',"),
        (["atheria.rollout", "run_id=a", "film_scale=0"], "`film_scale` must be greater than 0, got 0"),
        (["atheria.evaluate"], "name the law by one of run_id=RUN_ID, law=name@alias, law=path.pt, best_of="),
        (["atheria.evaluate", "run_id=a", "law=b"], "name the laws by one of run_id=, law=, best_of="),
        (["atheria.evaluate", "run_id=[a,b]"], "there is no store 'outputs/mlflow.db' here"),
        (["atheria.evaluate", "run_id=[]"], "`run_id` must be 1 to 8 names, got []"),
        (["atheria.evaluate", "run_id=12e4"], "must be a valid string, got 120000.0; quote it"),
        (["atheria.evaluate", "law=none.pt"], "there is no file 'none.pt'"),
        (["atheria.evaluate", "law=a.pt", "initial_state=file", "initial_state.path=a.npy"], "to be unseen"),
        (["atheria.rollout", "run_id=12e4"], "`run_id` must be a valid string, got 120000.0; quote it"),
        (["atheria.rollout", "run_id=abc"], "there is no store 'outputs/mlflow.db' here"),
        (["atheria.rollout", "law=none.pt"], "there is no file 'none.pt'"),
        (["atheria.rollout", "law=a.pt", "grid=8", "extent=8"], "`extent` is where an unbounded universe"),
        (["atheria.rollout", "law=a.pt", "grid=open"], "each from 1 to 65536, or unbounded, got 'open'"),
        (["atheria.export"], "say what to export"),
        (["atheria.export", "model=mlp"], "`output` is missing"),
        (["atheria.export", "model=unet", "grid=6", "output=x.pt"], "`grid` must be multiples of"),
        (["atheria.export", "model=mlp", "output=."], "`output` must be a file, got the folder '.'"),
        (["atheria.export", "output=x.pt"], "say what to export"),
        (["atheria.export", "checkpoint=none.pth", "output=x.pt"], "there is no file 'none.pth'"),
        (["atheria.export", "run_id=a", "checkpoint=b"], "give one of `run_id`, `checkpoint`, not 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_commands_refuse_alike(
    command: list[str], message: str, tmp_path: Path, run_forked: Callable[..., tuple[int, str]]
) -> None:
    status, said = run_forked(*command)
    assert status in (1, 2)
    assert message in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


WITH_PHYSICS = ["train", "export", "rollout", "view"]


@pytest.mark.parametrize(
    "command", ["train", "export", "rollout", "evaluate", "view", "ui", "sync", "promote", "cache"]
)
def test_help_teaches_and_imports_neither_torch_nor_mlflow(command: str, tmp_path: Path) -> None:
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['{command}', '--help']\n"
        f"try: runpy.run_module('atheria.{command}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'mlflow', 'matplotlib', 'numpy'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"python -m atheria.{command} " in result.stdout
    assert "== Configuration ==" in result.stdout
    assert "heavy: []" in result.stdout
    for group, commands in (("trainer: v3, v4", ["train"]), ("physics: closed, inherit, open", WITH_PHYSICS)):
        assert (f"\n{group}\n" in result.stdout) == (command in commands)
    assert list(tmp_path.iterdir()) == []


def test_a_command_collects_garbage_once_it_has_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, gc\n"
        "def say(): print('garbage:', gc.isenabled(), gc.get_freeze_count() > 100_000, gc.get_stats()[2])\n"
        "atexit.register(say)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    shown = run("atheria.cache")
    assert shown.returncode == 0
    assert "garbage: True True {'collections': 0, " in shown.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, atheria; print(sorted({'torch', 'mlflow', 'hydra', 'pydantic'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("experiment", ["seed_v3", "seed_v4"])
def test_the_seed_experiments_are_of_the_seeds_size(experiment: str) -> None:
    settings = to_settings(TrainConfig, compose_config("train", [f"experiment={experiment}"]))
    assert settings.trainer.name == experiment.removeprefix("seed_")
    assert settings.trainer.grid == [64, 64]
    assert settings.trainer.episodes == 2000
    assert settings.trainer.lr == 1e-4
    assert settings.model["name"] == "unet"
    assert (settings.model["d_state"], settings.model["hidden_channels"]) == (8, 32)
    if experiment == "seed_v4":
        assert (settings.noise.name, settings.noise.level) == ("seed", 0.05)
        assert settings.noise.curriculum.name == "linear"
    else:
        assert settings.noise.name == "none"


def test_a_trainer_chooses_its_physics_and_the_user_has_the_last_word() -> None:
    def physics(*overrides: str) -> tuple[float, str]:
        settings = to_settings(TrainConfig, compose_config("train", overrides))
        return settings.physics.gamma, settings.physics.normalise

    assert physics("trainer=v3") == (0.0, "cell")
    assert physics("trainer=v4") == (0.01, "none")
    assert physics("trainer=v4", "physics=closed") == (0.0, "cell")
    assert physics("trainer=v3", "physics.gamma=0.5") == (0.5, "cell")


@pytest.mark.parametrize(
    ("command", "schema"), [("train", TrainConfig), ("export", ExportConfig), ("rollout", RolloutConfig)]
)
def test_every_option_of_every_group_fits_the_schema(command: str, schema: type) -> None:
    conf = Path(__file__).parents[1] / "conf"
    groups = {
        "train": [
            "model",
            "physics",
            "noise",
            "noise/curriculum",
            "initial_state",
            "trainer",
            "experiment",
            "tracking",
        ],
        "export": ["model", "physics", "initial_state"],
        "rollout": ["physics", "noise", "initial_state"],
    }[command]
    for group in [*groups, *(["noise/curriculum"] if command == "train" else [])]:
        for file in (conf / group).glob("*.yaml"):
            config = compose_config(command, [f"{group}={file.stem}"])
            if file.stem == "file" or (file.stem == "inherit" and command == "train"):
                continue
            to_settings(schema, config)


def test_inherit_is_for_artifacts_alone() -> None:
    with pytest.raises(UserError, match="`physics.gamma` must be a valid number, got None"):
        to_settings(TrainConfig, compose_config("train", ["physics=inherit"]))
