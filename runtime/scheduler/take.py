"""Choice -> plan: the only place where rows and pages are taken.

Order matters here. Room is made first, so that no row with a span is preempted in the same step. Each sequence is taken
to its end (lease, pages, span, insertion into the tree) before the next one is looked at, so that a prompt sees what the
one before it has just planned, and N identical cold prompts compute their prefix once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...constrained.matcher import Matcher
from ...radix.cache import Match
from ..plan import LOGPROB, SAMPLE, Int32, Launched, RowEntry, StepPlan
from ..protocol import CacheReport
from .admit import admissible, leader_of, pages_for
from .columns import Columns
from .decide import Choice
from .preempt import by_importance
from .scheduler import Scheduler
from .sequence import Sequence, State

RUN_TOKENS = 16
"""A decoding row takes pages for so many tokens at once: fewer, longer runs. Under pressure it takes one."""

RESERVE_TOKENS = 32
"""Tokens a running row may grow by before an admission beside it would have been a mistake."""


@dataclass(slots=True)
class Flight:
    """A step on its way: what settling must remember of it.

    drawn_rows, drawn_epochs, drawn_entries: the SAMPLE entries, in order. prefilled: (sequence, epoch, start, length) of
    spans of known tokens. scored: (sequence, entry, position) of LOGPROB entries. matchers: of the entries that
    wait for a mask, in order; mask_s: seconds that filling them took.
    """

    plan: StepPlan
    drawn_rows: Int32
    drawn_epochs: NDArray[np.int64]
    drawn_entries: Int32
    prefilled: list[tuple[Sequence, int, int, int]] = field(default_factory=list)
    scored: list[tuple[Sequence, int, int]] = field(default_factory=list)
    matchers: list[Matcher] = field(default_factory=list)
    mask_s: float = 0.0
    launched: Launched | None = None
    asked: bool = False
    """Whether the executor was asked to draw: only then has it a result."""


def take(scheduler: Scheduler, choice: Choice, step: int, now: float) -> Flight:
    """Carry out a choice. Changes rows, queue, cache and sequences; returns the plan of step `step` and its memory."""
    decode = _make_room(scheduler, choice)
    columns = Columns()
    decode = _grow_decodes(scheduler, decode, columns)
    flight = Flight(StepPlan(step), decode, scheduler.rows.epoch[decode], scheduler.rows.numbers[: len(decode)])
    budget = choice.budget
    for sequence in choice.prefilling:
        if budget and sequence.state is State.PREFILLING:
            budget -= _chunk(scheduler, sequence, columns, flight, step=step, budget=budget, base=len(decode))
    budget = _admit(scheduler, choice, columns, flight, step=step, budget=budget, base=len(decode), now=now)
    flight.plan, flight.matchers = columns.close(scheduler.rows, decode, step)
    if not len(flight.plan.rows):
        _unwedge(scheduler)
    return flight


def _make_room(scheduler: Scheduler, choice: Choice) -> Int32:
    """Preempt until the decodes and the first prefill can have their pages; returns the decode rows that are left."""
    rows, cache = scheduler.rows, scheduler.cache
    if not choice.need_pages or cache.view().available >= choice.need_pages:
        return choice.decode
    coming = 0
    for sequence in reversed(choice.important[1:]):
        view = cache.view()
        if view.available + coming >= choice.need_pages:
            break
        before = view.draining
        scheduler.preempt(sequence)
        coming += max(0, cache.view().draining - before)
    return choice.decode[rows.decoding[choice.decode]]


def _grow_decodes(scheduler: Scheduler, decode: Int32, columns: Columns) -> Int32:
    """Pages for the rows that need some; a row that gets none sits this step out."""
    rows, cache = scheduler.rows, scheduler.cache
    needing = decode[rows.length[decode] > rows.capacity[decode]]
    if not len(needing):
        return decode
    starved = []
    order = needing.tolist()
    if len(order) > 1:
        wanting = [s for s in (rows.sequences[r] for r in order) if s is not None]
        order = [s.row for s in by_importance(wanting)]
    roomy = cache.view().available >= len(order) * pages_for(RUN_TOKENS, cache.page_size)
    for row in order:
        sequence = rows.sequences[row]
        assert sequence is not None
        length = int(rows.length[row])
        upto = min(length + RUN_TOKENS - 1, int(rows.limit[row])) if roomy else length
        if not (_grow(scheduler, sequence, upto, columns) or _grow(scheduler, sequence, length, columns)):
            starved.append(row)
    return decode[~np.isin(decode, starved)] if starved else decode


def _grow(scheduler: Scheduler, sequence: Sequence, num_tokens: int, columns: Columns) -> bool:
    """Pages for positions [0, num_tokens); the new ones go into the plan's page table writes."""
    lease, row = sequence.lease, sequence.row
    assert lease is not None
    before = int(scheduler.rows.capacity[row]) // scheduler.cache.page_size
    if not scheduler.cache.grow(lease, num_tokens):
        return False
    pages = lease.pages
    if len(pages) > before:
        columns.table.append((row, before, pages[before:]))
        scheduler.rows.capacity[row] = len(pages) * scheduler.cache.page_size
    return True


