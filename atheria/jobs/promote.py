"""The work of ``python -m atheria.promote``."""

import re

from atheria import law_cache
from atheria.config import PromoteConfig, UserError, as_override
from atheria.fetch import check_names, run_named
from atheria.stores import shown, store_uri, where
from atheria.tracking import LAW_DIGEST_TAG, Store


def check(config: PromoteConfig) -> None:
    """Raises UserError where no run is named, or the names cannot be had."""
    check_names(config.run_id, config.law, config.best_of)
    for key, value in (("alias", config.alias), ("name", config.name)):
        if value is not None and not re.fullmatch(r"[\w.-]+", value):
            raise UserError(f"`{key}` must be letters, digits, `_`, `-` and `.`, got '{value}'")
    if config.alias == "latest" or re.fullmatch(r"v\d+", config.alias):
        raise UserError(f"`alias` '{config.alias}' is MLflow's own; choose another, as alias=champion")


def run(config: PromoteConfig) -> str:
    """Gives the law of a run a name and an alias in the registry; returns ``name@alias``.

    Raises:
        UserError: There is no such run, or it has no law.
    """
    uri = store_uri(config.tracking.uri)
    run_id = run_named(config.run_id, config.law, config.best_of, config.tracking.uri)
    if run_id is None:
        raise UserError(f"`law` must be a law of the registry's, as name@alias, got the file '{config.law}'")
    store = Store(uri, create=False)
    run = store.run(run_id)
    if not law_cache.is_digest(run.tag(LAW_DIGEST_TAG) or ""):
        raise UserError(
            f"run '{run_id}' in {shown(uri)} has no exported law; export it: python -m atheria.export "
            f"run_id={run_id}{where(config.tracking.uri)}"
        )
    name = config.name or run.experiment
    version = store.promote(run, name, config.alias)
    named = f"{name}@{config.alias}"
    print(f"law       {named} is the law of run {run.run_id} (version {version})")
    print(f"next\n  python -m atheria.rollout {as_override('law', named)}{where(config.tracking.uri)}")
    return named
