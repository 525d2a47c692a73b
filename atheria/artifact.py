"""The exported law ``law.pt``: TorchScript that describes itself in ``atheria.json``.

Reading and writing TorchScript is kept in this file (torch deprecates it, a successor may join it).
"""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from atheria import proven
from atheria.config import (
    SCHEMA,
    Components,
    Grid,
    InitialStateConfig,
    PhysicsConfig,
    Seed,
    UserError,
    validate,
)
from atheria.files import atomically, verify_zip

FILE_NAME = "law.pt"
FOLDER = "law"
"""Of a run, on disk and in its store."""
IN_RUN = f"{FOLDER}/{FILE_NAME}"
"""Where a run has its law."""
DESCRIPTION_NAME = "atheria.json"
VERSION = 1

_LONGEST_DESCRIPTION = 1 << 20
_LARGEST_UNIVERSE = 1 << 28
"""Numbers, a GiB: a description allocates that much at most."""
DEFAULT_PHYSICS = PhysicsConfig(gamma=0.0, epsilon=0.0, normalise="none", fire_rate=1.0, boundary="torus")
"""What a file that does not say its physics is rolled out with."""


@dataclass(config=SCHEMA, frozen=True)
class Description:
    """What ``atheria.json`` says.

    Attributes:
        schema: Version of this format.
        law: Registered name; a description names a law, it never names code.
        config: The law's own configuration.
        d_state: Complex components of a cell.
        stride: H and W must be multiples of it.
        has_memory: Whether forward takes and returns a memory.
        physics: The step around the law.
        receptive_radius: In cells, or None where the law is not local.
        vacuum_stable: Whether a step maps vacuum to vacuum.
        training_grid: [H, W].
        initial_state: Where training started from.
        noise: Channel and highest level of the training.
        seed: Seed of the training.
        run_id: MLflow run, or None.
        git_commit: Commit of the training, or None.
        torch_version: What wrote the file.
    """

    schema: Annotated[int, Field(ge=1, le=VERSION)]
    law: str
    config: dict[str, Any]
    d_state: Components
    stride: Annotated[int, Field(ge=1, le=4096)]
    has_memory: bool
    physics: PhysicsConfig
    receptive_radius: Annotated[int, Field(ge=0, lt=2**31)] | None
    vacuum_stable: bool
    training_grid: Grid
    initial_state: InitialStateConfig
    noise: dict[str, str | float]
    seed: Seed
    run_id: str | None
    git_commit: str | None
    torch_version: str

    def to_json(self) -> str:
        """The text of ``atheria.json``."""
        return json.dumps(asdict(self), indent=2) + "\n"


def script(law: nn.Module) -> torch.jit.ScriptModule:
    """The law in TorchScript, in evaluation mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted: torch.jit.ScriptModule = torch.jit.script(law.eval())
        return scripted


def write(path: Path, scripted: torch.jit.ScriptModule, description: Description) -> None:
    """Writes the artifact, whole or not at all."""
    extra = {DESCRIPTION_NAME: description.to_json()}
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(scripted, content, _extra_files=extra)
    atomically(path, lambda file: file.write_bytes(content.getvalue()))  # torch's aborts on a full disk


def read_description(path: str | os.PathLike[str]) -> Description | None:
    """What an artifact says of itself; None for TorchScript without a description.

    Raises:
        UserError: The file is missing or damaged, or its description is not as it must be.
    """
    file = Path(path)
    verify_zip(file, "a TorchScript file (.pt)")
    with zipfile.ZipFile(file) as archive:
        if not any(info.filename.endswith("/constants.pkl") for info in archive.infolist()):
            raise UserError(
                f"'{file}' is a checkpoint or a pickled module, no TorchScript. Export a checkpoint: "
                "python -m atheria.export checkpoint=PATH; a module: torch.jit.script(module).save(PATH)"
            )
        found = [info for info in archive.infolist() if info.filename.endswith(f"/extra/{DESCRIPTION_NAME}")]
        if not found:
            return None
        if found[0].file_size > _LONGEST_DESCRIPTION:
            raise UserError(f"'{file}': its {DESCRIPTION_NAME} is longer than a description can be")
        text = archive.read(found[0])
    try:
        description = validate(Description, json.loads(text), at=DESCRIPTION_NAME)
        _check_size(description)
        return description
    except (UserError, ValueError, RecursionError) as error:
        raise UserError(f"'{file}' has a description that cannot be used: {error}") from None


def described(law: Path) -> Description:
    """What an artifact says of itself.

    Raises:
        UserError: As `read_description`; or it says nothing.
    """
    description = read_description(law)
    if description is None:
        raise UserError(
            f"'{law}' does not describe itself; export its checkpoint anew with python -m atheria.export, or "
            "load it in Python: atheria_core.Engine(d_state=...).load_model(path)"
        )
    return description


def loading_arguments(description: Description | None, physics: PhysicsConfig) -> dict[str, Any]:
    """What the extension's ``Engine._load_model`` is given beside the file."""
    grid = description and (description.training_grid[0], description.training_grid[1])
    return {
        "d_state": description and description.d_state,
        "receptive_radius": description and description.receptive_radius,
        "training_grid": grid,
        **asdict(physics),
    }


def as_checkpoint(path: Path) -> dict[str, Any]:
    """An artifact's weights and description, in the keys of a checkpoint.

    Raises:
        UserError: The file is no artifact that describes itself.
    """
    description = described(path)
    proven.check(path, None, loading_arguments(description, description.physics))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return {
        "model_state_dict": scripted.state_dict(),
        "run_id": description.run_id,
        "config": {
            "model": {"name": description.law, **description.config},
            "physics": asdict(description.physics),
            "trainer": {"grid": description.training_grid},
            "noise": description.noise,
            "initial_state": asdict(description.initial_state),
            "seed": description.seed,
        },
    }


def _check_size(description: Description) -> None:
    """Raises UserError where the universe that is described is none that a law was trained on."""
    height, width = description.training_grid
    numbers = 2 * description.d_state * height * width
    if numbers > _LARGEST_UNIVERSE:
        raise UserError(
            f"`training_grid` {height} x {width} with `d_state` {description.d_state} is {numbers} numbers, "
            f"more than the {_LARGEST_UNIVERSE} of the largest universe that is started unasked"
        )


def physics_of(description: Description | None, changes: Mapping[str, Any]) -> PhysicsConfig:
    """The physics to roll a law out with.

    Args:
        description: The artifact's, or None for a plain file, which has PHYSICS' defaults.
        changes: Values to use instead.

    Raises:
        UserError: A key or a value is wrong, or the boundary of an artifact would change.
    """
    physics = description.physics if description else DEFAULT_PHYSICS
    if not isinstance(changes, Mapping):
        raise UserError(f"`physics` must be a mapping, as {{'gamma': 0.1}}, got {changes!r}")
    changed = validate(PhysicsConfig, {**asdict(physics), **changes}, at="physics")
    if description and changed.boundary != physics.boundary:
        raise UserError(
            f"`physics.boundary` is baked into the law as '{physics.boundary}', got '{changed.boundary}'; "
            f"keep it: physics.boundary={physics.boundary}, or export the law anew for '{changed.boundary}'"
        )
    return changed
