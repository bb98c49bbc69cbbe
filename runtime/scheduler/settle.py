"""Results -> messages: tokens are taken, stops found, sequences ended; the cache learns what is computed.

The common case is vectorised over all rows; Python looks at single sequences only where something happened to them.
"""

from __future__ import annotations

import numpy as np

from ..plan import StepResult
from ..protocol import Failure, Finish
from ..wire import DrawnLogprob, Outbound, Progress
from .jump import WORTH_WAITING, jump
from .scheduler import Scheduler
from .sequence import Sequence, State
from .take import Flight

MOST_SOLO_FAILURES = 3
"""A sequence whose steps fail so often while it is the only suspect is the cause, and ends with an error."""


def settle(scheduler: Scheduler, flight: Flight, result: StepResult, now: float) -> list[Outbound]:
    """Take the results of one step. Changes sequences, rows and cache; returns what the text side must know."""
    step = flight.plan.step
    scheduler.settled = step
    scheduler.cache.settle(step)
    for sequence, _, start, length in flight.prefilled:
        sequence.count_computed(start, length)
    _settle_scores(flight, result)
    messages = _settle_draws(scheduler, flight, result, now)
    for sequence, epoch, start, length in flight.prefilled:
        alive = sequence.row >= 0 and int(scheduler.rows.epoch[sequence.row]) == epoch
        if not alive or sequence.state is State.DONE:
            continue
        sequence.suspect, sequence.solo_failures = False, 0
        if not sequence.samples and start + length == int(scheduler.rows.known[sequence.row]):
            messages += scheduler.finish(sequence, Finish("length"), now)
    return messages


def _settle_scores(flight: Flight, result: StepResult) -> None:
    if not flight.scored:
        return
    ptr = flight.plan.want_ids_ptr
    tops = np.concatenate([[0], np.cumsum(flight.plan.want_top)])
    for sequence, entry, position in flight.scored:
        for k in range(ptr[entry], ptr[entry + 1]):
            sequence.found[position, int(flight.plan.want_ids[k])] = float(result.id_logprobs[k])
        if sequence.want_top:
            sequence.found_top[position] = _pairs(result.top_ids, result.top_logprobs, tops[entry], tops[entry + 1])


def _pairs(ids: np.ndarray, values: np.ndarray, first: int, last: int) -> tuple[tuple[int, float], ...]:
    return tuple(zip(ids[first:last].tolist(), values[first:last].tolist(), strict=True))


def _settle_draws(scheduler: Scheduler, flight: Flight, result: StepResult, now: float) -> list[Outbound]:
    """The drawn tokens: appended, checked for their ends, reported in one message."""
    rows = scheduler.rows
    # NumPy indexes by intp, and would convert at each use.
    drawn, entries = flight.drawn_rows.astype(np.intp), flight.drawn_entries
    live = rows.epoch[drawn] == flight.drawn_epochs
    if not live.all():
        drawn, entries = drawn[live], entries[live]
    if not len(drawn):
        return []
    bad = result.bad[entries]
    messages: list[Outbound] = []
    if bad.any():
        messages += _end_bad(scheduler, drawn[bad], now)
        drawn, entries = drawn[~bad], entries[~bad]
        if not len(drawn):
            return messages
    tokens = result.tokens[entries]
    known = rows.known[drawn]
    rows.history[drawn, known] = tokens
    entered = drawn[rows.computed[drawn] == 0]
    rows.computed[drawn] = known
    known += 1
    rows.known[drawn] = known
    stopped = (rows.stops[drawn] == tokens[:, None]).any(axis=1)
    full = known >= rows.limit[drawn]
    ended = stopped | full
    careful = rows.careful[drawn]
    reports: tuple[tuple[int, DrawnLogprob], ...] = ()
    failed: dict[int, Failure] = {}
    forced: list[tuple[int, list[int]]] = []
    if careful.any():
        where = np.flatnonzero(careful)
        reports = _reports(scheduler, flight, result, drawn, entries, where)
        failed = _accept(scheduler, flight, drawn, tokens, stopped, where)
        ended = stopped | full
        for at in failed:
            ended[at] = True
        forced = _jump(scheduler, drawn[careful & ~ended].tolist())
    for row in entered.tolist():
        sequence = rows.sequences[row]
        if sequence is not None and not sequence.clock.first_token:
            sequence.clock.first_token = now
            messages += _unsaid(sequence, flight.plan.step)
    messages.append(_progress(scheduler, flight.plan.step, drawn, tokens, forced, reports))
    for at in np.flatnonzero(ended).tolist():
        sequence = rows.sequences[int(drawn[at])]
        assert sequence is not None
        if at in failed:
            messages += scheduler.finish(sequence, Finish("error"), now, failed[at])
        elif stopped[at]:
            messages += scheduler.finish(sequence, Finish("stop", int(tokens[at])), now)
        else:
            messages += scheduler.finish(sequence, Finish("length"), now)
    for row in drawn[~ended & ~rows.decoding[drawn]].tolist():
        sibling = rows.sequences[row]
        if sibling is not None and sibling.lease is None:
            scheduler.step_back(sibling)
    return messages


def _progress(
    scheduler: Scheduler,
    step: int,
    drawn: np.ndarray,
    tokens: np.ndarray,
    forced: list[tuple[int, list[int]]],
    logprobs: tuple[tuple[int, DrawnLogprob], ...],
) -> Progress:
    rows = scheduler.rows
    if forced:
        drawn = np.concatenate([drawn, np.repeat([row for row, _ in forced], [len(run) for _, run in forced])])
        tokens = np.concatenate([tokens, np.array([token for _, run in forced for token in run], np.int32)])
    return Progress(step, rows.key[drawn].tobytes(), rows.index[drawn].tobytes(), tokens.tobytes(), logprobs)