def _chunk(
    scheduler: Scheduler, sequence: Sequence, columns: Columns, flight: Flight, *, step: int, budget: int, base: int
) -> int:
    """Plan the next chunk of a sequence's known tokens. Returns how many tokens were planned (0: no pages)."""
    rows, row = scheduler.rows, sequence.row
    known = int(rows.known[row])
    start = sequence.planned
    end = min(known, start + budget)
    # The token after the last known one is drawn, not computed, so `end` positions are all that is written now.
    if end <= start or not _grow(scheduler, sequence, end, columns):
        return 0
    ids = rows.history[row, start:end]
    span = base + len(columns.rows)
    columns.rows.append(row)
    columns.starts.append(start)
    columns.lengths.append(end - start)
    columns.tokens.append(ids)
    assert sequence.lease is not None
    scheduler.cache.insert(sequence.lease, ids, step=step)
    sequence.planned = end
    epoch = int(rows.epoch[row])
    flight.prefilled.append((sequence, epoch, start, end - start))
    if sequence.wants:
        _want_logprobs(sequence, columns, flight, span=span, start=start, end=end, base=base)
    if end == known and sequence.samples:
        _draw_first(scheduler, sequence, columns, flight, span=span, offset=end - start - 1, base=base, step=step)
    return end - start


def _want_logprobs(
    sequence: Sequence, columns: Columns, flight: Flight, *, span: int, start: int, end: int, base: int
) -> None:
    for position in range(max(start, sequence.want_from), end):
        ids = sequence.wants.get(position)
        if ids is not None and (position, ids[0]) not in sequence.found:
            flight.scored.append((sequence, base + len(columns.wants), position))
            columns.wants.append((span, position - start, LOGPROB, sequence.row, 0, sequence.want_top, 0, 0))
            columns.want_ids.append(ids)


def _draw_first(
    scheduler: Scheduler,
    sequence: Sequence,
    columns: Columns,
    flight: Flight,
    *,
    span: int,
    offset: int,
    base: int,
    step: int,
) -> None:
    """All known tokens are planned: draw the next one, and one for each sibling, from the same row of logits."""
    rows = scheduler.rows
    sequence.state = State.DECODING
    rows.decoding[sequence.row] = True
    _want_draw(scheduler, sequence, columns, flight, span=span, offset=offset, base=base)
    siblings, sequence.siblings = sequence.siblings, []
    for sibling in siblings:
        if not rows.free:
            scheduler.queue.add(sibling)
            continue
        # It draws from the leader's logits and has no pages yet: with its first token it comes back as one that waits.
        rows.take(sibling)
        sibling.state = State.DECODING
        rows.last_step[sibling.row] = step
        sibling.clock.admitted = sequence.clock.admitted
        sibling.count_cached(sibling.num_prompt)
        sibling.cache = CacheReport(sibling.num_prompt, -1, "shared in step")
        columns.entering.append(row_entry(sibling))
        _want_draw(scheduler, sibling, columns, flight, span=span, offset=offset, base=base)


def _want_draw(
    scheduler: Scheduler, sequence: Sequence, columns: Columns, flight: Flight, *, span: int, offset: int, base: int
) -> None:
    rows, row = scheduler.rows, sequence.row
    position = int(rows.known[row]) - sequence.num_prompt
    entry = base + len(columns.wants)
    flight.drawn_rows = np.append(flight.drawn_rows, np.int32(row))
    flight.drawn_epochs = np.append(flight.drawn_epochs, rows.epoch[row])
    flight.drawn_entries = np.append(flight.drawn_entries, np.int32(entry))
    columns.wants.append(
        (span, offset, SAMPLE, row, position, int(rows.want_top[row]), int(rows.want_logprob[row]), int(rows.masked[row]))
    )
    columns.want_ids.append(sequence.logprobs.token_ids if sequence.logprobs.output else ())
    rows.length[row] = rows.known[row] + 1


