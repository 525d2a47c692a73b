"""The user's cache of laws: by run and digest, whole or not there, bounded in size."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from atheria.artifact import FILE_NAME
from atheria.config import UserError
from atheria.files import alone, atomically, cache_folder, sha256

DEFAULT_SIZE = 2 << 30
"""Bytes that the cache may hold, unless ``ATHERIA_CACHE_SIZE`` says otherwise."""
IN_USE = 600.0
"""Seconds after its last use for which a law is not removed to make room."""


class ChangedLawError(UserError):
    """What was fetched is not the law whose digest the run has."""


def most_bytes() -> int:
    """How many bytes the cache may hold.

    Raises:
        UserError: ``ATHERIA_CACHE_SIZE`` is no number of bytes.
    """
    text = os.environ.get("ATHERIA_CACHE_SIZE", str(DEFAULT_SIZE))
    if not text.isdecimal():
        raise UserError(f"`ATHERIA_CACHE_SIZE` must be a number of bytes, got '{text}'")
    return int(text)


def law(run_id: str, digest: str, fetch: Callable[[], Path]) -> Path:
    """A law in the cache; where it is not there or is damaged, one process fetches it and the others wait.

    Args:
        run_id: Whose law; letters and digits.
        digest: SHA-256 of the law.
        fetch: Returns a file whose content is verified here.

    Raises:
        ChangedLawError: What was fetched does not have the digest, and is not kept.
        UserError: It cannot be fetched, or the cache takes nothing.
    """
    if not run_id.isalnum() or not is_digest(digest):  # they name folders
        raise UserError(
            f"a run's ID is letters and digits, a digest 64 hexadecimal ones; got '{run_id}', '{digest}'"
        )
    path = _laws() / run_id / digest / FILE_NAME
    try:
        _keep(path, run_id, digest, fetch)
    except OSError as error:
        if path.is_file() and sha256(path) == digest:  # then nothing needs to be written
            return path
        raise UserError(
            f"the cache '{cache_folder()}' cannot be written to ({error.strerror or error}); name another "
            "folder in ATHERIA_CACHE, or make room: python -m atheria.cache prune=true"
        ) from error
    return path


def _keep(path: Path, run_id: str, digest: str, fetch: Callable[[], Path]) -> None:
    """Puts a law into the cache, unless it is there."""
    with _locked(path.parent):
        if path.is_file() and sha256(path) != digest:
            path.unlink()
        if not path.is_file():
            try:
                fetched = fetch()
                found = sha256(fetched)
            except OSError as error:  # not the cache's fault
                raise UserError(
                    f"the law of run '{run_id}' cannot be fetched: {error}; see that the store's files can "
                    "be read, and that there is room for temporary ones"
                ) from error
            if found != digest:
                fetched.unlink()
                raise ChangedLawError(
                    f"the law of run '{run_id}' was changed after its export: its digest is {found}, "
                    f"the run says {digest}; put the law of that digest back"
                )
            atomically(path, lambda file: shutil.copyfile(fetched, file))
        os.utime(path.parent)  # when it was used last
    prune(most_bytes(), IN_USE)


def newest(run_id: str) -> Path | None:
    """The law of a run that was used last, if it is there and whole."""
    if not run_id.isalnum():
        return None
    found = sorted((_laws() / run_id).glob(f"*/{FILE_NAME}"), key=used, reverse=True)
    return next((path for path in found if sha256(path) == path.parent.name), None)


def contents() -> list[Path]:
    """The laws in the cache, the one that was not used for longest first."""
    return sorted(_laws().glob(f"*/*/{FILE_NAME}"), key=used)


def used(path: Path) -> float:
    """When a law of the cache was used last, in seconds since 1970."""
    return path.parent.stat().st_mtime


def prune(most: int, unused_for: float = 0.0) -> list[Path]:
    """Removes laws, those that were not used for longest first, until at most `most` bytes are left.

    Args:
        most: Bytes that may stay.
        unused_for: Laws used within so many seconds stay in any case.

    Returns:
        What was removed.
    """
    removed = []
    with _locked(_laws()):
        laws = contents()
        size = sum(path.stat().st_size for path in laws)
        for path in laws:
            if size <= most or time.time() - used(path) < unused_for:
                break
            size -= path.stat().st_size
            shutil.rmtree(path.parent)
            removed.append(path)
    return removed


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 in hexadecimal."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _laws() -> Path:
    return cache_folder() / "laws"


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """One process at a time; another waits."""
    place.mkdir(parents=True, exist_ok=True)
    with alone(place.with_suffix(".lock")):
        place.mkdir(exist_ok=True)  # may have been pruned meanwhile
        yield
