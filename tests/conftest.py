"""What the tests share: the real configuration made small, real stores in temporary folders."""

import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from atheria_core import Engine

from atheria import artifact, exporting, laws
from atheria.cli import compose_config, to_settings
from atheria.config import InitialStateConfig, PhysicsConfig, TrainConfig
from atheria.jobs.train import TrainedRun
from atheria.stores import DEFAULT_STORE, SQLITE
from atheria.tracking import Store
from atheria.train import train

hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

SMALL = (
    "model.d_state=2",
    "model.hidden_channels=4",
    "trainer.episodes=4",
    "trainer.steps=3",
    "trainer.batch_size=2",
    "trainer.grid=8",
    "trainer.eval_every=2",
    "trainer.eval_universes=2",
    "trainer.checkpoint_every=2",
)
"""The default configuration at a size that trains in a second."""

CATEGORIES = ("services", "cluster", "browser")
"""Markers of tests that need a program that may be missing, and the names for ATHERIA_REQUIRE."""


LONGEST = [
    "test_cluster",
    "test_resume",
    "test_sweep",
    "test_outages",
    "test_benchmarks",
    "test_services",
    "test_view",
]
"""Files that begin first: where several processes test, none is left with one of them at the end."""

TOGETHER = ["test_cluster", "test_compat", "test_evaluate", "test_packaging", "test_services"]
"""Files whose tests share what takes long to make: one process runs all of one, where several test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (*LONGEST, item.path.stem).index(item.path.stem))
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported by now stays


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Hands the tests out one by one, those of a file that is in TOGETHER at once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if Path(file).stem in TOGETHER else nodeid

    return Scheduling(config, log)


def missing(category: str, reason: str) -> None:
    """Skips the test, or fails it where ATHERIA_REQUIRE names its category."""
    assert category in CATEGORIES
    required = os.environ.get("ATHERIA_REQUIRE", "").split(",")
    if category in required:
        pytest.fail(f"ATHERIA_REQUIRE demands {category}: {reason}", pytrace=False)
    pytest.skip(f"{category}: {reason}")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own working directory, cache and store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATHERIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an SQLite store without runs, to copy: MLflow takes seconds to make the tables of one."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    Store(f"{SQLITE}{file}", create=True)
    return file


def put_store(empty_store: Path, file: Path) -> None:
    """Copies the store to a file that does not exist yet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(empty_store, file)


@pytest.fixture
def ready_store(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The default store exists, without runs; not where the test is marked no_store."""
    if request.node.get_closest_marker("no_store") is None:
        put_store(request.getfixturevalue("empty_store"), tmp_path / DEFAULT_STORE)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[TrainedRun]:
    """A small unet, trained under v4 for real. Its folder is the working directory it was made in."""
    folder = tmp_path_factory.mktemp("trained")
    put_store(empty_store, folder / DEFAULT_STORE)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield train(SMALL)
    finally:
        os.chdir(before)


@pytest.fixture
def in_run_folder(trained: TrainedRun, monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> TrainedRun:
    """The trained run, seen from the folder that holds its store."""
    monkeypatch.chdir(store_folder(trained))
    return trained


def store_folder(run: TrainedRun) -> Path:
    return run.folder.resolve().parents[2]


def train_settings(*overrides: str) -> TrainConfig:
    return to_settings(TrainConfig, compose_config("train", [*SMALL, *overrides]))


MODELS = {
    "unet": {"name": "unet", "d_state": 2, "hidden_channels": 8, "norm": "group", "bias": True},
    "unet pixel": {"name": "unet", "d_state": 3, "hidden_channels": 4, "norm": "pixel", "bias": False},
    "mlp": {"name": "mlp", "d_state": 4, "hidden_channels": 16, "bias": True},
    "unet_product": {
        "name": "unet_product",
        "d_state": 2,
        "hidden_channels": 4,
        "norm": "group",
        "bias": True,
    },
    "unet_unitary": {
        "name": "unet_unitary",
        "d_state": 3,
        "hidden_channels": 4,
        "norm": "pixel",
        "bias": True,
    },
    "unet_convlstm": {
        "name": "unet_convlstm",
        "d_state": 2,
        "hidden_channels": 4,
        "norm": "group",
        "bias": True,
    },
    "snn_unet": {
        "name": "snn_unet",
        "d_state": 2,
        "hidden_channels": 8,
        "norm": "pixel",
        "bias": True,
        "inner_steps": 4,
    },
    "deep_qca": {"name": "deep_qca", "d_state": 2, "hidden_channels": 8, "bias": True},
    "nca": {"name": "nca", "d_state": 2, "hidden_channels": 8, "bias": False},
    "quantum_walk": {"name": "quantum_walk", "d_state": 5},
}

PHYSICS = PhysicsConfig(gamma=0.0, epsilon=0.0, normalise="none", fire_rate=1.0, boundary="torus")


def make_law(name: str, boundary: str = "torus", seed: int = 0) -> laws.Law:
    """A law that does something: its last layer is given weights of usual size."""
    torch.manual_seed(seed)
    law = laws.build(MODELS[name], boundary)
    for parameter in law.parameters():
        if parameter.abs().max() < 1e-3:  # the last layer, which starts near zero
            torch.nn.init.normal_(parameter, std=0.1)
    return law.eval()


def origin_of(
    name: str,
    physics: PhysicsConfig = PHYSICS,
    grid: tuple[int, int] = (16, 16),
    initial: str = "soup",
    seed: int = 5,
) -> exporting.Origin:
    return exporting.Origin(
        model=MODELS[name],
        physics=physics,
        grid=list(grid),
        initial_state=InitialStateConfig(kind=initial),
        noise={"name": "none", "level": 0.0},
        seed=seed,
    )


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., tuple[laws.Law, Path]]:
    """Exports a law of MODELS under a physics; returns it and the artifact."""

    def export(name: str, physics: PhysicsConfig = PHYSICS, **origin) -> tuple[laws.Law, Path]:
        law = make_law(name, physics.boundary)
        path = tmp_path / f"{name}.pt".replace(" ", "-")
        exporting.export_law(law, origin_of(name, physics, **origin), path)
        return law, path

    return export


@pytest.fixture
def engine(exported) -> Engine:
    """An engine with an mlp of 4 components on its universe of 16 x 16 cells."""
    _, path = exported("mlp")
    engine = Engine()
    engine.load_model(path)
    return engine


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte and a half."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs rights")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def assert_same(a, b, at: str = "") -> None:
    """Bit for bit, at every depth."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), at
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for key in a:
            assert_same(a[key], b[key], f"{at}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), at
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{at}[{index}]")
    else:
        assert a == b or (a != a and b != b), (at, a, b)


def heed_ctrl_c() -> None:
    """In a child process: a shell's background job, as CI may be, inherits that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def plain_torchscript(law: torch.nn.Module, path: Path) -> Path:
    """A TorchScript file without a description."""
    torch.jit.save(artifact.script(law), str(path))
    return path
