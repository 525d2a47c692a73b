"""What made a run: commit, versions, user."""

import os
import platform
import subprocess
from importlib.metadata import version

_PACKAGES = ("atheria", "torch", "mlflow", "hydra-core", "numpy")


def git_commit() -> str | None:
    """Commit of the working directory, ``-dirty`` appended where it has changes; None outside git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def tags() -> dict[str, str]:
    """The versions, the user and the commit."""
    found = {f"version.{package}": version(package) for package in _PACKAGES}
    found["version.python"] = platform.python_version()
    found["mlflow.user"] = os.environ.get("USER") or "unknown"
    if commit := git_commit():
        found["git_commit"] = commit
    return found