def _unsaid(sequence: Sequence, step: int) -> list[Outbound]:
    """What was forced before the first draw is told now: until then a stop in it would end a sequence that is not computed."""
    run, sequence.unsaid = sequence.unsaid, ()
    if not run:
        return []
    keys, indices = np.full(len(run), sequence.key, np.int64), np.full(len(run), sequence.index, np.int32)
    return [Progress(step, keys.tobytes(), indices.tobytes(), np.array(run, np.int32).tobytes())]


def _jump(scheduler: Scheduler, drawn: list[int]) -> list[tuple[int, list[int]]]:
    """Tokens that grammars force become known where no step in flight draws them; elsewhere the row is held until then."""
    rows = scheduler.rows
    found = []
    for row in drawn:
        sequence = rows.sequences[row]
        assert sequence is not None
        matcher = sequence.matcher
        rows.held[row] = False
        if matcher is None or not matcher.forced or not scheduler.jumps(sequence):
            continue
        known = int(rows.known[row])
        if rows.length[row] > known:
            rows.held[row] = len(matcher.forced) >= WORTH_WAITING
            continue
        run = jump(matcher, int(rows.limit[row]) - known - 1, sequence.drawing.stop_ids)
        if run:
            rows.history[row, known : known + len(run)] = run
            rows.known[row] += len(run)
            rows.length[row] += len(run)
            rows.forced[row] = len(run)
            sequence.counts.forced += len(run)
            found.append((row, run))
    return found


def _end_bad(scheduler: Scheduler, drawn: np.ndarray, now: float) -> list[Outbound]:
    text = "The model's logits are not numbers (NaN or infinity) at this position. Check the weights and the dtype."
    messages: list[Outbound] = []
    for row in drawn.tolist():
        sequence = scheduler.rows.sequences[row]
        if sequence is not None:
            messages += scheduler.finish(sequence, Finish("error"), now, Failure("nan_logits", text))
    return messages


def _reports(
    scheduler: Scheduler, flight: Flight, result: StepResult, drawn: np.ndarray, entries: np.ndarray, where: np.ndarray
) -> tuple[tuple[int, DrawnLogprob], ...]:
    """Log-probabilities of the rows that asked for them."""
    plan = flight.plan
    if not plan.want_logprob.any():
        return ()
    tops = np.concatenate([[0], np.cumsum(plan.want_top)])
    reports = []
    for at in where.tolist():
        entry = int(entries[at])
        if not plan.want_logprob[entry]:
            continue
        first, last = int(plan.want_ids_ptr[entry]), int(plan.want_ids_ptr[entry + 1])
        reports.append(
            (
                at,
                DrawnLogprob(
                    int(result.tokens[entry]),
                    float(result.logprobs[entry]),
                    _pairs(result.top_ids, result.top_logprobs, tops[entry], tops[entry + 1]),
                    _pairs(plan.want_ids, result.id_logprobs, first, last),
                ),
            )
        )
    return tuple(reports)


def _accept(
    scheduler: Scheduler, flight: Flight, drawn: np.ndarray, tokens: np.ndarray, stopped: np.ndarray, where: np.ndarray
) -> dict[int, Failure]:
    """Advance the grammars; find stops among more ids than the columns hold. Returns failures by position."""
    failed: dict[int, Failure] = {}
    share = flight.mask_s / max(len(flight.matchers), 1)
    for at in where.tolist():
        sequence = scheduler.rows.sequences[int(drawn[at])]
        assert sequence is not None
        token = int(tokens[at])
        if token in sequence.drawing.stop_ids:
            stopped[at] = True
        matcher = sequence.matcher
        if matcher is None:
            continue
        sequence.clock.masks += share
        if not matcher.accept(token):
            failed[at] = Failure("engine_error", f"Token {token} was drawn although the grammar forbids it.")
        elif matcher.is_terminated:
            stopped[at] = True
    return failed


def fail(scheduler: Scheduler, flights: list[Flight], cause: Exception, now: float) -> list[Outbound]:
    """Steps that could not be computed: what was pending on them is cut off, their sequences go back and try again.

    flights: the failed step and all that were launched after it, which may have read what it did not write. A sequence
    that fails as the only suspect, again and again, is the cause and ends with an error; the others are unaffected.
    """
    rows = scheduler.rows
    first, last = flights[0].plan.step, flights[-1].plan.step
    members = {int(r) for f in flights for r in f.plan.rows} | {int(r) for f in flights for r in f.drawn_rows}
    scheduler.cache.fail(first)
    touched = [s for r in sorted(members) if (s := rows.sequences[r]) is not None and rows.last_step[r] >= first]
    cut = [s for s in rows.running() if s.lease is not None and s.lease.is_cut]
    sequences = list({id(s): s for s in [*touched, *cut]}.values())
    scheduler.settled = last
    on_trial = [s for s in sequences if s.suspect]
    messages: list[Outbound] = []
    for sequence in sequences:
        alone = len(sequences) == 1 or on_trial == [sequence]
        sequence.solo_failures += alone
        sequence.suspect = True
        if sequence.solo_failures >= MOST_SOLO_FAILURES:
            text = f"Steps with this request failed {sequence.solo_failures} times: {cause}"
            messages += scheduler.finish(sequence, Finish("error"), now, Failure("engine_error", text))
        else:
            scheduler.step_back(sequence)
    scheduler.cache.settle(last)
    return messages
