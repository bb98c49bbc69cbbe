"""The sampling operations in plain torch (signatures: `interface.py`), for any device; none of them waits for a device.
On the CPU, NumPy does what it does faster on the same memory.

The sum over a row has a fixed order: blocks of 128 tokens are summed each by itself, by halves, and the block sums are
accumulated in float64 in id order. On the CPU the exponential has fixed steps too, none of them fused, so that C++ can give the
same bits.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .interface import BLOCK

_FIRST_GUESS = 256
"""Candidates that top_p looks at before it sorts a whole vocabulary (CPU)."""
_VALUES_AT_ONCE = 1 << 17
"""What a cache holds while the steps of an exponential pass over it."""
_LOWEST, _LOG2_E = -87.0, 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
"""Their sum is log(2); the first has so few bits that products with whole numbers are exact."""
_POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def greedy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Largest value and lowest id of each row (`interface.Greedy`)."""
    if logits.device.type == "cpu":  # NumPy's argmax is vectorised, torch's is not: 10 us instead of 130 us for 150,000 tokens
        rows = logits.numpy()
        ids = rows.argmax(-1)
        return torch.from_numpy(rows[np.arange(len(ids)), ids]), torch.from_numpy(ids)
    best = logits.max(-1)
    return best.values, best.indices


