"""Question: how many tokens a second do 64 requests at once get, 256 tokens in and 128 out each?

Bound: the prompts' multiplications, then 128 steps that each read the weights once and all K and V.
"""

from __future__ import annotations

from .adapters.base import Generate
from .bounds import Bounds, prefill_of
from .measures import throughput_cold
from .runner import bench
from .scenario import Case, Scenario, Setting
from .work import apart


def cases(setting: Setting) -> list[Case]:
    """One case."""
    count, prompt, output = (8, 32, 8) if setting.quick else (64, 256, 128)
    work = Generate(apart(count, prompt, setting.vocab, 3), output)

    def bound(bounds: Bounds) -> float:
        seconds = prefill_of(bounds, work.prompts) + bounds.decoding_s([prompt] * count, prompt * count, output - 1)
        return count * output / seconds

    return [
        Case(
            name=f"{count} requests, {prompt} in, {output} out",
            unit="tokens/s",
            works=(work,),
            measure=throughput_cold,
            cache="cold",
            bound=bound,
            repeats=3,
            few={} if setting.quick else {"transformers:one": 4},
        )
    ]


SCENARIO = Scenario("batch", "Qwen2.5-0.5B", ("transformers", "transformers:one", "vllm", "llama.cpp"), 16, cases)


def main(argv: list[str]) -> int:
    """Run it."""
    return bench(SCENARIO, argv, __doc__)
