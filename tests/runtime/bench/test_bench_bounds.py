"""Bounds are the sums that docs/performance.md writes down."""

from __future__ import annotations

import random

import pytest

from ramify.runtime.bench.bounds import Bounds, Limits, prefill_of, unique_tokens
from ramify.runtime.bench.checkpoints import SHAPES, Shape

SMALL = Shape("small", "Qwen3ForCausalLM", 8, 2, (2, 1), 4, 16, 32, 64, 1e6)
# A layer: q and o 8 x 8, k and v 4 x 8, three of 16 x 8: 576 parameters. The vocabulary: 32 x 8.
LAYERS, VOCAB = 1152, 256


def bounds(bandwidth: float = 1.0, flops: float = 1.0) -> Bounds:
    return Bounds(SMALL, Limits(bandwidth, flops))


def random_prompts(seed: int) -> list[tuple[int, ...]]:
    """Over three ids, so that beginnings coincide."""
    draw = random.Random(seed)
    return [tuple(draw.randrange(3) for _ in range(draw.randrange(1, 9))) for _ in range(draw.randrange(1, 12))]


def test_sizes_follow_from_the_shape() -> None:
    assert (SMALL.layer_parameters, SMALL.vocab_parameters, SMALL.kv_bytes_token) == (LAYERS, VOCAB, 2 * 2 * 1 * 4 * 2)
    assert SHAPES["Qwen2.5-0.5B"].layer_parameters == 357_826_560
    assert SHAPES["Qwen2.5-0.5B"].vocab_parameters == 151_936 * 896


def test_a_decode_reads_weights_and_unique_tokens_once() -> None:
    starved = bounds(bandwidth=1.0, flops=1e12)
    assert starved.decode_s(4, unique=10, contexts=40) == pytest.approx(2 * (LAYERS + VOCAB) + 32 * 10)
    quantized = Bounds(SMALL, Limits(1.0, 1e12), weight_bytes=1.0)
    assert quantized.decode_s(4, unique=10, contexts=40) == pytest.approx(LAYERS + VOCAB + 32 * 10)


def test_a_decode_multiplies_for_every_row_and_every_token_it_sees() -> None:
    slow = bounds(bandwidth=1e12, flops=1.0)
    assert slow.decode_s(4, unique=10, contexts=40) == pytest.approx(2 * 4 * (LAYERS + VOCAB) + 4 * 2 * 2 * 4 * 40)


def test_a_prompt_in_two_parts_costs_as_much_as_whole() -> None:
    one = bounds()
    assert one.prefill_s(30, heads=1) == pytest.approx(one.prefill_s(10, heads=0) + one.prefill_s(20, 10, heads=1))
    assert one.prefill_s(30) == pytest.approx(2 * LAYERS * 30 + 2 * VOCAB + 4 * 2 * 2 * 4 * 30 * 30 / 2)


def test_steps_see_one_token_more_each() -> None:
    one = bounds(bandwidth=1e3)
    by_hand = one.decode_s(2, 13, 14) + one.decode_s(2, 15, 16)
    assert one.decoding_s([5, 7], 11, 2) == pytest.approx(by_hand)


@pytest.mark.parametrize("seed", range(40))
def test_unique_tokens_are_the_different_beginnings(seed: int) -> None:
    prompts = random_prompts(seed)
    assert unique_tokens(prompts) == len({prompt[:end] for prompt in prompts for end in range(1, len(prompt) + 1)})


@pytest.mark.parametrize("seed", range(10))
def test_a_prompt_that_an_earlier_one_begins_with_costs_its_logits_alone(seed: int) -> None:
    prompts, one = random_prompts(seed), bounds()
    again = prefill_of(one, [*prompts, prompts[0]]) - prefill_of(one, prompts)
    assert again == pytest.approx(2 * VOCAB)


def test_the_machines_rates_are_those_of_a_machine() -> None:
    from ramify.runtime.bench import machine

    found = machine.limits(quick=True)
    assert 1e8 < found.bandwidth < 1e13 and 1e8 < found.flops < 1e16
