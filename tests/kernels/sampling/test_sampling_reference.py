"""The sampling operations against naive ones, and row invariance bit for bit."""

import numpy as np
import pytest
import torch

from ramify.kernels.sampling import reference as ops

VOCABS = (3, 127, 128, 1000, 5001)


def _weights(rows: int, vocab: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread
    padded = ops.pad_to_blocks(logits)
    return padded.sub_(padded.amax(-1, keepdim=True)).exp_()


def _naive_kept(weights: np.ndarray, top_k: int, top_p: float) -> set[int]:
    """Ids that stay, by sorting one row."""
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    if top_k > 0:
        order = order[:top_k]
    mass = sum(float(weights[i]) for i in order)
    kept, before = set(), 0.0
    for i in order:
        if kept and top_p < 1 and before >= top_p * mass:
            break
        kept.add(i)
        before += float(weights[i])
    return kept


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("spread", [0.2, 3.0])
def test_top_k_and_top_p_keep_exactly_what_sorting_keeps(vocab: int, spread: float) -> None:
    top_k, top_p = np.array([0, 1, 2, 50, 0, 0, 7, 0]), np.array([0.3, 1, 0.5, 0.9, 0.01, 0.7, 0.999, 0.97], np.float32)
    weights = _weights(8, vocab, seed=vocab, spread=spread)
    limits = {"top_k": torch.from_numpy(top_k), "top_p": torch.from_numpy(top_p), "max_k": 50}
    kept = ops.keep_top(weights, vocab=vocab, **limits)
    for row in range(8):
        ids = _naive_kept(weights[row, :vocab].numpy(), int(top_k[row]), float(top_p[row]))
        assert set(torch.nonzero(kept[row]).flatten().tolist()) == ids
        assert torch.equal(kept[row, sorted(ids)], weights[row, sorted(ids)])


def test_ties_at_the_border_of_top_k_and_top_p_go_to_the_lower_ids() -> None:
    weights = torch.zeros(3, 256)
    weights[:, 10:20] = 0.5
    weights[:, 15] = 1.0
    limits = {"top_k": torch.tensor([3, 0, 1]), "top_p": torch.tensor([1.0, 0.4, 1.0]), "max_k": 3}
    kept = ops.keep_top(weights, vocab=256, **limits)
    assert torch.nonzero(kept[0]).flatten().tolist() == [10, 11, 15]
    assert torch.nonzero(kept[1]).flatten().tolist() == [10, 11, 12, 15]  # 1 + 2 * 0.5 < 0.4 * 5.5 <= 1 + 3 * 0.5
    assert torch.nonzero(kept[2]).flatten().tolist() == [15]


@pytest.mark.parametrize("vocab", VOCABS)
def test_the_inverse_cdf_finds_the_token_of_a_naive_running_sum(vocab: int) -> None:
    weights = _weights(200, vocab, seed=vocab)
    numbers = torch.rand(200, generator=torch.Generator().manual_seed(1))
    drawn = ops.inverse_cdf(weights, numbers).numpy()
    running = weights[:, :vocab].double().cumsum(-1).numpy()
    target = numbers.double().numpy() * running[:, -1]
    expected = (running <= target[:, None]).sum(-1)
    off = drawn != expected  # a float32 sum may put a border a few units in the last place elsewhere
    assert np.abs(running[off, np.minimum(drawn, expected)[off]] - target[off]).max(initial=0) < 1e-4
    assert off.sum() <= 4


def test_a_token_without_weight_is_never_drawn_even_at_the_ends() -> None:
    weights = torch.zeros(4, 384)
    weights[:, 200] = 1.0
    weights[1:, 210] = 1e-30
    drawn = ops.inverse_cdf(weights, torch.tensor([0.0, 0.0, 1 - 2**-24, 0.5]))
    assert drawn.tolist() == [200, 200, 200, 200]


@pytest.mark.parametrize("vocab", [300, 5001])
def test_a_rows_bits_do_not_depend_on_the_other_rows(vocab: int) -> None:
    weights = _weights(33, vocab)
    logits = torch.randn(33, vocab, generator=torch.Generator().manual_seed(2))
    top_k, top_p = torch.arange(33) % 4 * 20, 0.99 - (torch.arange(33) % 5) * 0.05
    numbers = torch.rand(33)

    def everything(rows: slice) -> tuple[torch.Tensor, ...]:
        kept = ops.keep_top(weights[rows], vocab=vocab, top_k=top_k[rows], top_p=top_p[rows], max_k=int(top_k[rows].max()))
        padded = ops.exp_below_zero(ops.pad_to_blocks(logits[rows]).sub_(9))
        drawn = ops.inverse_cdf(kept, numbers[rows])
        return ops.block_sums(weights[rows]), kept, drawn, ops.log_normalizer(logits, torch.arange(33)[rows]), padded

    together = everything(slice(0, 33))
    for row in range(33):
        alone = everything(slice(row, row + 1))
        assert all(torch.equal(a[0], b[row]) for a, b in zip(alone, together, strict=True))


def test_greedy_takes_the_lowest_id_of_equal_logits_and_shows_nan() -> None:
    logits = torch.zeros(4, 300)
    logits[1, [7, 250]] = 2.0
    logits[2, 9] = float("nan")
    logits[3] = -1.0
    best, ids = ops.greedy(logits)
    assert ids[[0, 1, 3]].tolist() == [0, 7, 0]
    assert torch.isnan(best[2]) and best[[0, 1, 3]].tolist() == [0, 2, -1]


def test_ranked_orders_ties_by_id_and_minus_zero_as_zero() -> None:
    logits = torch.tensor([[0.0, -0.0, 5.0, -1.0, 0.0, float("-inf"), 5.0]])
    values, ids = ops.ranked(logits, torch.tensor([0]), 7)
    assert ids.tolist() == [[2, 6, 0, 1, 4, 3, 5]]
    assert torch.equal(values, logits[:, ids[0]])


def test_a_mask_is_unpacked_bit_by_bit_and_ends_where_it_ends() -> None:
    mask = np.array([[0b1011, -2147483648], [-1, 0]], np.int32)
    forbidden = ops.unpack_mask(torch.from_numpy(mask), 70)
    allowed = [torch.nonzero(~row).flatten().tolist() for row in forbidden]
    assert allowed == [[0, 1, 3, 63], list(range(32))]
    assert forbidden.shape == (2, 70)


def test_penalties_follow_the_definition_of_hugging_face_and_openai() -> None:
    logits = torch.tensor([[2.0, -2.0, 3.0, 1.0, 0.5]])
    counts = torch.tensor([[2, 1, 0, 0, 0]], dtype=torch.int32)
    in_prompt = torch.tensor([[False, True, True, False, False]])
    strength = {"presence": torch.tensor([0.5]), "frequency": torch.tensor([0.25]), "repetition": torch.tensor([2.0])}
    changed = ops.penalize(logits, counts, in_prompt, **strength)
    assert changed.tolist() == [[2 / 2 - 0.5 - 0.5, -2 * 2 - 0.5 - 0.25, 3 / 2, 1.0, 0.5]]
