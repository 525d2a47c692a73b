"""``trainer.resume``: which run to go on with, and from which checkpoint."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from atheria import checkpoint, endings, journal, keeping
from atheria.config import TrainConfig, UserError
from atheria.delivery import waiting
from atheria.files import short
from atheria.keeping import FOLDER, LAST
from atheria.progress import warn
from atheria.runs import POINT_TAG, PROCESS_TAG, SWEEP_TAG, flatten, go_on_with
from atheria.stores import shown, sqlite_file, store_uri, without_credentials
from atheria.tracking import MissingArtifactError, MissingRunError, OutageError, Store, StoredRun
from atheria.trainer import cosine_at

CONFIGURATION_TAG = "atheria.config.sha256"
"""Digest of all settings that make two runs the same experiment; see `fingerprint`."""

_OF_SCHEDULE = {"trainer.scheduler", "trainer.lr", "trainer.optimizer"}
_NOT_COMPARED = ("device", "output", "sweep", "tracking", "trainer.episodes", "trainer.resume")


@dataclass(frozen=True)
class Known:
    """A run that might be gone on with.

    Attributes:
        id: Its own name.
        started: Milliseconds since 1970.
        status: What it ended as, or RUNNING.
        folder: Its folder here; None where it has none.
        stored: What the store knows of it; None where the store does not know it or gives no answer.
    """

    id: str
    started: int
    status: str
    folder: Path | None
    stored: StoredRun | None

    @property
    def run_id(self) -> str:
        """The ID that a user knows it by."""
        if self.stored is not None:
            return self.stored.run_id
        assert self.folder is not None
        return journal.delivered(self.folder).run_id or self.id


@dataclass(frozen=True)
class Resumption:
    """What a training goes on with.

    Attributes:
        run: The run; None where a checkpoint is of no run that is known here: a new one begins.
        state: The checkpoint's content.
        source: Where it was read, for people.
        is_finished: Whether there is nothing left to do.
    """

    run: Known | None
    state: dict[str, Any]
    source: str
    is_finished: bool

    def changes(self, settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """The settings that differ from those of the checkpoint, by dotted key: before and now."""
        before, now = (
            _compared(values, ("device", "output", "sweep", "trainer.resume"))
            for values in (self.state["config"], settings)
        )
        return {
            key: (before.get(key), now.get(key))
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        }


def adapted(found: Resumption, config: TrainConfig) -> dict[str, Any]:
    """The checkpoint's state without what belongs to settings that were changed since."""
    state = dict(found.state)
    changed = found.changes(asdict(config)).keys()
    if any(key.startswith("noise.curriculum.") for key in changed):
        state["curriculum_state"] = None
    if "trainer.pool" in changed:
        state["pool"] = None
    if "trainer.optimizer" in changed:
        state["optimizer_state_dict"] = None
    if changed & _OF_SCHEDULE:
        state["scheduler_state_dict"] = None
    elif "trainer.patience" in changed and config.trainer.scheduler == "plateau":
        schedule = state["scheduler_state_dict"]
        state["scheduler_state_dict"] = {**schedule, "patience": config.trainer.patience}
    if state["optimizer_state_dict"] is not None:
        given = {"lr": config.trainer.lr, "weight_decay": config.trainer.weight_decay}
        new = {key: value for key, value in given.items() if f"trainer.{key}" in changed}
        optimizer = state["optimizer_state_dict"]
        if config.trainer.scheduler == "cosine" and changed & {*_OF_SCHEDULE, "trainer.episodes"}:
            new["lr"], state["scheduler_state_dict"] = cosine_at(state["episode"], config.trainer)
        groups = [{**group, **new} for group in optimizer["param_groups"]]
        state["optimizer_state_dict"] = {**optimizer, "param_groups": groups}
    return state


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Digest of the settings of a run without those that do not change its course."""
    return _digest(settings, _NOT_COMPARED)


def point_digest(settings: Mapping[str, Any]) -> str:
    """Digest of the settings of a run of a sweep, by which it is known in it.

    Unlike by `fingerprint`, runs differ that are trained for longer or on another device.
    """
    return _digest(settings, ("output", "sweep", "tracking", "trainer.resume"))


def find(config: TrainConfig, point: Mapping[str, str] | None = None) -> Resumption | None:
    """What ``trainer.resume`` names; None for a new run.

    Args:
        config: The settings.
        point: Tags that the run of a sweep's point bears, which goes on where there is one.

    Raises:
        UserError: There is no such run or checkpoint, or its law is another one.
    """
    wanted = config.trainer.resume
    if point is not None:
        found = _latest(config, point)
    elif wanted is None:
        return None
    elif wanted == "auto":
        found = _latest(config, {CONFIGURATION_TAG: fingerprint(asdict(config))})
    elif wanted.endswith(".pth") or Path(wanted).exists():
        found = _of_file(Path(wanted), config)
    else:
        found = _of_run(_named(wanted, config), config)
        if found is None:
            raise UserError(f"`trainer.resume`: run '{wanted}' has no checkpoint that can be read")
    if found is not None:
        _check_law(found, config)
    return found


def begun(config: TrainConfig, tags: Mapping[str, str]) -> Path | None:
    """The folder of the latest run with some tags that was ended before it had anything to go on from."""
    runs = [run for run in _known(config, tags) if run.status != endings.FINISHED and not _is_live(run)]
    if not runs:
        return None
    latest = runs[0]
    return latest.folder or _made_folder(latest, config)


def local_copy(run: Known, config: TrainConfig) -> Path:
    """The folder of a run, which is made from what its store has where there is none here."""
    if run.folder is not None:
        return run.folder
    stored = run.stored
    assert stored is not None
    folder = home(config) / stored.run_id
    with tempfile.TemporaryDirectory() as temporary:
        last = stored.download(f"{FOLDER}/{LAST}", Path(temporary))
        checkpoint.load(last)
        for path in (last, *_best(stored, config.trainer.keep_best, Path(temporary))):
            checkpoint.write(path.read_bytes(), folder / FOLDER / path.name)  # with its digest
    return _made_folder(run, config)


def best_checkpoint(run: Known, folder: Path) -> dict[str, Any]:
    """The best checkpoint of a run that has finished, from its folder, or else fetched into it.

    Raises:
        UserError: Neither the folder nor the store has it.
    """
    path, stored = folder / checkpoint.BEST, run.stored
    if not path.is_file() and stored is not None:
        with tempfile.TemporaryDirectory() as temporary:
            for fetched in _best(stored, 1, Path(temporary)):
                checkpoint.write(fetched.read_bytes(), path)
    if not path.is_file():
        nor = f", nor does {shown(stored.uri)} have it" if stored is not None else ""
        raise UserError(
            f"run '{run.run_id}' has finished, but its best checkpoint '{short(path)}' is not there{nor}; "
            "put it back, or go on from its last one: raise `trainer.episodes`"
        )
    return checkpoint.load(path)


def _best(stored: StoredRun, most: int, folder: Path) -> Iterator[Path]:
    """Fetches the best checkpoints that a store has; none of a run that was ended early enough."""
    for rank in range(most):
        try:
            yield stored.download(f"{FOLDER}/{keeping.best_name(rank)}", folder)
        except MissingArtifactError:
            return


def home(config: TrainConfig) -> Path:
    """The folder of the folders of training runs."""
    return Path(config.output).absolute() / "runs"


def _made_folder(run: Known, config: TrainConfig) -> Path:
    """A folder for a run that only its store knows."""
    assert run.stored is not None
    folder = home(config) / run.stored.run_id
    go_on_with(run.stored, folder, (CONFIGURATION_TAG, SWEEP_TAG, POINT_TAG))
    return folder


def _latest(config: TrainConfig, tags: Mapping[str, str]) -> Resumption | None:
    """Of the latest unfinished run with some tags; else of the latest finished one."""
    runs = [run for run in _known(config, tags) if not _is_live(run)]
    unfinished = [run for run in runs if run.status != endings.FINISHED]
    for run in [*unfinished, *(run for run in runs if run.status == endings.FINISHED)]:
        if found := _of_run(run, config):
            return found
    return None


def _of_run(run: Known, config: TrainConfig) -> Resumption | None:
    """Its newest checkpoint that can be read."""
    for source, read in _checkpoints(run):
        try:
            state = read()
        except OutageError:
            raise
        except UserError as error:
            warn(f"{error}; trying an earlier one")
            continue
        if _is_whole(state):
            ended = run.status == endings.FINISHED and state["episode"] >= config.trainer.episodes
            return Resumption(run, state, source, ended)
    return None


def _is_whole(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds all that going on needs; the seed's, and older formats, do not."""
    return "rng" in state and "config" in state and state.get("schema") == checkpoint.SCHEMA


