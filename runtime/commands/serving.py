"""A server from its start to its exit status, as `ramify serve` runs it: signals, progress, the panel.

SIGTERM and SIGINT drain it, a second one ends it at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket

from ..console import phases, say
from ..errors import RamifyError
from ..server.app import Server
from ..server.options import ServeConfig
from .starting import show_info


def serve(config: ServeConfig, *, end_with_parent: bool = False) -> int:
    """Serve until told to stop. Returns the exit status: 0 after a drain, 1 where the engine was given up, 2 where it could
    not start as it was asked to."""
    try:
        import uvloop
    except ImportError:  # where it does not exist
        factory = None
    else:
        factory = uvloop.new_event_loop
    if end_with_parent:
        from ..server.parent import end_with_parent as follow

        follow()
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_main(config))


async def _main(config: ServeConfig) -> int:
    server = Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop, signal.Signals(number).name)
    try:
        await server.listen()
    except OSError as error:
        say(f"ramify serve: cannot listen on {config.server.host}:{config.server.port}: {error.strerror}.")
        return 2
    url = f"http://{_shown_host(config.server.host)}:{server.port}"
    stopping = asyncio.create_task(server.stopped())
    try:
        with phases() as progress:
            loading = asyncio.create_task(server.load(progress.show))
            await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            return await stopping
        engine = loading.result()
    except RamifyError as error:
        say(f"ramify serve: {error}")
        stopping.cancel()
        await server.close()
        return 2 if error.status < 500 else 1
    show_info(engine.info)
    say(f"serving {server.names[0]} at {url} (OpenAI: {url}/v1, documentation: {url}/docs)")
    server.log.started(url, server.names[0], server.keys.num_keys or None)
    status = await stopping
    server.log.stopped(status)
    return status


def _shown_host(host: str) -> str:
    wild = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}
    name = wild.get(host, host)
    return f"[{name}]" if ":" in name else name
