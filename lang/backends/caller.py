"""What `Engine` and `Runtime` have in common: a backend that is held, and SGLang's engine API over it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

from ...runtime.protocol import SamplingParams
from .. import background
from ..backend import Backend
from ..generate import asked, collect, growing
from ..nodes import Logprobs


class Caller:
    """Holds `backend`, which programs speak to, and ends with it: as a context manager, or by `shutdown`."""

    backend: Backend

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: SamplingParams | Mapping[str, Any] | Sequence[Any] | None = None,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        return_logprob: bool = False,
        logprob_start_len: int | None = None,
        top_logprobs_num: int | None = None,
        token_ids_logprob: Sequence[int] | None = None,
        *,
        return_text_in_logprobs: bool = False,
        stream: bool = False,
    ) -> Any:
        """Continue one prompt, or many at once, given as text or as token ids.

        sampling_params: a dict with SGLang's names, a `SamplingParams`, or a list with one for each prompt. Returns
        `{"text", "output_ids", "meta_info"}`, a list of them for a list of prompts or n > 1, or an iterator of them, each
        with the text so far, if stream. logprob_start_len: first prompt token whose log-probability is wanted, -1 for none.
        token_ids_logprob: ids whose log-probabilities are wanted at every position.
        """
        logprobs = Logprobs(return_logprob, logprob_start_len, top_logprobs_num, return_text_in_logprobs)
        call = asked(prompt, sampling_params, input_ids, logprobs, token_ids_logprob or ())
        if stream:
            return background.iterate(growing(self.backend, call))
        return background.run(collect(self.backend, call), "await engine.async_generate(...)")

    async def async_generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: SamplingParams | Mapping[str, Any] | Sequence[Any] | None = None,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        return_logprob: bool = False,
        logprob_start_len: int | None = None,
        top_logprobs_num: int | None = None,
        token_ids_logprob: Sequence[int] | None = None,
        *,
        return_text_in_logprobs: bool = False,
        stream: bool = False,
    ) -> Any:
        """`generate` for coroutines in any loop; with stream=True `async for` over what awaiting it gives."""
        logprobs = Logprobs(return_logprob, logprob_start_len, top_logprobs_num, return_text_in_logprobs)
        call = asked(prompt, sampling_params, input_ids, logprobs, token_ids_logprob or ())
        if stream:
            return background.aiterate(growing(self.backend, call))
        return await asyncio.wrap_future(background.submit(collect(self.backend, call)))

    def flush_cache(self) -> int:
        """Forget what is cached and not in use; returns how many tokens were freed."""
        return background.run(self.backend.flush_cache(), "await engine.backend.flush_cache()")

    def get_server_info(self) -> dict[str, Any]:
        """Model, cache, counters."""
        return background.run(self.backend.server_info(), "await engine.backend.server_info()")

    def shutdown(self) -> None:
        """Stop it and give everything back. Again, it changes nothing."""
        background.run(self.backend.close(), "await engine.backend.close()")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
