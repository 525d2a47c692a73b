from pathlib import Path

import numpy as np
import pytest
import torch

from atheria import initial_state
from atheria.config import InitialStateConfig, UserError
from atheria.field import energy_density
from atheria.philox import Lattice

LATTICE = Lattice(3, 32, 48, torch.device("cpu"))


def make(kind: str, **options: float) -> torch.Tensor:
    return initial_state.make(InitialStateConfig(kind=kind, **options), 3, LATTICE, seed=11)


@pytest.mark.parametrize(("kind", "share"), [("random", 1.0), ("soup", 0.3), ("zeros", 0.0)])
def test_occupied_cells_have_norm_one(kind: str, share: float) -> None:
    rho = energy_density(make(kind, density=0.3))
    occupied = rho > 0
    assert abs(occupied.float().mean() - share) < 4 * (0.25 / rho.numel()) ** 0.5
    torch.testing.assert_close(rho[occupied], torch.ones_like(rho[occupied]))


def test_particles_are_as_many_as_asked_for() -> None:
    occupied = (energy_density(make("particles", count=5)) > 0).sum(dim=(1, 2))
    assert occupied.tolist() == [5, 5, 5]


def test_a_gaussian_has_its_width() -> None:
    rho = energy_density(make("gaussian", width=3.0))[0]
    x = torch.arange(48) - 24
    variance = (rho.sum(dim=0) * x**2).sum() / rho.sum()
    assert variance.item() == pytest.approx(9, rel=1e-3)
    assert rho[16, 24].item() == pytest.approx(1)


def test_universes_and_steps_differ() -> None:
    soup = make("soup")
    assert not torch.equal(soup[0], soup[1])
    later = initial_state.make(InitialStateConfig(kind="soup"), 3, LATTICE, seed=11, step=1)
    assert not torch.equal(soup, later)


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    psi = np.random.default_rng(0).normal(size=(3, 6, 32, 48)).astype(np.float32)
    np.save(tmp_path / "psi.npy", psi)
    np.savez(tmp_path / "psi.npz", psi=psi)
    for name in ("psi.npy", "psi.npz"):
        config = InitialStateConfig(kind="file", path=str(tmp_path / name))
        assert np.array_equal(initial_state.make(config, 3, LATTICE, seed=0).numpy(), psi)
        more = Lattice(4, 32, 48, torch.device("cpu"))  # the universes of the file, in turn
        assert np.array_equal(initial_state.make(config, 3, more, seed=0)[3].numpy(), psi[0])
        part = Lattice(2, 32, 48, torch.device("cpu"), first=2)  # of a batch that is split
        assert np.array_equal(initial_state.make(config, 3, part, seed=0).numpy(), psi[[2, 0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must name a .npy or .npz file"),
        (b"text", "cannot be read"),
        (np.zeros((3, 6, 32, 48)), "must be float32 .*, got float64"),
        (np.zeros((0, 6, 32, 48), np.float32), r"got float32 \(0, 6, 32, 48\)"),
        (np.zeros((1, 4, 32, 48), np.float32), r"got float32 \(1, 4, 32, 48\)"),
    ],
)
def test_a_file_that_is_no_such_field_is_refused(tmp_path: Path, content, message: str) -> None:
    path = tmp_path / "psi.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(UserError, match=message):
        initial_state.make(InitialStateConfig(kind="file", path=str(path)), 3, LATTICE, seed=0)
