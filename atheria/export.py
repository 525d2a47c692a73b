"""Export a law to TorchScript: ``python -m atheria.export``, or `export` in a notebook."""

from collections.abc import Sequence
from pathlib import Path

from atheria.cli import configure, main
from atheria.config import ExportConfig

JOB = "atheria.jobs.export"


def export(overrides: Sequence[str]) -> Path:
    """Exports a law, as the command does with the same overrides.

    Args:
        overrides: For example ``["run_id=R"]`` or ``["checkpoint=path.pth", "output=law.pt"]``.

    Returns:
        Where the artifact is.

    Raises:
        UserError: See `atheria.jobs.export`.
    """
    path: Path = configure("export", ExportConfig, JOB, overrides)()
    return path


if __name__ == "__main__":
    main("export", ExportConfig, JOB)
