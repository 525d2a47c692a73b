"""The laws that the page offers: those of the registry, those of runs, and the one it was started with."""

from pathlib import Path

from atheria.artifact import FILE_NAME
from atheria.config import UserError, ViewConfig
from atheria.fetch import BEST_LOSS, find_law, law_of_run, run_named
from atheria.files import short
from atheria.stores import store_uri
from atheria.tracking import LAW_DIGEST_TAG, Store

MOST_RUNS = 100
"""The newest ones."""
STARTED_WITH = "start"


class Choices:
    """Laws by the names that the page knows them by.

    Args:
        config: What the viewer was told: the law that it starts with, and the store.
    """

    def __init__(self, config: ViewConfig) -> None:
        self._config = config
        self._uri = config.tracking.uri
        self._first: Path | None = None

    def path(self, choice: str) -> Path:
        """The law's artifact, fetched where it is a run's.

        Raises:
            UserError: There is no such law, or it cannot be had.
        """
        kind, _, name = choice.partition(":")
        if choice == STARTED_WITH:
            return self._path_of_first()
        if kind == "run" and name:
            return law_of_run(name, self._uri)
        if kind == "law" and "@" in name:
            run_id = run_named(None, name, None, self._uri)
            if run_id is not None:
                return law_of_run(run_id, self._uri)
        raise UserError(f"there is no law '{choice}' to choose; read the list anew")

    def listed(self) -> list[dict[str, str]]:
        """What there is to choose from: ``choice``, ``text`` and ``group`` of each.

        Raises:
            UserError: The store gives no answer.
        """
        found = [{"choice": STARTED_WITH, "text": self._first_name(), "group": "started with"}]
        if self._config.tracking.mode == "off":
            return found
        store = Store(store_uri(self._uri), create=False)
        found += [{"choice": f"law:{name}", "text": name, "group": "registry"} for name in store.named_laws()]
        runs = store.runs(f"tags.`{LAW_DIGEST_TAG}` LIKE '%'", order_by=["attributes.start_time DESC"])
        for run in runs[:MOST_RUNS]:
            loss = run.metrics.get(BEST_LOSS, run.metrics.get("eval/loss"))
            text = f"{run.name} ({run.run_id[:8]})" + ("" if loss is None else f", loss {loss:.4g}")
            found.append({"choice": f"run:{run.run_id}", "text": text, "group": "runs, newest first"})
        return found

    def _path_of_first(self) -> Path:
        if self._first is None:
            config = self._config
            _, self._first = find_law(config.run_id, config.law, config.best_of, self._uri)
        return self._first

    def _first_name(self) -> str:
        config = self._config
        if config.run_id:
            return f"run {config.run_id}"
        if config.best_of:
            return f"best of {config.best_of}"
        law = Path(config.law or FILE_NAME)
        return short(law) if law.exists() else str(law)
