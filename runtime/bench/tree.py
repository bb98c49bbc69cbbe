"""Question: what does decoding cost when branches share what they have read, and what when they share nothing?

Ideal: K and V are read once for each unique token, whoever shares it. `--against ramify:tree_attention=off` shows what reading
shared tokens once brings, and that it costs nothing in the control.
"""

from __future__ import annotations

from .adapters.base import Generate, Ids
from .bounds import Bounds, prefill_of, unique_tokens
from .measures import decode_rate, seconds_cold
from .runner import bench
from .scenario import Case, Scenario, Setting
from .work import apart, drawn, shared, tree


def cases(setting: Setting) -> list[Case]:
    """Branches of one prefix, a tree of three levels, samples of one prompt, and a control."""
    small, vocab = setting.quick, setting.vocab
    rows, prefix, own, output = (6, 64, 4, 8) if small else (32, 2048, 16, 128)
    levels = ((1, 48), (2, 16), (3, 8)) if small else ((1, 1024), (4, 256), (8, 128))
    samples, alone = (4, 32) if small else (16, 256)
    flat = shared(rows, prefix, own, vocab, 4)
    begin = Generate(flat, 8)
    few = {} if small else {"transformers": 2, "transformers:one": 2}
    return [
        Case(
            name=f"{rows} branches of a prefix of {prefix:,}, {own} of their own, 8 out",
            unit="s",
            works=(begin,),
            measure=seconds_cold,
            cache="cold",
            bound=lambda bounds: whole_s(bounds, begin),
            repeats=3,
            few=few,
        ),
        decode(f"{rows} branches of {output} tokens on a prefix of {prefix:,}", Generate(flat, output)),
        decode(f"tree of {' x '.join(f'{n} of {length:,}' for n, length in levels)}", Generate(tree(levels, vocab, 5), output)),
        decode(f"{samples} samples of one prompt of {prefix:,}", Generate((drawn(prefix, vocab, 6),), output, samples)),
        decode(f"{rows} requests of {alone} that share nothing", Generate(apart(rows, alone, vocab, 7), output)),
    ]


def decode(name: str, work: Generate) -> Case:
    """Rate of all branches together. transformers reads every prompt again for it, which takes minutes a run."""
    paths: list[Ids] = [prompt for prompt in work.prompts for _ in range(work.samples)]
    unique = unique_tokens(work.prompts)
    steps = work.output - 1

    def bound(bounds: Bounds) -> float:
        return len(paths) * steps / bounds.decoding_s([len(path) for path in paths], unique, steps)

    long = sum(map(len, paths)) > 20_000
    slow = "it computes every prompt in full: minutes a run"
    without = {"transformers": slow, "transformers:one": slow} if long else {}
    return Case(name, "tokens/s", (work,), decode_rate, "warm", bound, repeats=3, without=without)


def whole_s(bounds: Bounds, work: Generate) -> float:
    """Every unique token computed once, then the steps."""
    lengths = [len(prompt) for prompt in work.prompts]
    return prefill_of(bounds, work.prompts) + bounds.decoding_s(lengths, unique_tokens(work.prompts), work.output - 1)


SCENARIO = Scenario("tree", "Qwen3-0.6B", ("transformers", "vllm", "llama.cpp"), 20, cases)


def main(argv: list[str]) -> int:
    """Run it."""
    return bench(SCENARIO, argv, __doc__)
