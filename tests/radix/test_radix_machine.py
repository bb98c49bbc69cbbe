"""The cache beside a naive model, under everything a scheduler may do: chunks, decodes, forced runs, forks, aborts, failures.

The model is the device: for each slot of each page it remembers the prefix whose K and V lie there. Free pages are
poisoned at once, steps are carried out as late as allowed, and each span reads back, through its lease's pages, all
tokens before it. So a page that is shared wrongly, freed too early, written under a reader or copied too late shows
as a slot that holds another prefix.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ramify.radix.cache import Lease, Namespace, PrefixCache
from ramify.radix.events import Stored

NAMESPACES = [Namespace(), Namespace(tenant="b"), Namespace(adapter="lora", weights=1)]
DEPTH = 2
Prefix = tuple[Namespace, tuple[int, ...]]


@dataclass(eq=False)
class Seq:
    """A sequence as a scheduler sees it. planned: positions that some step writes; steps: the step of each own one."""

    namespace: Namespace
    tokens: list[int]
    lease: Lease
    found: int
    planned: int
    steps: dict[int, int] = field(default_factory=dict)
    settled: int = 0
    last_step: int = 0

    def prefix(self, length: int) -> Prefix:
        return self.namespace, tuple(self.tokens[:length])


@dataclass
class Step:
    """Copies happen first, then all writes, then all reads: (page, slot, the prefix that must be there).

    wrecks: what a failed step behind this one has overwritten.
    """

    number: int
    copies: list[tuple[int, int]] = field(default_factory=list)
    writes: list[tuple[int, int, Prefix]] = field(default_factory=list)
    reads: list[tuple[int, int, Prefix]] = field(default_factory=list)
    wrecks: list[tuple[int, int]] = field(default_factory=list)


class Choices(Protocol):
    """Where a run of the model takes its decisions from: Hypothesis, or a seeded generator."""

    def number(self, low: int, high: int) -> int: ...


class Drawn:
    """Decisions that Hypothesis makes, and shrinks."""

    def __init__(self, data: st.DataObject):
        self._data = data

    def number(self, low: int, high: int) -> int:
        return self._data.draw(st.integers(low, high))


class Rolled:
    """Decisions of a seeded generator: long walks at little cost."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def number(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


