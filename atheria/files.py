"""Files that are whole: written atomically, digested, checked before they are read."""

import fcntl
import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from atheria.config import UserError

_MOST_INFLATED, _LARGEST_RATIO = 1 << 24, 10
"""Torch compresses nothing but TorchScript's code: what unpacks to more than this is a trap."""


def short(path: Path) -> str:
    """A path as a user would type it here: relative to the working directory where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def check_writable(folder: Path, key: str) -> None:
    """Raises UserError where no file can be made in a folder, or in the nearest one above that exists.

    Args:
        folder: The folder; it need not exist yet, and is not made.
        key: The setting that names it, for the message.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"`{key}` must be a folder that can be written to, got '{folder}'; choose another")


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Turns what keeps files from being written into a UserError that names their folder and `output`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"'{short(folder)}' cannot be written to: {error.strerror or error}; make room there, or choose "
            "another folder: output=..."
        ) from error


def cache_folder() -> Path:
    """``ATHERIA_CACHE``, or ``atheria`` in the user's cache folder (XDG)."""
    if chosen := os.environ.get("ATHERIA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atheria"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Makes a file appear whole: written beside its place, synced, renamed, folder synced.

    Args:
        path: Where the file shall be; its folder is made.
        write: Writes the content to the path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:  # after the rename too, which does nothing where both are links to one file
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Lets one process at a time in, and the others wait; a process that ends lets the next one in.

    Args:
        path: What is locked: a file, which is made where there is none, or a folder.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def verify_zip(path: Path, what: str) -> None:
    """Checks every record's CRC, which torch does not.

    Raises:
        UserError: The file is missing, is not a zip archive, or a record is damaged.
    """
    if not path.is_file():
        raise UserError(f"there is no file '{path}'; give the path of {what}")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(record.file_size for record in archive.infolist())
            if unpacked > _MOST_INFLATED + _LARGEST_RATIO * path.stat().st_size:
                raise UserError(f"'{path}' says that it unpacks to {unpacked} bytes: {what} does not")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, UnicodeDecodeError) as error:
        raise UserError(
            f"'{path}' is not {what}, or it was cut short ({error}); export or copy it again"
        ) from None
    if damaged is not None:
        raise UserError(f"'{path}' is damaged in '{damaged}'; export or copy it again")
