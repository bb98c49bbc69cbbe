"""Sampling in C++ draws the tokens of the reference, on every set of instructions and with any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ramify.kernels import native
from ramify.kernels.sampling import reference as ops
from ramify.kernels.sampling.draw import REFERENCE_SAMPLING
from ramify.kernels.sampling.interface import Draws, Edits, Penalties, Sampling
from ramify.kernels.sampling.native import native_sampling
from ramify.runtime.config import kernel_cache

LOADED = native.load(kernel_cache())
if not LOADED.available:
    pytest.skip(LOADED.reason, allow_module_level=True)

LEVELS = range(torch.ops.ramify.best_level() + 1)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@pytest.fixture(params=LEVELS)
def sampling(request: pytest.FixtureRequest) -> Sampling:
    return native_sampling(request.param)


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _logits(rows: int, vocab: int, rng: np.random.Generator, dtype: torch.dtype) -> torch.Tensor:
    """Rows from flat to sure of themselves, and some with many equal logits."""
    spread = rng.choice([0.0, 0.1, 1, 3, 8, 40], rows)
    logits = rng.standard_normal((rows, vocab)) * spread[:, None]
    logits[rng.random((rows, vocab)) < 0.05] = -np.inf
    coarse = rng.random(rows) < 0.3
    logits[coarse] = np.round(logits[coarse])
    logits[:, rng.integers(vocab)] = 0
    return torch.from_numpy(logits).to(dtype)


def _edits(n: int, vocab: int, rng: np.random.Generator) -> Edits:
    bias = [rng.choice(vocab, rng.integers(0, min(vocab, 4)), replace=False) if rng.random() < 0.3 else [] for _ in range(n)]
    bans = [rng.integers(0, vocab, 3) if rng.random() < 0.3 else [] for _ in range(n)]
    masked = rng.random(n) < 0.4
    mask_words = max(1, vocab // 32 - int(rng.integers(0, 2)))
    masks = rng.integers(-(2**31), 2**31, (max(1, masked.sum()), mask_words)).astype(np.int32)
    masks[rng.random(masks.shape) < 0.3] = 0
    masks[rng.random(masks.shape) < 0.3] = -1
    counts = torch.from_numpy(rng.integers(0, 4, (3, vocab)).astype(np.int32) * (rng.random((3, vocab)) < 0.1).astype(np.int32))
    penalties = Penalties(
        place=rng.integers(-3, 3, n).clip(-1),
        counts=counts,
        in_prompt=torch.from_numpy(rng.random((3, vocab)) < 0.1),
        strengths=np.stack([rng.uniform(-2, 2, n), rng.uniform(-2, 2, n), rng.uniform(0.5, 2, n)]).astype(np.float32),
    )
    return Edits(
        bias_end=np.cumsum([len(ids) for ids in bias]),
        bias_ids=np.concatenate([*bias, []]).astype(np.int64),
        bias_values=rng.uniform(-5, 5, sum(map(len, bias))).astype(np.float32),
        banned_end=np.cumsum([len(ids) for ids in bans]),
        banned_ids=np.concatenate([*bans, []]).astype(np.int64),
        penalties=penalties if rng.random() < 0.7 else None,
        mask=np.where(masked, np.cumsum(masked) - 1, -1),
        masks=masks if masked.any() else None,
    )


def _draws(n: int, rows: int, vocab: int, rng: np.random.Generator, edits: Edits | None) -> Draws:
    def some(value: np.ndarray, off: float, share: float = 0.5) -> np.ndarray:
        return np.where(rng.random(n) < share, value, off)

    edited = np.zeros(n, np.bool_)
    if edits is not None:
        edited = (np.diff(edits.bias_end, prepend=0) > 0) | (np.diff(edits.banned_end, prepend=0) > 0) | (edits.mask >= 0)
        edited |= edits.penalties.place >= 0 if edits.penalties is not None else False
    return Draws(
        which=rng.integers(0, rows, n),
        temperature=some(rng.choice([1e-5, 0.3, 1, 2, 50], n), 0, 0.8).astype(np.float32),
        top_k=some(rng.choice([1, 2, 40, 1000, vocab, vocab + 5], n), 0).astype(np.int64),
        top_p=some(rng.choice([0.0, 0.01, 0.5, 0.9, 0.97, 0.9999999], n), 1).astype(np.float32),
        min_p=some(rng.choice([1e-4, 0.05, 0.9, 1.0], n), 0, 0.3).astype(np.float32),
        uniform=np.where(rng.random(n) < 0.1, 1 - 2.0**-24, rng.random(n)).astype(np.float32) * (rng.random(n) > 0.1),
        edited=edited,
        edits=edits,
    )


@DTYPES
@pytest.mark.parametrize("vocab", [1, 3, 127, 128, 300, 4099, 20000])
def test_tokens_are_those_of_the_reference_for_every_combination(
    sampling: Sampling, threads: int, vocab: int, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(vocab)
    for n in (1, 2, 40):
        logits = _logits(n, vocab, rng, dtype)
        for edits in (None, _edits(n, vocab, rng)):
            draws = _draws(n, n, vocab, rng, edits)
            expected = REFERENCE_SAMPLING.sample(logits, draws)
            found = sampling.sample(logits, draws)
            assert torch.equal(found[1], expected[1])
            assert torch.equal(found[0], expected[0])


@DTYPES
def test_rows_of_150000_tokens_draw_as_the_reference(sampling: Sampling, threads: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(1)
    logits = _logits(6, 151_936, rng, dtype)
    draws = _draws(12, 6, 151_936, rng, _edits(12, 151_936, rng))
    assert torch.equal(sampling.sample(logits, draws)[0], REFERENCE_SAMPLING.sample(logits, draws)[0])


def test_ties_at_the_border_go_to_the_lower_ids_over_many_blocks(sampling: Sampling) -> None:
    logits = torch.full((1, 5000), -1.0)
    logits[0, ::7] = 0.0
    for top_k in (1, 3, 200, 714, 716, 3000):
        allowed = set((torch.arange(0, 5000, 7)[:top_k]).tolist())
        numbers = np.linspace(0, 0.999, 50, dtype=np.float32)
        draws = Draws(
            which=np.zeros(50, np.int64),
            temperature=np.full(50, 0.01, np.float32),
            top_k=np.full(50, top_k),
            top_p=np.ones(50, np.float32),
            min_p=np.zeros(50, np.float32),
            uniform=numbers,
            edited=np.zeros(50, np.bool_),
            edits=None,
        )
        tokens = sampling.sample(logits, draws)[0].tolist()
        assert set(tokens) <= allowed and tokens == sorted(tokens) and tokens[-1] >= 0.99 * max(allowed) - 7


@DTYPES
def test_rows_that_are_not_numbers_are_bad_alone(sampling: Sampling, threads: int, dtype: torch.dtype) -> None:
    for vocab in (5, 9001):
        logits = torch.randn(6, vocab).to(dtype)
        logits[0, vocab - 1], logits[1, 2], logits[2], logits[3, 0] = np.nan, np.inf, -np.inf, -np.inf
        logits[4, vocab // 2] = -np.nan
        draws = _draws(6, 6, vocab, np.random.default_rng(0), None)
        draws.which[:] = np.arange(6)
        tokens, bad = sampling.sample(logits, draws)
        assert bad.tolist() == [True, True, True, False, True, False]
        assert tokens[bad].tolist() == [-1] * 4 and (tokens[~bad] >= 0).all()
        assert torch.equal(tokens, REFERENCE_SAMPLING.sample(logits, draws)[0])


def test_a_row_draws_the_same_alone_as_among_others(sampling: Sampling) -> None:
    rng = np.random.default_rng(5)
    logits = _logits(30, 3000, rng, torch.float32)
    draws = _draws(30, 30, 3000, rng, None)
    together = sampling.sample(logits, draws)[0]
    for i in range(30):
        columns = {name: getattr(draws, name)[i : i + 1] for name in Draws.__slots__ if name != "edits"}
        assert sampling.sample(logits, Draws(edits=None, **columns))[0].item() == together[i].item()


@DTYPES
@pytest.mark.parametrize("vocab", [1, 129, 7001])
def test_normalizers_and_ranks_are_those_of_the_reference(
    sampling: Sampling, threads: int, vocab: int, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(vocab)
    logits = _logits(9, vocab, rng, dtype)
    logits[4, 0], logits[5, 0], logits[6] = np.nan, np.inf, -np.inf
    rows = torch.tensor([8, 0, 0, 3, 4, 5, 6])
    expected = REFERENCE_SAMPLING.log_normalizer(logits, rows)
    assert torch.equal(sampling.log_normalizer(logits, rows)[:4], expected[:4])
    assert not sampling.log_normalizer(logits, rows)[4:].isfinite().any() and not expected[4:].isfinite().any()
    for count in {1, min(20, vocab), vocab}:
        values, ids = sampling.ranked(logits, rows, count)
        expected_values, expected_ids = REFERENCE_SAMPLING.ranked(logits, rows, count)
        assert torch.equal(ids, expected_ids)
        assert torch.equal(values.nan_to_num(7.0), expected_values.nan_to_num(7.0))


def test_what_does_not_exist_is_refused(sampling: Sampling) -> None:
    logits = torch.randn(2, 100)
    for which, ids in ((2, [0]), (-1, [0]), (0, [100]), (0, [-1])):
        draws = _draws(1, 1, 100, np.random.default_rng(0), None)
        draws.which[:] = which
        none = np.zeros(1, np.int64)
        edits = Edits(none + 1, np.array(ids), np.ones(1, np.float32), none, none[:0], None, none - 1, None)
        columns = {name: getattr(draws, name) for name in Draws.__slots__ if name not in ("edits", "edited")}
        with pytest.raises(RuntimeError):
            sampling.sample(logits, Draws(edits=edits, edited=np.ones(1, np.bool_), **columns))


def test_the_exponential_is_good_to_a_unit_or_two_in_the_last_place() -> None:
    x = -torch.cat([torch.rand(100_000) * 87, torch.rand(100_000), torch.tensor([0.0])])
    exact = x.double().exp()
    found = ops.exp_below_zero(x.clone().unsqueeze(0))[0]
    assert ((found.double() - exact).abs() / exact).max() < 2.5e-7
    assert found[-1] == 1
    ends = ops.exp_below_zero(torch.tensor([[-87.0, -87.01, -np.inf, -1e38, np.nan]]))[0]
    assert ends[0] > 0 and ends[1:4].tolist() == [0, 0, 0] and ends[4].isnan()
