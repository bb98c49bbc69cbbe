"""A call of the model: from a leaf to a request, and from the backend's events to what the state keeps of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ..constrained.spec import Choice
from ..runtime.choosing import mean
from ..runtime.errors import EngineError, from_code
from ..runtime.meta_info import meta_info
from ..runtime.protocol import (
    AnswerRead,
    Delta,
    Failure,
    Finished,
    GenerateRequest,
    LogprobParams,
    ProgramHint,
    Prompt,
    SamplingParams,
    Scored,
    ScoreRequest,
)
from .backend import Backend
from .explain import choice_entries
from .nodes import Gen, Logprobs, Select
from .run import Run
from .tools import answer_of

Show = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """What a call has come to. text: by which the state goes on. held, tail: as in `Finished`. value: the variable's. read: what
    the text means, where functions could be called."""

    text: str
    held: bytes
    tail: str
    value: Any
    answers: tuple[Finished, ...] | Scored
    meta: Any
    read: AnswerRead | None = None


async def call(run: Run, leaf: Gen | Select, prompt: Prompt, hint: ProgramHint, show: Show) -> Outcome:
    """Make the call and wait for its end. show(text, meta) is given the text as it comes. Raises what the call raises."""
    if isinstance(leaf, Gen):
        return await _generate(run, leaf, prompt, hint, show)
    if leaf.temperature < 1e-6:
        return await _select(run, leaf, prompt, hint, show)
    # Above temperature 0 a choice is sampled token by token under the constraint, in the model's own proportions.
    said = (("temperature", leaf.temperature), ("max_new_tokens", None), ("n", 1), ("stop", ()), ("min_new_tokens", 0))
    return await _generate(run, Gen(leaf.name, said, Choice(leaf.choices)), prompt, hint, show)


async def _generate(run: Run, leaf: Gen, prompt: Prompt, hint: ProgramHint, show: Show) -> Outcome:
    """One GenerateRequest. Of n > 1 texts the state goes on with the first; the value is the list of all."""
    options = run.options
    logprobs = merged_logprobs(leaf.logprobs, options.logprobs)
    request = GenerateRequest(
        prompt=prompt,
        sampling=SamplingParams(**{**options.sampling, **dict(leaf.sampling)}),
        constraint=leaf.constraint,
        logprobs=logprob_params(logprobs),
        hint=hint,
        priority=options.priority,
        deadline_s=options.deadline_s,
        tenant=options.tenant,
        rid=f"{hint.program}-{hint.call}",
        answer=None if leaf.tools is None else leaf.tools.params,
    )
    started = time.perf_counter()
    answers = await collect(run.backend, request, show)
    latency_s = time.perf_counter() - started
    texts = run.backend.token_text if logprobs.return_text_in_logprobs else None
    metas = [meta_info(answer, request.rid, latency_s, texts) for answer in answers]
    values = [converted(leaf, answer) for answer in answers]
    several = request.sampling.n > 1
    first = answers[0]
    value, meta = (values, metas) if several else (values[0], metas[0])
    read = first.answer if leaf.tools is not None else None
    return Outcome(first.text, first.held, first.tail, value, tuple(answers), meta, read)


async def collect(backend: Backend, request: GenerateRequest, show: Show | None = None) -> list[Finished]:
    """Run a request; the first sequence's text is shown as it comes. Returns one Finished for each of the n, by index."""
    finished: dict[int, Finished] = {}
    shown, count = 0, 0

    def pass_on(text: str, reason: str | None) -> None:
        if show is not None:
            show(text, {"id": request.rid, "finish_reason": reason, "completion_tokens": count})

    async with aclosing(backend.generate(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Delta) and event.index == 0:
                shown, count = shown + len(event.text), count + len(event.ids) // 4
                pass_on(event.text, None)
            elif isinstance(event, Finished):
                finished[event.index] = event
            elif isinstance(event, Failure):
                raise from_code(event.code, event.message, event.param)
    answers = [finished[index] for index in sorted(finished)]
    if len(answers) != request.sampling.n:
        raise EngineError(f"The backend ended {len(answers)} of {request.sampling.n} sequences. Ask again.")
    for answer in answers:
        if answer.finish.reason in ("abort", "error"):
            raise EngineError(f"The backend gave up this call ({answer.finish.reason}). Ask again.")
    pass_on(answers[0].text[shown:], answers[0].finish.reason)
    return answers


async def _select(run: Run, leaf: Select, prompt: Prompt, hint: ProgramHint, show: Show) -> Outcome:
    """One ScoreRequest; the choice that the method takes is the text."""
    options = run.options
    request = ScoreRequest(
        prompt=prompt,
        choices=leaf.choices,
        unconditional=leaf.method.requires_unconditional_logprobs,
        keep=getattr(leaf.method, "rule", "all"),  # of a method of one's own only the program knows who wins
        hint=hint,
        priority=options.priority,
        deadline_s=options.deadline_s,
        tenant=options.tenant,
        rid=f"{hint.program}-{hint.call}",
    )
    scored = await run.backend.score(request)
    given, alone = choice_entries(scored, run.backend.token_text)
    decision = leaf.method(
        choices=list(leaf.choices),
        normalized_prompt_logprobs=[mean(choice.logprobs) for choice in scored.choices],
        input_token_logprobs=given,
        output_token_logprobs=[[] for _ in given],
        unconditional_token_logprobs=alone,
    )
    text = decision.decision
    if text not in leaf.choices:
        raise ValueError(f"The choices_method decided for {text!r}, which is none of {list(leaf.choices)}.")
    chosen = scored.choices[leaf.choices.index(text)]
    counts = {"id": request.rid, "prompt_tokens": scored.usage.prompt, "cached_tokens": scored.usage.cached}
    meta = {**counts, **decision.meta_info}
    show(text, meta)
    return Outcome(text, scored.prompt_ids + chosen.ids if scored.prompt_ids else b"", "", text, scored, meta)


def converted(leaf: Gen, answer: Finished) -> Any:
    """The variable's value: the text, or what it spells of the type that was asked for."""
    if leaf.tools is not None:
        return answer_of(answer.answer or AnswerRead(answer.text))
    if leaf.typed is None:
        return answer.text
    return leaf.typed.value(answer.text, cut_off=answer.finish.reason == "length")


def merged_logprobs(said: Logprobs, default: Logprobs) -> Logprobs:
    """What the call said, and where it said nothing what the run says."""
    pick = [a if a is not None else b for a, b in zip(vars(said).values(), vars(default).values(), strict=True)]
    return Logprobs(*pick)


def logprob_params(asked: Logprobs) -> LogprobParams:
    """SGLang's words as the protocol's. logprob_start_len: -1 (the default) is output only."""
    if not asked.return_logprob:
        return LogprobParams()
    start = -1 if asked.logprob_start_len is None else asked.logprob_start_len
    return LogprobParams(output=True, prompt_from=start, top=asked.top_logprobs_num or 0)