def pad_to_blocks(logits: Tensor) -> Tensor:
    """A copy of fp32 [rows, vocab], padded with -inf to whole blocks, at least two."""
    vocab = logits.shape[-1]
    padded = max(2, -(-vocab // BLOCK)) * BLOCK
    return F.pad(logits, (0, padded - vocab), value=-torch.inf) if padded != vocab else logits.clone()


def exp_below_zero(x: Tensor) -> Tensor:
    """exp of fp32 [rows, padded] of values up to 0, in place; below -87 it is 0, at 0 it is 1, NaN stays. On the CPU to about a
    unit in the last place, after Cephes' expf (Moshier, 1989): powers of two times a polynomial."""
    if x.device.type != "cpu":
        return x.exp_()
    for part in x.split(max(1, _VALUES_AT_ONCE // x.shape[-1])):
        low = part < _LOWEST
        part.clamp_(min=_LOWEST)
        whole = (part * _LOG2_E).round_()
        part.sub_(whole * _LN2_HIGH).sub_(whole * _LN2_LOW)
        y = part * _POLYNOMIAL[0] + _POLYNOMIAL[1]
        for coefficient in _POLYNOMIAL[2:]:
            y.mul_(part).add_(coefficient)
        y.mul_(part * part).add_(part).add_(1.0)
        power = whole.to(torch.int32).add_(127).bitwise_left_shift_(23).view(torch.float32)
        torch.mul(y, power, out=part)
        part.masked_fill_(low, 0.0)
    return x


def block_sums(weights: Tensor) -> Tensor:
    """fp32 [rows, padded] -> [rows, padded / BLOCK]."""
    blocks = weights.unflatten(-1, (-1, BLOCK))
    while (half := blocks.shape[-1] // 2) > 0:  # by halves, elementwise: no kernel chooses an order by the number of rows
        blocks = blocks[..., :half] + blocks[..., half:]
    return blocks.squeeze(-1)


def inverse_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """One draw of each row (`interface.InverseCdf`): its block by the sums of blocks, then its place in the block."""
    sums = block_sums(weights)
    running = sums.cumsum(-1, dtype=torch.float64)
    target = uniform.double().unsqueeze(-1) * running[:, -1:]
    block = _first_above(running, target)
    before = running.gather(-1, block) - sums.gather(-1, block)
    rest = (target - before).clamp_(min=0)  # a rounding below zero would let a leading token of weight 0 through
    inside = weights.unflatten(-1, (-1, BLOCK)).gather(1, block.unsqueeze(-1).expand(-1, 1, BLOCK)).squeeze(1)
    return (block * BLOCK + _first_above(inside.cumsum(-1, dtype=torch.float64), rest)).squeeze(-1)


def _first_above(running: Tensor, target: Tensor) -> Tensor:
    """Index of the first running sum above target, or, if rounding left none, of the first that equals the last. [rows, 1]."""
    return ((running <= target) & (running < running[:, -1:])).sum(-1, keepdim=True)


def keep_top(weights: Tensor, *, vocab: int, top_k: Tensor, top_p: Tensor, max_k: int) -> Tensor:
    """top_k, then top_p (`interface.KeepTop`)."""
    on_cpu = weights.device.type == "cpu"
    only_p = (top_k == 0) & (top_p < 1)
    # On the CPU a few candidates are tried first; on a device a whole sort costs less than waiting for the answer.
    guess = _FIRST_GUESS if on_cpu else vocab
    candidates = min(vocab, max(max_k, guess if not on_cpu or bool(only_p.any()) else 1))
    kept, short = _keep_among(weights, candidates, top_k, top_p)
    if on_cpu and candidates < vocab:
        again = torch.nonzero(short & only_p).squeeze(-1)
        if len(again):
            kept[again] = _keep_among(weights[again], vocab, top_k[again], top_p[again])[0]
    return kept


def _keep_among(weights: Tensor, candidates: int, top_k: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """`keep_top` if no row keeps more than `candidates`; second result, bool [rows]: whether the last candidate was kept."""
    values = _largest(weights, candidates)
    running = values.cumsum(-1, dtype=torch.float64)
    limit = torch.where(top_k == 0, candidates, top_k).clamp(max=candidates).unsqueeze(-1)
    everything = block_sums(weights).cumsum(-1, dtype=torch.float64)[:, -1:]
    mass = torch.where(top_k.unsqueeze(-1) == 0, everything, running.gather(-1, limit - 1))
    share = torch.where(top_p < 1, top_p.double(), torch.inf).unsqueeze(-1)
    stays = (torch.arange(candidates, device=weights.device) < limit) & (running - values < share * mass)
    stays[:, 0] = True
    last = values.gather(-1, stays.sum(-1, keepdim=True) - 1)
    equal_kept = (stays & (values == last)).sum(-1, keepdim=True)
    keep = weights >= last
    equal = weights == last
    if weights.device.type != "cpu" or bool(((equal.sum(-1, keepdim=True) > equal_kept) & (last > 0)).any()):
        keep &= ~equal | (equal.cumsum(-1) <= equal_kept)
    return weights * keep, stays[:, -1]


def _largest(weights: Tensor, count: int) -> Tensor:
    """The `count` largest values of each row, largest first."""
    if weights.device.type == "cpu" and 2 * count > weights.shape[-1]:  # NumPy sorts with vector instructions
        return torch.from_numpy(np.sort(weights.numpy(), axis=-1)[:, : -count - 1 : -1].copy())
    return weights.topk(count, dim=-1).values


def penalize(
    logits: Tensor, counts: Tensor, in_prompt: Tensor, *, presence: Tensor, frequency: Tensor, repetition: Tensor
) -> Tensor:
    """Repetition, frequency and presence (`interface.Penalize`)."""
    was_output = counts > 0
    factor = repetition.unsqueeze(-1)
    repeated = torch.where(logits < 0, logits * factor, logits / factor)
    logits = torch.where(was_output | in_prompt, repeated, logits)
    return logits - frequency.unsqueeze(-1) * counts - presence.unsqueeze(-1) * was_output


def unpack_mask(mask: Tensor, vocab: int) -> Tensor:
    """Bits to bools, true = forbidden (`interface.UnpackMask`); on the CPU by bytes, which presumes a little-endian one."""
    if mask.device.type == "cpu":
        allowed = torch.from_numpy(np.unpackbits(mask.numpy().view(np.uint8), axis=-1, bitorder="little")).view(torch.bool)
    else:
        bits = torch.arange(32, dtype=torch.int32, device=mask.device)
        allowed = ((mask.unsqueeze(-1) >> bits) & 1).flatten(-2).bool()
    allowed = allowed[:, :vocab]
    return F.pad(~allowed, (0, vocab - allowed.shape[-1]), value=True)


def log_normalizer(logits: Tensor, rows: Tensor) -> Tensor:
    """log(sum(exp(logits))) of rows (`interface.LogNormalizer`)."""
    chosen = logits[rows].float()
    largest = chosen.amax(-1, keepdim=True)
    total = block_sums(exp_below_zero(pad_to_blocks(chosen).sub_(largest))).cumsum(-1, dtype=torch.float64)[:, -1]
    return largest.squeeze(-1).double() + total.log()


def ranked(logits: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The most likely of rows (`interface.Ranked`). Sorts by keys, because torch.topk leaves ties open."""
    chosen = logits[rows].float()
    bits = (chosen + 0.0).view(torch.int32)  # + 0.0: minus zero equals zero
    ordered = (bits ^ (bits >> 31 & 0x7FFFFFFF)).to(torch.int64)
    keys = (ordered << 32) + torch.arange(chosen.shape[-1] - 1, -1, -1, device=logits.device)
    ids = (chosen.shape[-1] - 1) - (keys.topk(count, dim=-1).values & 0xFFFFFFFF)
    return chosen.gather(-1, ids), ids
