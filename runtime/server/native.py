"""POST /generate, SGLang's own route: text, ids, or text and ids that follow each other; scalar or a batch. Pure.

Each event of a stream has the whole text so far, as SGLang's does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InvalidRequest, RamifyError
from ..meta_info import meta_info
from ..protocol import Delta, Finished, GenerateRequest, LogprobParams, Segment, Text, Tokens, pack_ids, unpack_ids
from .fields import REFUSED_NATIVE, GenerateBody, NativeSampling, is_said
from .openai_completions import ids_of, prompts_of
from .options import ServerOptions
from .parse import convert, decode_part
from .replies import Reply, explained, frame
from .responses import error_body
from .sampling import deadline_of, in_range, native_constraint, native_params, priority_of, refuse_unbuilt, tenant_of


def native_requests(body: GenerateBody, options: ServerOptions, *, tenant: str, rid: str) -> tuple[list[GenerateRequest], bool]:
    """A request for each prompt, and whether the answer is a list. Raises InvalidRequest."""
    refuse_unbuilt(body, REFUSED_NATIVE)
    prompts, single = _prompts(body, options)
    params = _each(body.sampling_params, len(prompts), "sampling_params")
    wants = _each(body.return_logprob, len(prompts), "return_logprob")
    starts = _each(body.logprob_start_len, len(prompts), "logprob_start_len")
    tops = _each(body.top_logprobs_num, len(prompts), "top_logprobs_num")
    tenant, deadline_s = tenant_of(body, tenant), deadline_of(body.timeout_s, options)
    requests = []
    for prompt, said, wanted, start, top in zip(prompts, params, wants, starts, tops, strict=True):
        sampling = convert(said or {}, NativeSampling, "sampling_params")
        in_range("top_logprobs_num", top, 0, options.max_top_logprobs, code="invalid_logprobs")
        in_range("logprob_start_len", start, -1, 2**31 - 1, code="invalid_logprobs")
        ids = _ids_with_logprobs(body.token_ids_logprob or (), options)
        logprobs = LogprobParams(True, -1 if start is None else start, top or 0, ids) if wanted else LogprobParams()
        requests.append(
            GenerateRequest(
                prompt=prompt,
                sampling=native_params(sampling, options),
                constraint=native_constraint(sampling),
                logprobs=logprobs,
                priority=priority_of(body.priority),
                deadline_s=deadline_s,
                tenant=tenant,
                rid=rid,
            )
        )
    total = sum(request.sampling.n for request in requests)
    if total > options.max_prompts:
        text = f"The request makes {total} samples; at most {options.max_prompts} are taken. Send fewer at once."
        raise InvalidRequest(text, code="out_of_range", param="n")
    return requests, not single or requests[0].sampling.n > 1


def _ids_with_logprobs(said: Sequence[int], options: ServerOptions) -> tuple[int, ...]:
    """Ids whose log-probabilities every token brings. Raises InvalidRequest."""
    if len(said) > options.max_logit_bias:
        text = f"token_ids_logprob has {len(said)} entries; at most {options.max_logit_bias} are taken."
        raise InvalidRequest(text, code="invalid_logprobs", param="token_ids_logprob")
    return tuple(said)


def _each(said: Any, count: int, name: str) -> list[Any]:
    if not isinstance(said, list):
        return [said] * count
    if len(said) != count:
        raise InvalidRequest(f"{name} has {len(said)} entries for {count} prompts.", code="invalid_prompt", param=name)
    return said


def _prompts(body: GenerateBody, options: ServerOptions) -> tuple[list[tuple[Segment, ...]], bool]:
    given = {"text": body.text is not None, "input_ids": is_said(body.input_ids), "prompt": is_said(body.prompt)}
    said = [name for name, there in given.items() if there]
    if len(said) != 1:
        text = f"Give one of text, input_ids and prompt; {' and '.join(said) or 'none'} was given."
        raise InvalidRequest(text, code="missing_required_parameter" if not said else "invalid_prompt", param="text")
    if body.text is not None:
        prompts = prompts_of(body.text, options.max_prompts, "text")
        return [(prompt,) for prompt in prompts], isinstance(body.text, str)
    if given["input_ids"]:
        ids = decode_part(body.input_ids, "input_ids")
        if not isinstance(ids, list) or any(isinstance(one, str) for one in ids):
            raise InvalidRequest(
                "input_ids must be a list of token ids, or a list of such lists.", code="invalid_token_id", param="input_ids"
            )
        prompts = prompts_of(ids, options.max_prompts, "input_ids")
        return [(prompt,) for prompt in prompts], not (ids and isinstance(ids[0], list))
    return [_segments(decode_part(body.prompt, "prompt"))], True


def _segments(said: Any) -> tuple[Segment, ...]:
    """A text, ids, or a list of texts and lists of ids. Text behind ids continues them: exact continuation over HTTP."""
    if isinstance(said, str):
        said = [said]
    if not isinstance(said, list) or not said:
        raise InvalidRequest("prompt is empty. Give a text, ids, or a list of both.", code="empty_prompt", param="prompt")
    if all(isinstance(one, int) and not isinstance(one, bool) for one in said):
        return (ids_of(said, "prompt"),)
    segments: list[Segment] = []
    for number, one in enumerate(said):
        if isinstance(one, str):
            segments.append(Text(one))
        elif isinstance(one, list):
            segments.append(ids_of(one, f"prompt[{number}]") if one else Tokens(pack_ids(())))
        else:
            text = f"prompt[{number}] is neither a text nor a list of token ids."
            raise InvalidRequest(text, code="invalid_prompt", param=f"prompt[{number}]")
    return tuple(segments)


class NativeReply(Reply):
    """Writes the answers to one /generate request. several: the answer is a list."""

    def __init__(self, requests: Sequence[GenerateRequest], *, several: bool, with_texts: bool, **more: Any):
        super().__init__(requests[0], **more)
        self._several, self._with_texts = several, with_texts
        self._counts = [request.sampling.n for request in requests]
        self._texts: dict[int, str] = {}
        self._ids: dict[int, bytes] = {}

    def _index(self, prompt: int, sample: int) -> int:
        return sum(self._counts[:prompt]) + sample

    def whole(self, answers: Sequence[Sequence[Finished]]) -> Any:
        results = [self._result(finished) for samples in answers for finished in samples]
        return results if self._several else results[0]

    def _result(self, finished: Finished) -> dict[str, Any]:
        texts = (lambda token: self.spell(token).decode("utf-8", "replace")) if self._with_texts else None
        meta = {**meta_info(finished, self.rid, self._latency_s, texts), "explain": explained(finished)}
        if self._with_prompt_ids:
            meta["prompt_token_ids"] = unpack_ids(finished.prompt_ids)
        return {"text": finished.text, "output_ids": unpack_ids(finished.output_ids), "meta_info": meta}

    def begin(self, prompt: int, sample: int) -> bytes | None:
        return None

    def delta(self, prompt: int, event: Delta) -> bytes | None:
        index = self._index(prompt, event.index)
        self._texts[index] = text = self._texts.get(index, "") + event.text
        self._ids[index] = ids = self._ids.get(index, b"") + event.ids
        meta = {"id": self.rid, "finish_reason": None, "completion_tokens": len(ids) // 4}
        return self._shown(index, {"text": text, "output_ids": unpack_ids(ids), "meta_info": meta})

    def end(self, prompt: int, event: Finished) -> bytes:
        return self._shown(self._index(prompt, event.index), self._result(event))

    def _shown(self, index: int, result: dict[str, Any]) -> bytes:
        return frame({**result, "index": index} if self._several else result)

    def last(self, answers: Sequence[Sequence[Finished]]) -> bytes | None:
        return None

    def failed(self, error: RamifyError | None, unfinished: Sequence[tuple[int, int]]) -> bytes:
        said = error_body(error)
        reason = {"type": "error", "message": said["error"]["message"]}
        return frame({**said, "meta_info": {"id": self.rid, "finish_reason": reason}})
