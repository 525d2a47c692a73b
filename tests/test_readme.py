"""What the README and the docs tell people to type exists and composes."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

from atheria.cli import compose_config, to_settings
from atheria.config import (
    CacheConfig,
    EvaluateConfig,
    ExportConfig,
    PromoteConfig,
    RolloutConfig,
    SyncConfig,
    TrainConfig,
    UiConfig,
    ViewConfig,
)

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HELP = sorted((ROOT / "conf").glob("*.yaml"))
SCHEMAS = {
    "train": TrainConfig,
    "export": ExportConfig,
    "rollout": RolloutConfig,
    "evaluate": EvaluateConfig,
    "sync": SyncConfig,
    "promote": PromoteConfig,
    "cache": CacheConfig,
    "ui": UiConfig,
    "view": ViewConfig,
}


def commands() -> list[str]:
    text = "\n".join(page.read_text() for page in [*PAGES, *HELP])
    text = re.sub(r"^```sh$.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)  # test_tutorial.py runs them
    return sorted(set(re.findall(r"python -m atheria\.[^\n`]+", text)))


@pytest.mark.parametrize("command", commands())
def test_a_command_that_is_shown_composes(command: str) -> None:
    words = shlex.split(command.partition("  #")[0].rstrip(".,;)"))[2:]
    name = words[0].removeprefix("atheria.")
    if "-m" in words or "--help" in words:
        return  # a sweep's points are composed by the tests of the command line
    to_settings(SCHEMAS[name], compose_config(name, words[1:]))


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("first_run", "README.md"),
        ("learning", "README.md"),
        ("tracking", "README.md"),
        ("sweeps", "docs/scaling.md"),
        ("viewer", "docs/viewer.md"),
        ("tutorial", "docs/tutorial.md"),
        ("rollout", "README.md"),
    ],
)
def test_the_figures_of_a_page_are_those_of_the_file(
    name: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as when it is run as a script
    spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    measured = json.loads((ROOT / f"docs/{name}.json").read_text())
    assert script.block(measured) in (ROOT / page).read_text()


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
