"""What the components of a cell are to each other, and to those of the cells beside it.

psihat = psi(x) / ||psi(x)||. psi is a classical complex field, or one particle's amplitude, not a
many-body state: nothing here is entanglement. Every function takes a finite psi (B, 2d, H, W) and returns
float64 (B,) unless said; without energy it is 0, and local things are means over occupied cells.
"""

import torch
from torch import Tensor

from atheria.field import energy_density, modulus, to_complex
from atheria.probability import entropy, mean_where, ratio


def local_entropy(psi: Tensor) -> Tensor:
    """Mean of -sum_i |psihat_i|^2 ln |psihat_i|^2: 0 (one component) to ln d (all alike)."""
    psi = psi.double()
    rho = energy_density(psi)
    p = ratio(modulus(psi, floor=0.0).square(), rho.unsqueeze(1))
    return mean_where(entropy(p, dim=1), rho > 0)


def l1_coherence(psi: Tensor) -> Tensor:
    """Mean of (sum_i |psihat_i|)^2 - 1, from 0 to d - 1.

    The sum of the moduli off the diagonal of psihat psihat^dagger (Baumgratz, Cramer & Plenio, 2014).
    """
    psi = psi.double()
    rho = energy_density(psi)
    return mean_where(ratio(modulus(psi, floor=0.0).sum(dim=1).square(), rho) - 1, rho > 0)


def reduced_state(psi: Tensor) -> Tensor:
    """The state of the components, the place traced out: sigma = sum_x psi(x) psi(x)^dagger / N.

    Returns:
        complex128 (B, d, d), Hermitian, of trace 1; zeros for a universe without energy.
    """
    amplitudes = to_complex(psi.double()).flatten(start_dim=2)
    sigma = amplitudes @ amplitudes.mH
    energy = sigma.diagonal(dim1=1, dim2=2).real.sum(dim=1)
    return sigma / torch.where(energy == 0, 1.0, energy)[:, None, None]


def von_neumann_entropy(sigma: Tensor) -> Tensor:
    """-tr sigma ln sigma of a reduced state (B, d, d): 0 (pure) to ln d (maximally mixed); von Neumann, 1932.

    It says how differently polarised the cells are, weighted by their energy.
    """
    shares = torch.linalg.eigvalsh(sigma).clamp_min(0)  # rounding leaves some at -1e-17
    return entropy(shares, dim=1)


def purity(sigma: Tensor) -> Tensor:
    """The trace of sigma^2 of a reduced state (B, d, d): 1/d (maximally mixed) to 1 (pure)."""
    return sigma.abs().square().sum(dim=(1, 2))


def neighbour_coherence(psi: Tensor, torus: bool) -> tuple[Tensor, Tensor]:
    """Means over neighbouring occupied pairs of |<psihat(x)|psihat(x+e)>| and of its real part.

    e is one cell along y or x. The modulus, 0 to 1, does not see a cell's phase; the real part, -1 to 1,
    does, and so is what sign flips touch. Both are 0 where no two neighbours are occupied.

    Args:
        psi: (B, 2d, H, W).
        torus: Whether the cells of opposite edges are neighbours.
    """
    amplitudes = to_complex(psi.double()).unbind(dim=1)
    norm = energy_density(psi.double()).sqrt()
    modulus_sum = real_sum = pairs = torch.zeros_like(norm[:, 0, 0])
    for axis in (-2, -1):
        size = norm.shape[axis]
        if size == 1:
            continue  # no cell is its own neighbour
        count = size if torus else size - 1
        overlap = torch.zeros_like(amplitudes[0]).narrow(axis, 0, count)
        for component in amplitudes:
            overlap += (component.conj() * component.roll(-1, axis)).narrow(axis, 0, count)
        norms = (norm * norm.roll(-1, axis)).narrow(axis, 0, count)
        modulus_sum = modulus_sum + ratio(overlap.abs(), norms).sum(dim=(1, 2))
        real_sum = real_sum + ratio(overlap.real, norms).sum(dim=(1, 2))
        pairs = pairs + (norms > 0).sum(dim=(1, 2))
    return ratio(modulus_sum, pairs), ratio(real_sum, pairs)
