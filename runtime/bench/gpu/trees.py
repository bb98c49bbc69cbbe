"""Question: what does decoding over a tree gain on a GPU when K and V that rows share are read once, and what does it cost else?

Rows on one long prefix, groups on several, a tree of three levels, and controls that share little or nothing; each with tree
attention and without. Bound: K and V of unique tokens read once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ..bounds import unique_tokens
from ..work import tree
from .setting import Line, Setting, freed, scenario
from .stepping import Stepper, Steps

Levels = tuple[tuple[int, int], ...]
TREES: dict[str, Levels] = {
    "256 on 8192": ((1, 8192), (256, 16)),
    "4 groups of 64 on 4096": ((4, 4096), (64, 16)),
    "4096; 8 of 1024; 8 of 512 each; 4 rows": ((1, 4096), (8, 1024), (8, 512), (4, 16)),
    "control: 256 on 0": ((256, 512),),
    "control: 256 on 128": ((1, 128), (256, 512)),
    "control: 256 on 512": ((1, 512), (256, 512)),
}
SMALL: dict[str, Levels] = {"8 on 256": ((1, 256), (8, 16)), "control: 8 on 0": ((8, 64),)}


def run(setting: Setting) -> Iterator[Line]:
    """A line a tree with tree attention, then a line a tree without it, which has the gain: an engine each."""
    trees = SMALL if setting.quick else TREES
    steps, warm = (4, 2) if setting.quick else (24, 8)
    prompts = {name: tree(levels, setting.shape.vocab, 21) for name, levels in trees.items()}
    sizes = {
        "max_running": max(map(len, prompts.values())),
        "kv_tokens": max(unique_tokens(paths) + len(paths) * 160 for paths in prompts.values()),
        "context_length": max(len(path) for paths in prompts.values() for path in paths) + 256,
    }
    together: dict[str, Steps] = {}
    for shared in (True, False):
        with freed():
            stepper = Stepper(setting.options(tree_attention=shared, **sizes))
            for name, paths in prompts.items():
                if setting.left_s < 0:
                    return
                found = stepper.decode(paths, steps=steps, warm=warm)
                if shared:
                    together[name] = found
                unique, seen = unique_tokens(paths), sum(map(len, paths))
                bound = setting.bounds.decode_s(len(paths), unique, seen)
                yield {
                    "tree": name,
                    "rows": len(paths),
                    "seen/unique": seen / unique,
                    "read once": "yes" if shared else "no",
                    "step_ms": 1e3 * found.wall_s,
                    "device_ms": 1e3 * found.device_s,
                    "busy_ms": None if found.busy_s is None else 1e3 * found.busy_s,
                    "of bound": bound / found.wall_s,
                    "gain": None if shared else found.wall_s / together[name].wall_s,
                    "_kernels": found.kernels,
                }
            del stepper


def main(argv: list[str]) -> int:
    """Run it."""
    return scenario("g3", argv, __doc__, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
