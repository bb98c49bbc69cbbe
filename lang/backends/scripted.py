"""A backend without a model, for tests and for trying out programs: a function decides what is answered.

Its tokens are characters, its template is `<|role|>content<|end|>`, its cache remembers every text that it has seen. So
counts, exact continuation and events are real, small and easy to foresee.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ...constrained.spec import Choice, Constraint, Regex
from ...runtime.errors import EngineError
from ...runtime.protocol import (
    AnswerRead,
    CacheReport,
    Chat,
    ChoiceScore,
    Delta,
    Event,
    Finish,
    Finished,
    GenerateRequest,
    Prompt,
    SamplingParams,
    Scored,
    ScoreRequest,
    Text,
    Timings,
    TokenLogprob,
    Tokens,
    ToolCall,
    Usage,
    pack_ids,
    unpack_ids,
)

Script = Callable[[str], Any]


def ids_of(text: str) -> bytes:
    """One token a character."""
    return pack_ids(map(ord, text))


def text_of(ids: bytes) -> str:
    """The text of ids made by `ids_of`."""
    return "".join(map(chr, unpack_ids(ids)))


def render_chat(chat: Chat) -> str:
    """The conversation in this backend's template."""
    text = "".join(f"<|{turn.role}|>{with_calls(turn.content, turn.tool_calls)}<|end|>" for turn in chat.messages)
    if chat.continue_final:
        return text.removesuffix("<|end|>")
    return text + ("<|assistant|>" if chat.generation_prompt else "")


def with_calls(content: str, calls: Sequence[ToolCall]) -> str:
    """Words and calls in this backend's form."""
    return content + "".join(f"<|call|>{call.name}({call.arguments})" for call in calls)


def render(prompt: Prompt) -> str:
    """The whole prompt as text."""
    parts = []
    for segment in prompt:
        if isinstance(segment, Text):
            parts.append(segment.text)
        elif isinstance(segment, Tokens):
            parts.append(text_of(segment.ids))
        elif isinstance(segment, Chat):
            parts.append(render_chat(segment))
    return "".join(parts)


