"""What the next step does, decided from a snapshot: who decodes, who may lose pages, who goes on and who may start.

Pure: nothing is taken here. `take.py` carries the choice out and finds, page by page, how far it goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..plan import Int32
from .admit import pages_for, prefill_budget
from .preempt import by_importance
from .queue import WaitingQueue
from .rows import Rows
from .sequence import Sequence, State


@dataclass(frozen=True, slots=True)
class Choice:
    """decode: rows that draw their next token. need_pages: pages that the decodes and the first prefill must get.
    important: running sequences, most important first; pages are taken from the end, never from the first.
    prefilling: sequences in the middle of their prompt, in order. candidates: waiting ones, in order of admission.
    budget: tokens that may be prefilled. suspects_running: a sequence from a failed step is on trial; no other may join it.
    """

    decode: Int32
    need_pages: int
    important: tuple[Sequence, ...]
    prefilling: tuple[Sequence, ...]
    candidates: tuple[Sequence, ...]
    budget: int
    suspect_running: bool


def decide(rows: Rows, queue: WaitingQueue, *, chunk_tokens: int, page_size: int) -> Choice:
    """The choice for one step. Answers only."""
    decode = rows.ready()
    need = int(np.count_nonzero(rows.length[decode] > rows.capacity[decode]))
    budget = prefill_budget(chunk_tokens, len(decode))
    running: list[Sequence] = []
    prefilling: list[Sequence] = []
    if len(decode) < rows.num_running or need:
        running = by_importance(rows.running())
        prefilling = [s for s in running if s.state is State.PREFILLING and s.planned < rows.known[s.row]]
    if prefilling:
        first = prefilling[0]
        upto = min(int(rows.known[first.row]), first.planned + budget)
        need += max(0, pages_for(upto, page_size) - int(rows.capacity[first.row]) // page_size)
    candidates = queue.candidates(2 * rows.max_running) if len(queue) and rows.free else []
    return Choice(
        decode=decode,
        need_pages=need,
        important=tuple(running),
        prefilling=tuple(prefilling),
        candidates=tuple(candidates),
        budget=budget,
        suspect_running=any(s.suspect for s in running),
    )
