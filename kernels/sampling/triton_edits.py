"""Copies of logits with bias, penalties, bans and mask applied, in one pass (`interface.Edits`)."""

from __future__ import annotations

import triton
import triton.language as tl

COLUMNS = 7
"""Of `lists`, int32 [7, m]: row of the logits, begin and end in the list of biases, begin and end in the list of bans, row of
the penalties or -1, row of the masks or -1."""
AT_ONCE = tl.constexpr(128)
"""Entries of a list that are taken together."""


@triton.jit
def _edited(
    stored, bias, ids, there, counts, in_prompt, strengths, masks, copy, m, place, mask, words, vocab
):  # fmt: skip
    """Logits `stored` of tokens `ids` after bias, penalties and mask; NaN where they are NaN or +inf, whatever is edited."""
    x = stored + bias
    punished = there & (ids * 0 + place >= 0)
    count = tl.load(counts + place.to(tl.int64) * vocab + ids, mask=punished, other=0)
    prompt = tl.load(in_prompt + place.to(tl.int64) * vocab + ids, mask=punished, other=0)
    presence = tl.load(strengths + copy)
    frequency = tl.load(strengths + m + copy)
    repetition = tl.load(strengths + 2 * m + copy)
    was_output = count > 0
    repeated = tl.where(x < 0, x * repetition, tl.div_rn(x, tl.zeros_like(x) + repetition))
    x = tl.where(was_output | (prompt != 0), repeated, x)
    x = x - frequency * count.to(tl.float32) - presence * was_output.to(tl.float32)
    word = ids // 32
    is_masked = ids * 0 + mask >= 0
    bits = tl.load(masks + mask.to(tl.int64) * words + word, mask=there & is_masked & (word < words), other=0)
    x = tl.where((is_masked == 0) | (((bits >> (ids % 32)) & 1) != 0), x, -float("inf"))
    return tl.where(stored < float("inf"), x, float("nan"))


@triton.jit(do_not_specialize=["m", "words"])
def edit(
    logits, lists, strengths, bias_ids, bias_values, banned_ids, counts, in_prompt, masks, copies, m, vocab, stride, words,
    TILE: tl.constexpr
):  # fmt: skip
    """Program (copy, part): TILE tokens of a row of copies, fp32 [m, vocab].

    strengths: fp32 [3, m]; bias_ids, banned_ids: int32; counts: int32, in_prompt: uint8 [places, vocab]. What lists name is
    written after the rest: biased tokens from the start, because penalties come after the bias, then the bans.
    """
    copy = tl.program_id(0)
    begin = tl.program_id(1) * TILE
    row = logits + tl.load(lists + copy).to(tl.int64) * stride
    place = tl.load(lists + 5 * m + copy)
    mask = tl.load(lists + 6 * m + copy)
    target = copies + copy.to(tl.int64) * vocab
    ids = begin + tl.arange(0, TILE)
    there = ids < vocab
    stored = tl.load(row + ids, mask=there, other=-float("inf")).to(tl.float32)
    x = _edited(stored, 0.0, ids, there, counts, in_prompt, strengths, masks, copy, m, place, mask, words, vocab)
    tl.store(target + ids, x, mask=there)

    tl.debug_barrier()
    end = tl.load(lists + 2 * m + copy)
    for first in range(tl.load(lists + m + copy), end, AT_ONCE):
        entry = first + tl.arange(0, AT_ONCE)
        token = tl.load(bias_ids + entry, mask=entry < end, other=-1)
        wanted = (token >= begin) & (token < begin + TILE) & (token < vocab)
        held = tl.load(row + token, mask=wanted, other=-float("inf")).to(tl.float32)
        bias = tl.load(bias_values + entry, mask=wanted, other=0.0)
        edited = _edited(held, bias, token, wanted, counts, in_prompt, strengths, masks, copy, m, place, mask, words, vocab)
        tl.store(target + token, edited, mask=wanted)

    tl.debug_barrier()
    end = tl.load(lists + 4 * m + copy)
    for first in range(tl.load(lists + 3 * m + copy), end, AT_ONCE):
        entry = first + tl.arange(0, AT_ONCE)
        token = tl.load(banned_ids + entry, mask=entry < end, other=-1)
        wanted = (token >= begin) & (token < begin + TILE) & (token < vocab)
        held = tl.load(row + token, mask=wanted, other=-float("inf")).to(tl.float32)
        tl.store(target + token, tl.where(held < float("inf"), -float("inf"), float("nan")), mask=wanted)