class Scripted:
    """Answers `script(prompt)`: a string, an AnswerRead (words and calls), a list of them (one for each of n), or an
    awaitable of either; a script may also be a list of answers, given out in order. What a script raises is the call's error.

    requests: everything that was asked, in order. prompts: the same as text.
    """

    def __init__(self, script: Script | Sequence[Any], *, words: bool = True):
        """words: answers come word by word; else in one piece."""
        answers = None if callable(script) else iter(list(script))
        self._script: Script = script if callable(script) else lambda _: next(answers)  # type: ignore[arg-type]
        self._words = words
        self._seen: list[str] = []
        self.requests: list[GenerateRequest | ScoreRequest] = []
        self.prompts: list[str] = []
        self.flushed = 0

    async def _answer(self, prompt: str, n: int) -> list[Any]:
        answer = self._script(prompt)
        if inspect.isawaitable(answer):
            answer = await answer
        return list(answer) if isinstance(answer, (list, tuple)) else [answer] * n

    def _report(self, prompt: Prompt, text: str) -> tuple[Usage, CacheReport]:
        """Counts of a prompt, as a cache would have it that never forgets."""
        matched = max((_common(text, seen) for seen in self._seen), default=0)
        cached = max(0, min(matched, len(text) - 1))
        last = prompt[-1]
        held = text_of(last.held) if isinstance(last, Chat) else text_of(prompt[0].ids) if isinstance(prompt[0], Tokens) else ""
        continuation = "new" if not held else "continued" if text.startswith(held) else "template rewrote history"
        report = CacheReport(matched, matched if matched < len(text) else -1, "hit" if matched else "never seen", continuation)
        return Usage(prompt=len(text), cached=cached, computed=len(text) - cached), report

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Event]:
        """The script's answers, cut where the sampling parameters end them."""
        prompt = render(request.prompt)
        self.requests.append(request)
        self.prompts.append(prompt)
        sampling = request.sampling
        answers = [""] if sampling.max_new_tokens == 0 else await self._answer(prompt, sampling.n)
        usage, report = self._report(request.prompt, prompt)
        for index, answer in enumerate(answers[: sampling.n]):
            read = answer if isinstance(answer, AnswerRead) else None
            text, finish = ended(answer if read is None else with_calls(read.content, read.calls), sampling)
            shown = text if request.logprobs.output else ""
            _check(text, request.constraint)
            for piece in re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text) if self._words else [text]:
                await asyncio.sleep(0)
                yield Delta(index, piece, ids_of(piece))
            self._seen.append(prompt + text)
            yield Finished(
                index=index,
                text=text,
                prompt_ids=ids_of(prompt),
                output_ids=ids_of(text),
                held=ids_of(prompt + text),
                tail="",
                finish=finish,
                usage=Usage(usage.prompt, usage.cached, usage.computed, 0, len(text)),
                timings=Timings(),
                cache=report,
                seed=sampling.seed or 0,
                logprobs=tuple(_logprob(character, request.logprobs.top) for character in shown),
                answer=None if request.answer is None else read or AnswerRead(text),
            )

    async def score(self, request: ScoreRequest) -> Scored:
        """Characters that the script's answer has in the same place are likely, all others are not."""
        prompt = render(request.prompt)
        self.requests.append(request)
        self.prompts.append(prompt)
        answer = (await self._answer(prompt, 1))[0]
        usage, report = self._report(request.prompt, prompt)
        self._seen.append(prompt)
        scores = []
        for choice in request.choices:
            likely = [-0.1 if answer[i : i + 1] == character else -3.0 for i, character in enumerate(choice)]
            alone = (-1.0,) * (len(choice) - 1) if request.unconditional else ()
            scores.append(ChoiceScore(ids_of(choice), tuple(likely), alone))
        return Scored(tuple(scores), ids_of(prompt), usage, Timings(), report)

    async def flush_cache(self) -> int:
        """Forget every text."""
        forgotten = sum(map(len, self._seen))
        self._seen.clear()
        self.flushed += 1
        return forgotten

    async def server_info(self) -> dict[str, Any]:
        """What there is to say."""
        return {"model": "scripted", "requests": len(self.requests)}

    async def close(self) -> None:
        """Nothing to give back."""

    def token_text(self, token: int) -> str | None:
        """The character."""
        return chr(token)


def _common(text: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))


def ended(text: str, sampling: SamplingParams) -> tuple[str, Finish]:
    """Where the stop strings, stop patterns and max_new_tokens end `text`, and why."""
    limit = len(text) if sampling.max_new_tokens is None else sampling.max_new_tokens
    finish = Finish("stop") if len(text) <= limit and sampling.max_new_tokens != 0 else Finish("length")
    text = text[:limit]
    ends = [(text.find(stop), len(stop), stop) for stop in sampling.stop if stop in text]
    ends += [(m.start(), len(m[0]), pattern) for pattern in sampling.stop_regex if (m := re.search(pattern, text))]
    if ends:
        start, length, matched = min(ends)
        return text[: start + length if sampling.no_stop_trim else start], Finish("stop", matched)
    return text, finish


def _logprob(character: str, top: int) -> TokenLogprob:
    others = tuple((ord(character) + shift, -0.5 - shift) for shift in range(top))
    return TokenLogprob(ord(character), -0.5, character, others)


def _check(text: str, constraint: Constraint | None) -> None:
    """A script that answers what its constraint forbids is a mistake in the test."""
    if isinstance(constraint, Choice) and text not in constraint.options:
        raise EngineError(f"The script answered {text!r}, which is none of {list(constraint.options)}.")
    if isinstance(constraint, Regex) and not re.fullmatch(constraint.pattern, text):
        raise EngineError(f"The script answered {text!r}, which {constraint.pattern!r} does not match.")
