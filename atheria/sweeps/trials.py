"""Trials of a search in Optuna's storage; the only module that imports optuna.

The storage is a journal in the sweep's folder, which processes on several machines may write to, or a
database.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from atheria.config import OptunaConfig, UserError
from atheria.progress import warn
from atheria.stores import without_credentials
from atheria.sweeps.points import Trial
from atheria.sweeps.space import Axis

FILE = "optuna.journal"
STORAGE = "ATHERIA_OPTUNA_STORAGE"
"""Where the jobs of a search find a storage's address that holds a password."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(
    trial: Trial, sampler: BaseSampler | None, direction: Literal["minimize", "maximize"] | None
) -> optuna.Study:
    """The search that a trial is of, made where there is none yet.

    Args:
        trial: The trial.
        sampler: Chooses what is tried next.
        direction: ``minimize`` or ``maximize``; None where the search must exist.

    Raises:
        UserError: The storage cannot be used, or holds a search of that name in the other direction.
    """
    storage, pruner = _storage(trial.storage), _pruner(trial)
    if direction is None:
        return optuna.load_study(study_name=trial.search, storage=storage, sampler=sampler, pruner=pruner)
    study = optuna.create_study(
        study_name=trial.search,
        storage=storage,
        sampler=sampler,
        pruner=pruner,
        direction=direction,
        load_if_exists=True,
    )
    if study.direction.name.lower() != direction:
        raise UserError(
            f"`sweep.direction` of the search '{trial.search}' was another one; choose `sweep.name`"
        )
    return study


def make_sampler(config: OptunaConfig, name: str, storage: str) -> BaseSampler:
    """The sampler; going on, it draws other numbers than the command before."""
    known = {study.study_name: study.n_trials for study in optuna.get_all_study_summaries(_storage(storage))}
    seed = (config.seed + known.get(name, 0)) % 2**32
    match config.sampler:
        case "tpe":
            return TPESampler(seed=seed, n_startup_trials=config.startup)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=config.startup)
        case "random":
            return RandomSampler(seed=seed)


def ask(study: optuna.Study, axes: Sequence[Axis]) -> tuple[int, dict[str, str]]:
    """A new trial: its number and its settings.

    Raises:
        UserError: The values of a key are others than they were in the same search.
    """
    return _drawn(study.ask(), axes)


def unfinished(study: optuna.Study, axes: Sequence[Axis]) -> list[tuple[int, dict[str, str]]]:
    """The trials that were begun and not ended, as `ask` returns them; those of other keys are ended.

    A command may have been killed while it drew a trial's settings: those that are missing are drawn.
    """
    found = []
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if trial.params.keys() <= {axis.key for axis in axes}:
            found.append(_drawn(optuna.Trial(study, trial._trial_id), axes))
        else:
            tell_failed(study, trial.number)
    return found


def _drawn(trial: optuna.Trial, axes: Sequence[Axis]) -> tuple[int, dict[str, str]]:
    try:
        return trial.number, {axis.key: str(_draw(trial, axis)) for axis in axes}
    except ValueError as error:
        raise UserError(f"{error}; a search over other values needs another `sweep.name`") from None


def _draw(trial: optuna.Trial, axis: Axis) -> object:
    """The setting that the trial has, or now gets."""
    key, low, high, step = axis.key, axis.low, axis.high, axis.step
    if low is None or high is None:
        return trial.suggest_categorical(key, axis.values)
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, log=axis.is_log, step=abs(int(step or 1)))
    return trial.suggest_float(key, low, high, log=axis.is_log, step=abs(step) if step else None)


def tell(study: optuna.Study, number: int, value: float) -> None:
    """Gives a trial its value."""
    study.tell(number, value, skip_if_finished=True)


def tell_pruned(study: optuna.Study, number: int) -> None:
    """Ends a trial that was given up."""
    study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)


def tell_failed(study: optuna.Study, number: int) -> None:
    """Ends a trial that has no value."""
    study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


def is_hopeless(trial: Trial, episode: int, metrics: Mapping[str, float]) -> bool:
    """Whether the search gives a trial up after an evaluation.

    Raises:
        UserError: The evaluation has no such metric.
    """
    if trial.metric not in metrics:
        raise UserError(
            f"`sweep.metric`: evaluations have no '{trial.metric}'; they have {', '.join(sorted(metrics))}"
        )
    try:
        study = _study_of(trial)
        frozen = study.trials[trial.number]
        asked = optuna.Trial(study, frozen._trial_id)
        if episode not in frozen.intermediate_values:  # it has been reported before an interruption
            asked.report(metrics[trial.metric], step=episode)
        return asked.should_prune()
    except (OSError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        warn(f"the search could not be asked at episode {episode}: {without_credentials(str(error))}")
        return False


@cache
def _study_of(trial: Trial) -> optuna.Study:
    return open_study(trial, sampler=None, direction=None)


def without_password(address: str) -> str:
    """An address of a storage for files that others may read; a password is passed on by the environment."""
    shown = without_credentials(address)
    if shown != address:
        os.environ[STORAGE] = address
    return shown


@cache
def _storage(address: str) -> BaseStorage:
    if "://" not in address:
        return JournalStorage(JournalFileBackend(address))
    whole = os.environ.get(STORAGE, "")
    if without_credentials(whole) == address:
        address = whole
    try:
        return RDBStorage(address)
    except (ImportError, ValueError, RuntimeError, SQLAlchemyError) as error:
        said = without_credentials(str(error).splitlines()[0])
        raise UserError(
            f"`hydra.sweeper.storage`: '{without_credentials(address)}' cannot be used ({said})"
        ) from None


def _pruner(trial: Trial) -> BasePruner:
    match trial.pruner:
        case "median":
            return MedianPruner(n_startup_trials=trial.startup)
        case "hyperband":
            return HyperbandPruner(min_resource=trial.first, max_resource=trial.last)
        case "halving":
            return SuccessiveHalvingPruner(min_resource=trial.first)
    return NopPruner()
