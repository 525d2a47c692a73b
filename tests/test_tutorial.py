"""What the tutorial and the how-to say to type is typed, word for word, in an empty folder."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'^```(sh|python|toml)(?: title="(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
IN_THE_CLONE = "in the clone"


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Language, title and text of each block to run or write."""
    return BLOCK.findall((ROOT / f"docs/{page}.md").read_text())


def run(words: list[str], path: str) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=400, env=os.environ | {"PATH": path}, check=False
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
        elif text.startswith("mlflow ui"):
            printed[text] = look_at(text, path)
        elif language == "sh":
            printed[text] = run(["bash", "-euc", text], path)
        else:
            printed[text] = run(["python", "-c", text], path)
    return printed


def look_at(command: str, path: str) -> str:
    """Starts the server that the command names, asks it for the runs' names of laws, ends it."""
    port = int(command.split("--port ")[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, f"port {port} is taken"
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        env=os.environ | {"PATH": path},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        base = f"http://127.0.0.1:{port}/api/2.0/mlflow"
        for _ in range(120):
            with contextlib.suppress(requests.ConnectionError):
                found = requests.get(
                    f"{base}/experiments/get-by-name", {"experiment_name": "tutorial"}, timeout=30
                )
                if found.ok:
                    break
            time.sleep(0.5)
        experiment = found.json()["experiment"]["experiment_id"]
        runs = requests.post(f"{base}/runs/search", json={"experiment_ids": [experiment]}, timeout=30).json()[
            "runs"
        ]
        names = []
        for each in runs:
            params = {p["key"]: p["value"] for p in each["data"]["params"]}
            metrics = {m["key"] for m in each["data"]["metrics"]}
            assert {"eval/loss", "eval/survival", "eval/symmetry", "eval/complexity", "best/loss"} <= metrics
            names.append(params["model.name"])
        return " ".join(sorted(names))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


@pytest.mark.slow
def test_the_tutorial_can_be_typed_from_top_to_bottom(tmp_path: Path) -> None:
    printed = type_page("tutorial", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    [ui] = [said for text, said in printed.items() if text.startswith("mlflow ui")]
    assert ui == "mlp nca"
    [listed] = [said for text, said in printed.items() if text.startswith("ls ")]
    assert listed.count("strip.png") == 2
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
