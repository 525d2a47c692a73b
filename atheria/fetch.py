"""Laws by name: a run's, an alias of the registry's, the best of an experiment, or a file."""

import re
import tempfile
from math import isfinite, nan
from pathlib import Path

from atheria import law_cache, proven
from atheria.artifact import IN_RUN
from atheria.config import UserError
from atheria.progress import warn
from atheria.stores import shown, store_uri, where
from atheria.tracking import (
    LAW_DIGEST_TAG,
    MissingArtifactError,
    OutageError,
    Store,
    StoredRun,
    find_run,
)

BEST_LOSS = "best/loss"
"""Metric: ``eval/loss`` of the checkpoint that a run has exported."""

_ALIAS = re.compile(r"(?P<name>[^@]+)@(?P<alias>[^@/]+)")


def run_named(
    run_id: str | None, law: str | None, best_of: str | None, tracking_uri: str | None
) -> str | None:
    """ID of the run whose law is named; None where a file is.

    Args:
        run_id: A run.
        law: ``name@alias`` of the registry, or the path of an artifact.
        best_of: An experiment; its run of the lowest ``eval/loss`` is meant.
        tracking_uri: The store; None for the default.

    Raises:
        UserError: Not exactly one of them is given, or it names nothing.
    """
    check_names(run_id, law, best_of)
    if run_id is not None:
        return run_id
    uri = store_uri(tracking_uri)
    if best_of is not None:
        return _best_of(best_of, uri).run_id
    assert law is not None
    if is_alias(law) and (alias := _ALIAS.fullmatch(law)):
        return Store(uri, create=False).run_of_alias(alias["name"], alias["alias"])
    return None


def find_law(
    run_id: str | None, law: str | None, best_of: str | None, tracking_uri: str | None
) -> tuple[str | None, Path]:
    """ID of the run whose law is named, None where a file is; and the artifact, fetched where it is a run's.

    Raises:
        UserError: As `run_named` and `law_of_run`.
    """
    named = run_named(run_id, law, best_of, tracking_uri)
    return named, Path(law or "") if named is None else law_of_run(named, tracking_uri)


def check_names(run_id: str | None, law: str | None, best_of: str | None) -> None:
    """Raises UserError unless exactly one of the ways to name a law is used."""
    if sum(name is not None for name in (run_id, law, best_of)) != 1:
        raise UserError(
            "name the law by one of run_id=RUN_ID, law=name@alias, law=path.pt, best_of=EXPERIMENT"
        )


def is_alias(law: str | None) -> bool:
    """Whether a law is named as ``name@alias``; a file of that name is meant rather."""
    return law is not None and not Path(law).exists() and _ALIAS.fullmatch(law) is not None


def law_of_run(run_id: str, tracking_uri: str | None = None) -> Path:
    """The run's ``law.pt`` in the user's cache, fetched if it is not there yet.

    Raises:
        UserError: There is no such run, it has no law, or the law does not match its digest.
    """
    if not isinstance(run_id, str):
        raise UserError(f"`run_id` must be the ID of a run, got {run_id!r}")
    try:
        run = find_run(run_id, tracking_uri)
    except OutageError as error:
        known = law_cache.newest(run_id)
        if known is None:
            raise
        warn(f"{error}; the law is taken from the cache")
        proven.accept(known)
        return known
    digest = run.tag(LAW_DIGEST_TAG)
    export = f"python -m atheria.export run_id={run_id}{where(tracking_uri)}"
    if digest is None or not law_cache.is_digest(digest):
        remedy = f"export it: {export}"
        if parent := run.parent:
            remedy = f"it is a child of the run that has one: run_id={parent}"
        raise UserError(
            f"run '{run_id}' in {shown(run.uri)} has no exported law (tag `{LAW_DIGEST_TAG}`); {remedy}"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            law = law_cache.law(run.run_id, digest, lambda: run.download(IN_RUN, Path(folder)))
        except (MissingArtifactError, law_cache.ChangedLawError) as error:
            raise UserError(f"{error}\nor export it anew: {export}") from None
    proven.accept(law)
    return law


def _best_of(experiment: str, uri: str) -> StoredRun:
    """Of the runs with a law, that of the lowest BEST_LOSS; where one has none, its last ``eval/loss``."""
    runs = Store(uri, create=False).runs(f"tags.`{LAW_DIGEST_TAG}` LIKE '%'", experiment=experiment)
    losses = {run.run_id: run.metrics.get(BEST_LOSS, run.metrics.get("eval/loss", nan)) for run in runs}
    finite = [run for run in runs if isfinite(losses[run.run_id])]
    if not finite:
        raise UserError(
            f"`best_of`: experiment '{experiment}' in {shown(uri)} has no run with a law and a finite "
            "`eval/loss`"
        )
    return min(finite, key=lambda run: losses[run.run_id])
