"""What the README and the docs tell people to type exists and composes."""

import json
import re
import shlex
from pathlib import Path

import pytest

from atheria.cli import compose_config, to_settings
from atheria.config import ExportConfig, RolloutConfig, TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HELP = sorted((ROOT / "conf").glob("*.yaml"))
SCHEMAS = {"train": TrainConfig, "export": ExportConfig, "rollout": RolloutConfig}


def commands() -> list[str]:
    text = "\n".join(page.read_text() for page in [*PAGES, *HELP])
    return sorted(set(re.findall(r"python -m atheria\.[^\n`]+", text)))


@pytest.mark.parametrize("command", commands())
def test_a_command_that_is_shown_composes(command: str) -> None:
    words = shlex.split(command.partition("  #")[0].rstrip(".,;)"))[2:]
    name = words[0].removeprefix("atheria.")
    if "-m" in words or "--help" in words:
        return  # a sweep's points are composed by the tests of the command line
    to_settings(SCHEMAS[name], compose_config(name, words[1:]))


def test_the_figures_of_the_readme_are_those_of_the_file() -> None:
    readme = (ROOT / "README.md").read_text()
    measured = json.loads((ROOT / "docs/first_run.json").read_text())
    for key, form in (
        ("make_train_seconds", "{:.0f} s"),
        ("rollout_seconds", "{:.0f} s"),
        ("make_test_seconds", "{:.0f} s"),
        ("environment_megabytes", "{} MB"),
        ("eval_loss_untrained", "{:.2f}"),
        ("eval_loss_trained", "{:.2f}"),
    ):
        assert form.format(measured[key]) in readme, key
    assert measured["processor"] in readme
    assert measured["date"] in readme


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
