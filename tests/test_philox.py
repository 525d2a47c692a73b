import torch
from hypothesis import given
from hypothesis import strategies as st

from atheria.philox import Draws, Lattice, native_words, philox, to_uniform
from atheria.philox import words as torch_words

CPU = torch.device("cpu")
WORD = st.integers(0, 2**32 - 1)


def words(counter: tuple[int, int, int, int], key: int) -> list[int]:
    return philox(tuple(torch.tensor(c) for c in counter), key).tolist()


def test_known_answers_of_the_reference_implementation() -> None:
    # kat_vectors of Random123: philox4x32, 10 rounds.
    assert words((0, 0, 0, 0), 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 0xFFFFFFFF
    assert words((ones,) * 4, 2**64 - 1) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert words((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0x299F31D0_A4093822) == [
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    ]


LATTICES = st.builds(
    Lattice,
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 70),
    st.just(CPU),
    st.sampled_from([0, 2**24 - 3]),
)


@given(st.integers(0, 2**64 - 1), LATTICES, st.integers(0, 2**40), st.integers(0, 1000), st.integers(1, 17))
def test_the_extension_draws_the_words_of_torch(
    seed: int, lattice: Lattice, step: int, first_word: int, count: int
) -> None:
    native = native_words(seed, lattice, step, first_word, count)
    assert torch.equal(native, torch_words(seed, lattice, step, first_word, count))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31), st.integers(0, 200))
def test_a_number_depends_on_its_place_alone(seed: int, step: int, stream: int) -> None:
    """The same universe, alone or in a batch, on a small or a large grid."""
    whole = Draws(seed, Lattice(3, 4, 5, CPU), step, stream).words(6)
    alone = Draws(seed, Lattice(1, 2, 3, CPU, first=2), step, stream).words(6)
    assert torch.equal(whole[:, 2:, :2, :3], alone)


def test_draws_read_words_in_order() -> None:
    lattice = Lattice(1, 2, 2, CPU)
    at_once = Draws(7, lattice, 0, 0).words(9)
    draws = Draws(7, lattice, 0, 0)
    assert torch.equal(at_once, torch.cat([draws.words(1), draws.words(6), draws.words(2)]))


@given(WORD)
def test_uniform_is_below_one_and_exact(word: int) -> None:
    value = to_uniform(torch.tensor(word)).item()
    assert 0 <= value < 1
    assert value * 2**24 == word >> 8


def test_normals_have_the_moments_of_normals() -> None:
    re, im = Draws(3, Lattice(1, 200, 200, CPU), 0, 0).complex_normal(2)
    sample = torch.cat([re, im]).flatten()
    standard_error = sample.numel() ** -0.5
    assert abs(sample.mean()) < 5 * standard_error
    assert abs(sample.var() - 1) < 5 * standard_error * 2**0.5
    assert abs((re * im).mean()) < 5 * standard_error * 2**0.5
