"""Laws by run ID: fetched from the store, verified, kept in the user's cache."""

import os
import shutil
import tempfile
from pathlib import Path

from atheria.artifact import FILE_NAME
from atheria.config import UserError
from atheria.files import atomically, sha256
from atheria.tracking import LAW_DIGEST_TAG, find_run, shown


def law_of_run(run_id: str, tracking_uri: str | None = None) -> Path:
    """The run's ``law.pt`` in the user's cache, fetched if it is not there yet.

    Raises:
        UserError: There is no such run, it has no law, or the law does not match its digest.
    """
    run = find_run(run_id, tracking_uri)
    digest = run.tag(LAW_DIGEST_TAG)
    if digest is None or not _is_digest(digest):
        remedy = f"export it: python -m atheria.export run_id={run_id}"
        if parent := run.parent:
            remedy = f"it is a child of the run that has one: run_id={parent}"
        raise UserError(
            f"run '{run_id}' in {shown(run.uri)} has no exported law (tag `{LAW_DIGEST_TAG}`); {remedy}"
        )
    if not run.run_id.isalnum():  # it names a folder
        raise UserError(f"`run_id` must be letters and digits, got '{run.run_id}'")
    cached = cache_folder() / "laws" / run.run_id / digest / FILE_NAME
    if cached.is_file() and sha256(cached) == digest:
        return cached
    with tempfile.TemporaryDirectory() as folder:
        fetched = run.download(f"law/{FILE_NAME}", Path(folder))
        if (found := sha256(fetched)) != digest:
            raise UserError(
                f"the law of run '{run_id}' was changed after its export: its digest is {found}, "
                f"the run says {digest}; export it anew: python -m atheria.export run_id={run_id}"
            )
        atomically(cached, lambda file: shutil.copyfile(fetched, file))
    return cached


def cache_folder() -> Path:
    """``ATHERIA_CACHE``, or ``atheria`` in the user's cache folder (XDG)."""
    if folder := os.environ.get("ATHERIA_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atheria"


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
