"""How much memory the largest steps take beside weights and KV: found by running them, before the pool is sized."""

from __future__ import annotations

import numpy as np
import torch

from ..models.decoder import Decoder
from ..plan import SAMPLE, RowEntry, StepPlan
from .executor import TorchExecutor
from .kv_pool import KVPool


def peak_bytes(decoder: Decoder, *, chunk_tokens: int, max_rows: int, page_size: int) -> int:
    """Bytes that two steps take on the decoder's device, on CUDA: a whole chunk of one prompt, and as many rows as may run, each
    drawn from the whole vocabulary with top_p. Kernels are compiled on the way. Keeps nothing."""
    device = decoder.device
    rows = min(max_rows, chunk_tokens)
    num_pages = -(-chunk_tokens // page_size) + rows
    pool = KVPool(decoder.kv_spec, num_pages=num_pages, page_size=page_size, device=device, copy=decoder.kernels.kv_copy_pages)
    executor = TorchExecutor(decoder, pool=pool, max_rows=max(rows, 1), context_length=chunk_tokens)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    for plan in (_chunk(chunk_tokens, page_size), _decodes(rows, num_pages)):
        executor.forward(plan).result()
    with torch.inference_mode():
        decoder.kernels.warm_sampling(torch.zeros(1, decoder.config.vocab_size, dtype=decoder.dtype, device=device))
    peak = torch.cuda.max_memory_allocated(device) - before
    del pool, executor
    torch.cuda.empty_cache()
    return peak


def _chunk(tokens: int, page_size: int) -> StepPlan:
    """Step 1: one span of so many tokens, whose last one is sampled."""
    pages = np.arange(-(-tokens // page_size), dtype=np.int32)
    one = np.zeros(1, np.int32)
    return StepPlan(
        1,
        rows=one,
        starts=one,
        lengths=np.array([tokens], np.int32),
        tokens=np.zeros(tokens, np.int32),
        positions=np.arange(tokens, dtype=np.int32),
        table_row=np.zeros_like(pages),
        table_index=pages,
        table_page=pages,
        entering=(RowEntry(0),),
        **_samples(np.zeros(1, np.int32), np.array([tokens - 1], np.int32)),
    )


def _decodes(rows: int, num_pages: int) -> StepPlan:
    """Step 2: so many rows, each with a page of its own, drawn with top_p."""
    row = np.arange(rows, dtype=np.int32)
    nothing = np.zeros(rows, np.int32)
    return StepPlan(
        2,
        rows=row,
        starts=nothing,
        lengths=nothing + 1,
        tokens=nothing,
        positions=nothing,
        table_row=row,
        table_index=nothing,
        table_page=num_pages - 1 - row,
        entering=tuple(RowEntry(number, temperature=1.0, top_p=0.9) for number in row.tolist()),
        **_samples(row, nothing),
    )


def _samples(spans: np.ndarray, offsets: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a plan that samples one token of each of these spans, whose number is their row."""
    nothing = np.zeros(len(spans), np.int32)
    return {
        "want_span": spans,
        "want_offset": offsets,
        "want_kind": nothing + SAMPLE,
        "want_row": spans,
        "want_position": nothing,
        "want_top": nothing,
        "want_ids_ptr": np.zeros(len(spans) + 1, np.int32),
        "want_logprob": nothing,
        "want_mask": nothing,
    }
