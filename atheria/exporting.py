"""From weights to the artifact ``law.pt``, checked against the Python law before it is written."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from atheria import artifact, laws, proven
from atheria.artifact import Description
from atheria.config import InitialStateConfig, PhysicsConfig, UserError
from atheria.files import sha256
from atheria.laws import Law
from atheria.tracking import LAW_DIGEST_TAG


@dataclass(frozen=True)
class Origin:
    """Where a law comes from, for its description: see `Description` for the fields."""

    model: Mapping[str, Any]
    physics: PhysicsConfig
    grid: list[int]
    initial_state: InitialStateConfig
    noise: Mapping[str, str | float]
    seed: int
    run_id: str | None = None
    git_commit: str | None = None


def export_law(law: Law, origin: Origin, path: Path) -> Description:
    """Writes a law as an artifact.

    Args:
        law: The law with its weights.
        origin: What to say of it.
        path: Where to write.

    Raises:
        UserError: The script computes something else than the law; nothing is written.
    """
    law.cpu().eval()
    scripted = artifact.script(law)
    d_state = int(origin.model["d_state"])
    verify(law, scripted, d_state, law.stride)
    description = Description(
        schema=artifact.VERSION,
        law=origin.model["name"],
        config={key: value for key, value in origin.model.items() if key != "name"},
        d_state=d_state,
        stride=law.stride,
        has_memory=hasattr(law, "initial_memory"),
        physics=origin.physics,
        receptive_radius=law.receptive_radius,
        vacuum_stable=_is_vacuum_stable(law, d_state, origin),
        training_grid=origin.grid,
        initial_state=origin.initial_state,
        noise=dict(origin.noise),
        seed=origin.seed,
        run_id=origin.run_id,
        git_commit=origin.git_commit,
        torch_version=torch.__version__,
    )
    artifact.write(path, scripted, description)
    proven.accept(path)
    return description


class Logged(Protocol):
    """A run that files and tags can be put on, at once or through a journal."""

    def log_file(self, path: Path, folder: str) -> None:
        """Puts a file into an artifact folder."""

    def set_tag(self, key: str, value: str) -> None:
        """Sets a tag."""


def log_law(run: Logged, path: Path, description: Description) -> None:
    """Puts an artifact onto a run: ``law/law.pt``, ``law/atheria.json`` and the digest tag."""
    with tempfile.TemporaryDirectory() as folder:
        text, law = Path(folder) / artifact.DESCRIPTION_NAME, Path(folder) / artifact.FILE_NAME
        text.write_text(description.to_json())
        shutil.copyfile(path, law)  # whatever the file is called on disk
        run.log_file(text, artifact.FOLDER)
        run.log_file(law, artifact.FOLDER)
    run.set_tag(LAW_DIGEST_TAG, sha256(path))


@torch.inference_mode()
def verify(law: nn.Module, scripted: nn.Module, d_state: int, stride: int) -> None:
    """Compares a script with its law over several grids and batches.

    Raises:
        UserError: They differ by more than rounding.
    """
    generator = torch.Generator().manual_seed(0)
    for batch, rows, columns in ((1, 4, 4), (2, 4, 6), (3, 9, 5)):
        shape = (batch, 2 * d_state, rows * stride, columns * stride)
        psi = torch.randn(shape, generator=generator)
        for expected, got in zip(_outputs(law, psi), _outputs(scripted, psi), strict=True):
            error = (got - expected).abs().max().item()
            if not error <= 1e-5 * expected.abs().max().item():
                raise UserError(
                    f"the scripted law differs from the Python law by {error:.3g} on a field of "
                    f"shape {shape}; it was not exported. Does forward() depend on something that "
                    "scripting freezes?"
                )


def _outputs(law: nn.Module, psi: Tensor) -> tuple[Tensor, ...]:
    """What a law returns for psi: delta, and the memory if it has one."""
    outputs = laws.propose(law, psi, laws.initial_memory(law, psi))
    return tuple(output for output in outputs if output is not None)


@torch.inference_mode()
def _is_vacuum_stable(law: Law, d_state: int, origin: Origin) -> bool:
    vacuum = torch.zeros(1, 2 * d_state, *origin.grid)
    norm = _outputs(law, vacuum)[0].square().sum(dim=1).sqrt()
    return bool((norm <= origin.physics.epsilon).all())
