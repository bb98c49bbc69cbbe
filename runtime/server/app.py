"""One server: listen, load, serve, drain, end.

The socket is taken before weights load, so that a port in use is known at once and probes are answered while the model loads.
An engine that is given up ends the server with status 1. Signals are its owner's (`commands/serving.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from ..async_engine import AsyncEngine
from ..errors import Overloaded
from .auth import Keys
from .connection import HttpServer
from .control import Control
from .dispatch import Dispatch, preflight
from .exchange import Answering
from .handlers import Generating
from .life import Life
from .log import Log
from .metrics import Metrics
from .openapi import document_of, page
from .options import ServeConfig

LAST_WORDS_S = 2.0
"""For aborted requests to hear of their end."""


class Server:
    """One server in this process. Made by `serve`, or by tests that own the loop: `start`, `stopped`, `stop`."""

    def __init__(self, config: ServeConfig, *, log: Log | None = None):
        options = config.server
        self._config = config
        self.life = Life()
        self.log = log or Log(options.log_level, as_json=options.log_json)
        self.keys = Keys.from_options(options)
        self.metrics = Metrics()
        self.names = [options.served_model_name] if options.served_model_name else _names(config.engine.model)
        answering = Answering(options, self.metrics)
        generating = Generating(self.life, options, answering, self.names)
        control = Control(self.life, options, self.metrics, self.names)
        handlers = {
            name: getattr(owner, name) for owner in (generating, control) for name in dir(owner) if not name.startswith("_")
        }
        handlers |= {"preflight": preflight, "openapi": document_of(self.names[0]), "docs": page}
        self._dispatch = Dispatch(handlers, life=self.life, options=options, keys=self.keys, log=self.log, metrics=self.metrics)
        self._runner: web.ServerRunner | None = None
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._status = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self.port = options.port

    async def listen(self) -> None:
        """Take the address. Raises OSError."""
        options = self._config.server
        server = HttpServer(
            self._dispatch,
            max_body=options.max_body,
            header_timeout_s=options.header_timeout_s,
            keepalive_timeout=options.idle_timeout_s,
            logger=self.log.logger,
            lingering_time=1.0,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=LAST_WORDS_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, options.host, options.port, backlog=1024, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def load(self, on_progress: Any = None) -> AsyncEngine:
        """Start the engine. Raises RamifyError."""
        engine = await AsyncEngine.start(self._config.engine, on_progress=on_progress)
        self.life.started(engine)
        self._spawn(self._watch(engine))
        self._spawn(engine.warm_compiler())
        return engine

    def stop(self, reason: str) -> None:
        """End in order; a second time, at once. Changes state."""
        if self._stop.is_set():
            self._at_once.set()
            return
        self.life.draining = True
        self.log.draining(reason, self.life.busy, self._config.server.drain_timeout_s)
        self._stop.set()

    async def stopped(self) -> int:
        """Wait for the end of the server, and bring it about. Returns the exit status."""
        await self._stop.wait()
        if self._status == 0:
            await self._drained()
        await self.close()
        return self._status

    async def close(self) -> None:
        """Give everything back: requests, connections, the address, the engine."""
        self.life.draining = True
        engine = self.life.loaded
        if engine is not None:
            engine.drop_all(Overloaded("The server is shutting down. Ask another one.", code="draining"))
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if engine is not None:
            await engine.close()

    async def _drained(self) -> None:
        """Wait until nothing is being answered, for the drain time, or for a second signal."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.server.drain_timeout_s):
                at_once = asyncio.create_task(self._at_once.wait())
                try:
                    while self.life.busy and not at_once.done():
                        await asyncio.wait([at_once], timeout=0.02)
                finally:
                    at_once.cancel()

    async def _watch(self, engine: AsyncEngine) -> None:
        """An engine that cannot go on takes the server with it."""
        await engine.given_up.wait()
        self.log.error("the engine was given up")
        self._status = 1
        self.life.draining = True
        self._stop.set()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _names(model: str | None) -> list[str]:
    """What clients may call the model: as it was given, and its last part."""
    if model is None:
        return ["ramify-bundled"]
    short = Path(model.rstrip("/")).name
    return [model] if short == model else [model, short]
