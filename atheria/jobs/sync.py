"""The work of ``python -m atheria.sync``."""

from pathlib import Path

from atheria import delivery, endings, journal
from atheria.config import SyncConfig, UserError
from atheria.files import short
from atheria.progress import Progress
from atheria.runs import PROCESS_TAG
from atheria.stores import shown, sqlite_file, store_uri, without_credentials
from atheria.tracking import Store

REAPED_TAG = "atheria.reaped"


def check(config: SyncConfig) -> None:
    """Nothing here contradicts itself."""


def run(config: SyncConfig) -> int:
    """Sends what waits in the journals of an output folder; returns how many records could not be sent.

    Raises:
        UserError: A store cannot be used, or a journal cannot be read.
    """
    left = _deliver(config)
    if config.reap:
        _reap(config)
    if left:
        raise UserError(f"{left} records still wait; the journals keep them")
    return left


def _deliver(config: SyncConfig) -> int:
    """Delivers every journal that waits, but those of runs that go on; returns how many records are left."""
    waiting = [
        folder
        for folder in journal.folders(Path(config.output))
        if journal.identity(folder).store is not None and delivery.waiting(folder)
    ]
    stores: dict[str, Store | UserError] = {}
    left = 0
    progress = Progress(len(waiting), "run")
    for folder in waiting:
        count = delivery.waiting(folder)
        if journal.is_held(folder):
            progress.say(f"skipped   {short(folder)}, which is being logged: its own process delivers it")
            continue
        try:
            run_id = delivery.deliver(folder, _store(config, folder, stores))
            progress.say(f"sent      {count} records of run {run_id}")
        except UserError as error:
            left += delivery.waiting(folder)
            progress.say(f"left      {delivery.waiting(folder)} records in {short(folder)}: {error}")
        progress.advance({})
    progress.close()
    if not waiting:
        print(f"nothing waits in '{config.output}'")
    return left


def _store(config: SyncConfig, folder: Path, known: dict[str, Store | UserError]) -> Store:
    """The store that a run belongs to; one that gave no answer is not asked again."""
    recorded = journal.identity(folder).store
    assert recorded is not None
    uri, given = recorded, store_uri(config.tracking.uri)
    file = sqlite_file(recorded)
    if without_credentials(given) == recorded:
        uri = given
    elif "***" in recorded:
        raise UserError(f"its store needs credentials: tracking.uri=... for {recorded}")
    elif file is not None and not file.parent.is_dir():
        if config.tracking.uri is None:
            raise UserError(
                f"there is no folder '{file.parent}' any more; say where the store is: tracking.uri=..."
            )
        uri = given
    if uri not in known:
        try:
            known[uri] = Store(uri, create=True)
        except UserError as error:
            known[uri] = error
    store = known[uri]
    if isinstance(store, UserError):
        raise store
    return store


def _reap(config: SyncConfig) -> None:
    """Ends the runs of this machine's that are RUNNING in the store though their process is gone."""
    uri = store_uri(config.tracking.uri)
    store = Store(uri, create=False)
    stale = [
        run
        for run in store.runs(f"attributes.status = '{endings.RUNNING}'")
        if endings.is_gone(run.tag(PROCESS_TAG) or "")
    ]
    for run in stale:
        run.set_tag(REAPED_TAG, "its process ended without a word")
        store.set_status(run.run_id, endings.KILLED, journal.now())
        print(f"reaped    run {run.run_id} ({run.name}); to go on: trainer.resume={run.run_id}")
    if not stale:
        print(f"no run in {shown(uri)} is RUNNING without its process")
