"""What the text side knows of a request on its way: ids drawn so far, text given out, what was asked.

A `Stream` turns the ids of one sample into text, never half a character, and finds stop strings; a `Pending` holds the
streams of one request and the queue from which its caller reads. Everything needed to run a lost request again is here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from .errors import RamifyError
from .protocol import (
    AnswerDelta,
    AnswerRead,
    CacheReport,
    Delta,
    Event,
    Finish,
    Finished,
    NotEnforced,
    Timings,
    TokenLogprob,
    ToolCall,
    Usage,
    pack_ids,
)
from .server.formats.reader import Pieces
from .server.formats.reasoning import AnswerReader, joined_calls
from .text.detokenizer import Detokenizer
from .text.stops import Match, StopWatcher
from .text.tokenizer import Tokenizer
from .wire import DrawnLogprob, SequenceEnd, Submit, SubmitScore

MOST_WAITING = 64
"""Unread events of a request from which its deltas are merged."""


@dataclass(slots=True)
class Asked:
    """What of a request the engine does not need to know: how its text ends, and how it began."""

    stop: tuple[str, ...] = ()
    stop_regex: tuple[str, ...] = ()
    no_stop_trim: bool = False
    skip_special: bool = True
    drop_space: bool = False
    continuation: str = ""
    grammar_s: float = 0.0
    not_enforced: tuple[NotEnforced, ...] = ()


class Stream:
    """One sample of a request: ids in, text out, and what the text means where somebody reads it."""

    def __init__(
        self,
        index: int,
        tokenizer: Tokenizer,
        asked: Asked,
        reader: AnswerReader | None = None,
        marks: Mapping[int, str] | None = None,
        *,
        unseen: bool = False,
    ):
        """reader: of this sample. marks: control tokens that it must see, id -> text. unseen: nobody reads deltas, so the text is
        made at the end, unless a stop string or a reader must see it before."""
        self.index = index
        self.ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.stopped: Match | None = None
        self.ended = False
        self._tokenizer = tokenizer
        self._reader, self._marks = reader, marks or {}
        self._read = Pieces()
        self._reasoning_tokens = 0
        self._detokenizer = Detokenizer(
            tokenizer, skip_special=asked.skip_special, drop_space=asked.drop_space, spoken=self._marks
        )
        watches = asked.stop or asked.stop_regex
        self._stops = StopWatcher(asked.stop, asked.stop_regex, keep_stop=asked.no_stop_trim) if watches else None
        self._pieces: list[str] = []
        self._at_the_end = unseen and reader is None and self._stops is None

    def push(self, token: int, drawn: DrawnLogprob | None) -> Delta | None:
        """One drawn token. Returns what the caller may see of it; None once the text has stopped, and where nobody looks before
        the end. Changes state."""
        if self.stopped is not None or self.ended:
            return None
        self.ids.append(token)
        logprobs: tuple[TokenLogprob, ...] = ()
        if drawn is not None:
            logprobs = (named_logprob(drawn, self._tokenizer),)
            self.logprobs.extend(logprobs)
        if self._at_the_end:
            return None
        text = self._detokenizer.push((token,))
        if self._reader is not None:
            self._reasoning_tokens += self._reader.is_reasoning
            if token in self._marks:
                end = self._detokenizer.length
                self._reader.control(end - len(self._marks[token]), end)
        if self._stops is not None:
            text, self.stopped = self._stops.push(text)
        self._pieces.append(text)
        return Delta(self.index, text, pack_ids((token,)), logprobs, self._meaning(text))

    def close(self, num_output: int) -> Delta | None:
        """The engine says that `num_output` tokens count. Returns what was held back, if anything. Changes state."""
        self.ended = True
        text = self._rest(num_output) if self.stopped is None else ""
        answer = self._meaning(text, is_last=True)
        if not text and (answer is None or answer == AnswerDelta()):
            return None
        return Delta(self.index, text, b"", answer=answer)

    def _meaning(self, text: str, *, is_last: bool = False) -> AnswerDelta | None:
        """What `text` adds to the answer, None where nobody reads it."""
        if self._reader is None:
            return None
        content, reasoning, calls = [], [], []
        for pieces in (self._reader.push(text), *((self._reader.flush(),) if is_last else ())):
            content += pieces.content
            reasoning += pieces.reasoning
            calls += pieces.calls
        self._read.content += content
        self._read.reasoning += reasoning
        self._read.calls += calls
        return AnswerDelta("".join(content), "".join(reasoning), tuple(calls))

    def _answer(self) -> AnswerRead | None:
        """The whole answer, None where nobody reads it."""
        if self._reader is None:
            return None
        calls = tuple(ToolCall(call.name, call.arguments, call.id) for call in joined_calls(self._read.calls))
        return AnswerRead("".join(self._read.content), "".join(self._read.reasoning), calls, self._reasoning_tokens)

    def _rest(self, num_output: int) -> str:
        del self.ids[num_output:]
        del self.logprobs[num_output:]
        text = self._detokenizer.push(self.ids) if self._at_the_end else ""
        text += self._detokenizer.flush()
        if self._stops is not None:
            text, self.stopped = self._stops.push(text)
            if self.stopped is None:
                text += self._stops.flush()
        self._pieces.append(text)
        return text

    def finished(self, end: SequenceEnd, prompt: bytes, seed: int, asked: Asked) -> Finished:
        """The last event of this sample. Answers only."""
        text = "".join(self._pieces)
        finish = end.finish if self.stopped is None else Finish("stop", self.stopped.matched)
        # Without a stop string too: an end token says that the model is done, and is no part of what is continued.
        keep = self._detokenizer.keep(self._detokenizer.length if self.stopped is None else self.stopped.position)
        kept, tail = self.ids[: keep.count], text[keep.end :]
        usage = end.usage
        counted = Usage(usage.prompt, usage.cached, usage.computed, usage.forced, len(self.ids), usage.recomputed)
        return Finished(
            index=self.index,
            text=text,
            prompt_ids=prompt,
            output_ids=pack_ids(self.ids),
            held=prompt + pack_ids(kept),
            tail=tail,
            finish=finish,
            usage=counted,
            timings=replace(end.timings, grammar_s=asked.grammar_s),
            cache=replace(end.cache, continuation=asked.continuation),
            seed=seed,
            logprobs=tuple(self.logprobs),
            prompt_logprobs=tuple(named_logprob(v, self._tokenizer) for v in end.prompt_logprobs),
            answer=self._answer(),
            not_enforced=asked.not_enforced,
        )


def named_logprob(drawn: DrawnLogprob, tokenizer: Tokenizer) -> TokenLogprob:
    """With the token's text."""
    return TokenLogprob(drawn.token, drawn.logprob, tokenizer.token_text(drawn.token), drawn.top, drawn.chosen)


