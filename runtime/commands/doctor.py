"""`ramify doctor`: what this machine has, what the engine chose on it and why, and what is missing and what to do."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

from ..bundled import MODEL_DIR
from ..cli import engine_options
from ..config import EngineOptions
from ..console import gib, panel, say
from ..errors import RamifyError

PACKAGES = (
    *("msgspec", "aiohttp", "jinja2", "rich", "numpy"),
    *("torch", "xgrammar", "tokenizers", "safetensors", "pyzmq", "jsonschema-rs", "google-re2", "uvloop"),
    *("prometheus-client", "pyyaml"),
    *("triton", "transformers", "huggingface-hub"),
)
BUNDLED = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def cpu_name() -> tuple[str, list[str]]:
    """The processor's name and which of the instruction sets that matter it has (Linux; elsewhere what Python knows)."""
    name, flags = platform.processor() or platform.machine(), set()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    name = value.strip()
                elif key.strip() in {"flags", "Features"}:
                    flags = set(value.split())
                    break
    except OSError:
        pass
    return name, [one for one in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16") if one in flags]


def memory() -> tuple[int, int] | None:
    """Bytes of memory in all, and free for use (Linux)."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            sizes = {key: int(value.split()[0]) * 1024 for key, _, value in (line.partition(":") for line in file)}
        return sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError):
        return None


def machine() -> list[tuple[str, object]]:
    """Rows about the hardware and the system."""
    name, sets = cpu_name()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows: list[tuple[str, object]] = [
        ("system", platform.platform()),
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("CPU", f"{name}, {usable} cores; {', '.join(sets) or 'none of the instruction sets we look for'}"),
    ]
    sizes = memory()
    if sizes:
        rows.append(("memory", f"{gib(sizes[0])}, {gib(sizes[1])} of it free"))
    compiler = next((found for found in map(shutil.which, ("c++", "g++", "clang++")) if found), None)
    without = "none: unless the kernels came compiled, torch computes in their place, many times slower"
    rows.append(("C++ compiler", compiler or without))
    return rows


def installed(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def bundled_missing() -> list[str]:
    """Files of the bundled model that are not there."""
    return [name for name in BUNDLED if not (MODEL_DIR / name).is_file()]


async def try_engine(options: EngineOptions) -> str:
    """Start an engine, show what it chose, let it compute once. Raises what the engine raises."""
    from ..protocol import Finished, GenerateRequest, Text, greedy
    from .starting import start

    engine = await start(options)
    try:
        async for event in engine.generate(GenerateRequest((Text("The"),), greedy(4))):
            if isinstance(event, Finished):
                return f"computed {event.usage.output} tokens in {event.timings.prefill_s + event.timings.decode_s:.2f} s"
    finally:
        await engine.close()
    raise AssertionError("the engine ended a request without saying so")


def run(said: argparse.Namespace) -> int:
    """Exit status 0 where everything works, 1 where something is missing."""
    from ... import __version__
    from .starting import missing_packages

    panel(f"Ramify {__version__}", machine(), file=sys.stdout)
    panel("packages", [(name, installed(name) or "not installed") for name in PACKAGES], file=sys.stdout)
    advice = []
    missing = missing_packages()
    if missing:
        advice.append(f"The engine needs {', '.join(missing)}: pip install 'ramify[serve]'.")
    if absent := bundled_missing():
        advice.append(f"The bundled model lacks {', '.join(absent)}: install Ramify again, or name another model.")
    if not missing and (said.model or not absent):
        try:
            say(f"engine: {asyncio.run(try_engine(engine_options(said)))}", file=sys.stdout)
        except RamifyError as error:
            advice.append(f"The engine does not start: {error}")
    for line in advice:
        say(line, file=sys.stdout)
    if not advice:
        say("Nothing is missing.", file=sys.stdout)
    return 1 if advice else 0
