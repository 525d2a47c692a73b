"""Addresses of tracking stores: which one is meant, and how it may be shown."""

import os
import re
from pathlib import Path

from atheria.config import TrackingConfig, UserError, as_override
from atheria.files import short

DEFAULT_OUTPUT = "outputs"
DEFAULT_STORE = f"{DEFAULT_OUTPUT}/mlflow.db"
ARTIFACTS = "mlartifacts"
"""Folder of the artifacts of a store without a server: beside an SQLite file, or in ``outputs``."""
SQLITE = "sqlite:///"
_WITHOUT_HOST = ("file:", "databricks")
"""What MLflow takes, too, though it advises against the first."""


def store_uri(uri: str | None) -> str:
    """The store that a configured URI means; the path of an SQLite file is made absolute.

    MLflow keeps one connection for each URI: a relative one would outlive a change of folder.

    Raises:
        UserError: It is no address.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{DEFAULT_STORE}"
    if chosen.startswith(SQLITE):
        return SQLITE + str(Path(chosen.removeprefix(SQLITE)).absolute())
    if "://" not in chosen and not chosen.startswith(_WITHOUT_HOST):
        key = "tracking.uri" if uri else "MLFLOW_TRACKING_URI"
        raise UserError(
            f"`{key}` must be sqlite:///PATH, postgresql://... or http://HOST:PORT, got "
            f"'{without_credentials(chosen)}'"
        )
    return chosen


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for another."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def artifacts_folder(uri: str) -> Path:
    """Where a store without a server keeps its artifacts."""
    return (sqlite_file(uri) or Path(DEFAULT_STORE).absolute()).parent / ARTIFACTS


def without_credentials(text: str) -> str:
    """A text with the user and the password of every URI in it replaced: they are nobody's to read."""
    text = re.sub(r"://[^:/@\s]*:[^@\s]*@", "://***@", text)  # a password may hold a slash
    text = re.sub(r"://[^/\s]+@", "://***@", text)
    return re.sub(r"([?&](?:user|password|token|secret)=)[^&\s]+", r"\1***", text)


def shown(uri: str) -> str:
    """A store's URI as a user would type it here."""
    if file := sqlite_file(uri):
        return SQLITE + short(file)
    return without_credentials(uri)


def where(uri: str | None, output: str | Path = DEFAULT_OUTPUT) -> str:
    """What a command that is printed must say to find what another one has made.

    Args:
        uri: The store, as it was configured.
        output: The output folder.

    Returns:
        Overrides, each behind a space: none for what is found by default.
    """
    given = {}
    if uri:
        given["tracking.uri"] = shown(uri)
    if Path(output).absolute() != Path(DEFAULT_OUTPUT).absolute():
        given["output"] = short(Path(output).absolute())
    return "".join(f" {as_override(key, value)}" for key, value in given.items())


def how_to_look(tracking: TrackingConfig, output: str | Path) -> list[str]:
    """What to type, or the address to open, to see the runs of an experiment in MLflow's UI.

    Args:
        tracking: The store and the experiment.
        output: The output folder, from which a store gets first what was logged offline.
    """
    uri = store_uri(tracking.uri)
    experiment = as_override("tracking.experiment", tracking.experiment)
    look = f"python -m atheria.ui{where(tracking.uri)} {experiment}"
    if uri.startswith("http"):
        look = f"{shown(uri).rstrip('/')}/?workflowType=machine_learning"
    return [how_to_send(uri, output), look] if tracking.mode == "offline" else [look]


def how_to_send(uri: str, output: str | Path) -> str:
    """What to type to send what waits in an output folder; credentials are for the user to fill in.

    Args:
        uri: The store that it waits for; a journal says which one, but for credentials.
        output: The folder.
    """
    credentials = "" if uri == without_credentials(uri) else " tracking.uri=..."
    return f"python -m atheria.sync{where(None, output)}{credentials}"
