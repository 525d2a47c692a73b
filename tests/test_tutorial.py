"""What the tutorial and the how-to say to type is typed, word for word, in an empty folder."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from .conftest import heed_ctrl_c

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'^```(sh|python|toml)(?: title="(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
IN_THE_CLONE = "in the clone"


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Language, title and text of each block to run or write."""
    return BLOCK.findall((ROOT / f"docs/{page}.md").read_text())


def run(words: list[str], path: str) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=600, env=os.environ | {"PATH": path}, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def type_page(page: str, path: str) -> dict[str, str]:
    """Does what a page's blocks say; what each printed, by its text."""
    printed = {}
    for language, title, text in blocks(page):
        if title == IN_THE_CLONE:
            continue
        if title:
            Path(title).write_text(text)
        elif "atheria.ui" in text:
            printed[text] = names_of_laws(text, path)
        elif "atheria.view" in text:
            printed[text] = viewer_page(text, path)
        elif language == "sh":
            printed[text] = run(["bash", "-euc", text], path)
        else:
            printed[text] = run(["python", "-c", text], path)
    return printed


@contextlib.contextmanager
def served(command: str, path: str) -> Iterator[str]:
    """A command that serves pages until Ctrl-C; yields the address that it would open in a browser."""
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        env=os.environ | {"PATH": path, "BROWSER": "true", "PYTHONUNBUFFERED": "1"},
        preexec_fn=heed_ctrl_c,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield next(line.split()[1] for line in server.stdout if line.startswith("open"))
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=600)
    assert server.returncode == 0


def names_of_laws(command: str, path: str) -> str:
    """Asks the MLflow server that the command starts for the laws of the experiment's runs."""
    with served(command, path) as page:
        base = f"http://127.0.0.1:{urlsplit(page).port}/api/2.0/mlflow"
        experiment = re.search(r"/experiments/(\w+)/runs", page)[1]
        found = requests.post(f"{base}/runs/search", json={"experiment_ids": [experiment]}, timeout=30).json()
        names = []
        for each in found["runs"]:
            params = {p["key"]: p["value"] for p in each["data"]["params"]}
            metrics = {m["key"] for m in each["data"]["metrics"]}
            assert {"eval/loss", "eval/survival", "eval/symmetry", "eval/complexity", "best/loss"} <= metrics
            names.append(params["model.name"])
        return " ".join(sorted(names))


def viewer_page(command: str, path: str) -> str:
    with served(command, path) as page:
        return requests.get(page, timeout=30).text


@pytest.mark.slow
def test_the_tutorial_can_be_typed_from_top_to_bottom(tmp_path: Path) -> None:
    printed = type_page("tutorial", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    [ui] = [said for text, said in printed.items() if "atheria.ui" in text]
    assert ui == "mlp nca"
    [viewer] = [said for text, said in printed.items() if "atheria.view" in text]
    assert "<canvas" in viewer
    [listed] = [said for text, said in printed.items() if text.startswith("ls ")]
    assert listed.count("strip.png") == 3
    assert listed.count("rollout.png") == 2 + 4  # the sweep's too
    [sweep] = [said for text, said in printed.items() if " -m atheria.train -m " in text]
    assert sweep.count("\nfinished  ") == 4
    [python] = [said for text, said in printed.items() if text.startswith("from atheria")]
    assert "\n500 " in python


def test_the_installation_is_a_target_of_make() -> None:
    [install] = [text for _, title, text in blocks("tutorial") if title == IN_THE_CLONE]
    make = next(line for line in install.splitlines() if line.startswith("make"))
    dry = subprocess.run(
        [*make.split(), "--dry-run", "VENV=elsewhere"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "elsewhere/bin/pip" in dry.stdout
    assert "--editable .[test]" in dry.stdout


@pytest.mark.slow
def test_the_how_to_can_be_typed_from_top_to_bottom(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    [packages] = environment.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({path!r})" for path in ours]
    (packages / "ours.pth").write_text("\n".join(lines) + "\n")
    scripts = f"{environment / 'bin'}{os.pathsep}{Path(sys.executable).parent}"
    folder = tmp_path / "empty"
    folder.mkdir()
    os.chdir(folder)
    printed = type_page("howto", f"{scripts}{os.pathsep}{os.environ['PATH']}")
    trained, rolled, engine = printed.values()
    for law in ("drift (1 weights)", "mlp (552 weights)"):
        assert f"training  {law}" in trained
    assert "law       " in rolled
    assert engine.startswith("compiled ")
