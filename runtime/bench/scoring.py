"""Question: what do many questions on the same examples cost, and how near to each unique token once is it computed?

Bound: the multiplications of every unique token. A first case asks for one token after each question, a second for the
log-probabilities of four choices, as `select` does. computed/unique is 1.00 where nothing is computed twice. vLLM tells a given
text's log-probabilities only where it computes the whole prompt, so it does few of the choices.
"""

from __future__ import annotations

from collections.abc import Sequence

from .adapters.base import Generate, Ids, Score
from .bounds import Bounds, prefill_of
from .measures import seconds_cold
from .runner import bench
from .scenario import Case, Scenario, Setting
from .work import shared

CHOICES = (" yes", " no", " perhaps", " of course")


def cases(setting: Setting) -> list[Case]:
    """Few-shot questions, then choices."""
    head, count, own = (96, 12, 8) if setting.quick else (1536, 256, 32)
    shots, asked = (100, 6) if setting.quick else (1200, 64)
    questions = Generate(shared(count, head, own, setting.vocab, 8), 1)
    choices = Score(shared(asked, shots, 24, setting.vocab, 9), spelled(setting, CHOICES), CHOICES)
    few = {} if setting.quick else {"transformers": 4, "transformers:one": 4}
    return [
        Case(
            name=f"{count} questions of {own} on {head:,} shared tokens, 1 out",
            unit="s",
            works=(questions,),
            measure=seconds_cold,
            cache="cold",
            bound=lambda bounds: prefill_of(bounds, questions.prompts),
            repeats=3,
            few=few,
        ),
        Case(
            name=f"select of {len(CHOICES)} choices for {asked} questions on 20 examples ({shots:,} tokens)",
            unit="s",
            works=(choices,),
            measure=seconds_cold,
            cache="cold",
            bound=lambda bounds: scored_s(bounds, choices),
            repeats=3,
            few={} if setting.quick else {**few, "vllm": 2},
        ),
    ]


def spelled(setting: Setting, texts: Sequence[str]) -> tuple[Ids, ...]:
    """The choices' ids by the checkpoint's tokenizer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(setting.checkpoint / "tokenizer.json"))
    return tuple(tuple(tokenizer.encode(text).ids) for text in texts)


def scored_s(bounds: Bounds, work: Score) -> float:
    """Prompts and all but the last token of each choice, once; logits where a choice's token is asked for."""
    paths = [prompt + choice[:-1] for prompt in work.prompts for choice in work.choices]
    wanted = len(work.prompts) * (1 + sum(len(choice) - 1 for choice in work.choices))
    return prefill_of(bounds, paths) + bounds.prefill_s(0, heads=max(wanted - len(paths), 0))


SCENARIO = Scenario("scoring", "Qwen2.5-0.5B", ("transformers", "vllm", "llama.cpp"), 8, cases)


def main(argv: list[str]) -> int:
    """Run it."""
    return bench(SCENARIO, argv, __doc__)
