"""What a new user waits for: a clean clone, `make train`, the rollout it prints, `make test`.

    python benchmarks/first_run.py [--without-tests]

Writes docs/first_run.json (seconds, sizes, machine, versions, date), docs/rollout.png and the block of the
README that quotes them. Needs git and what the Makefile needs; clones the committed state, not the working
tree.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "docs/first_run.json"
FIGURES_TEST = "tests/test_readme.py::test_the_figures_of_the_readme_are_those_of_the_file"
PICTURE = ROOT / "docs/rollout.png"


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Seconds that a command took, and what it printed; ends the program where it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seconds = round(time.perf_counter() - started, 1)
    print(f"{seconds:8.1f} s  {' '.join(command)}", flush=True)
    if done.returncode != 0:
        sys.exit(done.stdout)
    return seconds, done.stdout


def smallest(command: list[str], folder: Path, runs: int = 7) -> float:
    """The shortest of several runs of a command, in seconds."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return round(min(seconds), 3)


def megabytes(folder: Path) -> int:
    """Disk space of a folder."""
    used = subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True)
    return int(used.stdout.split()[0])


def processor() -> str:
    """Name of the processor."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def losses(printed: str) -> tuple[float, float]:
    """eval/loss of the untrained and of the trained law."""
    found = re.search(r"eval/loss ([\d.-]+) untrained, ([\d.-]+) trained", printed)
    assert found is not None
    return float(found[1]), float(found[2])


BLOCK = """<!-- first run: written by benchmarks/first_run.py -->
From a clean clone, `make train` took {make_train_seconds:.0f} s with all that it installs and builds
({environment_megabytes} MB), and the rollout that it prints {rollout_seconds:.0f} s. The trained
law's `eval/loss` on unseen states was {eval_loss_trained:.2f}, the untrained law's
{eval_loss_untrained:.2f}.{tests} Measured on {cores} cores of an {processor}, Python {python}, torch
{torch}, {date}.
<!-- /first run -->"""
TESTS = " `make test` took {make_test_seconds:.0f} s\n({make_test_summary})."


def block(result: dict[str, object]) -> str:
    """What the README says of the figures."""
    tests = TESTS.format(**result) if "make_test_seconds" in result else ""
    return BLOCK.format(tests=tests, **result)


def quote(result: dict[str, object]) -> None:
    """Puts the figures into the README."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split("<!-- first run", 1)
    after = rest.split("<!-- /first run -->", 1)[1]
    readme.write_text(before + block(result) + after)


def summary(tested: str) -> str:
    """How many tests passed, failed and were skipped, of pytest's last line."""
    return ", ".join(re.findall(r"\d+ (?:passed|failed|skipped)", tested.strip().splitlines()[-1]))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "atheria"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        train_seconds, printed = timed(["make", "train"], clone)
        python = str(clone / ".venv/bin/python")
        again_seconds, _ = timed(["make", "train", "ARGS=trainer.episodes=1"], clone)
        command = next(line.split() for line in printed.splitlines() if "-m atheria.rollout" in line)
        rollout_seconds, rolled = timed([python, *command[1:]], clone)
        strip = re.search(r"^picture +(.*)$", rolled, re.MULTILINE)
        assert strip is not None
        shutil.copyfile(clone / strip[1], PICTURE)
        environment = megabytes(clone / ".venv")
        untrained, trained = losses(printed)
        versions = subprocess.run(
            [python, "-c", "import torch, mlflow; print(torch.__version__, mlflow.__version__)"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        torch_version, mlflow_version = versions.stdout.split()
        result = {
            "make_train_seconds": train_seconds,
            "make_train_again_one_episode_seconds": again_seconds,
            "rollout_command": " ".join(command[3:]).replace(command[3].partition("=")[2], "RUN_ID"),
            "rollout_seconds": rollout_seconds,
            "environment_megabytes": environment,
            "import_atheria_seconds": smallest([python, "-c", "import atheria"], clone),
            "bare_python_seconds": smallest([python, "-c", "pass"], clone),
            "train_help_seconds": smallest([python, "-m", "atheria.train", "--help"], clone),
            "eval_loss_untrained": untrained,
            "eval_loss_trained": trained,
            "processor": processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch_version,
            "mlflow": mlflow_version,
            "date": date.today().isoformat(),
        }
        if "--without-tests" not in sys.argv:
            # Without the test that compares the README with the figures that are only now measured.
            seconds, tested = timed(["make", "test", f"PYTEST_ARGS=--deselect {FIGURES_TEST}"], clone)
            result |= {"make_test_seconds": seconds, "make_test_summary": summary(tested)}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    quote(result)
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
