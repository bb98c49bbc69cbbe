"""Sampling in Triton draws the tokens of the reference, except where a number falls on the border of two tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ramify.kernels.sampling.draw import REFERENCE_SAMPLING
from ramify.kernels.sampling.interface import Draws, Edits, Penalties, Sampling
from ramify.kernels.sampling.triton_impl import triton_sampling, warm_up

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy's, in the interpreter
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
VOCABS = pytest.mark.parametrize("vocab", [1, 33, 2100, 151_936])
OURS = triton_sampling()
OVER_ROWS = triton_sampling(few=1)
"""Which has to go over whole rows for what is more than a block."""


def _skip_what_is_slow(vocab: int, dtype: torch.dtype, big: bool) -> None:
    if not big and (vocab > 5000 or (vocab < 1000 and dtype == torch.bfloat16)):
        pytest.skip("too slow in the interpreter")


def _logits(rows: int, vocab: int, rng: np.random.Generator, dtype: torch.dtype) -> torch.Tensor:
    """Rows from flat to sure of themselves, and some with many equal logits. On the CPU."""
    spread = rng.choice([0.0, 0.1, 1, 3, 8], rows)
    logits = rng.standard_normal((rows, vocab)) * spread[:, None]
    logits[rng.random((rows, vocab)) < 0.05] = -np.inf
    coarse = rng.random(rows) < 0.3
    logits[coarse] = np.round(logits[coarse])
    logits[:, rng.integers(vocab)] = 0
    return torch.from_numpy(logits).to(dtype)


def _masks(n: int, vocab: int, rng: np.random.Generator) -> np.ndarray:
    masks = rng.integers(-(2**31), 2**31, (n, max(1, vocab // 32 - int(rng.integers(0, 2))))).astype(np.int32)
    masks[rng.random(masks.shape) < 0.3] = 0
    masks[rng.random(masks.shape) < 0.3] = -1
    return masks


def _edits(n: int, vocab: int, rng: np.random.Generator, device: torch.device) -> Edits:
    most = min(vocab, 300)
    bias = [rng.choice(vocab, rng.integers(0, most), replace=False) if rng.random() < 0.3 else [] for _ in range(n)]
    bans = [rng.integers(0, vocab, 3) if rng.random() < 0.3 else [] for _ in range(n)]
    masked = rng.random(n) < 0.5
    counts = rng.integers(0, 4, (3, vocab)) * (rng.random((3, vocab)) < 0.1)
    penalties = Penalties(
        place=rng.integers(-3, 3, n).clip(-1),
        counts=torch.from_numpy(counts.astype(np.int32)).to(device),
        in_prompt=torch.from_numpy(rng.random((3, vocab)) < 0.1).to(device),
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
        masks=_masks(int(masked.sum()), vocab, rng) if masked.any() else None,
    )


def _draws(n: int, rows: int, vocab: int, rng: np.random.Generator, edits: Edits | None, *, ranked: bool = True) -> Draws:
    def some(value: np.ndarray, off: float, share: float = 0.5) -> np.ndarray:
        return np.where(rng.random(n) < share, value, off)

    edited = np.zeros(n, np.bool_)
    if edits is not None:
        edited = (np.diff(edits.bias_end, prepend=0) > 0) | (np.diff(edits.banned_end, prepend=0) > 0) | (edits.mask >= 0)
        edited |= edits.penalties.place >= 0 if edits.penalties is not None else False
    share = 0.5 if ranked else 0.0
    return Draws(
        which=rng.integers(0, rows, n),
        temperature=some(rng.choice([1e-3, 0.3, 1, 2], n), 0, 0.8).astype(np.float32),
        top_k=some(rng.choice([1, 2, 40, 1000, vocab, vocab + 5], n), 0, share).astype(np.int64),
        top_p=some(rng.choice([0.0, 0.01, 0.5, 0.9, 0.97, 0.9999999], n), 1, share).astype(np.float32),
        min_p=some(rng.choice([1e-4, 0.05, 0.9, 1.0], n), 0, 0.3).astype(np.float32),
        uniform=np.where(rng.random(n) < 0.1, 1 - 2.0**-24, rng.random(n)).astype(np.float32) * (rng.random(n) > 0.1),
        edited=edited,
        edits=edits,
    )


def _near(draws: Draws) -> list[Draws]:
    """The same draws with numbers and masses that differ by more than sums are rounded, and less than anyone would notice."""
    moved = []
    for step in (-4e-6, 0.0, 4e-6):
        for share in (-4e-6, 0.0, 4e-6):
            uniform = np.clip(draws.uniform + step, 0, 1 - 2.0**-24).astype(np.float32)
            top_p = np.where(draws.top_p < 1, np.clip(draws.top_p + share, 0, 1 - 1e-7), 1).astype(np.float32)
            moved.append(replace(draws, uniform=uniform, top_p=top_p))
    return moved


def assert_drawn_as_the_reference(logits: torch.Tensor, draws: Draws, ours: Sampling = OURS) -> None:
    tokens, bad = ours.sample(logits, draws)
    expected, expected_bad = REFERENCE_SAMPLING.sample(logits, draws)
    assert tokens.dtype == torch.int64 and torch.equal(bad, expected_bad)
    differ = (tokens != expected).cpu().numpy()
    if differ.any():
        possible = np.stack([REFERENCE_SAMPLING.sample(logits, one)[0].cpu().numpy() for one in _near(draws)])
        assert differ.mean() < 0.2, (tokens, expected)
        assert (possible == tokens.cpu().numpy()).any(0).all(), (tokens[differ], possible[:, differ])


@DTYPES
@VOCABS
def test_tokens_are_those_of_the_reference_for_every_combination(
    device: torch.device, big: bool, vocab: int, dtype: torch.dtype
) -> None:
    _skip_what_is_slow(vocab, dtype, big)
    rng = np.random.default_rng(vocab)
    for n in (1, 2, 40) if big else (4,):
        logits = _logits(n, vocab, rng, dtype).to(device)
        for edits in (None, _edits(n, vocab, rng, device)):
            assert_drawn_as_the_reference(logits, _draws(n, n, vocab, rng, edits))


@pytest.mark.parametrize("few", [1, 4])
def test_what_stays_is_found_in_few_blocks_or_in_all(device: torch.device, big: bool, few: int) -> None:
    rng, vocab, n = np.random.default_rng(few), 151_936 if big else 1200, 60 if big else 5
    logits = _logits(n, vocab, rng, torch.bfloat16).to(device)
    draws = replace(_draws(n, n, vocab, rng, None), top_k=rng.choice([0, 0, 3, 40], n), temperature=np.ones(n, np.float32))
    assert_drawn_as_the_reference(logits, draws, triton_sampling(few))


@DTYPES
def test_masked_rows_need_no_copy_and_draw_as_the_reference(device: torch.device, big: bool, dtype: torch.dtype) -> None:
    rng, vocab, n = np.random.default_rng(3), 151_936 if big else 2100, 5
    edits = _edits(n, vocab, rng, device)
    none = np.zeros(n, np.int64)
    edits = replace(
        edits, bias_end=none, bias_ids=none[:0], banned_end=none, banned_ids=none[:0], penalties=None,
        bias_values=np.zeros(0, np.float32), mask=np.array([1, -1, 0, 2, 3]), masks=_masks(4, vocab, rng)
    )  # fmt: skip
    edits.masks[3] = 0
    draws = _draws(n, n, vocab, rng, edits, ranked=False)
    logits = _logits(n, vocab, rng, dtype).to(device)
    assert_drawn_as_the_reference(logits, draws)
    tokens, bad = OURS.sample(logits, draws)
    assert bad.tolist()[4] and tokens.tolist()[4] == -1


def test_the_numbers_of_a_row_draw_every_token_in_proportion_to_its_weight(device: torch.device) -> None:
    weights = torch.tensor([0.0, 3.0, 0.0, 1.0, 4.0, 0.0] + [0.0] * 200 + [8.0, 0.0])
    logits = weights.log().to(device).unsqueeze(0)
    draws = _flat_draws(16, temperature=1.0)
    tokens = OURS.sample(logits, replace(draws, uniform=(np.arange(16, dtype=np.float32) + 0.5) / 16))[0].cpu()
    drawn = torch.bincount(tokens, minlength=len(weights))
    assert torch.equal(drawn, weights.long())


def _flat_draws(n: int, *, temperature: float, top_k: int = 0) -> Draws:
    """Draws of row 0 with numbers from 0 to almost 1."""
    return Draws(
        which=np.zeros(n, np.int64),
        temperature=np.full(n, temperature, np.float32),
        top_k=np.full(n, top_k),
        top_p=np.ones(n, np.float32),
        min_p=np.zeros(n, np.float32),
        uniform=np.linspace(0, 0.999, n, dtype=np.float32),
        edited=np.zeros(n, np.bool_),
        edits=None,
    )


@pytest.mark.parametrize("ours", [OURS, OVER_ROWS], ids=["few blocks", "whole rows"])
def test_ties_at_the_border_go_to_the_lower_ids_over_many_tiles(ours: Sampling, device: torch.device, big: bool) -> None:
    logits = torch.full((1, 9000), -1.0, device=device)
    logits[0, ::7] = 0.0
    for top_k in (1, 714, 1000) if big else (714,):
        allowed = torch.arange(0, 9000, 7)[:top_k].tolist()
        tokens = ours.sample(logits, _flat_draws(50 if big else 3, temperature=0.01, top_k=top_k))[0].tolist()
        assert set(tokens) <= set(allowed) and tokens == sorted(tokens) and tokens[-1] >= 0.99 * max(allowed) - 7


@DTYPES
def test_rows_that_are_not_numbers_are_bad_alone(device: torch.device, big: bool, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    for vocab, edits in ((5, None), (2100, _edits(6, 2100, rng, device))):
        logits = torch.randn(6, vocab).to(device, dtype)
        logits[0, vocab - 1], logits[1, 2], logits[2], logits[3, 0] = np.nan, np.inf, -np.inf, -np.inf
        logits[4, vocab // 2] = -np.nan
        draws = replace(_draws(6, 6, vocab, rng, edits, ranked=big), which=np.arange(6))
        tokens, bad = OURS.sample(logits, draws)
        assert bad.tolist() == [True, True, True, False, True, False]
        assert (tokens[bad] == -1).all() and (tokens[~bad] >= 0).all()


def test_a_row_draws_the_same_alone_as_among_others(device: torch.device, big: bool) -> None:
    rng, n, vocab = np.random.default_rng(5), 40 if big else 3, 151_936 if big else 300
    logits = _logits(n, vocab, rng, torch.bfloat16).to(device)
    draws = _draws(n, n, vocab, rng, None)
    together = OURS.sample(logits, draws)[0].tolist()
    for i in range(n):
        columns = {name: getattr(draws, name)[i : i + 1] for name in Draws.__slots__ if name != "edits"}
        assert OURS.sample(logits, Draws(edits=None, **columns))[0].tolist() == [together[i]]


@DTYPES
@VOCABS
def test_normalizers_are_those_of_the_reference(device: torch.device, big: bool, vocab: int, dtype: torch.dtype) -> None:
    _skip_what_is_slow(vocab, dtype, big)
    rng = np.random.default_rng(vocab)
    logits = _logits(9, vocab, rng, dtype).to(device)
    logits[4, 0], logits[5, 0], logits[6] = np.nan, np.inf, -np.inf
    rows = torch.tensor([8, 0, 0, 3, 4, 5, 6], device=device)
    found, expected = OURS.log_normalizer(logits, rows), REFERENCE_SAMPLING.log_normalizer(logits, rows)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[:4], expected[:4], rtol=1e-6, atol=1e-6)
    assert not found[4:].isfinite().any()
    assert torch.equal(OURS.log_normalizer(logits, rows[1:2]), found[1:2])


def test_warming_up_runs_every_operation_and_changes_no_logits(device: torch.device) -> None:
    logits = torch.randn(2, 300, device=device)
    before, ran = logits.clone(), []

    def sample(logits: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        ran.append((draws.edits is not None, int(draws.top_k[0])))
        tokens, bad = OURS.sample(logits, draws)
        assert tokens.tolist() == [int(logits[0, 1:].argmax()) + 1 if draws.edits else int(logits[0].argmax())]
        return tokens, bad

    warm_up(replace(OURS, sample=sample), logits)
    assert ran == [(False, 1), (True, 1)] and torch.equal(logits, before)
