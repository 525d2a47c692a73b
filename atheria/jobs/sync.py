"""The work of ``python -m atheria.sync``."""

from pathlib import Path

from atheria import delivery, endings, journal
from atheria.config import SyncConfig, UserError
from atheria.files import short
from atheria.progress import Progress, warn
from atheria.runs import PROCESS_TAG
from atheria.stores import shown, sqlite_file, store_uri, without_credentials
from atheria.tracking import Store, StoredRun

REAPED_TAG = "atheria.reaped"


def check(config: SyncConfig) -> None:
    """Nothing here contradicts itself."""


def run(config: SyncConfig) -> int:
    """Sends what waits in the journals of an output folder; returns how many records could not be sent.

    Raises:
        UserError: A store cannot be used, or a journal cannot be read; the others have been sent.
    """
    waiting, unreadable = _waiting(Path(config.output))
    left = _deliver(config, waiting)
    if not waiting and not unreadable:
        print(f"nothing waits in '{config.output}'")
    if config.reap:
        _reap(config)
    faults = [f"{left} records still wait; the journals keep them"] if left else []
    if unreadable:
        faults.append(f"{unreadable} journals cannot be read: mend them, or take their folders away")
    if faults:
        raise UserError("\n".join(faults))
    return left


def _waiting(output: Path) -> tuple[dict[Path, int], int]:
    """How many records wait in each journal that has a store, and how many journals cannot be read."""
    found: dict[Path, int] = {}
    unreadable = 0
    for folder in journal.folders(output):
        if journal.identity(folder).store is None:
            continue
        try:
            if count := delivery.waiting(folder):
                found[folder] = count
        except (UserError, OSError) as error:
            warn(f"{error}; its run is left out")
            unreadable += 1
    return found, unreadable


def _deliver(config: SyncConfig, waiting: dict[Path, int]) -> int:
    """Delivers journals, but those of runs that go on; returns how many records are left."""
    stores: dict[str, Store | UserError] = {}
    left = 0
    progress = Progress(len(waiting), "run")
    for folder, count in waiting.items():
        try:
            if journal.is_held(folder):
                progress.say(f"skipped   {short(folder)}, which is being logged: its own process delivers it")
                continue
            store, before = _store(config, folder, stores), journal.delivered(folder).run_id
            run_id = delivery.deliver(folder, store)
            if run_id != before and journal.status(folder) == endings.RUNNING:
                _end_if_gone(store, store.run(run_id))  # a store begins every run as RUNNING
            progress.say(f"sent      {count} records of run {run_id}")
        except (UserError, OSError) as error:
            left += delivery.waiting(folder)
            progress.say(f"left      {delivery.waiting(folder)} records in {short(folder)}: {error}")
        progress.advance({})
    progress.close()
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
    running = store.runs(f"attributes.status = '{endings.RUNNING}'")
    stale = [run for run in running if _end_if_gone(store, run)]
    for run in stale:
        print(f"reaped    run {run.run_id} ({run.name}); to go on: trainer.resume={run.run_id}")
    if not stale:
        print(f"no run in {shown(uri)} is RUNNING without its process")


def _end_if_gone(store: Store, run: StoredRun) -> bool:
    """Ends a run as KILLED where its process is known to have ended; returns whether it is."""
    is_gone = endings.is_gone(run.tag(PROCESS_TAG) or "")
    if is_gone:
        run.set_tag(REAPED_TAG, "its process ended without a word")
        store.set_status(run.run_id, endings.KILLED, journal.now())
    return is_gone