class Model:
    """The scheduler and the device around one cache. Each public verb is something that may happen between two checks."""

    def __init__(self, page_size: int, num_pages: int, policy: str, vocabulary: int = 2):
        self.page_size, self.num_pages, self.policy, self.vocabulary = page_size, num_pages, policy, vocabulary
        self.cache = PrefixCache(num_pages=num_pages, page_size=page_size, policy=policy, num_events=100_000)
        self.content: list[list[Prefix | None]] = [[None] * page_size for _ in range(num_pages)]
        self.seqs: list[Seq] = []
        self.plan = Step(1)
        self.flying: list[Step] = []
        self.settled = 0
        self.by_page: dict[int, tuple[Namespace, int, tuple[int, ...], int]] = {}
        self.shared: set[Prefix] = set()
        self.was_blocked = False
        self.used: dict[Prefix, int] = {}
        self.now = 0
        self.ended: list[Prefix] = []
        self.released: list[Seq] = []

    # ---------------------------------------------------------------------------------------------------- the device

    def write(self, seq: Seq, start: int, end: int) -> None:
        """Plan a span: it writes [start, end) and reads [0, end)."""
        pages, size = seq.lease.pages, self.page_size
        for p in range(end):
            slot = (int(pages[p // size]), p % size, seq.prefix(p + 1))
            if p >= start:
                self.plan.writes.append(slot)
                seq.steps[p] = self.plan.number
            self.plan.reads.append(slot)
        seq.planned, seq.last_step = end, self.plan.number

    def carry_out(self, step: Step) -> None:
        moved = [(target, list(self.content[source])) for source, target in step.copies]  # all at once, in no order
        for target, content in moved:
            self.content[target] = content
        for page, slot, prefix in step.writes:
            self.content[page][slot] = prefix
        for page, slot, prefix in step.reads:
            assert self.content[page][slot] == prefix, f"step {step.number} reads another prefix in page {page}, slot {slot}"
        self.wreck(step.wrecks)

    def wreck(self, slots: list[tuple[int, int]]) -> None:
        for page, slot in slots:
            self.content[page][slot] = None

    def touch(self, seq: Seq, length: int) -> None:
        self.now += 1
        for n in range(1, length + 1):
            self.used[seq.prefix(n)] = self.now

    def share(self, seq: Seq, start: int, end: int) -> None:
        for n in range(start + 1, end + 1):
            self.shared.add(seq.prefix(n))
        self.touch(seq, end)

    # ----------------------------------------------------------------------------------------------------- the verbs

    def tokens(self, by: Choices, most: int) -> list[int]:
        return [by.number(0, self.vocabulary - 1) for _ in range(by.number(1, most))]

    def start(self, by: Choices) -> None:
        """A prompt arrives, new or continuing another one's tokens (computed or not), and takes what is cached of it."""
        if len(self.seqs) >= 5:
            return
        most = max(3, self.num_pages * self.page_size // 3)
        namespace, prompt = NAMESPACES[max(0, by.number(-3, 2))], self.tokens(by, most)
        if self.seqs and by.number(0, 1):
            other = self.seqs[by.number(0, len(self.seqs) - 1)]
            namespace = other.namespace
            known = len(other.tokens) if by.number(0, 2) else by.number(0, len(other.tokens))
            prompt = (other.tokens[:known] + prompt)[: 2 * most]
        elif self.ended and by.number(0, 3):
            namespace, before = self.ended[by.number(0, len(self.ended) - 1)]
            prompt = (list(before) + prompt)[: 2 * most]
        limit = len(prompt) - by.number(0, 1)
        ids = np.array(prompt, np.int32)
        found = self.cache.match(namespace, ids, limit=limit)
        lease = self.cache.acquire(namespace, ids, limit=limit, step=self.plan.number)
        assert found.settled_length <= found.length <= limit
        assert lease.length == found.length or lease.length == found.length // self.page_size * self.page_size
        if self.page_size == 1:
            assert lease.length == found.length and lease.copy is None
        assert lease.capacity >= lease.length
        seq = Seq(namespace, prompt, lease, lease.length, lease.length)
        if lease.copy is not None:
            assert lease.copy.dst_page == lease.pages[-1] and lease.copy.num_tokens == lease.length % self.page_size
            self.content[lease.copy.dst_page] = [None] * self.page_size
            self.plan.copies.append((lease.copy.src_page, lease.copy.dst_page))
            seq.last_step = self.plan.number
        self.touch(seq, lease.length)
        self.seqs.append(seq)

    def span(self, by: Choices) -> None:
        """A sequence gets a span: a chunk or a forced run (known tokens, inserted) or a decode (private until settled)."""
        ready = [s for s in self.seqs if s.steps.get(s.planned - 1) != self.plan.number]
        if ready:
            self.plan_span(by, ready[by.number(0, len(ready) - 1)])

    def plan_span(self, by: Choices, seq: Seq) -> None:
        if seq.planned < len(seq.tokens):
            end = len(seq.tokens) if by.number(0, 1) else by.number(seq.planned + 1, len(seq.tokens))
            self.insert_up_to(seq, end)
            return
        forced = not by.number(0, 3)
        seq.tokens += self.tokens(by, 5) if forced else [by.number(0, self.vocabulary - 1)]
        if forced:
            self.insert_up_to(seq, len(seq.tokens))
        elif self.grow(seq, len(seq.tokens)):
            self.write(seq, seq.planned, len(seq.tokens))
        else:
            del seq.tokens[seq.planned :]

    def insert_up_to(self, seq: Seq, end: int) -> None:
        if not self.grow(seq, end):
            return
        known = seq.lease.length
        self.cache.insert(seq.lease, np.array(seq.tokens[known:end], np.int32), step=self.plan.number)
        self.write(seq, seq.planned, end)
        self.share(seq, known, end)

    def grow(self, seq: Seq, num_tokens: int) -> bool:
        lease, before = seq.lease, seq.lease.pages.tolist()
        view, need = self.cache.view(), -(-num_tokens // self.page_size) - len(before)
        done = self.cache.grow(lease, num_tokens)
        assert done == (need <= view.available) or need <= 0
        pages = lease.pages.tolist()
        assert pages[: len(before)] == before, "a page number changed under a lease"
        assert len(pages) == len(before) + max(0, need) * done
        for page in pages[len(before) :]:
            self.content[page] = [None] * self.page_size
        self.rebuild_from_events()  # what was evicted goes from the model before anything new is told
        return done

    def launch(self, by: Choices) -> None:
        """The plan is given to the device, which takes its time."""
        if len(self.flying) >= DEPTH:
            self.settle(by)
        self.flying.append(self.plan)
        self.plan = Step(self.plan.number + 1)

    def settle(self, by: Choices) -> None:
        """The oldest step is done; what it computed of drawn tokens is committed, now or later."""
        if not self.flying:
            return
        step = self.flying.pop(0)
        self.carry_out(step)
        self.settled = step.number
        self.cache.settle(step.number)
        if by.number(0, 3):
            for seq in self.seqs:
                self.commit(seq)

    def step(self, by: Choices) -> None:
        """A whole step of an engine: a span for nearly everyone, a launch, and sooner or later a settlement."""
        for seq in list(self.seqs):
            if by.number(0, 4) and seq.steps.get(seq.planned - 1) != self.plan.number:
                self.plan_span(by, seq)
        self.launch(by)
        if by.number(0, 1):
            self.settle(by)

    def commit_some(self, by: Choices) -> None:
        """Settled tokens are committed late, and in part."""
        if self.seqs:
            self.commit(self.seqs[by.number(0, len(self.seqs) - 1)], by.number(1, 3))

    def commit(self, seq: Seq, most: int = 1000) -> None:
        known = seq.lease.length
        computed = next((p for p in range(seq.found, seq.planned) if seq.steps[p] > self.settled), seq.planned)
        end = min(computed, known + most)
        if end > known:
            self.cache.commit(seq.lease, np.array(seq.tokens[known:end], np.int32))
            self.share(seq, known, end)

    def leave(self, by: Choices) -> None:
        """A sequence ends, is aborted or preempted, whatever is on its way."""
        if self.seqs:
            seq = self.seqs[by.number(0, len(self.seqs) - 1)]
            if by.number(0, 1):
                self.commit(seq)
            self.drop(seq)

    def drop(self, seq: Seq) -> None:
        known = 0 if seq.lease.is_cut else seq.lease.length
        self.cache.release(seq.lease, step=max(seq.last_step, self.settled))
        self.touch(seq, known)
        self.seqs.remove(seq)
        self.ended = [*self.ended[-3:], (seq.namespace, tuple(seq.tokens))]
        self.released = [*self.released[-3:], seq]

    def retract(self, by: Choices) -> None:
        """What one that left gave to the tree was of no use: it goes, unless others need it."""
        if not self.released:
            return
        seq = self.released[by.number(0, len(self.released) - 1)]
        kept = by.number(0, len(seq.tokens))
        others = [(s, self.cache.match(s.namespace, s.tokens).length) for s in self.seqs if not s.lease.is_cut]
        stays = self.cache.match(seq.namespace, seq.tokens, limit=kept).length
        before = self.cache.stats()
        gone = self.cache.retract(seq.lease, kept)
        after = self.cache.stats()
        assert before.tokens - after.tokens == gone and before.locked == after.locked
        assert self.cache.match(seq.namespace, seq.tokens, limit=kept).length == stays, "what was to stay has gone"
        for other, length in others:
            mine = min(other.lease.node.end, length)
            assert self.cache.match(other.namespace, other.tokens).length >= mine, "a lease lost what it holds"

    def fail(self, by: Choices) -> None:
        """A launched step fails, and all after it; who took part goes back to what stands, or leaves."""
        if not self.flying:
            return
        at = by.number(0, len(self.flying) - 1)
        failed = [*self.flying[at:], self.plan]
        first, last = failed[0].number, failed[-1].number
        garbage = [(page, slot) for step in failed for page, slot, _ in step.writes]
        del self.flying[at:]
        if self.flying:
            self.flying[-1].wrecks = garbage
        else:
            self.wreck(garbage)
        sure = [s for s in self.seqs if self.stands_on_settled(s)]
        self.cache.fail(first)
        for seq in list(self.seqs):
            if seq.last_step < first and not seq.lease.is_cut:
                continue
            if not by.number(0, 2):
                self.drop(seq)
                continue
            good = next((p for p in range(seq.found, seq.planned) if seq.steps[p] >= first), seq.planned)
            kept = self.cache.rewind(seq.lease, good, step=last)
            assert kept <= good and seq.lease.length <= good and seq.lease.capacity >= kept
            if seq in sure:
                assert kept == good, "a lease lost what was computed"
            seq.found, seq.planned, seq.last_step = min(seq.found, kept), kept, min(seq.last_step, first - 1)
            seq.steps = {p: n for p, n in seq.steps.items() if p < kept}
        self.plan = Step(last + 1)
        if not self.flying and by.number(0, 1):
            self.settled = last
            self.cache.settle(last)

    def back(self, by: Choices) -> None:
        """A sequence goes back to fewer tokens of its own accord, and on with others."""
        ready = [s for s in self.seqs if s.steps.get(s.planned - 1) != self.plan.number]
        if not ready:
            return
        seq = ready[by.number(0, len(ready) - 1)]
        wanted = by.number(max(0, seq.planned - 6), seq.planned)
        kept = self.cache.rewind(seq.lease, wanted, step=seq.last_step)
        assert wanted - self.page_size < kept <= wanted and seq.lease.length <= kept <= seq.lease.capacity
        seq.found, seq.planned = min(seq.found, kept), kept
        seq.steps = {p: n for p, n in seq.steps.items() if p < kept}
        seq.tokens = seq.tokens[:kept] + self.tokens(by, 4)

    def stands_on_settled(self, seq: Seq) -> bool:
        """Whether all that the sequence found in the cache was computed, and copied, before the steps that are not settled."""
        found = self.cache.match(seq.namespace, seq.tokens, limit=seq.found)
        copied = seq.lease.copy is None or seq.lease.copy_step <= self.settled
        return copied and found.settled_length == seq.found

    def flush(self, by: Choices) -> None:
        """Everything that nobody needs goes."""
        if by.number(0, 3):
            return
        before = self.cache.stats()
        gone = self.cache.flush()
        after = self.cache.stats()
        assert after.evictable == 0 and before.tokens - after.tokens == gone

    def end(self) -> None:
        """All leave: nothing may be left behind."""
        while self.flying:
            self.settle(Rolled(0))
        for seq in list(self.seqs):
            self.drop(seq)
        self.cache.settle(self.plan.number)
        self.cache.check()
        self.cache.flush()
        self.cache.check()
        stats = self.cache.stats()
        assert stats.free == stats.total, f"pages have leaked: {stats}"
        assert not self.cache._tree.roots, "namespaces have leaked"

    # ------------------------------------------------------------------------------------------------ what must hold

    def check(self) -> None:
        """Everything that must hold after each verb."""
        self.cache.check()
        for first, length in self.cache._pool.runs():
            for page in range(first, first + length):
                self.content[page] = [None] * self.page_size
        self.rebuild_from_events()

    def rebuild_from_events(self) -> None:
        """The events alone tell a reader what is in the tree."""
        assert self.cache.events is not None
        removed = []
        for event in self.cache.events.drain()[0]:
            if isinstance(event, Stored):
                size, ids = self.page_size, event.ids.tolist()
                parent = event.parent_page
                for i, page in enumerate(event.pages.tolist()):
                    start = event.start + i * size
                    self.by_page[page] = (event.namespace, start, tuple(ids[i * size : (i + 1) * size]), parent)
                    parent = page
            else:
                for page in event.pages.tolist():
                    if event.reason != "replaced":
                        removed.append((event.reason, self.spell(page)))
                for page in event.pages.tolist():
                    del self.by_page[page]
        self.compare(removed)

    def spell(self, page: int) -> Prefix:
        parts = []
        while page >= 0:
            namespace, _, ids, parent = self.by_page[page]
            parts.append(ids)
            page = parent
        return namespace, tuple(t for part in reversed(parts) for t in part)

    def compare(self, removed: list[tuple[str, Prefix]]) -> None:
        dump = self.cache.tree()
        nodes = {n["id"]: n for n in dump["nodes"]}
        assert dump["tokens"] == sum(n["length"] for n in nodes.values()) == self.cache.stats().tokens
        spelled: dict[int, Prefix] = {}
        ends: list[Prefix] = []
        seen: set[int] = set()
        parents = {n["parent"] for n in nodes.values()}
        for node in nodes.values():  # parents come first
            above = spelled[node["parent"]][1] if node["parent"] else ()
            spelled[node["id"]] = namespace, full = Namespace(*node["namespace"]), above + tuple(node["ids"])
            for i, page in enumerate(node["pages"]):
                end = min(node["start"] + (i + 1) * self.page_size, len(full))
                assert self.spell(page) == (namespace, full[:end])
                seen.add(page)
            if node["id"] not in parents and not node["locks"]:
                ends.append((namespace, full))
        assert seen == self.by_page.keys()
        if self.page_size == 1:
            self.compare_with_a_set(set(map(self.spell, seen)), ends, removed)

    def compare_with_a_set(self, present: set[Prefix], ends: list[Prefix], removed: list[tuple[str, Prefix]]) -> None:
        """Page size 1: the tree is a set of prefixes; what left it had been used before all that may leave it now."""
        if self.policy == "lru":
            oldest = min((self.used[end] for end in ends), default=self.now)
            for reason, prefix in removed:
                assert reason in ("cut off", "dropped") or self.used[prefix] <= oldest, "a prefix was evicted before an older one"
        waiting = {s.prefix(n) for s in self.seqs if s.lease.blocked for n in range(s.lease.length + 1)}
        # Some that a failed step cut off are there again at once: another lease, which had waited for them, put its own there.
        self.shared -= {prefix for _, prefix in removed} - waiting - present
        assert present <= self.shared
        missing = self.shared - present - waiting
        assert not missing or self.was_blocked, f"{missing} were shared and are gone"
        self.shared &= present | waiting
        self.was_blocked = bool(waiting)
        for seq in self.seqs[:2]:
            expected = next((n for n in range(len(seq.tokens), 0, -1) if seq.prefix(n) in present), 0)
            assert self.cache.match(seq.namespace, seq.tokens).length == expected


VERBS = (
    Model.start,
    Model.span,
    Model.step,
    Model.launch,
    Model.settle,
    Model.commit_some,
    Model.leave,
    Model.fail,
    Model.back,
    Model.flush,
    Model.retract,
)
SIZES = [
    (1, 24, "lru"),
    (1, 80, "lru"),
    (1, 24, "lfu"),
    (1, 24, "fifo"),
    (2, 16, "lru"),
    (4, 10, "lru"),
    (4, 24, "lfu"),
    (16, 6, "lru"),
]


class CacheMachine(RuleBasedStateMachine):
    """Hypothesis chooses the verbs and all that they decide, and shrinks what fails."""

    size = SIZES[0]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(*self.size)

    @rule(data=st.data(), verb=st.sampled_from(VERBS))
    def act(self, data: st.DataObject, verb: Callable[[Model, Choices], None]) -> None:
        verb(self.model, Drawn(data))

    @invariant()
    def everything_holds(self) -> None:
        self.model.check()

    def teardown(self) -> None:
        self.model.end()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_cache_agrees_with_a_naive_model_whatever_a_scheduler_does(size: tuple[int, int, str]) -> None:
    case = type("Sized", (CacheMachine,), {"size": size}).TestCase
    case.settings = settings(max_examples=25, stateful_step_count=40)
    case("runTest").runTest()


@pytest.mark.parametrize("vocabulary", [2, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_cache_agrees_with_a_naive_model_on_long_walks(size: tuple[int, int, str], vocabulary: int) -> None:
    model, by = Model(*size, vocabulary=vocabulary), Rolled(size[0] * 100 + size[1] + vocabulary)
    often = [Model.start, Model.start, Model.step, Model.step, *VERBS]
    for _ in range(800):
        often[by.number(0, len(often) - 1)](model, by)
        model.check()
    model.end()
