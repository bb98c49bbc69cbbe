"""The engine's asyncio face: prompts become ids, constraints become grammars, tokens become text.

Runs on the caller's event loop; steps run elsewhere (`process.py`, or a thread through `loop.py`). One object is used from
one loop. Every request that was taken ends with an event or an error, also when the engine process is lost.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from ..constrained.compiler import GrammarCompiler
from ..constrained.store import not_enforced
from .bundled import MODEL_DIR
from .choosing import KEEP
from .config import EngineOptions, grammar_cache, validate
from .drawing import check_logprobs, resolve_drawing
from .errors import ConstraintError, EngineError, InvalidRequest, Overloaded, RamifyError, from_code
from .grammar import vocabulary_of
from .models.check import check_checkpoint
from .models.checkpoint import resolve_checkpoint
from .models.config import check_tokenizer
from .protocol import (
    ChoiceScore,
    Event,
    Failure,
    Finished,
    GenerateRequest,
    NotEnforced,
    Scored,
    ScoreRequest,
    Usage,
    pack_ids,
)
from .pulse import Pulse
from .reading import formats_of, reading
from .server.formats.detect import Formats
from .streams import Asked, Pending, Stream
from .text.chat import end_token_ids
from .text.segments import encode_choices, encode_prompt
from .text.template import ChatTemplate
from .text.tokenizer import Tokenizer
from .wire import (
    AbortKey,
    Answer,
    Ask,
    EngineInfo,
    Fatal,
    Heartbeat,
    Inbound,
    Loading,
    Outbound,
    Progress,
    Ready,
    Refused,
    ScoreEnd,
    SequenceEnd,
    StopAt,
    Submit,
    SubmitScore,
)

OnProgress = Callable[[str, float], None]
LONG_TEXT = 50_000
"""Characters from which a prompt is tokenised off the event loop."""


class Link(Protocol):
    """The way to an engine, wherever it runs."""

    def post(self, message: Inbound) -> None: ...

    async def close(self) -> None: ...


class AsyncEngine:
    """Generate and score on one model. Made by `start`; `close` it, or use `async with`.

    info: what was loaded and chosen. tokenizer, template: the text room's, read only. formats: how the model writes calls and
    reasoning. restarts: engine processes that were
    lost and replaced. given_up: set when the engine cannot start (again): nothing will be answered any more.
    """

    info: EngineInfo
    tokenizer: Tokenizer
    template: ChatTemplate
    formats: Formats

    def __init__(self, options: EngineOptions, on_progress: OnProgress | None):
        self.options = options
        self._on_progress = on_progress
        self._link: Link | None = None
        self._compiler: GrammarCompiler | None = None
        self._pending: dict[int, Pending] = {}
        self._by_rid: dict[str, set[int]] = {}
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._keys = itertools.count(1)
        self._ready: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        self._given_up: RamifyError | None = None
        self._beats = Pulse()
        self.restarts = 0
        self.given_up = asyncio.Event()
        self._no_grammar: RamifyError = InvalidRequest("This model cannot be constrained.", code="unsupported_schema")
        self._eos: tuple[int, ...] = ()
        self.heartbeat: Heartbeat | None = None

    # ---------------------------------------------------------------------------------------------------- life

    @classmethod
    async def start(
        cls, options: EngineOptions, *, in_process: bool = False, on_progress: OnProgress | None = None
    ) -> AsyncEngine:
        """Load a model and return an engine that takes requests.

        Raises ModelError, ModelNotFound or InvalidRequest before anything long starts where that can be known.
        """
        validate(options)
        engine = cls(options, on_progress)
        folder = MODEL_DIR
        if options.model is not None:
            folder = await asyncio.to_thread(resolve_checkpoint, options.model, weights=options.load_format != "dummy")
        engine.tokenizer, engine.template = await asyncio.to_thread(_checked, folder, options.load_format)
        located = msgspec.structs.replace(options, model=str(folder))
        loop = asyncio.get_running_loop()
        if in_process:
            from .loop import ThreadLink

            engine._link = ThreadLink(located, engine._deliver, loop)
        else:
            from .process import ProcessLink

            engine._link = ProcessLink(located, engine._deliver, engine._lost, loop)
        try:
            engine.info = await engine._ready
        except BaseException:
            await engine.close()
            raise
        engine.formats = formats_of(
            engine.template, engine.tokenizer, calls=options.tool_call_parser, reasoning=options.reasoning_parser
        )
        engine._eos = tuple(sorted(end_token_ids(engine.tokenizer, engine.template)))
        engine._compiler = engine._make_compiler(folder)
        return engine

    def _make_compiler(self, folder: Path) -> GrammarCompiler | None:
        """Compile processes start with the first constraint. None: this tokenizer cannot carry a grammar."""
        try:
            vocabulary = vocabulary_of(folder, self.tokenizer, self.template, self.info.vocab_size)
            kept = grammar_cache() if self.options.grammar_cache else None
            return GrammarCompiler(vocabulary.to_bytes(), folder=kept)
        except RamifyError as error:
            self._no_grammar = error
            return None

    async def __aenter__(self) -> AsyncEngine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the engine and everything it started. Requests on their way fail with `engine_unavailable`."""
        self._given_up = self._given_up or Overloaded("The engine was closed.", code="engine_unavailable")
        self._fail_all(self._given_up)
        if self._compiler is not None:
            await self._compiler.close()
        if self._link is not None:
            await self._link.close()

    # -------------------------------------------------------------------------------------------------- requests

    async def generate(self, request: GenerateRequest, interval: int = 1) -> AsyncIterator[Event]:
        """Run one prompt: `Delta`s as tokens come, one `Finished` for each of the n samples. Raises RamifyError.

        interval: tokens that come as one delta, after a sample's first; 0: no deltas.
        Closing the iterator (or cancelling its task) aborts the request and frees what it held.
        """
        self._usable()
        sampling = request.sampling
        drawing = resolve_drawing(sampling, self.info, self._eos)
        check_logprobs(request.logprobs, self.info.vocab_size)
        encoded = await self._off_loop(request.prompt, encode_prompt, request.prompt)
        started = time.monotonic()
        read = reading(request, self.formats, self.tokenizer, encoded.ids)
        grammar = None if read.constraint is None else await self._compile(read.constraint, optional=read.is_optional)
        asked = Asked(
            stop=sampling.stop,
            stop_regex=sampling.stop_regex,
            no_stop_trim=sampling.no_stop_trim,
            skip_special=sampling.skip_special_tokens,
            drop_space=encoded.drop_space,
            continuation=encoded.reason,
            grammar_s=time.monotonic() - started if grammar is not None else 0.0,
            not_enforced=tuple(NotEnforced(*one) for one in not_enforced(grammar)) if grammar is not None else (),
        )
        message = Submit(
            key=next(self._keys),
            ids=pack_ids(encoded.ids.tobytes()),
            drawing=drawing,
            grammar=grammar,
            logprobs=request.logprobs,
            tenant=request.tenant,
            priority=request.priority,
            deadline_s=request.deadline_s,
            program=request.hint.program,
        )
        readers = [None if read.reader is None else read.reader() for _ in range(drawing.n)]
        streams = {
            i: Stream(i, self.tokenizer, asked, reader, read.marks, unseen=not interval) for i, reader in enumerate(readers)
        }
        pending = Pending(message, asked, streams, open=drawing.n, interval=interval)
        self._take(pending, request.rid)
        try:
            while pending.open or pending.events:
                yield await pending.get()
        finally:
            self._forget(pending, request.rid)

    async def score(self, request: ScoreRequest) -> Scored:
        """Log-probabilities of each choice's tokens after the prompt (and, if asked, without it). Raises RamifyError."""
        self._usable()
        if not request.choices:
            raise InvalidRequest("There are no choices to score. Give at least one.", param="choices")
        if request.keep not in KEEP:
            raise InvalidRequest(f"keep is {request.keep!r}; it must be one of {', '.join(KEEP)}.", param="keep")
        if request.keep == "gain" and not request.unconditional:
            raise InvalidRequest("keep='gain' compares with the unconditional scores. Set unconditional.", param="keep")
        encoded = await self._off_loop(
            request.prompt, lambda p, t, m, **k: encode_choices(p, request.choices, t, m, **k), request.prompt
        )
        ids = encoded.prompt.ids
        empty = [text for text, choice in zip(request.choices, encoded.choices, strict=True) if not len(choice)]
        if empty:
            raise InvalidRequest("A choice is empty. Every choice needs at least one token.", param="choices")
        alone: ScoreEnd | None = None
        if request.unconditional:
            alone = await self._run_score(request, np.empty(0, np.int32), encoded.choices, keep="none")
        baseline = () if alone is None else alone.logprobs
        conditional = await self._run_score(request, ids, encoded.choices, keep=request.keep, alone=baseline)
        choices = []
        for number, choice in enumerate(encoded.choices):
            given = tuple(v for v in conditional.logprobs[number] if v is not None)
            without = () if alone is None else tuple(v for v in alone.logprobs[number][1:] if v is not None)
            choices.append(ChoiceScore(choice.tobytes(), given, without))
        report = msgspec.structs.replace(conditional.cache, continuation=encoded.prompt.reason)
        usage = conditional.usage if alone is None else _sum(conditional.usage, alone.usage)
        return Scored(tuple(choices), ids.tobytes(), usage, conditional.timings, report)

    async def _run_score(
        self, request: ScoreRequest, ids: np.ndarray, choices: tuple[np.ndarray, ...], *, keep: str, alone: Any = ()
    ) -> ScoreEnd:
        message = SubmitScore(
            key=next(self._keys),
            ids=ids.astype(np.int32).tobytes(),
            choices=tuple(c.tobytes() for c in choices),
            keep=keep,
            alone=alone,
            tenant=request.tenant,
            priority=request.priority,
            deadline_s=request.deadline_s,
            program=request.hint.program,
        )
        pending = Pending(message, Asked(), {})
        self._take(pending, request.rid)
        try:
            event = await pending.get()
        finally:
            self._forget(pending, request.rid)
        assert isinstance(event, ScoreEnd)
        return event

    async def abort(self, rid: str) -> int:
        """End the requests that the caller labelled `rid`; what they have said so far is their answer. Returns how many."""
        return self._abort(self._by_rid.get(rid, ()))

    async def abort_all(self) -> int:
        """End all requests, as `abort` does."""
        return self._abort(self._pending)

    def _abort(self, keys: Iterable[int]) -> int:
        ended = list(keys)
        for key in ended:
            self._post(AbortKey(key))
        return len(ended)

    async def flush_cache(self) -> int:
        """Drop everything from the prefix cache that no running request holds. Returns the tokens dropped."""
        return int((await self.ask("flush"))["tokens"])

    async def server_info(self) -> dict[str, Any]:
        """What was loaded, and the counts of cache and scheduler."""
        return {**msgspec.to_builtins(self.info), **await self.ask("stats")}

    async def cache_tree(self) -> dict[str, Any]:
        """The prefix tree as JSON (`radix.PrefixCache.tree`)."""
        return await self.ask("tree")

    @property
    def is_up(self) -> bool:
        """Whether an engine is loaded and turning: it beats, or is within a step no longer than those it has shown."""
        return self._ready.done() and self._given_up is None and self._beats.is_regular(time.monotonic())

    @property
    def on_their_way(self) -> int:
        """Requests that were taken and have not ended."""
        return len(self._pending)

    def drop_all(self, error: RamifyError) -> None:
        """End every request on its way with `error`; what they held is freed. Later ones are taken as before."""
        for key in list(self._pending):
            self._close_pending(key, error)
            self._post(AbortKey(key))

    async def warm_compiler(self) -> None:
        """Start a compile process now, so that the first constraint does not wait for one."""
        if self._compiler is not None:
            await self._compiler.warm()

    async def ask(self, what: str) -> dict[str, Any]:
        """A control request (`wire.Ask`); raises Overloaded when the engine is away."""
        self._usable()
        token = next(self._keys)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[token] = answer
        self._post(Ask(token, what))
        try:
            return msgspec.json.decode(await answer)
        finally:
            self._answers.pop(token, None)

    # ---------------------------------------------------------------------------------------------------- inside

    def _usable(self) -> None:
        if self._given_up is not None:
            raise self._given_up

    async def _off_loop(self, prompt: Any, encode: Callable[..., Any], *arguments: Any) -> Any:
        """Tokenise; a long text in a thread, so that the loop goes on turning."""
        size = sum(len(getattr(s, "text", "")) + sum(len(m.content) for m in getattr(s, "messages", ())) for s in prompt)
        call = (*arguments, self.tokenizer, self.template)
        if size > LONG_TEXT:
            return await asyncio.to_thread(encode, *call, vocab_size=self.info.vocab_size)
        return encode(*call, vocab_size=self.info.vocab_size)

    async def _compile(self, constraint: Any, *, optional: bool) -> bytes | None:
        """optional: where it cannot be compiled the answer does without; nothing was promised."""
        try:
            if self._compiler is None:
                raise self._no_grammar
            return await self._compiler.compile(constraint)
        except (ConstraintError, InvalidRequest):
            if not optional:
                raise
            return None

    def _take(self, pending: Pending, rid: str) -> None:
        if len(self._pending) >= self.options.queue + self.info.max_running:
            raise Overloaded(f"{len(self._pending)} requests are on their way, the most that may. Try again shortly.")
        self._post(pending.message)  # first, because it may fail; nothing comes back before the loop's next turn
        self._pending[pending.message.key] = pending
        if rid:
            self._by_rid.setdefault(rid, set()).add(pending.message.key)

    def _forget(self, pending: Pending, rid: str) -> None:
        key = pending.message.key
        if self._pending.pop(key, None) is not None and pending.open:
            self._post(AbortKey(key))
        if rid and rid in self._by_rid:
            self._by_rid[rid].discard(key)
            if not self._by_rid[rid]:
                del self._by_rid[rid]

    def _post(self, message: Inbound) -> None:
        if self._link is not None:
            self._link.post(message)

    def _deliver(self, messages: list[Outbound]) -> None:
        """Messages of one turn of the engine's loop."""
        for message in messages:
            match message:
                case Progress():
                    self._on_tokens(message)
                case SequenceEnd():
                    self._on_end(message)
                case ScoreEnd():
                    self._close_pending(message.key, message)
                case Refused():
                    self._close_pending(message.key, as_error(message.failure))
                case Answer():
                    future = self._answers.get(message.token)
                    if future is not None and not future.done():
                        future.set_result(message.body)
                case Loading():
                    if self._on_progress is not None:
                        self._on_progress(message.phase, message.share)
                case Ready():
                    self.info = message.info
                    self._beats.begin(time.monotonic())
                    if not self._ready.done():
                        self._ready.set_result(message.info)
                case Fatal():
                    self._on_fatal(as_error(message.failure))
                case Heartbeat():
                    self.heartbeat = message
                    self._beats.beat(time.monotonic())

    def _on_tokens(self, message: Progress) -> None:
        keys = np.frombuffer(message.keys, np.int64).tolist()
        indices = np.frombuffer(message.indices, np.int32).tolist()
        tokens = np.frombuffer(message.tokens, np.int32).tolist()
        drawn = dict(message.logprobs)
        for at, (key, index, token) in enumerate(zip(keys, indices, tokens, strict=True)):
            pending = self._pending.get(key)
            if pending is None:
                continue
            try:
                stream = pending.streams[index]
                delta = stream.push(token, drawn.get(at))
            except Exception as error:
                self._mistake(key, error)
                continue
            if delta is None:
                continue
            pending.put(delta)
            if stream.stopped is not None:
                self._post(StopAt(key, index, len(stream.ids)))

    def _on_end(self, message: SequenceEnd) -> None:
        pending = self._pending.get(message.key)
        if pending is None:
            return
        if message.failure is not None:
            self._close_pending(message.key, as_error(message.failure))
            self._post(AbortKey(message.key))
            return
        submit = pending.message
        assert isinstance(submit, Submit)
        try:
            stream = pending.streams[message.index]
            rest = stream.close(message.num_output)
            finished = stream.finished(message, submit.ids, submit.drawing.seed, pending.asked)
        except Exception as error:
            self._mistake(message.key, error)
            return
        if rest is not None:
            pending.put(rest)
        pending.open -= 1
        pending.put(finished)

    def _mistake(self, key: int, error: Exception) -> None:
        """A request whose text cannot be made ends alone."""
        self._close_pending(key, RamifyError(f"The text of this answer could not be made: {type(error).__name__}."))
        self._post(AbortKey(key))

    def _close_pending(self, key: int, last: Any) -> None:
        pending = self._pending.pop(key, None)
        if pending is not None:
            pending.open = 0
            pending.put(last)

    def _on_fatal(self, error: RamifyError) -> None:
        """The engine cannot start (again): everything that waits for it fails."""
        if self._ready.done():  # what hinders it now is no fault of those who wait
            error = Overloaded(f"The engine was lost and could not start again: {error}", code="engine_unavailable")
        self._given_up = error
        self.given_up.set()
        if not self._ready.done():
            self._ready.set_exception(error)
        self._fail_all(error)

    def _fail_all(self, error: RamifyError) -> None:
        for key in list(self._pending):
            self._close_pending(key, error)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(error)

    def _lost(self, reason: str) -> list[Inbound]:
        """The engine process died. Returns what the next one must be sent: every request goes on where it was, each once."""
        again: list[Inbound] = []
        self._beats.stop()
        self.restarts += 1
        for key, pending in list(self._pending.items()):
            pending.crashes += 1
            if pending.crashes > 1:
                text = f"The engine was lost twice while it worked on this request ({reason})."
                self._close_pending(key, EngineError(text))
            else:
                again += pending.again()
                for end in pending.ends_that_will_not_come():
                    self._on_end(end)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(Overloaded("The engine is being restarted.", code="engine_unavailable"))
        return again


def _checked(folder: Path, load_format: str) -> tuple[Tokenizer, ChatTemplate]:
    """The text side of a checkpoint whose parts fit together. Raises ModelError."""
    config, _ = check_checkpoint(folder, load_format=load_format)
    tokenizer = Tokenizer.load(folder)
    check_tokenizer(config, tokenizer.vocab_size)
    return tokenizer, ChatTemplate.load(folder, tokenizer.named)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(*(a + b for a, b in zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)))


def as_error(failure: Failure) -> RamifyError:
    """The exception for a failure that arrived as a value."""
    return from_code(failure.code, failure.message, failure.param)


async def complete(engine: AsyncEngine, request: GenerateRequest) -> list[Finished]:
    """Run a request to its end, without looking at its deltas. Returns its samples by index. Raises RamifyError."""
    finished = [event async for event in engine.generate(request, 0) if isinstance(event, Finished)]
    return sorted(finished, key=lambda f: f.index)

