"""A small world around one engine: it submits, aborts and stops at random, and knows what every answer must be."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
from fake_executor import FakeExecutor, draw, logprob
from fake_grammar import AlternatingMatcher

from ramify.constrained.masks import Masks
from ramify.radix.cache import PrefixCache
from ramify.runtime.config import ScheduleConfig
from ramify.runtime.engine import Engine
from ramify.runtime.protocol import LogprobParams, pack_ids
from ramify.runtime.wire import (
    AbortKey,
    Drawing,
    GrammarLoaded,
    Inbound,
    Outbound,
    Progress,
    Refused,
    ScoreEnd,
    SequenceEnd,
    StopAt,
    Submit,
    SubmitScore,
)

VOCAB = 5
END = 4


@dataclass
class Told:
    """What the world has heard about one sample."""

    tokens: list[int] = field(default_factory=list)
    end: SequenceEnd | None = None
    stopped_at: int | None = None


def expected(request: Submit, index: int) -> list[int]:
    """The tokens of sample `index`, computed one by one: the naive model."""
    ids = np.frombuffer(request.ids, np.int32).tolist()
    out: list[int] = []
    matcher = AlternatingMatcher(VOCAB, END, forces=forces(request)) if request.grammar else None
    limit = 10**9 if request.drawing.limit is None else request.drawing.limit
    while len(out) < limit:
        allowed = matcher.allowed() if matcher else list(range(VOCAB))
        token = draw(ids + out, seed=request.drawing.seed, index=index, position=len(out), allowed=sorted(allowed))
        out.append(token)
        if matcher:
            matcher.accept(token)
        if token in request.drawing.stop_ids or (matcher and matcher.is_terminated):
            break
    return out


class Reader:
    """Reads grammars when the world says so, and may forget them; without it whoever asks has them at once. b"broken" cannot be
    read."""

    def __init__(self, *, late: bool):
        self.late = late
        self.kept: set[bytes] = set()
        self.under_way: dict[int, bytes] = {}
        self.tickets = self.closed = 0

    def want(self, grammar: bytes) -> int | None:
        if not self.late or grammar in self.kept:
            return None
        for ticket, other in self.under_way.items():
            if other == grammar:
                return ticket
        self.tickets += 1
        self.under_way[self.tickets] = grammar
        return self.tickets

    def take(self, ticket: int) -> None:
        grammar = self.under_way.pop(ticket)
        if grammar == b"broken":
            raise RuntimeError("cannot be read")
        self.kept.add(grammar)

    def close(self) -> None:
        self.closed += 1

    def make_matcher(self, grammar: bytes, *, canonical: bool) -> AlternatingMatcher:
        assert not self.late or grammar in self.kept, "a matcher of a grammar that was not read"
        if grammar == b"broken":
            raise RuntimeError("cannot be read")
        return AlternatingMatcher(VOCAB, END, forces=grammar == b"forcing" and canonical)


def forces(request: Submit) -> bool:
    return request.grammar == b"forcing" and request.drawing.canonical_forced


class World:
    def __init__(
        self,
        *,
        seed: int,
        page_size: int = 1,
        num_pages: int = 64,
        depth: int = 1,
        policy: str = "prefix",
        chunk: int = 7,
        max_running: int = 6,
        fail_rate: float = 0.0,
        context: int = 64,
        eviction: str = "lru",
        limits: tuple[int, ...] = (0, 1, 2, 5, 9, 20),
        jump_forward: bool = True,
        late_grammars: bool = False,
        queue: int = 10_000,
    ):
        self.random = random.Random(seed)
        self.now = 0.0
        failing = random.Random(seed + 1)
        self.executor = FakeExecutor(
            num_pages=num_pages,
            page_size=page_size,
            max_rows=max_running,
            context=context,
            vocab=VOCAB,
            fails=lambda: failing.random() < fail_rate,
            refuses=lambda: failing.random() < fail_rate / 2,
        )
        self.cache = PrefixCache(num_pages=num_pages, page_size=page_size, policy=eviction)
        config = ScheduleConfig(
            max_running=max_running,
            chunk_tokens=chunk,
            context_length=context,
            policy=policy,
            queue=queue,
            depth=depth,
            jump_forward=jump_forward,
        )
        self.reader = Reader(late=late_grammars)
        self.engine = Engine(
            config,
            self.cache,
            self.executor,
            masks=Masks(VOCAB),
            make_matcher=self.reader.make_matcher,
            loading=self.reader,
            clock=lambda: self.now,
        )
        self.context, self.limits = context, limits
        self.requests: dict[int, Submit | SubmitScore] = {}
        self.told: dict[tuple[int, int], Told] = {}
        self.scores: dict[int, ScoreEnd] = {}
        self.refused: dict[int, Refused] = {}
        self.aborted: set[int] = set()
        self.inbox: list[Inbound] = []
        self.keys = 0

    # ------------------------------------------------------------------------------------------------- what may happen

    def prompt(self, longest: int) -> np.ndarray:
        """Few tokens and a few common beginnings, so that prefixes collide."""
        r = self.random
        base = [(i * i + i // 3) % 3 for i in range(r.choice([0, 0, 4, 9, 17, 24]))]
        ids = [*base, *(r.randrange(2) for _ in range(r.randrange(1, 12)))]
        return np.array(ids[:longest], np.int32)

    def submit(self, **fields) -> int:
        r = self.random
        self.keys += 1
        drawing = fields.pop("drawing", None) or Drawing(
            limit=r.choice(self.limits),
            seed=r.randrange(3),
            stop_ids=(END,) if r.random() < 0.8 else (),
            n=r.choice([1, 1, 1, 2, 3]),
            canonical_forced=r.random() < 0.8,
        )
        if drawing.limit == 0:
            drawing = Drawing(limit=0)
        request = Submit(
            key=self.keys,
            ids=pack_ids(fields.pop("ids", self.prompt(self.context - max(self.limits) - 1)).tolist()),
            drawing=drawing,
            grammar=r.choice([b"alternating", b"forcing"]) if r.random() < 0.4 and drawing.limit else None,
            logprobs=LogprobParams(prompt_from=r.choice([-1, -1, -1, 0, 1, 5]), output=r.random() < 0.1),
            tenant=r.choice(["", "", "", "other"]),
            priority=r.choice([0, 0, 1]),
            deadline_s=r.choice([None, None, None, None, 30.0]),
        )
        for name, value in fields.items():
            request = type(request)(**{**{f: getattr(request, f) for f in request.__struct_fields__}, name: value})
        self.requests[self.keys] = request
        for index in range(request.drawing.n):
            self.told[self.keys, index] = Told()
        self.inbox.append(request)
        return self.keys

    def submit_score(self) -> int:
        r = self.random
        self.keys += 1
        prompt = self.prompt(30) if r.random() < 0.9 else np.empty(0, np.int32)
        choices = tuple(pack_ids([r.randrange(2) for _ in range(r.randrange(1, 5))]) for _ in range(r.randrange(1, 5)))
        keep = r.choice(["mean", "greedy", "gain", "all", "none"])
        alone = tuple(tuple(-r.random() for _ in range(len(choice) // 4)) for choice in choices) if keep == "gain" else ()
        request = SubmitScore(key=self.keys, ids=prompt.tobytes(), choices=choices, keep=keep, alone=alone)
        self.requests[self.keys] = request
        self.inbox.append(request)
        return self.keys

    def abort(self) -> None:
        if self.requests:
            key = self.random.choice(list(self.requests))
            self.aborted.add(key)
            self.inbox.append(AbortKey(key))

    def stop(self) -> None:
        """The text side finds a stop string in what it has been told."""
        open_ones = [k for k, t in self.told.items() if t.end is None and t.tokens and t.stopped_at is None]
        if open_ones:
            key = self.random.choice(open_ones)
            told = self.told[key]
            told.stopped_at = len(told.tokens)
            self.inbox.append(StopAt(*key, told.stopped_at))

    def read_some(self) -> None:
        """Some of the grammars that are being read are read now, and one that was is forgotten."""
        for ticket in list(self.reader.under_way):
            if self.random.random() < 0.2:
                self.inbox.append(GrammarLoaded(ticket))
        if self.reader.kept and self.random.random() < 0.1:
            self.reader.kept.remove(min(self.reader.kept))

    def step(self) -> None:
        """One step of the engine, everything checked."""
        self.now += 0.01
        inbox, self.inbox = self.inbox, []
        self.hear(self.engine.step(inbox))
        self.engine.scheduler.check()
        self.executor.poison([p for first, count in self.cache._pool.runs() for p in range(first, first + count)])

    def hear(self, messages: list[Outbound]) -> None:
        for message in messages:
            if isinstance(message, Progress):
                triples = zip(
                    np.frombuffer(message.keys, np.int64).tolist(),
                    np.frombuffer(message.indices, np.int32).tolist(),
                    np.frombuffer(message.tokens, np.int32).tolist(),
                    strict=True,
                )
                for key, index, token in triples:
                    told = self.told[key, index]
                    assert told.end is None, "a token after the end"
                    told.tokens.append(token)
            elif isinstance(message, SequenceEnd):
                told = self.told[message.key, message.index]
                assert told.end is None, "ended twice"
                told.end = message
            elif isinstance(message, ScoreEnd):
                assert message.key not in self.scores
                self.scores[message.key] = message
            elif isinstance(message, Refused):
                self.refused[message.key] = message

    def drain(self, most_steps: int = 3000) -> None:
        """Step until nothing is left; whoever starves is found here."""
        for _ in range(most_steps):
            if self.engine.idle and not self.inbox:
                break
            self.step()
        assert self.engine.idle, f"not idle after {most_steps} steps: {self.engine.scheduler.stats()}"

    # --------------------------------------------------------------------------------------------------- what must hold

    def verify(self, *, failing: bool = False) -> None:
        """Every answer is the naive model's, as far as it goes; every page is back."""
        for key, request in self.requests.items():
            if key in self.refused:
                codes = {"empty_prompt", "context_length_exceeded", "deadline_exceeded", "engine_error"}
                assert self.refused[key].failure.code in codes or key in self.aborted, self.refused[key]
                continue
            if isinstance(request, SubmitScore):
                self.verify_score(key, request)
            else:
                for index in range(request.drawing.n):
                    self.verify_sample(request, index, failing=failing)
        self.cache.check()
        self.cache.flush()
        stats = self.cache.stats()
        assert stats.free == stats.total, f"pages leaked: {stats}"

    def verify_sample(self, request: Submit, index: int, *, failing: bool) -> None:
        told = self.told[request.key, index]
        assert told.end is not None, f"request {request.key} sample {index} never ended"
        wanted = expected(request, index)
        assert told.tokens == wanted[: len(told.tokens)], "a wrong token"
        end = told.end
        if end.finish.reason == "error":
            codes = {"deadline_exceeded", "engine_error"} if failing else {"deadline_exceeded"}
            assert end.failure is not None and end.failure.code in codes, end
            return
        if end.finish.reason == "abort":
            assert request.key in self.aborted
            return
        if told.stopped_at is None:
            assert told.tokens == wanted, "output is not complete"
            assert end.num_output == len(wanted)
        usage = end.usage
        assert usage.forced <= usage.output and (not usage.forced or (forces(request) and not request.logprobs.output))
        assert usage.cached + usage.computed == usage.prompt == len(request.ids) // 4, usage
        ids = np.frombuffer(request.ids, np.int32).tolist()
        if index == 0 and request.logprobs.prompt_from >= 0:
            found = end.prompt_logprobs
            first = request.logprobs.prompt_from
            assert [v.token for v in found] == ids[first:]
            for position, value in enumerate(found, first):
                assert value.logprob == (None if position == 0 else logprob(ids[:position], ids[position]))

    def verify_score(self, key: int, request: SubmitScore) -> None:
        if key in self.aborted and key not in self.scores:
            return
        prompt = np.frombuffer(request.ids, np.int32).tolist()
        for choice, values in zip(request.choices, self.scores[key].logprobs, strict=True):
            ids = np.frombuffer(choice, np.int32).tolist()
            for count, (token, value) in enumerate(zip(ids, values, strict=True)):
                context = prompt + ids[:count]
                assert value == (logprob(context, token) if context else None), "a wrong score"
