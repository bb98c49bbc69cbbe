"""`ramify demo`: the programs of `lang/examples` on a real model, with what each of their calls took from the cache."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module

from ..cli import engine_options
from ..console import heading, say, table
from ..errors import InvalidRequest, RamifyError
from .modules import runnable
from .starting import running
from .watch import Call, Watched, show_calls

PACKAGE = __name__.rsplit(".", 3)[0] + ".lang.examples"


# From the plain to the composed; an example that is not named here comes after them.
ORDER = ("few_shot", "chat", "fork", "choose", "extract", "tool", "batch")


def chosen(names: list[str]) -> dict[str, str]:
    """The examples to run, name -> title. Raises InvalidRequest for a name that there is none of."""
    found = runnable(PACKAGE)
    known = {name: found[name] for name in (*ORDER, *(other for other in found if other not in ORDER)) if name in found}
    for name in names:
        if name not in known:
            raise InvalidRequest(f"There is no example {name!r}. Known: {', '.join(known)}.")
    return {name: title for name, title in known.items() if not names or name in names}


def summary(calls: list[Call], seconds: float) -> str:
    """One line over everything that ran."""
    prompt, cached, output = (sum(getattr(call.usage, name) for call in calls) for name in ("prompt", "cached", "output"))
    share = 100 * cached / prompt if prompt else 0.0
    return (
        f"{len(calls)} calls in {seconds:.1f} s: {prompt:,} prompt tokens, {cached:,} of them ({share:.0f} %) from the cache;"
        f" {output:,} tokens generated."
    )


def run(said: argparse.Namespace) -> int:
    """Exit status 0 when every example ended well."""
    examples = chosen(said.only)
    if said.list:
        table(("example", "what it shows"), list(examples.items()), file=sys.stdout)
        return 0
    every: list[Call] = []
    failed = []
    with running(engine_options(said)) as backend:
        watched = Watched(backend)
        started = time.perf_counter()
        for name, title in examples.items():
            heading(f"{name}: {title}")
            try:
                import_module(f"{PACKAGE}.{name}").main(watched)
            except RamifyError as error:  # the others are still worth seeing
                failed.append(name)
                say(f"{error}", file=sys.stdout)
            calls = watched.take()
            show_calls(calls, file=sys.stdout)
            every += calls
        say(f"\n{summary(every, time.perf_counter() - started)}", file=sys.stdout)
    say("The programs are in lang/examples; `ramify run FILE.py` runs one of your own.", file=sys.stdout)
    if failed:
        say(f"These examples failed: {', '.join(failed)}.")
    return 1 if failed else 0
