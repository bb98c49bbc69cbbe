"""What one step does: the only thing that crosses from the scheduler to the executor, and what comes back.

Columnar: one NumPy int32 array per field, so that a plan for 256 rows costs microseconds to build, to send to other ranks
and to turn into tensors. `Span` is how tests and people see one line of it. Order of effects within a step:

    1. rows entering (their sampling state), page table writes, page copies
    2. forward over all spans: in every layer all new K and V are written before attention reads
    3. wanted outputs from the final hidden states; sampling with grammar masks
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

FROM_DEVICE = -1
"""In `StepPlan.tokens`: the row's last sampled token, which only the device may know yet."""

SAMPLE, LOGPROB = 0, 1
"""Kinds of wanted outputs: draw a token | log-probabilities of given ids."""


class Span(NamedTuple):
    """Tokens [start, start + length) of a sequence: a chunk, a decode (1), a verification (1 + k), a forced run."""

    row: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class RowEntry:
    """A sequence enters a row of the batch: what the executor's sequence table must know to sample for it.

    seed, sample_index: key of the counter-based generator. stop_ids: ids that may not be drawn while the output is shorter
    than min_new_tokens. history: ids to count for penalties (prompt first), None when no penalty is on; num_prompt of them
    are prompt. All probabilities are resolved (no None). top_k 0 is off. temperature 0 is greedy.
    """

    row: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    sample_index: int = 0
    min_new_tokens: int = 0
    stop_ids: tuple[int, ...] = ()
    num_prompt: int = 0
    history: Int32 | None = None


def _none() -> Int32:
    return np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step. S spans, T tokens, U page table writes, M page copies, W wanted outputs. All arrays int32.

    rows, starts, lengths [S]: the spans. A row has at most one span in a step.
    tokens [T]: input ids in span order, FROM_DEVICE where only the device knows them.
    positions [T]: rotary positions in span order (an index in a key is not a rotary position).
    table_row, table_index, table_page [U]: page_table[row, index] = page, before the forward.
    copy_src, copy_dst [M]: whole pages copied in every layer, before the forward.
    entering: rows whose sampling state is new in this step.
    want_span, want_offset, want_kind, want_row [W]: output wanted of token `offset` of span number `span`; `row` is the
        row whose sampling state is used, so that several rows may draw from one logits row. SAMPLE entries also set the
        row's last token on the device.
    want_position [W]: for SAMPLE, the output position (0 = first token after the original prompt): the counter of the draw.
    want_top [W]: how many most likely ids to report beside the entry (0: none); for LOGPROB and SAMPLE.
    want_ids, want_ids_ptr [W + 1]: for LOGPROB, ids whose log-probability is wanted: want_ids[ptr[w]:ptr[w + 1]];
        for SAMPLE, further ids beside the drawn one.
    want_logprob [W]: for SAMPLE, 1 when the drawn token's log-probability is to be reported.
    want_mask [W]: 1 for SAMPLE entries that wait for a grammar mask; `Launched.sample` gets one bitmask row per such
        entry, in order.
    """

    step: int
    rows: Int32 = field(default_factory=_none)
    starts: Int32 = field(default_factory=_none)
    lengths: Int32 = field(default_factory=_none)
    tokens: Int32 = field(default_factory=_none)
    positions: Int32 = field(default_factory=_none)
    table_row: Int32 = field(default_factory=_none)
    table_index: Int32 = field(default_factory=_none)
    table_page: Int32 = field(default_factory=_none)
    copy_src: Int32 = field(default_factory=_none)
    copy_dst: Int32 = field(default_factory=_none)
    entering: tuple[RowEntry, ...] = ()
    want_span: Int32 = field(default_factory=_none)
    want_offset: Int32 = field(default_factory=_none)
    want_kind: Int32 = field(default_factory=_none)
    want_row: Int32 = field(default_factory=_none)
    want_position: Int32 = field(default_factory=_none)
    want_top: Int32 = field(default_factory=_none)
    want_ids: Int32 = field(default_factory=_none)
    want_ids_ptr: Int32 = field(default_factory=lambda: np.zeros(1, np.int32))
    want_logprob: Int32 = field(default_factory=_none)
    want_mask: Int32 = field(default_factory=_none)

    def spans(self) -> list[Span]:
        """The spans as people read them. Answers only."""
        return [Span(*line) for line in zip(self.rows.tolist(), self.starts.tolist(), self.lengths.tolist(), strict=True)]

    @property
    def num_tokens(self) -> int:
        """Tokens computed in this step."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step found, in the order of the plan's wanted outputs (ragged where counts differ).

    tokens [W] int32: the drawn id for SAMPLE entries, -1 for others.
    logprobs [W] float32: of the drawn id where want_logprob, else 0.
    id_logprobs [len(want_ids)] float32: of the ids in want_ids.
    top_ids, top_logprobs [sum(want_top)]: most likely first, entry after entry.
    bad [W] bool: the entry's logits held NaN or +inf: its sequence ends with an error, the others are unaffected.
    forward_s: seconds that the device worked.
    """

    step: int
    tokens: Int32
    logprobs: Float32
    id_logprobs: Float32
    top_ids: Int32
    top_logprobs: Float32
    bad: NDArray[np.bool_]
    forward_s: float = 0.0


class StepFailed(Exception):
    """A step could not be computed (out of memory, a kernel's error). Its pending nodes are cut off; sequences go back."""


class Launched(Protocol):
    """A step that the device works on."""

    @property
    def step(self) -> int: ...

    def sample(self, masks: Int32 | None) -> None:
        """Give the grammar masks: int32 [entries with want_mask, ceil(vocab / 32)], bit set = allowed; None if there are none."""
        ...

    def result(self) -> StepResult:
        """Wait for the step's end. Raises StepFailed."""
        ...


class Executor(Protocol):
    """Computes steps, in the order in which they are given."""

    def forward(self, plan: StepPlan) -> Launched:
        """Start a step. Returns as soon as the device has it (on the CPU: when it is computed)."""
        ...