def _checkpoints(run: Known) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    for path in keeping.to_go_on_from(run.folder) if run.folder else ():
        yield short(path), partial(checkpoint.load, path)
    if stored := run.stored:
        yield f"{FOLDER}/{LAST} in {shown(stored.uri)}", partial(_downloaded, stored)


def _downloaded(stored: StoredRun) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return checkpoint.load(stored.download(f"{FOLDER}/{LAST}", Path(folder)))


def _of_file(path: Path, config: TrainConfig) -> Resumption:
    state = checkpoint.load(path)
    if not _is_whole(state):
        raise UserError(
            f"`trainer.resume`: '{path}' holds weights, but not the state of a training; start with them: "
            f"trainer.init_from={path}"
        )
    run = None
    if state.get("run_id"):
        try:
            run = _named(state["run_id"], config)
        except UserError as error:
            warn(f"{error}; a new run begins")
    return Resumption(run, state, short(path), is_finished=False)


def _named(run_id: str, config: TrainConfig) -> Known:
    """A run by ID, from its folder here and from its store."""
    folder = next((f for f in journal.folders(Path(config.output)) if run_id in _names(f)), None)
    stored, missing = None, None
    if config.tracking.mode == "online":
        try:
            stored = Store(store_uri(config.tracking.uri), create=False).run(run_id)
        except UserError as error:
            missing = error
    if folder is None:
        if stored is None:
            raise missing or UserError(f"`trainer.resume`: there is no run '{run_id}' in '{config.output}'")
        return Known(stored.id, stored.started, stored.status, None, stored)
    return _together(folder, stored)