def _admit(
    scheduler: Scheduler,
    choice: Choice,
    columns: Columns,
    flight: Flight,
    *,
    step: int,
    budget: int,
    base: int,
    now: float,
) -> int:
    """Start waiting sequences while budget, rows and pages last. Returns the budget that is left."""
    rows, cache, queue = scheduler.rows, scheduler.cache, scheduler.queue
    trial = choice.suspect_running
    leaders = [s for s in choice.prefilling if s.state is State.PREFILLING]
    for sequence in choice.candidates:
        if budget <= 0 or not rows.free:
            break
        if sequence.state is not State.WAITING or (sequence.suspect and trial) or _still_waits(scheduler, sequence):
            continue
        limit = sequence.match_limit()
        matched = cache.match(sequence.namespace, sequence.ids, limit=limit)
        upcoming = [(s, rows.ids(s), s.planned) for s in leaders if s.row >= 0 and s.planned < rows.known[s.row]]
        sequence.waits_for = leader_of(sequence.ids, limit, matched.length, upcoming)
        if sequence.waits_for is not None:
            continue
        if not _start(scheduler, sequence, columns, step=step, now=now, limit=limit, found=matched):
            break
        trial = trial or sequence.suspect
        queue.admitted(sequence)
        planned = _chunk(scheduler, sequence, columns, flight, step=step, budget=budget, base=base)
        assert planned, "admission promised pages for all known tokens; a page copy of the lease is already in this plan"
        budget -= planned
        if sequence.state is State.PREFILLING and sequence.planned < rows.known[sequence.row]:
            leaders.append(sequence)
    return budget


def _still_waits(scheduler: Scheduler, sequence: Sequence) -> bool:
    """Whether the leader that this one waits for is still computing what both need."""
    leader = sequence.waits_for
    if leader is None:
        return False
    return leader.state is State.PREFILLING and leader.row >= 0 and leader.planned < int(scheduler.rows.known[leader.row])


def _start(
    scheduler: Scheduler, sequence: Sequence, columns: Columns, *, step: int, now: float, limit: int, found: Match
) -> bool:
    """Give a waiting sequence its lease and its row, if its known tokens fit. False when memory is short: nothing changed."""
    rows, cache = scheduler.rows, scheduler.cache
    lease = cache.acquire(sequence.namespace, sequence.ids, limit=limit, step=step)
    total = pages_for(len(sequence.ids), cache.page_size)
    reserve = pages_for(RESERVE_TOKENS, cache.page_size) * rows.num_running
    if not admissible(
        need_pages=total - len(lease.pages), available_pages=cache.view().available, reserve_pages=reserve
    ):
        cache.release(lease, step=scheduler.settled)
        return False
    sequence.lease = lease
    sequence.planned = lease.length
    sequence.state = State.PREFILLING
    row = rows.take(sequence)
    sequence.count_cached(lease.length)
    if not sequence.clock.admitted:
        sequence.clock.admitted = now
        sequence.cache = CacheReport(lease.length, found.diverged_at, found.reason)
    if lease.copy is not None:
        columns.copies.append((lease.copy.src_page, lease.copy.dst_page))
    if len(lease.pages):
        columns.table.append((row, 0, lease.pages))
        rows.capacity[row] = len(lease.pages) * cache.page_size
    columns.entering.append(row_entry(sequence))
    return True


def row_entry(sequence: Sequence) -> RowEntry:
    """What the executor must know to draw for a sequence. Answers only."""
    d = sequence.drawing
    counts = d.presence_penalty or d.frequency_penalty or d.repetition_penalty != 1.0
    return RowEntry(
        row=sequence.row,
        temperature=d.temperature,
        top_p=d.top_p,
        top_k=d.top_k,
        min_p=d.min_p,
        presence_penalty=d.presence_penalty,
        frequency_penalty=d.frequency_penalty,
        repetition_penalty=d.repetition_penalty,
        logit_bias=d.logit_bias,
        seed=d.seed,
        sample_index=sequence.index,
        min_new_tokens=d.min_new_tokens,
        stop_ids=d.stop_ids,
        num_prompt=sequence.num_prompt,
        history=sequence.ids if counts else None,
    )


def _unwedge(scheduler: Scheduler) -> None:
    """Nothing could be planned though sequences run, and no step is in flight that would free pages.

    One of them holds pages twice (its own and those that another lease inserted first): it lets go and comes back.
    """
    running = scheduler.rows.running()
    if running and scheduler.settled == scheduler.launched:
        scheduler.preempt(by_importance(running)[-1])
