import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atheria.pool import LARGEST_WOUND, SMALLEST_WOUND, Pool


def pool_of(universes: int, side: int = 16) -> Pool:
    initial = torch.ones(universes, 2, side, side) * torch.arange(1.0, universes + 1)[:, None, None, None]
    return Pool.fresh(initial, torch.zeros(universes, 1, 4, 4))


@given(st.integers(1, 40), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_a_sample_holds_different_universes(count: int, seed: int, episode: int) -> None:
    places = pool_of(40, side=1).sample(count, seed, episode)
    assert len(places.unique()) == count
    assert places.min() >= 0
    assert places.max() < 40


def test_every_universe_is_sampled_equally_often() -> None:
    pool = pool_of(10, side=1)
    counts = torch.zeros(10)
    for episode in range(2000):
        counts[pool.sample(3, seed=1, episode=episode)] += 1
    assert (counts / 2000 - 0.3).abs().max() < 4 * (0.3 * 0.7 / 2000) ** 0.5


def test_a_batch_is_a_copy_and_comes_back_to_its_places() -> None:
    pool = pool_of(6)
    places = torch.tensor([4, 1])
    batch = pool.take(places)
    batch.psi.zero_()
    assert pool.psi.min() == 1
    pool.put(places, Pool(batch.initial, batch.psi - 1, batch.memory + 7, torch.tensor([0.5, 0.25])))
    assert pool.psi[:, 0, 0, 0].tolist() == [1, -1, 3, 4, -1, 6]
    assert pool.memory[:, 0, 0, 0].tolist() == [0, 7, 0, 0, 7, 0]
    assert pool.loss[[1, 4]].tolist() == [0.25, 0.5]
    assert pool.initial[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5, 6]


def test_damage_empties_a_disk_in_the_best_that_have_been_rolled_out() -> None:
    pool = pool_of(5, side=64)
    pool.loss.copy_(torch.tensor([3.0, 1.0, -torch.inf, 2.0, 9.0]))
    pool.damage(2, seed=3, episode=1, torus=True)
    emptied = (pool.psi == 0).all(dim=1).flatten(1).sum(dim=1)
    assert (emptied > 0).tolist() == [False, True, False, True, False]
    for cells in emptied[[1, 3]].tolist():
        radius = (cells / torch.pi) ** 0.5
        assert 64 * SMALLEST_WOUND - 1 <= radius <= 64 * LARGEST_WOUND + 1
    assert pool.initial.min() == 1  # where it began is not damaged


def test_damage_wraps_on_a_torus_alone() -> None:
    def touches_all_edges(torus: bool) -> bool:
        for episode in range(200):
            pool = pool_of(1, side=32)
            pool.loss.zero_()
            pool.damage(1, seed=0, episode=episode, torus=torus)
            hole = pool.psi[0, 0] == 0
            if hole[0].any() and hole[-1].any() and not hole[16].any():
                return True
        return False

    assert touches_all_edges(torus=True)
    assert not touches_all_edges(torus=False)


def test_its_state_is_complete() -> None:
    pool = pool_of(3)
    pool.loss[1] = 2.0
    again = Pool.from_state_dict(pool.state_dict())
    for name, tensor in pool.state_dict().items():
        assert torch.equal(tensor, getattr(again, name))
    assert Pool.from_state_dict(Pool.fresh(pool.initial, None).state_dict()).memory is None


@pytest.mark.parametrize("count", [0, 5])
def test_fresh_universes_are_never_damaged(count: int) -> None:
    pool = pool_of(4)
    pool.damage(count, seed=0, episode=0, torus=True)
    assert torch.equal(pool.psi, pool.initial)