def _together(folder: Path, stored: StoredRun | None) -> Known:
    """A run with a folder here; where it went on elsewhere since, what the store has of it counts."""
    if stored is not None and _went_on_elsewhere(folder, stored):
        return Known(stored.id, stored.started, stored.status, None, stored)
    identity = journal.identity(folder)
    return Known(identity.id, identity.started, journal.status(folder), folder, stored)


def _went_on_elsewhere(folder: Path, stored: StoredRun) -> bool:
    """Whether another process than the last one of this folder has logged the run after it."""
    if waiting(folder):
        return False
    process = journal.identity(folder).tags.get(PROCESS_TAG)
    for record, _ in journal.read(folder):
        if isinstance(record, journal.Tags):
            process = record.values.get(PROCESS_TAG, process)
    return process is not None and stored.tag(PROCESS_TAG) != process


def _names(folder: Path) -> set[str | None]:
    return {folder.name, journal.identity(folder).id, journal.delivered(folder).run_id}


def _known(config: TrainConfig, tags: Mapping[str, str]) -> list[Known]:
    """The runs with some tags in the configured store, the latest first."""
    uri = None if config.tracking.mode == "off" else store_uri(config.tracking.uri)
    stored, answers = _stored(config, uri, tags)
    found = {run.id: Known(run.id, run.started, run.status, None, run) for run in stored}
    for folder in journal.folders(Path(config.output)):
        identity = journal.identity(folder)
        in_store = found[identity.id].stored if identity.id in found else None
        same_store = identity.store == (None if uri is None else without_credentials(uri))
        is_meant = tags.items() <= identity.tags.items()
        if in_store is None and answers and same_store and is_meant and _is_deleted(folder, uri):
            continue
        if in_store is not None or (same_store and is_meant):
            found[identity.id] = _together(folder, in_store)
    return sorted(found.values(), key=lambda run: -run.started)


def _is_deleted(folder: Path, uri: str | None) -> bool:
    """Whether a store has deleted a run; one that has lost it with its database has not."""
    run_id = journal.delivered(folder).run_id
    if uri is None or run_id is None:
        return False
    try:
        Store(uri, create=False).run(run_id)
    except MissingRunError:
        return False
    except UserError:
        return True
    return False


def _stored(config: TrainConfig, uri: str | None, tags: Mapping[str, str]) -> tuple[list[StoredRun], bool]:
    """The runs with some tags in the store, and whether it has answered."""
    if uri is None or config.tracking.mode != "online":
        return [], False
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        return [], False
    try:
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        return Store(uri, create=False).runs(wanted), True
    except OutageError as error:
        warn(f"{error}; only the runs in '{config.output}' can be gone on with")
        return [], False


def _is_live(run: Known) -> bool:
    """Whether a process trains it, or may do so where that cannot be seen from here."""
    if run.folder is not None:
        live = journal.is_held(run.folder)
        where = ""
    else:
        mark = (run.stored.tag(PROCESS_TAG) if run.stored else None) or ""
        live = run.status == endings.RUNNING and not endings.is_gone(mark)
        where = (
            f" on {endings.host_of(mark)}, or was there; if it is not any more: trainer.resume={run.run_id}"
        )
    if live:
        warn(f"run '{run.run_id}' of the same settings is being trained{where}")
    return live


def _check_law(found: Resumption, config: TrainConfig) -> None:
    """Raises UserError where the law of the checkpoint is not the one that is configured."""
    saved = found.state["config"]
    before = flatten({"model": saved["model"], "physics": {"boundary": saved["physics"]["boundary"]}})
    now = flatten({"model": config.model, "physics": {"boundary": config.physics.boundary}})
    lines = [
        f"  {key}: {before.get(key, '-')} in the checkpoint, {now.get(key, '-')} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if lines:
        raise UserError(
            f"`trainer.resume`: the law of {found.source} is another one; set it as it was, or start a new "
            "run with trainer.init_from\n" + "\n".join(lines)
        )


def _digest(settings: Mapping[str, Any], without: tuple[str, ...]) -> str:
    text = json.dumps(_compared(settings, without), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _compared(settings: Mapping[str, Any], without: tuple[str, ...]) -> dict[str, Any]:
    """The settings with dotted keys, without some keys and what is below them."""
    return {
        key: value
        for key, value in flatten(settings).items()
        if not any(key == name or key.startswith(f"{name}.") for name in without)
    }
