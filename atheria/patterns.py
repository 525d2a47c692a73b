"""What the density of energy looks like: its symmetry, its complexity, its spectrum.

With rho(x) the energy of a cell, N its sum, p = rho / N and M the number of cells. Every function takes a
finite psi (B, 2d, H, W) and returns float64 (B,) unless said; without energy it is 0.
"""

import math
import zlib

import torch
from torch import Tensor

from atheria.field import energy_density, modulus, total_energy
from atheria.probability import entropy, ratio
from atheria.symmetries import grid_symmetries

LEVELS = 256
"""Levels that rho is quantised to before it is compressed."""

UNIFORM = 1e-12
"""A relative variance of rho below this is float32's rounding: the density has no pattern."""


def symmetry_scores(psi: Tensor) -> dict[str, Tensor]:
    """1 - || |psi| - g|psi| ||^2 / (2 ||psi||^2) for each g of D4 but the identity: 0 to 1 (symmetric).

    |psi| is taken component by component. A grid that is not square has no quarter turns and no diagonals:
    they are left out.
    """
    amplitude = modulus(psi.double(), floor=0.0)
    energy = total_energy(psi.double())
    # g keeps the norm, so the square opens to <|psi|, g|psi|> / ||psi||^2.
    return {
        name: ratio((amplitude * act(amplitude)).sum(dim=(1, 2, 3)), energy)
        for name, act in grid_symmetries(*psi.shape[-2:]).items()
    }


def symmetry_score(psi: Tensor) -> Tensor:
    """The mean of `symmetry_scores` over the elements that the grid has, from 0 to 1."""
    return torch.stack([*symmetry_scores(psi).values()]).mean(dim=0)


def zlib_complexity(psi: Tensor) -> Tensor:
    """Bytes of rho in zlib over its raw bytes, one a cell: near 0 for a plain density, near 1 for noise.

    rho is rounded to 256 levels from 0 to its largest value, and compressed row by row at level 9. zlib's
    header weighs on small grids and can lift the ratio above 1. (Compression as a bound on Kolmogorov
    complexity: Zenil, 2010.)
    """
    rho = energy_density(psi.double())
    highest = rho.amax(dim=(1, 2), keepdim=True)
    levels = ((LEVELS - 1) * ratio(rho, highest)).round().to(torch.uint8).cpu().numpy()
    sizes = [len(zlib.compress(universe.tobytes(), 9)) / universe.size for universe in levels]
    return torch.tensor(sizes, dtype=rho.dtype, device=rho.device) * (highest[:, 0, 0] > 0)


def lmc_complexity(psi: Tensor) -> Tensor:
    """C = (S / ln M) sum (p - 1/M)^2 with S the position entropy: 0 for a uniform field and for one cell.

    Order times disequilibrium (Lopez-Ruiz, Mancini & Calbet, 1995); below 1.
    """
    rho = energy_density(psi.double())
    p = ratio(rho, rho.sum(dim=(1, 2), keepdim=True))
    cells = rho[0].numel()
    order = entropy(p, dim=(1, 2)) / math.log(max(cells, 2))
    return order * (p - 1 / cells).square().sum(dim=(1, 2))


def spectral_entropy(psi: Tensor) -> Tensor:
    """Entropy of |FFT rho|^2 over the modes but the zero mode, normalised: 0 to 1 (all modes alike).

    Divided by ln(M - 1) (Powell & Percival, 1979). A uniform density has no spectrum and gives 0.
    """
    power = _power(psi).flatten(start_dim=1)
    mean, modes = power[:, 0], power[:, 1:]
    total = modes.sum(dim=1)
    p = ratio(modes, total[:, None])
    patterned = total > UNIFORM * mean
    return torch.where(patterned, entropy(p, dim=1) / math.log(max(modes.shape[1], 2)), 0.0)


def structure_factor(psi: Tensor) -> tuple[Tensor, Tensor]:
    """|FFT rho|^2 averaged over the modes of alike wave number.

    Shell n holds the modes whose wave number times max(H, W) rounds to n; those beyond the Nyquist
    frequency of the longer axis, in the corners of the Fourier square, are left out. Shell 0 is N^2.

    Returns:
        The shells' wave numbers in cycles per cell, float64 (K,), 0 to 1/2, with
        K = max(H, W) // 2 + 1; and the averages in energy^2, float64 (B, K).
    """
    power = _power(psi)
    _, height, width = power.shape
    longest = max(height, width)
    y, x = (torch.fft.fftfreq(n, dtype=power.dtype, device=power.device) for n in (height, width))
    shell = (longest * torch.hypot(y[:, None], x[None, :])).round().long().flatten()
    inside = shell <= longest // 2
    shell, power = shell[inside], power.flatten(start_dim=1)[:, inside]
    count = longest // 2 + 1
    modes = torch.bincount(shell, minlength=count)
    totals = power.new_zeros(len(power), count).index_add_(1, shell, power)
    wave_numbers = torch.arange(count, dtype=power.dtype, device=power.device) / longest
    return wave_numbers, totals / modes


def _power(psi: Tensor) -> Tensor:
    """|FFT rho|^2: (B, H, W)."""
    rho = energy_density(psi.double())
    power: Tensor = torch.fft.fft2(rho).abs().square()
    return power
