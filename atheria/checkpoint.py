"""Checkpoints ``.pth``: written whole or not at all, checked before they are read.

Top-level keys are the seed's ``model_state_dict``, ``episode`` and ``optimizer_state_dict``, then
``config``, ``scheduler_state_dict``, ``curriculum_state``, ``pool``, ``rng``, ``run_id``, ``metrics``
and ``schema``. Nothing is unpickled but tensors and plain containers.
"""

import hashlib
import io
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from atheria.config import UserError
from atheria.files import atomically, sha256, verify_zip

SCHEMA = 2
"""Of the keys; exporting reads every version, going on with a training this one."""
BEST = "checkpoints/best.pth"
"""Artifact of a run: its state at the lowest ``eval/selection``, without the pool."""


def save(state: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint and, beside it, its SHA-256 in ``sha256sum``'s format."""
    write(encode(state), path)


def encode(state: dict[str, Any]) -> bytes:
    """A checkpoint as the bytes of its file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def write(content: bytes, path: Path) -> None:
    """Writes an encoded checkpoint with its digest.

    Raises:
        OSError: It cannot be written; what stood there before still does.
    """
    digest = hashlib.sha256(content).hexdigest()
    _publish(path, digest, lambda file: file.write_bytes(content))


def copy(source: Path, target: Path) -> None:
    """Gives a checkpoint a second name, with a digest of its own.

    Raises:
        UserError: It is damaged; what bears the second name stays.
    """
    _publish(target, _verified(source), lambda file: _link(source, file))


def _verified(path: Path) -> str:
    """Digest of a file.

    Raises:
        UserError: A record of it is damaged, or it is not what the digest beside it says, if there is one.
    """
    verify_zip(path, "a checkpoint (.pth)")
    digest, beside = sha256(path), digest_path(path)
    # Two lines for a moment, while it is replaced.
    lines = beside.read_bytes().splitlines() if beside.is_file() else [digest.encode()]
    if digest.encode() not in [line.partition(b" ")[0] for line in lines]:
        raise UserError(f"'{path}' does not match its digest '{beside.name}': it is damaged")
    return digest


def _publish(path: Path, digest: str, write: Callable[[Path], object]) -> None:
    """Puts a file and its digest in place; at every moment, the digest fits the file that is there."""
    beside = digest_path(path)
    line = f"{digest}  {path.name}\n"
    before = beside.read_text() if beside.is_file() else ""
    atomically(beside, lambda file: file.write_text(line + before))
    atomically(path, write)
    atomically(beside, lambda file: file.write_text(line))


def _link(source: Path, target: Path) -> None:
    target.unlink()
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, to the CPU.

    Raises:
        UserError: The file is missing, damaged, not a checkpoint, or holds more than data.
    """
    _verified(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, KeyError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"'{path}' cannot be read as a checkpoint: {reason}") from None
    if not isinstance(state, dict) or "model_state_dict" not in state:
        raise UserError(f"'{path}' is no checkpoint: it has no `model_state_dict`")
    return state


def check_law(state: Mapping[str, Any], model: Mapping[str, Any], source: str) -> None:
    """Raises UserError where a checkpoint says that it is of another law than `model` names."""
    saved = (state.get("config") or {}).get("model", {}).get("name", model["name"])
    if saved != model["name"]:
        raise UserError(f"'{source}' is of model={saved}, not of model={model['name']}; choose model={saved}")


def load_weights(law: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Gives a law the weights of a checkpoint.

    Raises:
        UserError: A name or a shape differs.
    """
    try:
        law.load_state_dict(state["model_state_dict"], strict=True)
    except RuntimeError as error:
        details = "\n".join(line.strip() for line in str(error).splitlines()[1:6])
        raise UserError(
            f"the weights of '{source}' do not fit the law; are model.d_state, model.hidden_channels, "
            f"model.norm and model.bias right?\n{details}"
        ) from None


def digest_path(path: Path) -> Path:
    """Where the digest of a checkpoint stands."""
    return path.with_name(path.name + ".sha256")
