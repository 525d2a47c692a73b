"""Initial states, drawn with the counter-based generator; the engine makes the same fields.

``soup``: each cell is occupied with probability `density`. ``random``: every cell is. ``particles``:
`count` single cells. ``gaussian``: one state under a bell of standard deviation `width` (of the
energy), at the centre. ``zeros``: vacuum. ``file``: read from `path`, its universes in turn. Where it is
drawn, an occupied cell is in a uniformly random state of norm 1.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atheria.config import InitialStateConfig, UserError
from atheria.philox import INITIAL_STATE, Draws, Lattice

_PLACE = INITIAL_STATE
_STATE = INITIAL_STATE + 1


def make(
    config: InitialStateConfig,
    d_state: int,
    lattice: Lattice,
    seed: int,
    step: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The field at the start: (B, 2d, H, W) on the lattice's device.

    Args:
        config: Which kind.
        d_state: Complex components of a cell.
        lattice: Universes and grid.
        seed: Key of the random numbers.
        step: Their counter; training counts episodes here, the engine's `reset` uses 0.
        dtype: float32 or float64, which the same states are rounded to.

    Raises:
        UserError: A file does not hold a field of that shape.
    """
    shape = (lattice.universes, 2 * d_state, lattice.height, lattice.width)
    match config.kind:
        case "zeros":
            return torch.zeros(shape, dtype=dtype, device=lattice.device)
        case "random":
            return random_states(d_state, lattice, seed, step, dtype)
        case "soup":
            occupied = Draws(seed, lattice, step, _PLACE).uniform(1)[0] < config.density
            return random_states(d_state, lattice, seed, step, dtype) * occupied.unsqueeze(1)
        case "particles":
            return _particles(config.count, d_state, lattice, seed, step, dtype)
        case "gaussian":
            return _gaussian(config.width, d_state, lattice, seed, step).to(dtype)
        case "file":
            return _from_file(config.path, shape, lattice.first).to(lattice.device, dtype)


def random_states(
    d_state: int, lattice: Lattice, seed: int, step: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A uniformly random state of norm 1 in every cell: (B, 2d, H, W)."""
    re, im = Draws(seed, lattice, step, _STATE).complex_normal(d_state)
    norm = torch.sqrt((re.square() + im.square()).sum(dim=0))
    return torch.cat([re / norm, im / norm]).transpose(0, 1).to(dtype).contiguous()


def _particles(
    count: int, d_state: int, lattice: Lattice, seed: int, step: int, dtype: torch.dtype
) -> Tensor:
    """Particle k is drawn at the counter (k, 0); a later one replaces an earlier one in its cell."""
    row = Lattice(lattice.universes, 1, count, lattice.device, lattice.first)
    words = Draws(seed, row, step, _PLACE).words(2)[:, :, 0]
    x, y = (words[0] * lattice.width) >> 32, (words[1] * lattice.height) >> 32
    states = random_states(d_state, row, seed, step, dtype)[:, :, 0]
    shape = (lattice.universes, 2 * d_state, lattice.height, lattice.width)
    psi = torch.zeros(shape, dtype=dtype, device=lattice.device)
    universe = torch.arange(lattice.universes, device=lattice.device)
    for k in range(count):
        psi[universe, :, y[:, k], x[:, k]] = states[:, :, k]
    return psi


def _gaussian(width: float, d_state: int, lattice: Lattice, seed: int, step: int) -> Tensor:
    """float64."""
    one_cell = Lattice(lattice.universes, 1, 1, lattice.device, lattice.first)
    re, im = Draws(seed, one_cell, step, _STATE).complex_normal(d_state)
    state = torch.cat([re, im]) / torch.sqrt((re.square() + im.square()).sum(dim=0))
    y = torch.arange(lattice.height, device=lattice.device).double() - lattice.height // 2
    x = torch.arange(lattice.width, device=lattice.device).double() - lattice.width // 2
    envelope = torch.exp(-(y.square()[:, None] + x.square()[None, :]) / (4 * width**2))
    return state.transpose(0, 1) * envelope


def existing(path: str | None) -> Path:
    """The file of an initial state.

    Raises:
        UserError: None is named, or it is not there.
    """
    if path is None:
        raise UserError("`initial_state.path` must name a .npy or .npz file; give it: initial_state.path=...")
    if not Path(path).is_file():
        raise UserError(
            f"`initial_state.path` must name a .npy or .npz file, got '{path}', which is not there"
        )
    return Path(path)


def _from_file(path: str | None, shape: tuple[int, int, int, int], first: int) -> Tensor:
    try:
        content = np.load(existing(path), allow_pickle=False)
    except (ValueError, OSError) as error:
        raise UserError(f"`initial_state.path`: '{path}' cannot be read: {error}") from None
    array = content if isinstance(content, np.ndarray) else content.get("psi")
    if array is None and "coordinates" in content:
        raise UserError(
            f"`initial_state.path`: '{path}' holds the cells of an unbounded universe; "
            "set grid=unbounded, which rollouts take, or give the file of a field on a grid"
        )
    _, *cell_shape = shape
    if array is None or array.dtype != np.float32 or [*array.shape[1:]] != cell_shape or len(array) == 0:
        got = "no field `psi`" if array is None else f"{array.dtype} {array.shape}"
        raise UserError(
            f"`initial_state.path`: the field must be float32 (B, {', '.join(map(str, cell_shape))}), "
            f"got {got} in '{path}'; set the grid to the file's, and take a file of the law's `d_state`"
        )
    return torch.from_numpy(array[(first + np.arange(shape[0])) % len(array)])
