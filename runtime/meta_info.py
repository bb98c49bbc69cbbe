"""SGLang's `meta_info` of one finished sequence: what its engine API and its server say about a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .protocol import Finished, TokenLogprob

TokenText = Callable[[int], str | None]


def finish_reason(finished: Finished) -> dict[str, Any]:
    """SGLang's form: {type: stop, matched: ...} or {type: length, length: output tokens}."""
    if finished.finish.reason == "length":
        return {"type": "length", "length": finished.usage.output}
    return {"type": finished.finish.reason, "matched": finished.finish.matched}


def meta_info(finished: Finished, rid: str, latency_s: float, texts: TokenText | None = None) -> dict[str, Any]:
    """SGLang's meta_info of one sequence. latency_s: wall clock of the call. texts: fills token texts where given."""
    usage, timings = finished.usage, finished.timings
    meta: dict[str, Any] = {
        "id": rid,
        "finish_reason": finish_reason(finished),
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.output,
        "cached_tokens": usage.cached,
        "computed_tokens": usage.computed,
        "forced_tokens": usage.forced,
        "e2e_latency": latency_s,
        "queue_time": timings.queue_s,
        "prefill_time": timings.prefill_s,
        "decode_time": timings.decode_s,
        "grammar_time": timings.grammar_s,
        "mask_time": timings.mask_s,
        "seed": finished.seed,
    }
    if finished.not_enforced:
        meta["not_enforced"] = msgspec.to_builtins(finished.not_enforced)
    for side, entries in (("input", finished.prompt_logprobs), ("output", finished.logprobs)):
        if entries:
            meta[f"{side}_token_logprobs"] = [_token(entry, texts) for entry in entries]
            if any(entry.top for entry in entries):
                tops = [[(logprob, token, texts(token) if texts else None) for token, logprob in e.top] for e in entries]
                meta[f"{side}_top_logprobs"] = tops
            if any(entry.chosen for entry in entries):
                asked = [[(logprob, token, texts(token) if texts else None) for token, logprob in e.chosen] for e in entries]
                meta[f"{side}_token_ids_logprobs"] = asked
    return meta


def _token(entry: TokenLogprob, texts: TokenText | None) -> tuple[float | None, int, str | None]:
    return entry.logprob, entry.token, (entry.text or texts(entry.token)) if texts else None
