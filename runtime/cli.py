"""The command line: `ramify demo | chat | generate | run | serve | bench | doctor`. Parses, then hands over to `commands/`.

Nothing heavy is imported before a command is known to need it, so `--help` and `--version` answer at once. What a user did
wrong ends in one line on stderr and exit status 2; a failure of ours keeps its traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from .config import (
    KV_DTYPES,
    LOAD_FORMATS,
    POLICIES,
    QUANTIZATIONS,
    REASONING_PARSERS,
    SCHEDULES,
    TOOL_CALL_PARSERS,
    EngineOptions,
)
from .errors import RamifyError
from .protocol import SamplingParams
from .server.flags import add_server_flags

# field of EngineOptions -> (metavar or choices, help). A test holds that every field has its line here.
ENGINE_FLAGS: dict[str, tuple[str | Sequence[str] | None, str]] = {
    "model": ("MODEL", "checkpoint folder or hub id (default: the bundled model)"),
    "device": (("auto", "cpu", "cuda"), "where to compute (default: auto)"),
    "dtype": (("auto", "float32", "bfloat16"), "of weights and KV (default: bfloat16 where the device multiplies it natively)"),
    "load_format": (LOAD_FORMATS, "dummy draws the weights at random: for benchmarks, needs no safetensors (default: auto)"),
    "quantization": (tuple(QUANTIZATIONS), "of the linear layers' weights: less memory, faster; fp8 on a GPU (default: none)"),
    "kv_dtype": (KV_DTYPES, "of K and V in the pool; int8, on a CPU, holds almost twice the tokens (default: auto, as dtype)"),
    "kv_tokens": ("N", "size of the KV pool in tokens"),
    "mem_fraction": ("SHARE", "or its share of free memory (default: 0.25 on a CPU, 0.95 on a GPU)"),
    "max_running": ("N", "sequences decoded together"),
    "chunk_tokens": ("N", "prompt tokens that one step may compute"),
    "context_length": ("N", "longest sequence, at most the model's"),
    "threads": ("N", "of torch (default: all cores)"),
    "page_size": ("N", "tokens a page, a power of two (default: 1 on a CPU, 16 on a GPU)"),
    "eviction": (POLICIES, "which cached tokens go first when memory is short (default: lru)"),
    "schedule": (SCHEDULES, "order of the waiting requests (default: prefix, most cached first)"),
    "generation_defaults": (None, "ignore the sampling defaults in the model's generation_config.json"),
    "queue": ("N", "requests that may wait before others are refused (default: 1024)"),
    "depth": ("N", "steps in flight, 1 or 2 (default: 1 on a CPU, 2 on a GPU)"),
    "jump_forward": (None, "compute tokens that a constraint forces one by one; the output is the same"),
    "tree_attention": (None, "read K and V again for every row that shares them; the results are the same, to the bit"),
    "cuda_graphs": (None, "launch every operation of a step by itself, for looking for faults on a GPU"),
    "deterministic": (None, "the same bits whatever shares a batch, on a GPU too, where it costs speed (a CPU always does it)"),
    "grammar_cache": (None, "compile constraints anew at each start, and keep none in the user's cache folder"),
    "tool_call_parser": (TOOL_CALL_PARSERS, "how the model writes function calls (default: auto, its chat template tells)"),
    "reasoning_parser": (REASONING_PARSERS, "whether <think>...</think> is told apart (default: auto, if its template has it)"),
}


def add_engine_flags(parser: argparse.ArgumentParser, *, model_flag: bool = True) -> None:
    """One flag per field of EngineOptions; a field that is True by default becomes --no-NAME, one that is False --NAME."""
    group = parser.add_argument_group("engine")
    for name, (values, text) in ENGINE_FLAGS.items():
        if name == "model" and not model_flag:
            continue
        flag = name.replace("_", "-")
        annotation = str(EngineOptions.__annotations__[name])
        if annotation == "bool":
            default = bool(getattr(EngineOptions(), name))
            said = (f"--no-{flag}", "store_false") if default else (f"--{flag}", "store_true")
            group.add_argument(said[0], dest=name, action=said[1], default=argparse.SUPPRESS, help=text)
            continue
        kind: Callable[[str], object] = int if "int" in annotation else float if "float" in annotation else str
        if isinstance(values, str):
            group.add_argument(f"--{flag}", dest=name, type=kind, metavar=values, default=argparse.SUPPRESS, help=text)
        else:
            group.add_argument(f"--{flag}", dest=name, type=kind, choices=values, default=argparse.SUPPRESS, help=text)


def engine_options(said: argparse.Namespace) -> EngineOptions:
    """The EngineOptions that the flags spell; what was not said keeps its default."""
    given = {name: getattr(said, name) for name in ENGINE_FLAGS if getattr(said, name, None) is not None}
    return EngineOptions(**given)


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """The sampling parameters that one types by hand; a program has them all."""
    group = parser.add_argument_group("sampling")
    group.add_argument("--max-tokens", type=int, metavar="N", default=256, help="longest answer (default: 256)")
    group.add_argument("--temperature", type=float, metavar="T", help="0 is greedy (default: the model's own, else 1)")
    group.add_argument("--top-p", type=float, metavar="P")
    group.add_argument("--top-k", type=int, metavar="K")
    group.add_argument("--min-p", type=float, metavar="P")
    group.add_argument("--repetition-penalty", type=float, metavar="R")
    group.add_argument("--seed", type=int, metavar="N", help="the same seed draws the same text")
    group.add_argument("--stop", action="append", metavar="TEXT", default=[], help="end before this text; may be repeated")
    group.add_argument("--ignore-eos", action="store_true", help="go on where the model would end")


def sampling_params(said: argparse.Namespace) -> SamplingParams:
    """The SamplingParams that the flags spell."""
    return SamplingParams(
        max_new_tokens=said.max_tokens,
        temperature=said.temperature,
        top_p=said.top_p,
        top_k=said.top_k,
        min_p=said.min_p,
        repetition_penalty=said.repetition_penalty,
        seed=said.seed,
        stop=tuple(said.stop),
        ignore_eos=said.ignore_eos,
    )


def _model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default=None, help=ENGINE_FLAGS["model"][1])


def build_parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line; imports nothing heavy."""
    parser = argparse.ArgumentParser(prog="ramify", description="Programs that call a language model many times.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    demo = commands.add_parser("demo", help="watch example programs run on the bundled model")
    _model_argument(demo)
    demo.add_argument("--list", action="store_true", help="name the examples and exit")
    demo.add_argument("--only", action="append", metavar="NAME", default=[], help="run this example alone; may be repeated")
    add_engine_flags(demo, model_flag=False)

    chat = commands.add_parser("chat", help="talk with a model in the terminal")
    _model_argument(chat)
    chat.add_argument("--system", metavar="TEXT", help="the system message")
    chat.add_argument("--url", metavar="URL", help="talk to a server in place of an engine of your own")
    chat.add_argument("--api-key", metavar="KEY", help="the server's key, if it asks for one")
    add_sampling_flags(chat)
    add_engine_flags(chat, model_flag=False)

    generate = commands.add_parser("generate", help="continue a prompt")
    generate.add_argument("prompt", nargs="?", help="the text (default: standard input)")
    generate.add_argument("--chat", action="store_true", help="send it as a user's message, through the chat template")
    generate.add_argument("--stream", action="store_true", help="print the text as it is made")
    constraint = generate.add_mutually_exclusive_group()
    constraint.add_argument("--json-schema", metavar="FILE", help="answer with JSON that is valid under this schema")
    constraint.add_argument("--regex", metavar="PATTERN", help="answer with a text that matches")
    add_sampling_flags(generate)
    add_engine_flags(generate)

    run = commands.add_parser("run", help="run a program from a file")
    run.add_argument("file", metavar="FILE.py[:FUNCTION]", help="a file with a function made by @ramify.function")
    run.add_argument("args", nargs="*", metavar="NAME=VALUE", help="its arguments; a value is JSON, else text")
    run.add_argument("--explain", action="store_true", help="show cached and computed tokens of every call")
    add_engine_flags(run)

    serve = commands.add_parser("serve", help="serve a model over HTTP: OpenAI's protocol, and Ramify's own")
    _model_argument(serve)
    order = "A flag overrides a RAMIFY_* variable (RAMIFY_PORT for --port), and that overrides FILE."
    settings = serve.add_argument_group("configuration", order)
    settings.add_argument("--config", metavar="FILE", help="YAML, a setting a line, as in 'port: 8000' (or RAMIFY_CONFIG)")
    settings.add_argument("--print-config", action="store_true", help="print every setting and where it comes from, and exit")
    serve.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)
    add_server_flags(serve)
    add_engine_flags(serve, model_flag=False)

    bench = commands.add_parser("bench", help="list or run the benchmarks")
    bench.add_argument("name", nargs="?", help="which one (default: list them)")
    bench.add_argument("--suite", choices=("gpu",), help="the scenarios of a GPU, or those of them that are named")
    bench.add_argument("--all", action="store_true", help="run all of them, one after the other")
    bench.add_argument("--out", metavar="FOLDER", help="where scenarios leave their results for `ramify bench report`")
    bench.add_argument("rest", nargs=argparse.REMAINDER, help="its own arguments; NAME --help shows them")

    doctor = commands.add_parser("doctor", help="say what this machine has, what was chosen and why, and what is missing")
    _model_argument(doctor)
    add_engine_flags(doctor, model_flag=False)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The words as a namespace. Arguments of a program may stand before and after the flags of `run`, which argparse alone
    does not allow. Exits with status 2 where they make no sense."""
    said, left = parser.parse_known_args(argv)
    if said.command == "run" and not any(word.startswith("-") for word in left):
        said.args += left
    elif said.command == "bench" and said.suite is not None:
        said.rest = [*left, *said.rest]  # flags before the first name
    elif left:
        # What follows a misspelled --api-key must not be shown.
        flags = [word.partition("=")[0] for word in left if word.startswith("-")]
        parser.error(f"unrecognized arguments: {' '.join(flags or left)}")
    return said


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 1 (a failure of ours), 2 (the user's mistake), 130 (interrupted)."""
    parser = build_parser()
    said = parse(parser, argv)
    if said.version:
        from .. import __version__

        print(f"ramify {__version__}")
        return 0
    if said.command is None:
        parser.print_help()
        return 2
    try:
        return import_module(f".commands.{said.command}", __package__).run(said)
    except RamifyError as error:
        print(f"ramify {said.command}: {error}", file=sys.stderr)
        return 2 if error.status < 500 or error.code in {"engine_unavailable", "queue_full"} else 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `ramify ... | head`
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
