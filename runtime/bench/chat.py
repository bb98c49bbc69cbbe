"""Question: what do the turns of eight conversations cost, and is only what is new computed?

Each turn's prompt is all before it, as the engine itself continued it, and 64 new tokens; 32 come back. Bound: the new tokens'
multiplications and the steps. computed/new is 1.00 where nothing that was computed or generated is computed again.
"""

from __future__ import annotations

from dataclasses import replace

from .adapters.base import Adapter, Generate, Ids, Unusable
from .bounds import Bounds
from .runner import bench
from .scenario import Case, Measured, Scenario, Setting, Works
from .work import apart


def cases(setting: Setting) -> list[Case]:
    """One case."""
    talks, turns, new, output = (3, 3, 12, 6) if setting.quick else (8, 6, 64, 32)
    opening = Generate(apart(talks, new, setting.vocab, 10), output)
    replies = tuple(Generate(apart(talks, new, setting.vocab, 11 + turn), output) for turn in range(turns - 1))
    # The last turn's prompts are as long as this; what stands in them is known when the engine has answered.
    longest = Generate(apart(talks, (new + output) * turns, setting.vocab, 10), output)

    def bound(bounds: Bounds) -> float:
        seconds = 0.0
        for turn in range(turns):
            past = turn * (new + output)
            seconds += talks * bounds.prefill_s(new, past)
            seconds += bounds.decoding_s([past + new] * talks, (past + new) * talks, output - 1)
        return seconds

    return [
        Case(
            name=f"{talks} conversations of {turns} turns, {new} in, {output} out",
            unit="s",
            works=(longest, opening, *replies),
            measure=conversations,
            cache="cold",
            bound=bound,
            repeats=3,
        )
    ]


async def conversations(adapter: Adapter, works: Works) -> Measured:
    """All conversations turn by turn: works[1:] are what is said in each. Seconds of all turns."""
    await adapter.flush()
    held: list[Ids] = [()] * len(works[1].prompts)
    seconds, computed, new = 0.0, 0, 0
    for turn in works[1:]:
        prompts = tuple(past + said for past, said in zip(held, turn.prompts, strict=True))
        run = await adapter.run(replace(turn, prompts=prompts))
        if not all(one.ids for one in run.sequences):
            raise Unusable("it does not tell the ids that it generated, so that no conversation can go on from them")
        # What was generated last was never an input: it counts as new, too.
        new += sum(len(said) + bool(past) for past, said in zip(held, turn.prompts, strict=True))
        computed = None if computed is None or run.computed is None else computed + run.computed
        seconds += run.seconds
        held = [prompt + one.ids for prompt, one in zip(prompts, run.sequences, strict=True)]
    facts = {} if computed is None else {"computed": computed, "new": new, "computed/new": computed / new}
    return Measured(seconds, facts)


SCENARIO = Scenario("chat", "Qwen2.5-0.5B", ("transformers", "vllm", "llama.cpp"), 8, cases)


def main(argv: list[str]) -> int:
    """Run it."""
    return bench(SCENARIO, argv, __doc__)
