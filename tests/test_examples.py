"""The studies run at a trial's size, and their pages show what the scripts wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
STUDIES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if path.stem != "study")


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_makes_its_figure_and_its_table(study: str, tmp_path: Path) -> None:
    script = ROOT / f"examples/{study}.py"
    done = subprocess.run(
        [sys.executable, script, "--small", "--output", "here"],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=tmp_path,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    table = (tmp_path / f"here/{study}.md").read_text()
    assert table in done.stdout
    lines = table.partition("\n\n")[0].splitlines()
    assert len(lines) >= 5
    assert len({line.count("|") for line in lines}) == 1
    assert "nan" not in table
    assert (tmp_path / f"here/{study}.png").stat().st_size > 10_000


@pytest.mark.parametrize("study", STUDIES)
def test_the_page_has_the_columns_that_the_study_prints(study: str) -> None:
    page = (ROOT / "docs/examples.md").read_text()
    block = page.split(f"<!-- {study}: written by examples/{study}.py -->")[1].split("<!--")[0]
    assert "| " in block
    assert " s in all." in block
    assert (ROOT / f"docs/examples/{study}.png").stat().st_size > 10_000


def cells() -> list[dict[str, Any]]:
    notebook = json.loads((ROOT / "examples/atheria.ipynb").read_text())
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_was_run_from_top_to_bottom_and_says_nothing_of_a_machine() -> None:
    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    shown = [kind for cell in cells() for output in cell["outputs"] for kind in output.get("data", {})]
    assert shown.count("text/html") == 2
    assert "image/png" in shown
    text = (ROOT / "examples/atheria.ipynb").read_text()
    assert text.count("data:image/png;base64,") == 2
    assert not {word for word in ("/tmp", "/home", "/work", "Traceback") if f"{word}/" in text}


@pytest.mark.slow
def test_the_cells_of_the_notebook_run(tmp_path: Path) -> None:
    code = "\n".join("".join(cell["source"]) for cell in cells())
    ends = "\nassert engine.step_count == 100 and result._repr_html_().count('<img') == 1\n"
    environment = os.environ | {"MPLBACKEND": "agg"}
    subprocess.run(
        [sys.executable, "-c", code + ends], cwd=tmp_path, env=environment, timeout=600, check=True
    )
