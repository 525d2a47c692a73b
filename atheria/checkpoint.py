"""Checkpoints ``.pth``: written whole or not at all, checked before they are read.

Top-level keys are the seed's ``model_state_dict``, ``episode`` and ``optimizer_state_dict``, then
``config``, ``scheduler_state_dict``, ``curriculum_state``, ``pool``, ``rng``, ``run_id``, ``metrics``
and ``schema``. Nothing is unpickled but tensors and plain containers.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from atheria.config import UserError
from atheria.files import atomically, sha256, verify_zip

SCHEMA = 1
BEST = "checkpoints/best.pth"
"""Artifact of a run: its state at the lowest ``eval/selection``, without the pool."""


def save(state: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint and, beside it, its SHA-256 in ``sha256sum``'s format."""
    atomically(path, lambda file: torch.save(state, file))
    line = f"{sha256(path)}  {path.name}\n"
    atomically(digest_path(path), lambda file: file.write_text(line))


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint.

    Raises:
        UserError: The file is missing, damaged, not a checkpoint, or holds more than data.
    """
    verify_zip(path, "a checkpoint (.pth)")
    if digest_path(path).is_file():
        expected = digest_path(path).read_text().split()[:1]
        if expected != [sha256(path)]:
            raise UserError(f"'{path}' does not match its digest '{digest_path(path).name}': it is damaged")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
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
