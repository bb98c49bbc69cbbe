"""An executor without a model: the next token is a hash of the KV that it can read, so a wrong page is a wrong token.

It is as nasty as a device may be: it works late (a step is computed only when its result is read), it fails steps, and
whoever owns it fills freed pages with poison at once, also while steps that were launched before are still to come.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from ramify.runtime.plan import FROM_DEVICE, SAMPLE, RowEntry, StepFailed, StepPlan, StepResult

POISON = -7


def draw(ids: Sequence[int], *, seed: int, index: int, position: int, allowed: Sequence[int]) -> int:
    """The token that follows `ids`: the whole model."""
    text = np.asarray([*ids, seed & 0xFFFF, index, position], np.int32).tobytes()
    return allowed[zlib.crc32(text) % len(allowed)]


def logprob(ids: Sequence[int], token: int) -> float:
    """The 'log-probability' of `token` after `ids`."""
    return -(zlib.crc32(np.asarray([*ids, token], np.int32).tobytes()) % 4096) / 64.0


class FakeLaunched:
    def __init__(self, executor: FakeExecutor, plan: StepPlan, fails: bool):
        self.executor, self.plan, self.fails = executor, plan, fails
        self.masks: np.ndarray | None = None
        self.asked = False
        self.found: StepResult | None = None

    @property
    def step(self) -> int:
        return self.plan.step

    def sample(self, masks: np.ndarray | None) -> None:
        assert (0 if masks is None else len(masks)) == int(self.plan.want_mask.sum())
        self.masks, self.asked = masks, True

    def result(self) -> StepResult:
        self.executor.run_until(self)
        if self.fails:
            raise StepFailed(f"step {self.step} was made to fail")
        assert self.found is not None
        return self.found


class FakeExecutor:
    """vocab: number of tokens. fails: asked once a step. refuses: asked once a step, fails it already at `forward`."""

    def __init__(
        self,
        *,
        num_pages: int,
        page_size: int,
        max_rows: int,
        context: int,
        vocab: int,
        fails: Callable[[], bool] = lambda: False,
        refuses: Callable[[], bool] = lambda: False,
    ):
        self.page_size, self.vocab = page_size, vocab
        self.tokens = np.full(num_pages * page_size, POISON, np.int64)
        self.places = np.full(num_pages * page_size, POISON, np.int64)
        self.table = np.full((max_rows, -(-context // page_size) + 1), -1, np.int64)
        self.last = np.full(max_rows, POISON, np.int64)
        self.entries: dict[int, RowEntry] = {}
        self.computed_tokens = 0
        self.steps = 0
        self._fails, self._refuses = fails, refuses
        self._pending: deque[FakeLaunched] = deque()

    def forward(self, plan: StepPlan) -> FakeLaunched:
        assert len(plan.rows) == len(set(plan.rows.tolist())), "a row has two spans in one step"
        if self._refuses():
            raise StepFailed(f"step {plan.step} was refused")
        launched = FakeLaunched(self, plan, self._fails())
        self._pending.append(launched)
        self.steps += 1
        return launched

    def poison(self, pages: Sequence[int]) -> None:
        """These pages are free: nobody may read them any more."""
        for page in pages:
            where = slice(page * self.page_size, (page + 1) * self.page_size)
            self.tokens[where] = POISON
            self.places[where] = POISON

    def run_until(self, launched: FakeLaunched) -> None:
        while launched.found is None:
            self._run(self._pending.popleft())

    def _run(self, launched: FakeLaunched) -> None:
        plan = launched.plan
        for entry in plan.entering:
            self.entries[entry.row] = entry
        self.table[plan.table_row, plan.table_index] = plan.table_page
        for source, target in zip(plan.copy_src.tolist(), plan.copy_dst.tolist(), strict=True):
            a, b = slice(source * self.page_size, (source + 1) * self.page_size), target * self.page_size
            self.tokens[b : b + self.page_size] = self.tokens[a]
            self.places[b : b + self.page_size] = self.places[a]
        at = 0
        spans = plan.spans()
        for span in spans:
            for position in range(span.start, span.start + span.length):
                token = int(plan.tokens[at])
                assert plan.positions[at] == position
                slot = self._slot(span.row, position)
                self.tokens[slot] = self.last[span.row] if token == FROM_DEVICE else token
                self.places[slot] = position
                at += 1
        self.computed_tokens += at
        # Launched, but never asked to draw: the step before it failed. The device still runs it, on what it finds.
        worthless = launched.fails or not launched.asked
        launched.found = self._outputs(plan, spans, launched.masks, worthless)
        if worthless:
            for span in spans:
                for position in range(span.start, span.start + span.length):
                    self.tokens[self._slot(span.row, position)] = POISON

    def _slot(self, row: int, position: int) -> int:
        page = int(self.table[row, position // self.page_size])
        assert page >= 0, f"row {row} has no page for position {position}"
        return page * self.page_size + position % self.page_size

    def _read(self, row: int, length: int) -> list[int]:
        """The ids that positions [0, length) of a row hold."""
        slots = [self._slot(row, p) for p in range(length)]
        assert self.places[slots].tolist() == list(range(length)), "a page holds something else, or was freed"
        return self.tokens[slots].tolist()

    def _outputs(self, plan: StepPlan, spans: list, masks: np.ndarray | None, worthless: bool) -> StepResult:
        count = len(plan.want_span)
        tokens, logprobs = np.full(count, -1, np.int32), np.zeros(count, np.float32)
        id_logprobs = np.zeros(len(plan.want_ids), np.float32)
        masked = 0
        for w in range(0 if worthless else count):
            span = spans[plan.want_span[w]]
            ids = self._read(span.row, span.start + int(plan.want_offset[w]) + 1)
            for k in range(plan.want_ids_ptr[w], plan.want_ids_ptr[w + 1]):
                id_logprobs[k] = logprob(ids, int(plan.want_ids[k]))
            if plan.want_kind[w] != SAMPLE:
                continue
            allowed = list(range(self.vocab))
            if plan.want_mask[w]:
                assert masks is not None
                allowed = [t for t in allowed if int(masks[masked, t >> 5]) >> (t & 31) & 1]
                masked += 1
            entry = self.entries[int(plan.want_row[w])]
            position = int(plan.want_position[w])
            token = draw(ids, seed=entry.seed, index=entry.sample_index, position=position, allowed=allowed)
            tokens[w] = token
            logprobs[w] = logprob(ids, token)
            self.last[plan.want_row[w]] = token
        empty = np.zeros(0, np.int32)
        return StepResult(
            plan.step, tokens, logprobs, id_logprobs, empty, np.zeros(0, np.float32), np.zeros(count, np.bool_)
        )