def joined(one: Delta, next_: Delta) -> Delta:
    """Two deltas of a sample, one after the other, as one. Pure."""
    a, b = one.answer, next_.answer
    answer = AnswerDelta(a.content + b.content, a.reasoning + b.reasoning, a.calls + b.calls) if a and b else a or b
    return Delta(one.index, one.text + next_.text, one.ids + next_.ids, one.logprobs + next_.logprobs, answer)


@dataclass(eq=False, slots=True)
class Pending:
    """A request between its submission and its last event.

    crashes: engines that were lost while it was with them. fresh: set when there is something to read.
    interval: tokens of a sample that come as one delta, after its first, which comes at once; 0: no deltas, for a caller who
    waits for the end. held: what has not reached that number.
    """

    message: Submit | SubmitScore
    asked: Asked
    streams: dict[int, Stream]
    events: deque[Event | RamifyError] = field(default_factory=deque)
    fresh: asyncio.Event = field(default_factory=asyncio.Event)
    crashes: int = 0
    open: int = 1
    interval: int = 1
    held: dict[int, Delta] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)

    def put(self, event: Event | RamifyError) -> None:
        """For the caller to read. Changes state."""
        if self.interval == 1:
            self._append(event)
        elif not isinstance(event, Delta):
            for delta in self.held.values():
                self._append(delta)
            self.held.clear()
            self._append(event)
        elif self.interval:
            self._hold(event)

    def _hold(self, delta: Delta) -> None:
        index = delta.index
        if index not in self.begun:
            self.begun.add(index)
            self._append(delta)
            return
        if (before := self.held.pop(index, None)) is not None:
            delta = joined(before, delta)
        if len(delta.ids) >= 4 * self.interval:
            self._append(delta)
        else:
            self.held[index] = delta

    def _append(self, event: Event | RamifyError) -> None:
        """Behind a caller that reads slowly, deltas of one sample become one: what waits is bounded by the answer itself."""
        if len(self.events) >= MOST_WAITING and isinstance(event, Delta):
            for at in range(len(self.events) - 1, -1, -1):
                last = self.events[at]
                if isinstance(last, Delta) and last.index == event.index:
                    self.events[at] = joined(last, event)
                    return
        self.events.append(event)
        self.fresh.set()

    async def get(self) -> Event:
        """The next event; raises the error that ended the request."""
        while not self.events:
            self.fresh.clear()
            await self.fresh.wait()
        event = self.events.popleft()
        if isinstance(event, RamifyError):
            raise event
        return event

    def again(self) -> list[Submit | SubmitScore]:
        """What to send to a new engine so that the request goes on where it was: draws depend only on seed and position,
        so the samples continue with the same tokens. Answers only."""
        message = self.message
        if isinstance(message, SubmitScore):
            return [message]
        if all(not s.ids and not s.ended for s in self.streams.values()):
            return [message]
        return [
            replace(message, index=s.index, output=pack_ids(s.ids), drawing=replace(message.drawing, n=1))
            for s in self.streams.values()
            if not s.ended and s.stopped is None
        ]

    def ends_that_will_not_come(self) -> list[SequenceEnd]:
        """The last messages of samples whose text had stopped when the engine was lost before it could say so."""
        message = self.message
        return [
            SequenceEnd(
                key=message.key,
                index=stream.index,
                num_output=len(stream.ids),
                finish=Finish("stop"),
                usage=Usage(prompt=len(message.ids) // 4),
                timings=Timings(),
                cache=CacheReport(reason="the engine was lost"),
            )
            for stream in self.streams.values()
            if stream.stopped is not None and not stream.ended
        ]
