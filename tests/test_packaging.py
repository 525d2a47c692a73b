"""What is installed works from any folder; `make` and ATHERIA_REQUIRE do what they say."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

from .conftest import SMALL

ROOT = Path(__file__).parents[1]
pytest_plugins = ["pytester"]


def test_the_stub_is_that_of_the_extension(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools/stubs.py", tmp_path / "now.pyi"], check=True, cwd=tmp_path)
    committed = (ROOT / "engine_cpp/atheria_core/_core.pyi").read_text()
    assert (tmp_path / "now.pyi").read_text() == committed, "run: make stubs"


def test_the_extension_brings_no_second_openmp() -> None:
    """Nothing but torch's own libraries: two OpenMP runtimes in a process fight over the cores."""
    from atheria_core import _core

    needed = subprocess.run(
        ["readelf", "-d", _core.__file__], capture_output=True, text=True, check=True
    ).stdout
    assert "libtorch_cpu" in needed
    assert "gomp" not in needed
    assert "libomp" not in needed


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel and what it requires, nothing else.

    It is built where the installation was, which has compiled all that has not changed since.
    """
    folder = tmp_path_factory.mktemp("clean")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("atheria-*.whl")
    venv.create(folder / "env", with_pip=True)
    python = [folder / "env/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = [*python, "install", "--no-compile"]
    torch_pin = f"torch=={torch.__version__.partition('+')[0]}"
    subprocess.run([*install, torch_pin, wheel], check=True)
    return folder / "env"


def run_in(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [environment / "bin/python", *arguments],
        capture_output=True,
        text=True,
        env=clean,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
def test_a_wheel_works_in_a_clean_environment_from_another_folder(clean_environment: Path) -> None:
    trained = run_in(clean_environment, "-m", "atheria.train", *SMALL)
    assert trained.returncode == 0, trained.stderr
    command = next(line.split() for line in trained.stdout.splitlines() if "atheria.rollout" in line)
    rolled = run_in(clean_environment, *command[1:], "steps=4", "grid=8")
    assert rolled.returncode == 0, rolled.stderr
    assert "strip.png" in rolled.stdout
    assert {"index.html", "main.js", "style.css", "icon.svg"} < {
        file.name for file in clean_environment.rglob("atheria/viewer/page/*")
    }


@pytest.mark.slow
def test_another_torch_minor_version_is_refused(clean_environment: Path) -> None:
    (built_with,) = clean_environment.rglob("_built_with.py")
    before = built_with.read_text()
    try:
        built_with.write_text('TORCH_VERSION = "2.8.1+cpu"\n')
        result = run_in(clean_environment, "-c", "import atheria_core")
    finally:
        built_with.write_text(before)
    assert "ImportError: `atheria_core` was built with torch 2.8.1+cpu and finds torch " in result.stderr
    assert torch.__version__.partition("+")[0] in result.stderr
    assert "install that torch" in result.stderr


@pytest.mark.parametrize(
    ("required", "outcome"),
    [("", {"skipped": 1}), ("cluster,browser", {"skipped": 1}), ("services", {"failed": 1})],
)
def test_what_is_required_may_not_be_skipped(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, required: str, outcome: dict[str, int]
) -> None:
    monkeypatch.setenv("ATHERIA_REQUIRE", required)
    pytester.makepyfile(
        "from tests.conftest import missing\n\ndef test_it(): missing('services', 'no postgres')\n"
    )
    monkeypatch.syspath_prepend(str(ROOT))
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(**outcome)
