"""Plans written by hand, as the scheduler would write them, and the executor that runs them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ramify.runtime.executor.executor import TorchExecutor
from ramify.runtime.executor.launched import TorchLaunched
from ramify.runtime.plan import SAMPLE, RowEntry, StepPlan, StepResult


class Want(NamedTuple):
    """One wanted output; row -1 is the span's own."""

    span: int
    offset: int
    kind: int = SAMPLE
    row: int = -1
    position: int = 0
    top: int = 0
    ids: tuple[int, ...] = ()
    logprob: int = 0
    mask: int = 0


class Steps:
    """Writes plans as the scheduler would, one after another. Rows get pages of their own, from all over the pool.

    All of the pool starts as NaN: what a step reads without having written it spoils its result.
    """

    def __init__(self, executor: TorchExecutor):
        self.executor = executor
        self.step = 0
        pool = executor.pool
        for number in range(pool.spec.num_layers):
            for tensor in pool.layer(number):
                tensor.fill_(float("nan"))
        self._free = np.random.default_rng(0).permutation(pool.num_pages).astype(np.int32).tolist()
        self._entering: list[RowEntry] = []
        self.pages: dict[int, list[int]] = {}

    def enter(self, row: int, **fields: Any) -> None:
        """In the next step the row begins anew, without pages."""
        self._entering.append(RowEntry(row=row, **fields))
        self.pages[row] = []

    def forward(
        self, spans: list[tuple[int, int, list[int]]], wants: list[Want], *, copies: list[tuple[int, int]] | None = None
    ) -> TorchLaunched:
        """spans: (row, start, token ids); copies: (source, target) pages."""
        written = [(row, index) for row, start, ids in spans for index in self.grow(row, start + len(ids))]
        kinds = {name: np.array([getattr(want, name) for want in wants], np.int32) for name in Want._fields if name != "ids"}
        kinds["row"] = np.array([spans[w.span][0] if w.row < 0 else w.row for w in wants], np.int32)
        self.step += 1
        plan = StepPlan(
            self.step,
            rows=np.array([row for row, _, _ in spans], np.int32),
            starts=np.array([start for _, start, _ in spans], np.int32),
            lengths=np.array([len(ids) for _, _, ids in spans], np.int32),
            tokens=np.array([token for _, _, ids in spans for token in ids], np.int32),
            positions=np.array([start + i for _, start, ids in spans for i in range(len(ids))], np.int32),
            table_row=np.array([row for row, _ in written], np.int32),
            table_index=np.array([index for _, index in written], np.int32),
            table_page=np.array([self.pages[row][index] for row, index in written], np.int32),
            copy_src=np.array([source for source, _ in copies or []], np.int32),
            copy_dst=np.array([target for _, target in copies or []], np.int32),
            entering=tuple(self._entering),
            want_ids=np.array([token for want in wants for token in want.ids], np.int32),
            want_ids_ptr=np.cumsum([0, *(len(want.ids) for want in wants)]).astype(np.int32),
            **{f"want_{name}": column for name, column in kinds.items()},
        )
        self._entering = []
        return self.executor.forward(plan)

    def grow(self, row: int, length: int) -> list[int]:
        """Gives the row pages up to a length; indices of the new ones."""
        held = self.pages[row]
        new = range(len(held), -(-length // self.executor.pool.page_size))
        held.extend(self._free.pop() for _ in new)
        return list(new)

    def run(self, spans: list[tuple[int, int, list[int]]], wants: list[Want], **more: Any) -> StepResult:
        """A whole step."""
        launched = self.forward(spans, wants, **more)
        launched.sample(None)
        return launched.result()

    def generate(self, row: int, prompt: list[int], count: int, *, position: int = 0, **fields: Any) -> list[int]:
        """The row's next tokens after a prompt, one row alone, each input the row's own last token (FROM_DEVICE)."""
        self.enter(row, **fields)
        tokens = self.run([(row, 0, prompt)], [Want(0, len(prompt) - 1, position=position)]).tokens.tolist()
        for i in range(1, count):
            span = (row, len(prompt) + i - 1, [-1])
            tokens += self.run([span], [Want(0, 0, position=position + i)]).tokens.tolist()
        return tokens
