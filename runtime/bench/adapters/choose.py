"""From what the user writes to an adapter: `ramify`, `ramify:page_size=16`, `vllm`, `llama.cpp:Q8_0`, `http://host/v1` ..."""

from __future__ import annotations

import sys
from pathlib import Path

from ..peers import python_of
from .base import Adapter, Unusable
from .http import HttpAdapter, RamifyServerAdapter
from .ramify import RamifyAdapter
from .worker import WorkerAdapter

KNOWN = {
    "ramify": "the engine process; options of the engine after a colon, as in ramify:quantization=int8,page_size=16",
    "ramify-inprocess": "the engine on a thread of the benchmark's process; options likewise",
    "ramify-server": "`ramify serve`, streamed over HTTP; options likewise",
    "transformers": "one padded batch; transformers:one takes one prompt after the other",
    "vllm": "in its own environment; vllm:eager is without torch.compile",
    "llama.cpp": "in its own environment; llama.cpp:BF16 (the default), :Q8_0, :Q4_0",
    "http://...": "any server with OpenAI's protocol that serves the same checkpoint, as http://host:port/v1",
}


def split(word: str) -> tuple[str, str]:
    """Name and what stands after the colon. Pure."""
    if word.startswith(("http://", "https://")):
        return "http", word
    name, _, rest = word.partition(":")
    return name, rest


def settings(rest: str) -> dict[str, str]:
    """`a=1,b=2` by name. Pure. Raises Unusable."""
    pairs = [part.partition("=") for part in rest.split(",") if part]
    bare = [name for name, equals, _ in pairs if not equals]
    if bare:
        raise Unusable(f"{bare[0]!r} is no option of an engine; write name=value.")
    return {name.strip().replace("-", "_"): value.strip() for name, _, value in pairs}


def choose(word: str, peers: Path, logs: Path | None = None) -> Adapter:
    """The adapter that a word names. peers: folder of environments; logs: where workers' errors go. Raises Unusable."""
    name, rest = split(word)
    if name == "http":
        return HttpAdapter(word, word)
    if name == "ramify":
        return RamifyAdapter(word, settings(rest))
    if name == "ramify-inprocess":
        return RamifyAdapter(word, settings(rest), in_process=True)
    if name == "ramify-server":
        return RamifyServerAdapter(word, settings(rest))
    log = logs / f"{word.replace(':', '-')}.log" if logs else None
    if name == "transformers":
        return WorkerAdapter(word, "transformers", Path(sys.executable), rest, log)
    workers = {"vllm": "vllm", "llama.cpp": "llama"}
    if name not in workers:
        known = "".join(f"\n  {one:18} {text}" for one, text in KNOWN.items())
        raise Unusable(f"There is no engine {word!r}. Known:{known}")
    try:
        return WorkerAdapter(word, workers[name], python_of(name, peers), rest, log)
    except LookupError as error:
        raise Unusable(str(error)) from error
