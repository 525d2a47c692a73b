"""Which TorchScript files may be opened here: those of a known digest, and those that a child process opened.

What a child could open is remembered in the user's cache, so that every content is tried once.
"""

import contextlib
import hashlib
import json
import operator
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from atheria.config import UserError
from atheria.files import cache_folder, sha256
from atheria.probe import CrashError, Probe

MOST = 4096
"""Files that are remembered; beyond, the oldest half is forgotten."""

probe = Probe()
"""The child process of this one."""

_accepted: set[str] = set()
"""Digests of what needs no child: written by this process, or verified by it."""
_KINDS = {"ValueError": ValueError, "OverflowError": OverflowError, "MemoryError": MemoryError}


def accept(path: Path) -> None:
    """Takes the content of a file for safe: it was written here, or has the digest that its run says."""
    _accepted.add(sha256(path))


def check(path: str | os.PathLike[str], d_state: int | None, arguments: Mapping[str, Any]) -> None:
    """Opens a file in a child process unless its content is known.

    Args:
        path: A zip archive whose records are whole.
        d_state: The engine's own, or None.
        arguments: Of the extension's ``Engine._load_model``.

    Raises:
        UserError: The child died of it.
        ValueError, RuntimeError: It does not load; the error is the one that the engine would raise.
    """
    digest = sha256(Path(path))
    if digest in _accepted:
        return
    d_state = None if d_state is None else operator.index(d_state)
    said = json.dumps([digest, d_state, dict(arguments), torch.__version__, version("atheria")])
    mark = _folder() / hashlib.sha256(said.encode()).hexdigest()
    if mark.is_file():
        return
    absolute = os.path.abspath(path)  # noqa: PTH100  Path.resolve() would follow links
    try:
        refusal = probe.open(absolute, d_state, arguments)
    except CrashError as crash:
        raise UserError(
            f"'{os.fspath(path)}' was opened in a process of its own, and {crash}: it is damaged, or no law; "
            "export it again"
        ) from None
    if refusal is not None:
        kind, message = refusal
        raise _KINDS.get(kind, RuntimeError)(message.replace(absolute, os.fspath(path)))
    _remember(mark)


def _folder() -> Path:
    return cache_folder() / "proven"


def _remember(mark: Path) -> None:
    """Notes that a file opens. Where the cache cannot be written, it is tried again next time."""
    with contextlib.suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        marks = list(mark.parent.iterdir())
        if len(marks) > MOST:
            for old in sorted(marks, key=lambda file: file.stat().st_mtime)[: len(marks) // 2]:
                old.unlink(missing_ok=True)
