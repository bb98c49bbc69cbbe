"""The counter-based generator: known vectors of Random123, and what a draw may depend on."""

import numpy as np
import pytest

from ramify.kernels.sampling.philox import philox, round_keys, uniform

PI_COUNTER = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "seed", "words"),
    [
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ONES] * 4, -1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (PI_COUNTER, 0x299F31D0A4093822, [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ],
)
def test_the_known_answers_of_random123_are_reproduced(counter: list[int], seed: int, words: list[int]) -> None:
    answer = philox(np.array(counter, np.uint64)[:, None], round_keys(seed)[None])
    assert answer[:, 0].tolist() == words


def _draw(seeds: list[int], positions: np.ndarray, samples: np.ndarray) -> np.ndarray:
    return uniform(np.stack([round_keys(seed) for seed in seeds]), positions, samples)


def test_a_draw_is_the_same_alone_and_among_others() -> None:
    seeds, positions, samples = list(range(50)), np.arange(50) * 7, np.arange(50) % 3
    together = _draw(seeds, positions, samples)
    alone = [_draw(seeds[i : i + 1], positions[i : i + 1], samples[i : i + 1])[0] for i in range(50)]
    assert together.tolist() == alone


def test_seed_sample_index_and_position_each_change_the_draw() -> None:
    first, other_seed, other_position, other_sample = _draw([1, 2, 1, 1], np.array([5, 5, 6, 5]), np.array([0, 0, 0, 1]))
    assert len({first, other_seed, other_position, other_sample}) == 4


def test_draws_are_uniform_and_below_one() -> None:
    keys = np.repeat(round_keys(42)[None], 100_000, 0)
    numbers = uniform(keys, np.arange(100_000), np.zeros(100_000, np.int64))
    assert numbers.dtype == np.float32 and numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 160  # chi-square, 99 degrees of freedom: p is about 1e-4
