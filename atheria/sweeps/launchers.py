"""Which launcher a configuration means."""

from importlib.util import find_spec

from atheria.config import LauncherConfig, UserError
from atheria.sweeps.launcher import Launcher

_EXTRAS = {"slurm": "submitit", "ray": "ray"}


def check_launcher(config: LauncherConfig) -> None:
    """Raises UserError where the launcher's package is missing."""
    package = _EXTRAS.get(config.name)
    if package and find_spec(package) is None:
        raise UserError(
            f"hydra/launcher={config.name} needs the package {package}: pip install 'atheria[{config.name}]'"
        )


def make_launcher(config: LauncherConfig, folder: str) -> Launcher:
    """The launcher of a configuration.

    Args:
        config: Its settings.
        folder: The sweep's folder, for files of the launcher's own.
    """
    match config.name:
        case "local":
            from atheria.sweeps.local import LocalLauncher

            return LocalLauncher(config)
        case "slurm":
            from atheria.sweeps.slurm import SlurmLauncher

            return SlurmLauncher(config, folder)
        case "ray":
            from atheria.sweeps.on_ray import RayLauncher

            return RayLauncher(config)
