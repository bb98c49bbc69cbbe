"""Question: how near to the memory's rate does one stream decode at growing depths, and how soon does it begin?

Bound of a decode: weights and K and V read once for each token. Of the first token: 512 tokens' multiplications.
"""

from __future__ import annotations

from .adapters.base import Generate
from .measures import decode_rate, first_token
from .runner import bench
from .scenario import Case, Scenario, Setting
from .work import apart


def cases(setting: Setting) -> list[Case]:
    """The first token of a cold prompt, then one stream at three depths."""
    prompt, depths, output = (64, (16, 128, 512), 8) if setting.quick else (512, (128, 2048, 16_384), 64)
    begin = Case(
        name=f"first token after a prompt of {prompt:,}",
        unit="s",
        works=(Generate(apart(1, prompt, setting.vocab, 1), 2),),
        measure=first_token,
        cache="cold",
        bound=lambda bounds: bounds.prefill_s(prompt),
    )
    return [begin, *(decode(setting, depth, output) for depth in depths)]


def decode(setting: Setting, depth: int, output: int) -> Case:
    """One stream after `depth` tokens. Where a prompt takes long, it runs twice and does not warm up."""
    long = depth > 4096
    return Case(
        name=f"one stream at depth {depth:,}",
        unit="tokens/s",
        works=(Generate(apart(1, depth, setting.vocab, 2), output),),
        measure=decode_rate,
        cache="warm",
        bound=lambda bounds: (output - 1) / bounds.decoding_s([depth], depth, output - 1),
        repeats=2 if long else 5,
        warm_up=not long,
    )


SCENARIO = Scenario("single", "Qwen2.5-0.5B", ("transformers", "vllm", "llama.cpp"), 8, cases)


def main(argv: list[str]) -> int:
    """Run it."""
    return bench(SCENARIO, argv, __doc__)
