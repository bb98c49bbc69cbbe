"""Question: how long is a decode step at few and many rows, short and long contexts, and how much of it is the device idle?

Rows share nothing. Bound: weights and K and V read once, or the multiplications. The device is idle in what the kernels do not
cover of the time from one step's end to the next one's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ..work import apart
from .setting import Line, Setting, scenario
from .stepping import Stepper

ROWS, CONTEXTS = (1, 64, 256), (1024, 8192)


def run(setting: Setting) -> Iterator[Line]:
    """A line for each number of rows and length of context; what does not fit into memory has the longest that does."""
    rows, contexts = ((1, 4), (64, 160)) if setting.quick else (ROWS, CONTEXTS)
    steps, warm = (4, 2) if setting.quick else (32, 8)
    few = {"kv_tokens": max(rows) * (max(contexts) + 64)} if setting.quick else {}
    stepper = Stepper(setting.options(max_running=max(rows), context_length=max(contexts) + 256, **few))
    for context in contexts:
        for count in rows:
            if setting.left_s < 0:
                return
            fits = (stepper.capacity // count - 128) // 64 * 64 if not setting.quick else context
            length = min(context, fits)
            prompts = apart(count, length, setting.shape.vocab, 20)
            found = stepper.decode(prompts, steps=steps, warm=warm)
            bound = setting.bounds.decode_s(count, count * length, count * length)
            yield {
                "rows": count,
                "context": length,
                "step_ms": 1e3 * found.wall_s,
                "most_ms": 1e3 * found.most_s,
                "device_ms": 1e3 * found.device_s,
                "busy_ms": None if found.busy_s is None else 1e3 * found.busy_s,
                "idle": found.idle,
                "bound_ms": 1e3 * bound,
                "of bound": bound / found.wall_s,
                "tokens/s": count / found.wall_s,
                "_kernels": found.kernels,
            }


def main(argv: list[str]) -> int:
    """Run it."""
    return scenario("g2", argv, __doc__, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
