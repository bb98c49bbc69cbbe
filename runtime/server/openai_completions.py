"""POST /v1/completions: prompts of text or ids -> requests; events -> OpenAI's response, whole or as chunks. Pure.

Choices are numbered prompt by prompt: index = prompt * n + sample. `best_of` draws more samples than are shown, and shows
those with the highest mean log-probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ..errors import InvalidRequest
from ..protocol import (
    Delta,
    Finished,
    GenerateRequest,
    LogprobParams,
    Segment,
    Text,
    TokenLogprob,
    Tokens,
    pack_ids,
    unpack_ids,
)
from ..text.tokenizer import Tokenizer
from .fields import CompletionBody
from .openai_chat import check_stream_options, finite
from .options import ServerOptions
from .parse import decode_part
from .replies import Reply, finish_fields, frame, usage_fields
from .sampling import constraint_of, deadline_of, in_range, priority_of, sampling_params, tenant_of

MAX_TOKENS = 16  # OpenAI's default on this route


def completion_requests(body: CompletionBody, options: ServerOptions, *, tenant: str, rid: str) -> list[GenerateRequest]:
    """One request for each prompt. Raises InvalidRequest."""
    if body.suffix:
        raise InvalidRequest(
            "suffix is not supported by this server. Leave it out.", code="unsupported_parameter", param="suffix"
        )
    n = 1 if body.n is None else body.n
    in_range("best_of", body.best_of, n, 20)
    drawn = n if body.best_of is None else body.best_of
    if body.stream and drawn > n:
        text = "best_of is decided at the end, so it cannot be streamed. Leave out one of stream and best_of."
        raise InvalidRequest(text, code="invalid_parameter_combination", param="best_of")
    most = MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if body.stream and body.echo and body.logprobs is not None:
        text = "The log-probabilities of an echoed prompt come with the whole answer, not in a stream. Leave out stream."
        raise InvalidRequest(text, code="invalid_parameter_combination", param="echo")
    sampling = sampling_params(body, options, max_tokens=most, least_tokens=0 if body.echo else 1, n=drawn)
    in_range("n", n, 1, options.max_n)
    in_range("logprobs", body.logprobs, 0, options.max_top_logprobs, code="invalid_logprobs")
    check_stream_options(body.stream, body.stream_options is not None)
    wanted = body.logprobs is not None
    logprobs = LogprobParams(output=wanted or drawn > n, prompt_from=0 if wanted and body.echo else -1, top=body.logprobs or 0)
    request = GenerateRequest(
        prompt=(),
        sampling=sampling,
        constraint=constraint_of(body),
        logprobs=logprobs,
        priority=priority_of(body.priority),
        deadline_s=deadline_of(body.timeout_s, options),
        tenant=tenant_of(body, tenant),
        rid=rid,
    )
    prompts = prompts_of(decode_part(body.prompt, "prompt"), options.max_prompts)
    if len(prompts) * drawn > options.max_prompts:
        text = (
            f"{len(prompts)} prompts with {drawn} samples each make more than {options.max_prompts} choices. Send fewer at once."
        )
        raise InvalidRequest(text, code="out_of_range", param="n")
    return [replace(request, prompt=(prompt,)) for prompt in prompts]


def prompts_of(said: Any, most: int, name: str = "prompt") -> list[Segment]:
    """str | [str] | [int] | [[int]] -> a segment for each prompt. Raises InvalidRequest."""
    if isinstance(said, str):
        return [_text(said, name)]
    if not isinstance(said, list):
        raise InvalidRequest(f"{name} must be a text, a list of texts, ids or a list of ids.", code="invalid_prompt", param=name)
    if not said:
        raise InvalidRequest(f"{name} is empty. Give at least one character or token.", code="empty_prompt", param=name)
    if all(isinstance(one, str) for one in said):
        prompts: list[Segment] = [_text(one, name) for one in said]
    elif all(isinstance(one, list) for one in said):
        prompts = [ids_of(one, name) for one in said]
    else:
        return [ids_of(said, name)]
    if len(prompts) > most:
        raise InvalidRequest(f"{name} has {len(prompts)} entries; at most {most} are taken.", code="out_of_range", param=name)
    return prompts


def _text(text: str, name: str) -> Text:
    if not text:
        raise InvalidRequest(f"{name} is empty. Give at least one character or token.", code="empty_prompt", param=name)
    return Text(text)


def ids_of(said: Sequence[Any], name: str) -> Segment:
    """Token ids as they were sent. Raises InvalidRequest (invalid_token_id, empty_prompt)."""
    for token in said:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
            text = f"{name} holds {str(token)[:32]}, which is not a token id of this model."
            raise InvalidRequest(text, code="invalid_token_id", param=name)
    if not said:
        raise InvalidRequest(f"{name} is empty. Give at least one character or token.", code="empty_prompt", param=name)
    return Tokens(pack_ids(said))


def prompt_text(request: GenerateRequest, tokenizer: Tokenizer) -> str:
    """What `echo` shows of a prompt: the text as it was sent, or what its ids spell."""
    [segment] = request.prompt
    return (
        segment.text
        if isinstance(segment, Text)
        else tokenizer.decode(unpack_ids(segment.ids))
        if isinstance(segment, Tokens)
        else ""
    )


class CompletionReply(Reply):
    """Writes the answers to one completions request.

    shown: samples of a prompt that the answer has. echo: a text for each prompt that is shown before its answers, or nothing.
    """

    prefix = "cmpl"
    nothing: Mapping[str, Any] = {"text": ""}

    def __init__(self, request: GenerateRequest, *, shown: int, echo: Sequence[str] = (), **more: Any):
        super().__init__(request, **more)
        self._shown, self._echo = shown, echo
        self._offsets: dict[int, int] = {}

    def whole(self, answers: Sequence[Sequence[Finished]]) -> dict[str, Any]:
        choices = [
            self._choice(prompt, number, finished)
            for prompt, samples in enumerate(answers)
            for number, finished in enumerate(best(samples, self._shown))
        ]
        return {**self.head("text_completion"), "choices": choices, "usage": usage_fields(answers)}

    def _choice(self, prompt: int, number: int, finished: Finished) -> dict[str, Any]:
        text, entries, before = "", self._spoken(finished.logprobs), 0
        if self._echo:  # whoever scores a prompt counts on an entry for each token, that of the end too
            before = len(finished.prompt_logprobs)
            text, entries = self._echo[prompt], [*finished.prompt_logprobs, *finished.logprobs]
        logprobs = self._logprobs(entries, 0, before)
        choice = {"index": prompt * self._shown + number, "text": text + finished.text, "logprobs": logprobs}
        return {**choice, **finish_fields(finished), **self.extras(finished)}

    def begin(self, prompt: int, sample: int) -> bytes | None:
        index = prompt * self.samples + sample
        if not self._echo:
            return None
        self._offsets[index] = len(self._echo[prompt])
        return frame(self._chunk(index, self._echo[prompt]))

    def delta(self, prompt: int, event: Delta) -> bytes | None:
        index = prompt * self.samples + event.index
        if not self.wants_logprobs:
            return self.filled(index, lambda text: self._chunk(index, text), event.text) if event.text else None
        spoken = self._spoken(event.logprobs)
        if not event.text and not spoken:
            return None
        offset = self._offsets.get(index, 0)
        self._offsets[index] = offset + len(event.text)
        return frame(self._chunk(index, event.text, {"logprobs": self._logprobs(spoken, offset)}))

    def end(self, prompt: int, event: Finished) -> bytes:
        more = {**finish_fields(event), **self.extras(event)}
        usage = {"usage": usage_fields([[event]])} if self.continuous else {}
        return frame({**self._chunk(prompt * self.samples + event.index, "", more), **usage})

    def last(self, answers: Sequence[Sequence[Finished]]) -> bytes | None:
        if not self.include_usage:
            return None
        return frame({**self.head("text_completion"), "choices": [], "usage": usage_fields(answers)})

    def _chunk(self, index: int, text: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None, **(more or {})}
        return {**self.head("text_completion"), "choices": [choice], **self.no_usage()}

    def _spoken(self, entries: Sequence[TokenLogprob]) -> list[TokenLogprob]:
        return [entry for entry in entries if not self.is_silent(entry.token)]

    def _logprobs(self, entries: Sequence[TokenLogprob], offset: int, before: int = 0) -> dict[str, Any] | None:
        """before: how many entries are the prompt's."""
        if not self.wants_logprobs:
            return None
        offsets, spelled = [], b""
        for number, entry in enumerate(entries):
            offsets.append(offset + len(spelled.decode("utf-8", "ignore")))
            if number >= before and self.is_silent(entry.token):
                continue
            if not (self._echo and number < len(self._tokenizer.prefix) and entry.token == self._tokenizer.prefix[number]):
                spelled += self.spell(entry.token)  # what the tokenizer puts before a text is no part of it
        return {
            "text_offset": offsets,
            "token_logprobs": [None if entry.logprob is None else finite(entry.logprob) for entry in entries],
            "tokens": [self._word(entry.token) for entry in entries],
            "top_logprobs": [self._top(entry) for entry in entries],
        }

    def _top(self, entry: TokenLogprob) -> dict[str, float] | None:
        if entry.logprob is None:
            return None
        top: dict[str, float] = {}
        for token, logprob in entry.top:
            top.setdefault(self._word(token), finite(logprob))
        return top

    def _word(self, token: int) -> str:
        return self.spell(token).decode("utf-8", "replace")


def best(samples: Sequence[Finished], count: int) -> list[Finished]:
    """The `count` samples with the highest mean log-probability, in that order; all of them as they are if there are no more."""
    if len(samples) <= count:
        return list(samples)

    def mean(finished: Finished) -> float:
        values = [entry.logprob or 0.0 for entry in finished.logprobs]
        return sum(values) / len(values) if values else float("-inf")

    return sorted(samples, key=mean, reverse=True)[:count]
