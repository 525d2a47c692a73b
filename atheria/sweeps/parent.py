"""The run that holds a sweep, and the runs that it holds, as their store knows them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from omegaconf import OmegaConf

from atheria import journal
from atheria.config import OptunaConfig, UserError
from atheria.files import atomically
from atheria.runs import KIND_TAG, POINT_TAG, SWEEP_TAG, LoggedRun, go_on_with, reopen_run, start_run
from atheria.stores import sqlite_file, store_uri, without_credentials
from atheria.sweeps.plan import Plan
from atheria.tracking import PARENT_TAG, MissingRunError, OutageError, Store, StoredRun


@contextmanager
def log_sweep(sweep: Plan) -> Iterator[LoggedRun]:
    """The run that holds the sweep: a new one, or that of an earlier command."""
    base, folder = sweep.base, sweep.folder
    stored = _stored_sweep(sweep)
    if stored is not None and not (folder / journal.IDENTITY).is_file():
        go_on_with(stored, folder, (SWEEP_TAG,))
    if (folder / journal.IDENTITY).is_file():
        _check_identity(sweep)
        with reopen_run(base.tracking, folder) as logged:
            _log_settings(sweep, logged)
            yield logged
        return
    tags = {KIND_TAG: "sweep", SWEEP_TAG: sweep.name}
    tracking = replace(base.tracking, run_name=None)
    with start_run(tracking, folder.parent, sweep.name, tags, folder_name=sweep.name) as logged:
        keys = {axis.key: re.sub(r"[^\w./ -]", "_", axis.key.lstrip("+")) for axis in sweep.space.axes}
        logged.log_params({"grid": {keys[axis.key]: str(axis) for axis in sweep.space.axes}})
        _log_settings(sweep, logged)
        yield logged


def _log_settings(sweep: Plan, logged: LoggedRun) -> None:
    """The settings as they are now: points may have been added to those of an earlier command."""
    sweeper = asdict(sweep.sweeper)
    if isinstance(sweep.sweeper, OptunaConfig) and sweep.sweeper.storage is not None:
        sweeper["storage"] = without_credentials(sweep.sweeper.storage)
    settings = {
        "name": sweep.name,
        "axes": {axis.key: str(axis) if axis.is_interval else list(axis.values) for axis in sweep.space.axes},
        "fixed": sweep.space.fixed,
        "launcher": asdict(sweep.launcher),
        "sweeper": sweeper,
    }
    path = sweep.folder / "sweep.yaml"
    atomically(path, lambda file: file.write_text(OmegaConf.to_yaml(settings)))
    logged.log_file(path)


def _check_identity(sweep: Plan) -> None:
    identity = journal.identity(sweep.folder)
    tracking = sweep.base.tracking
    store = None if tracking.mode == "off" else without_credentials(store_uri(tracking.uri))
    if (identity.store, identity.experiment) != (store, tracking.experiment):
        where = f"experiment '{identity.experiment}' of {identity.store or 'no store'}"
        raise UserError(
            f"`sweep.name`: the sweep '{sweep.name}' is in {where}; choose another name for this one"
        )


def _stored_sweep(sweep: Plan) -> StoredRun | None:
    """The sweep's run, where its store has it.

    Raises:
        UserError: It was deleted there.
    """
    store = _store(sweep)
    if store is None:
        return None
    try:
        if (run_id := journal.delivered(sweep.folder).run_id) is not None:
            return store.run(run_id)
        wanted = f"tags.`{SWEEP_TAG}` = '{sweep.name}' and tags.`{KIND_TAG}` = 'sweep'"
        found = store.runs(wanted, ["attributes.start_time ASC"])
        return next((run for run in found if run.experiment == sweep.base.tracking.experiment), None)
    except (OutageError, MissingRunError):
        return None  # the journal has what the store has lost


def stored_children(sweep: Plan, parent: str | None) -> dict[str, StoredRun] | None:
    """The runs of the sweep's points by digest; None where the store cannot be asked."""
    store = _store(sweep)
    if store is None or parent is None:
        return None
    try:
        runs = store.runs(f"tags.`{PARENT_TAG}` = '{parent}'", ["attributes.start_time ASC"])
    except OutageError:
        return None
    return {digest: run for run in runs if (digest := run.tag(POINT_TAG))}


def _store(sweep: Plan) -> Store | None:
    tracking = sweep.base.tracking
    if tracking.mode != "online":
        return None
    uri = store_uri(tracking.uri)
    if (file := sqlite_file(uri)) and not file.is_file():
        return None
    try:
        return Store(uri, create=False)
    except OutageError:
        return None
