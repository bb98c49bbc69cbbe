"""What the answers of all routes have in common: heads, usage, finish reasons, and frames of a stream. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ..errors import RamifyError
from ..meta_info import meta_info
from ..protocol import Delta, Finished, GenerateRequest, unpack_ids
from ..text.tokenizer import Tokenizer
from .responses import error_body

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


def frame(value: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + _encode(value) + b"\n\n"


def usage_fields(answers: Sequence[Sequence[Finished]]) -> dict[str, Any]:
    """OpenAI's usage of a whole request. answers: for each prompt its samples; a prompt counts once, as it is computed once."""
    firsts = [samples[0].usage for samples in answers if samples]
    prompt = sum(usage.prompt for usage in firsts)
    output = sum(sample.usage.output for samples in answers for sample in samples)
    reasoning = sum(s.answer.reasoning_tokens for samples in answers for s in samples if s.answer is not None)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached for usage in firsts)},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def finish_fields(finished: Finished) -> dict[str, Any]:
    """finish_reason, and which stop was matched, under SGLang's name and vLLM's."""
    matched = finished.finish.matched
    fields: dict[str, Any] = {"finish_reason": finished.finish.reason}
    if finished.finish.reason == "stop":
        fields["matched_stop"] = matched
        fields["stop_reason"] = matched if isinstance(matched, str) else None
    return fields


class Frames(Protocol):
    """How a route writes the events of a stream. Each method returns whole frames; None where there is nothing to say."""

    def begin(self, prompt: int, sample: int) -> bytes | None:
        """What comes before the first text of a sample."""
        ...

    def delta(self, prompt: int, event: Delta) -> bytes | None:
        """New output of a sample of a prompt."""
        ...

    def end(self, prompt: int, event: Finished) -> bytes:
        """The end of a sample."""
        ...

    def last(self, answers: Sequence[Sequence[Finished]]) -> bytes | None:
        """After all samples, before [DONE]. answers: for each prompt its samples."""
        ...

    def failed(self, error: RamifyError | None, unfinished: Sequence[tuple[int, int]]) -> bytes:
        """An error after the first byte, before [DONE]. None: a mistake of ours, of which nothing is told.

        unfinished: prompt and sample of what ends by it.
        """
        ...

    def took(self, latency_s: float) -> None:
        """Wall clock of the whole request, told before each end. Changes state."""
        ...


class Reply(ABC):
    """Writes one request's answers in the form of other servers, whole or as `Frames`. One exists per request.

    rid: the request's id. include_usage, continuous: a last chunk with usage; usage in every chunk. skip_special: special
    tokens are not part of the text, nor of its log-probabilities.
    """

    prefix = ""
    nothing: Mapping[str, Any] = {}
    """What a choice of a chunk holds where it says nothing new."""

    def __init__(
        self,
        request: GenerateRequest,
        *,
        rid: str,
        model: str,
        created: int,
        tokenizer: Tokenizer,
        include_usage: bool = False,
        continuous: bool = False,
        with_meta: bool = False,
        with_ids: bool = False,
        with_prompt_ids: bool = False,
    ):
        self.rid, self.model, self.created = rid, model, created
        self.include_usage, self.continuous = include_usage, continuous
        self.wants_logprobs = request.logprobs.output
        self.samples = request.sampling.n
        self._skip_special = request.sampling.skip_special_tokens
        self._tokenizer = tokenizer
        self._with_meta, self._with_ids, self._with_prompt_ids = with_meta, with_ids, with_prompt_ids
        self._latency_s = 0.0
        self._templates: dict[int, tuple[bytes, bytes]] = {}

    def head(self, kind: str) -> dict[str, Any]:
        """What every answer and every chunk begins with."""
        return {"id": f"{self.prefix}-{self.rid}", "object": kind, "created": self.created, "model": self.model}

    def no_usage(self) -> dict[str, Any]:
        """Where a usage chunk comes at the end, the others say null."""
        return {"usage": None} if self.include_usage else {}

    def took(self, latency_s: float) -> None:
        """For `meta_info`."""
        self._latency_s = latency_s

    def extras(self, finished: Finished) -> dict[str, Any]:
        """What was asked for beyond OpenAI's fields."""
        more: dict[str, Any] = {}
        if finished.not_enforced:
            more["not_enforced"] = msgspec.to_builtins(finished.not_enforced)
        if self._with_ids:
            more["token_ids"] = unpack_ids(finished.output_ids)
        if self._with_prompt_ids:
            more["prompt_token_ids"] = unpack_ids(finished.prompt_ids)
        if self._with_meta:
            more["meta_info"] = {**meta_info(finished, self.rid, self._latency_s), "explain": explained(finished)}
        return more

    def is_silent(self, token: int) -> bool:
        """Whether the token spells nothing in the text (an end token, say)."""
        return self._skip_special and token in self._tokenizer.special_ids

    def spell(self, token: int) -> bytes:
        """The bytes of a token."""
        return self._tokenizer.spell((token,))

    def filled(self, key: int, chunk: Any, text: str) -> bytes:
        """`chunk(mark)` as a frame with `text` in the place of the mark; all but the text is encoded once a stream."""
        template = self._templates.get(key)
        if template is None:
            before, _, after = frame(chunk("\x00")).partition(b'"\\u0000"')
            self._templates[key] = template = before, after
        return b"".join((template[0], _encode(text), template[1]))

    @abstractmethod
    def begin(self, prompt: int, sample: int) -> bytes | None:
        """See `Frames`, as for the three below."""

    @abstractmethod
    def delta(self, prompt: int, event: Delta) -> bytes | None: ...

    @abstractmethod
    def end(self, prompt: int, event: Finished) -> bytes: ...

    @abstractmethod
    def last(self, answers: Sequence[Sequence[Finished]]) -> bytes | None: ...

    def failed(self, error: RamifyError | None, unfinished: Sequence[tuple[int, int]]) -> bytes:
        """OpenAI's form of an error, which its clients raise; for others, each choice that it ends has a finish_reason too."""
        numbers = [prompt * self.samples + sample for prompt, sample in unfinished]
        choices = [{"index": number, **self.nothing, "finish_reason": "error"} for number in numbers]
        return frame({**error_body(error), "choices": choices})

    @abstractmethod
    def whole(self, answers: Sequence[Sequence[Finished]]) -> Any:
        """The answer in one piece."""


def explained(finished: Finished) -> dict[str, Any]:
    """Why a call cost what it did: cache, continuation, phases."""
    return {
        "cache": msgspec.to_builtins(finished.cache),
        "timings": msgspec.to_builtins(finished.timings),
        "usage": msgspec.to_builtins(finished.usage),
    }
