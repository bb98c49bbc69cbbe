"""Starting an engine for a command: what is missing first, then progress, then the panel that says what was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from ..bundled import MODEL_DIR
from ..config import EngineOptions, validate
from ..console import amount, gib, panel, phases
from ..errors import ModelError

if TYPE_CHECKING:
    from ...lang.backend import Backend
    from ..async_engine import AsyncEngine
    from ..wire import EngineInfo

# import name -> what to ask pip for
SERVE = {
    "torch": "torch",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "zmq": "pyzmq",
    "xgrammar": "xgrammar",
    "jsonschema_rs": "jsonschema-rs",
    "re2": "google-re2",
}


def missing_packages(of: Mapping[str, str] = SERVE) -> list[str]:
    """Those packages (import name -> name for pip) that are not installed; finds them without importing them."""
    return [package for name, package in of.items() if find_spec(name) is None]


def require_packages(of: Mapping[str, str] = SERVE, *, what: str = "engine") -> None:
    """Raise ModelError, with what to install, where packages of the [serve] extra are missing."""
    missing = missing_packages(of)
    if missing:
        raise ModelError(
            f"The {what} needs {', '.join(missing)}, which is not installed. Run: pip install 'ramify[serve]'.",
            code="not_installed",
        )


def requests_that_fit(info: EngineInfo) -> str:
    """The KV pool in tokens and bytes, and how many requests of two sizes it holds."""
    whole = info.kv_tokens // info.context_length
    small = min(512, info.context_length)
    long = f"{whole:,} of" if whole else "less than"
    return (
        f"{info.kv_tokens:,} tokens, {gib(info.kv_bytes)}: {info.kv_tokens // small:,} requests of {small} tokens,"
        f" {long} the whole context of {info.context_length:,}"
    )


def show_info(info: EngineInfo) -> None:
    """The start-up panel, on stderr."""
    name = "the bundled model" if info.path == str(MODEL_DIR) else info.model
    rows: list[tuple[str, object]] = [
        ("model", f"{name} ({info.architecture}, {amount(info.parameters)} parameters)"),
        ("device", f"{info.device}, {info.dtype}, {info.threads} thread{'s' if info.threads > 1 else ''}"),
    ]
    rows += [("kernels" if number == 0 else "", line) for number, line in enumerate(info.kernels)]
    rows += [
        ("KV pool", requests_that_fit(info)),
        ("a step", f"{info.max_running} sequences at most, {info.chunk_tokens:,} prompt tokens, pages of {info.page_size}"),
        ("ready in", f"{info.load_s:.1f} s"),
    ]
    panel("Ramify", rows)


async def start(options: EngineOptions, *, show: bool = True) -> AsyncEngine:
    """An engine in a process of its own, with progress and panel on stderr. Raises ModelError, ModelNotFound, InvalidRequest."""
    validate(options)
    require_packages()
    from ..async_engine import AsyncEngine

    with phases() as progress:
        engine = await AsyncEngine.start(options, on_progress=progress.show)
    if show:
        show_info(engine.info)
    return engine


@contextmanager
def running(options: EngineOptions) -> Iterator[Backend]:
    """An engine for programs, shut down at the end; progress and panel on stderr. Raises as `start`."""
    validate(options)
    require_packages()
    from ...lang.backends.engine import Engine

    with phases() as progress:
        engine = Engine(on_progress=progress.show, **msgspec.structs.asdict(options))
    try:
        show_info(engine.info)
        yield engine.backend
    finally:
        engine.shutdown()
