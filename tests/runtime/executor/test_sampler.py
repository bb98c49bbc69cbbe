"""From logits to tokens, against a naive sampler that handles one row in float64 and sorts."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ramify.kernels.native import load
from ramify.kernels.sampling.draw import REFERENCE_SAMPLING
from ramify.kernels.sampling.philox import round_keys, uniform
from ramify.kernels.table import choose
from ramify.runtime.config import kernel_cache
from ramify.runtime.executor.sampler import Draws, Sampler
from ramify.runtime.executor.sequence_table import SequenceTable
from ramify.runtime.plan import RowEntry

VOCAB = 300

MakeSampler = Callable[[list[RowEntry]], Sampler]


@pytest.fixture(params=["torch", "as chosen"])
def make(request: pytest.FixtureRequest) -> MakeSampler:
    """Samplers over a table of these rows."""
    ops = REFERENCE_SAMPLING if request.param == "torch" else choose("cpu", torch.float32, load(kernel_cache())).sampling

    def sampler(entries: list[RowEntry]) -> Sampler:
        table = SequenceTable(max_rows=64, max_pages=1, vocab=VOCAB, device=torch.device("cpu"))
        table.enter(entries)
        return Sampler(table, ops)

    return sampler


def _draws(rows: list[int], positions: list[int] | None = None, masked: list[bool] | None = None) -> Draws:
    n = len(rows)
    return Draws(
        which=np.arange(n),
        rows=np.array(rows, np.int32),
        positions=np.array(positions or [0] * n, np.int32),
        masked=np.array(masked or [False] * n),
    )


def _logits(rows: int, vocab: int = VOCAB, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 2


def _mask(allowed: list[int], vocab: int = VOCAB) -> np.ndarray:
    bits = np.zeros(-(-vocab // 32) * 32, np.uint8)
    bits[allowed] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)


def _naive(logits: np.ndarray, entry: RowEntry, position: int, allowed: list[int] | None) -> tuple[np.ndarray, float]:
    """Probabilities of one row, and the uniform number of its draw."""
    x = logits.astype(np.float64)
    for token, value in entry.logit_bias:
        x[token] += value
    history = [] if entry.history is None else entry.history.tolist()
    for token in set(history):
        x[token] = x[token] * entry.repetition_penalty if x[token] < 0 else x[token] / entry.repetition_penalty
    output = history[entry.num_prompt :]
    for token in set(output):
        x[token] -= entry.presence_penalty + entry.frequency_penalty * output.count(token)
    if position < entry.min_new_tokens:
        x[list(entry.stop_ids)] = -math.inf
    if allowed is not None:
        x[[i for i in range(len(x)) if i not in allowed]] = -math.inf
    if entry.temperature == 0:
        return np.eye(len(x))[x.argmax()], 0.5
    weights = np.exp((x - x.max()) / entry.temperature)
    order = sorted(range(len(x)), key=lambda i: (-weights[i], i))[: entry.top_k or None]
    mass, kept, before = weights[order].sum(), np.zeros(len(x)), 0.0
    for i in order:
        if (before == 0 or entry.top_p >= 1 or before < entry.top_p * mass) and weights[i] >= entry.min_p:
            kept[i] = weights[i]
        before += weights[i]
    number = uniform(round_keys(entry.seed)[None], np.array([position]), np.array([entry.sample_index]))[0]
    return kept / kept.sum(), float(number)


def _random_entry(row: int, rng: np.random.Generator) -> RowEntry:
    """Each parameter is on in about half of the rows."""

    def maybe(value: float, off: float) -> float:
        return value if rng.random() < 0.5 else off

    return RowEntry(
        row=row,
        temperature=maybe(float(rng.uniform(0.2, 2)), 0.0) if rng.random() < 0.5 else 1.0,
        top_p=maybe(float(np.float32(rng.uniform(0.3, 1))), 1.0),
        top_k=int(maybe(int(rng.integers(1, 60)), 0)),
        min_p=maybe(float(np.float32(rng.uniform(0, 0.3))), 0.0),
        presence_penalty=maybe(float(rng.uniform(-2, 2)), 0.0),
        frequency_penalty=maybe(float(rng.uniform(-2, 2)), 0.0),
        repetition_penalty=maybe(float(rng.uniform(0.5, 2)), 1.0),
        logit_bias=((int(rng.integers(VOCAB)), 3.0), (VOCAB - 1, -100.0)) if rng.random() < 0.5 else (),
        seed=int(rng.integers(2**63)),
        sample_index=int(rng.integers(4)),
        min_new_tokens=int(maybe(5, 0)),
        stop_ids=tuple(rng.integers(0, VOCAB, 3).tolist()),
        num_prompt=20,
        history=rng.integers(0, VOCAB, 50).astype(np.int32),
    )


@pytest.mark.parametrize("seed", range(8))
def test_every_combination_of_parameters_draws_what_the_naive_sampler_draws(make: MakeSampler, seed: int) -> None:
    rng = np.random.default_rng(seed)
    entries = [_random_entry(row, rng) for row in range(64)]
    positions = rng.integers(0, 10, 64).tolist()
    masked = (rng.random(64) < 0.4).tolist()
    allowed = [sorted(rng.choice(VOCAB, 40, replace=False).tolist()) if is_masked else None for is_masked in masked]
    masks = np.stack([_mask(ids) for ids in allowed if ids is not None])
    logits = _logits(64, seed=seed)
    tokens, bad = make(entries).draw(logits, _draws(list(range(64)), positions, masked), masks)
    assert not bad.any()
    for row, token in enumerate(tokens.tolist()):
        chances, number = _naive(logits[row].numpy(), entries[row], positions[row], allowed[row])
        assert chances[token] > 0
        upper = chances[: token + 1].sum()  # the draw must lie in the token's own piece of the running sum
        assert upper - chances[token] - 1e-5 <= number < upper + 1e-5


def test_many_draws_follow_the_distribution(make: MakeSampler) -> None:
    entry = RowEntry(row=0, temperature=0.7, top_k=40, top_p=0.95, seed=1)
    n, logits = 40_000, _logits(1)
    draws = Draws(np.zeros(n, np.int64), np.zeros(n, np.int32), np.arange(n, dtype=np.int32), np.zeros(n, np.bool_))
    tokens, _ = make([entry]).draw(logits, draws, None)
    chances, _ = _naive(logits[0].numpy(), entry, 0, None)
    counts = np.bincount(tokens.numpy(), minlength=VOCAB)
    likely = chances > 0
    assert counts[~likely].sum() == 0
    deviation = ((counts[likely] - n * chances[likely]) ** 2 / (n * chances[likely])).sum()
    freedom = likely.sum() - 1
    assert deviation < freedom + 4.5 * math.sqrt(2 * freedom)


def test_a_row_draws_the_same_alone_and_in_a_batch_bit_for_bit(make: MakeSampler) -> None:
    rng = np.random.default_rng(3)
    entries = [_random_entry(row, rng) for row in range(64)]
    sampler, logits = make(entries), _logits(64)
    together, _ = sampler.draw(logits, _draws(list(range(64)), list(range(64))), None)
    alone = [sampler.draw(logits[row : row + 1], _draws([row], [row]), None)[0].item() for row in range(64)]
    assert together.tolist() == alone


def test_a_seed_gives_the_same_tokens_in_another_row_and_after_a_pause(make: MakeSampler) -> None:
    logits, params = _logits(6), {"temperature": 1.0, "seed": 99}
    positions = list(range(6))
    first, _ = make([RowEntry(row=0, **params)]).draw(logits, _draws([0] * 6, positions), None)
    other = make([RowEntry(row=5, **params)])
    halves = [other.draw(logits[s], _draws([5] * 3, positions[s]), None)[0] for s in (slice(0, 3), slice(3, 6))]
    assert first.tolist() == torch.cat(halves).tolist()


def test_samples_of_one_request_differ_by_their_index_alone(make: MakeSampler) -> None:
    entries = [RowEntry(row=row, temperature=5.0, seed=7, sample_index=row) for row in range(8)]
    logits = _logits(1)
    draws = Draws(np.zeros(8, np.int64), np.arange(8, dtype=np.int32), np.zeros(8, np.int32), np.zeros(8, np.bool_))
    tokens, _ = make(entries).draw(logits, draws, None)
    assert len(set(tokens.tolist())) > 4


def test_temperature_zero_takes_the_lowest_id_of_equal_logits(make: MakeSampler) -> None:
    logits = torch.zeros(2, VOCAB)
    logits[0, [40, 80]] = 1.0
    tokens, _ = make([RowEntry(row=0)]).draw(logits, _draws([0, 0], masked=[False, True]), _mask([5, 6])[None])
    assert tokens.tolist() == [40, 5]


def test_top_k_of_one_is_greedy_at_any_temperature(make: MakeSampler) -> None:
    logits = _logits(50)
    draws = _draws([0] * 50, list(range(50)))
    tokens, _ = make([RowEntry(row=0, temperature=3.0, top_k=1)]).draw(logits, draws, None)
    assert tokens.tolist() == logits.argmax(-1).tolist()


def test_logits_that_are_not_numbers_spoil_their_own_row_only(make: MakeSampler) -> None:
    logits = _logits(5)
    good = [logits[3].argmax().item(), logits[4].argmax().item()]
    logits[0, 7], logits[1, 7], logits[2] = float("nan"), float("inf"), float("-inf")
    logits[3, 0] = float("-inf")
    for temperature in (0.0, 1e-4):
        sampler = make([RowEntry(row=row, temperature=temperature) for row in range(5)])
        tokens, bad = sampler.draw(logits, _draws(list(range(5))), None)
        assert bad.tolist() == [True, True, True, False, False]
        assert tokens.tolist() == [-1, -1, -1, *good]


def test_a_nan_that_the_grammar_forbids_is_bad_all_the_same(make: MakeSampler) -> None:
    logits = _logits(1)
    logits[0, 7] = float("nan")
    _, bad = make([RowEntry(row=0)]).draw(logits, _draws([0], masked=[True]), _mask([1, 2])[None])
    assert bad.tolist() == [True]


def test_a_mask_that_allows_nothing_spoils_its_own_row_only(make: MakeSampler) -> None:
    masks = np.stack([_mask([]), _mask([17])])
    for temperature in (0.0, 1.0):
        sampler = make([RowEntry(row=row, temperature=temperature) for row in range(3)])
        tokens, bad = sampler.draw(_logits(3), _draws([0, 1, 2], masked=[True, False, True]), masks)
        assert bad.tolist() == [True, False, False]
        assert tokens[0] == -1 and tokens[2] == 17


def test_a_row_forgets_its_predecessor(make: MakeSampler) -> None:
    logits = _logits(1)
    best = logits.argmax().item()
    sampler = make([RowEntry(row=0, logit_bias=((best, -100.0),), stop_ids=(best,), min_new_tokens=9)])
    history = np.array([best], np.int32)
    sampler.table.enter([RowEntry(row=0, repetition_penalty=9.0, history=history, num_prompt=1)])
    assert sampler.draw(logits, _draws([0]), None)[0].item() != best
    sampler.table.enter([RowEntry(row=0)])
    assert sampler.draw(logits, _draws([0]), None)[0].item() == best


def test_ids_outside_of_the_vocabulary_are_ignored(make: MakeSampler) -> None:
    logits = _logits(1)
    sampler = make([RowEntry(row=0, logit_bias=((VOCAB, 50.0), (-1, 50.0)), stop_ids=(VOCAB + 5,), min_new_tokens=3)])
    assert sampler.draw(logits, _draws([0]), None)[0].item() == logits.argmax().item()


def test_sampling_leaves_the_logits_as_they_were(make: MakeSampler) -> None:
    logits = _logits(2)
    before = logits.clone()
    entry = RowEntry(row=0, temperature=1.0, top_k=3, min_p=0.1, logit_bias=((1, 5.0),), stop_ids=(2,), min_new_tokens=3)
    make([entry]).draw(logits, _draws([0, 0], masked=[True, True]), np.stack([_mask([3, 4])] * 2))
    assert torch.equal(logits, before)
