"""The engine as a backend of programs and as an API of its own: the one place where lang meets the runtime.

`Engine` is what users hold. It starts an engine process (or, with in_process=True, a thread) from the background loop;
`Engine.backend` is what programs speak to.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from importlib.util import find_spec
from typing import Any

from ...runtime.config import COMPILING, EngineOptions
from ...runtime.errors import InvalidRequest, Overloaded, RamifyError
from ...runtime.protocol import Event, GenerateRequest, Scored, ScoreRequest
from .. import background
from ..sampling import nearest
from .caller import Caller

OnProgress = Callable[[str, float], None]
FULL_S = 0.02  # until a request that found the queue full asks again
# import name -> the package that brings it
NEEDED = {
    "torch": "torch",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "xgrammar": "xgrammar",
    "zmq": "pyzmq",
    "jsonschema_rs": "jsonschema-rs",
    "re2": "google-re2",
}


def check_serve_extra() -> None:
    """Raises RamifyError (`serve_extra_missing`) if what an engine needs is not installed."""
    missing = [package for name, package in NEEDED.items() if find_spec(name) is None]
    if missing:
        raise RamifyError(
            f"Running a model here needs {', '.join(missing)}, which is not installed: pip install 'ramify[serve]'. "
            "Without it, programs run against a server: ramify.OpenAI(model, base_url=...).",
            code="serve_extra_missing",
        )


class EngineBackend:
    """Starts its engine at the first request and passes requests on. More requests than the engine's queue holds wait here,
    and one that finds it full all the same (n > 1 takes several places) asks again: a program is never too parallel."""

    def __init__(self, options: EngineOptions, in_process: bool, on_progress: OnProgress | None):
        self._options = options
        self._in_process = in_process
        self._on_progress = on_progress or _say_what_takes_long
        self._starting = asyncio.Lock()
        self._places = asyncio.Semaphore(options.queue)
        self._engine: Any = None  # an AsyncEngine, which is imported only when one is started
        self._closed = False

    async def engine(self) -> Any:
        """The running AsyncEngine. Raises what its start raises (ModelError, ...), and Overloaded after `close`."""
        async with self._starting:
            if self._closed:
                raise Overloaded("This engine was shut down. Make a new one.", code="engine_unavailable")
            if self._engine is None:
                check_serve_extra()
                from ...runtime.async_engine import AsyncEngine  # the only edge from lang to the engine

                self._engine = await AsyncEngine.start(self._options, in_process=self._in_process, on_progress=self._on_progress)
                background.at_exit(self.close)
            return self._engine

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Event]:
        """The engine's events."""
        engine, started = await self.engine(), False
        async with self._places:
            while True:
                try:
                    async with aclosing(engine.generate(request)) as events:
                        async for event in events:
                            started = True
                            yield event
                    return
                except Overloaded as error:
                    if started or error.code != "queue_full":
                        raise
                await asyncio.sleep(FULL_S)

    async def score(self, request: ScoreRequest) -> Scored:
        """The engine's answer."""
        engine = await self.engine()
        async with self._places:
            while True:
                try:
                    return await engine.score(request)
                except Overloaded as error:
                    if error.code != "queue_full":
                        raise
                await asyncio.sleep(FULL_S)

    async def flush_cache(self) -> int:
        """Tokens freed."""
        return await (await self.engine()).flush_cache()

    async def server_info(self) -> dict[str, Any]:
        """Model, cache, counters."""
        return await (await self.engine()).server_info()

    async def cache_tree(self) -> dict[str, Any]:
        """The radix tree as JSON."""
        return await (await self.engine()).cache_tree()

    async def close(self) -> None:
        """Stop the engine. Closing again changes nothing."""
        async with self._starting:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    def token_text(self, token: int) -> str | None:
        """The token's bytes, decoded with replacement."""
        return None if self._engine is None else self._engine.tokenizer.decode([token])


def _say_what_takes_long(phase: str, share: float) -> None:
    """Where nobody asked to be told: a start that compiles would look as if it hung."""
    if phase == COMPILING and not share:
        print(f"ramify: {phase} (about half a minute) ...", file=sys.stderr, flush=True)


class Engine(Caller):
    """A model that runs here: `with Engine() as engine:` or `set_default_backend(Engine("path/or/hub-id"))`.

    model: checkpoint folder or hub id; None is the bundled model (model_path is SGLang's name for it). Started before the
    constructor returns, so that a wrong model is an error here; lazy=True starts at the first request instead.
    in_process: no engine process but a thread, for tests and debugging. on_progress(phase, share): called on the background
    thread while it starts. options: the fields of `EngineOptions` (device, dtype, kv_tokens, max_running, ...).
    Raises RamifyError without the serve extra, ModelError, ModelNotFound, InvalidRequest.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        model_path: str | None = None,
        in_process: bool = False,
        lazy: bool = False,
        on_progress: OnProgress | None = None,
        **options: Any,
    ):
        if model is not None and model_path is not None:
            raise InvalidRequest("model and model_path are two names of one argument. Give one.", param="model_path")
        for name in options:
            if name not in EngineOptions.__struct_fields__:
                known = EngineOptions.__struct_fields__
                raise InvalidRequest(f"{name!r} is not an option of an engine.{nearest(name, known)}", param=name)
        check_serve_extra()
        chosen = EngineOptions(model=model if model is not None else model_path, **options)
        self.backend: EngineBackend = EngineBackend(chosen, in_process, on_progress)
        if not lazy:
            self.start()

    def start(self) -> Any:
        """Start the engine if it does not run, and wait until it does. Returns its `EngineInfo`."""
        return background.run(self.backend.engine(), "Engine(lazy=True)").info

    @property
    def info(self) -> Any:
        """`EngineInfo`: model, device, dtype, kernels, KV pool. Starts the engine if it does not run."""
        return self.start()

    def cache_tree(self) -> dict[str, Any]:
        """The radix tree, as a JSON-like dict."""
        return background.run(self.backend.cache_tree(), "await engine.backend.cache_tree()")
