"""`ramify serve`: what was said becomes one configuration, and what can be known to be wrong is refused before weights load."""

from __future__ import annotations

import argparse
import errno
import socket

from ..config import ramify_environment
from ..console import say
from ..errors import InvalidRequest
from ..server.config_file import read_config, render_config
from ..server.options import ServerOptions
from ..server.resolve import CONFIG_VARIABLE, Resolved, kinds, resolve_serve
from .starting import SERVE, require_packages

# import name -> what to ask pip for, beside the engine's own
PACKAGES = {**SERVE, "prometheus_client": "prometheus-client"}


def resolve_said(said: argparse.Namespace) -> Resolved:
    """Flags, environment and file, merged. Raises InvalidRequest that names the place of what is wrong."""
    environ = ramify_environment()
    path = said.config if said.config is not None else environ.get(CONFIG_VARIABLE)
    if path == "":
        raise InvalidRequest("The configuration file has an empty name. Give --config or RAMIFY_CONFIG a file, or leave it out.")
    file = read_config(path) if path is not None else {}
    flags = {name: value for name, value in vars(said).items() if name in kinds() and value is not None}
    return resolve_serve(flags, environ, file, file_name=path or "")


def check_address(host: str, port: int) -> None:
    """Raise InvalidRequest where nothing can listen there now. Nothing stays open."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        text = f"The host {host!r} is not known here. Give --host an address of this machine."
        raise InvalidRequest(text, param="host") from None
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
                probe.listen(1)
            except OSError as error:
                raise InvalidRequest(_why(error, host, port), code="cannot_listen", param="port") from None


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use. Stop what listens there, or give another --port (0 takes a free one)."
    if error.errno == errno.EACCES:
        return f"Port {port} may not be taken by this user. Give --port 1024 or above."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine. Give --host one that is, such as 127.0.0.1 or 0.0.0.0."
    return f"Nothing can listen on port {port} of {host}: {error.strerror}. Give another --host or --port."


def open_to_all(options: ServerOptions) -> bool:
    """Whether others than this machine's users can reach the server, and no key keeps them out. Pure."""
    local = options.host in ("localhost", "::1") or options.host.startswith("127.")
    return not local and not options.api_keys and options.api_key_file is None


def run(said: argparse.Namespace) -> int:
    """Exit status of the server; 0 where it was stopped in order."""
    resolved = resolve_said(said)
    if said.print_config:
        print(render_config(resolved), end="")
        return 0
    options = resolved.config.server
    require_packages(PACKAGES, what="server")
    from ..server.auth import Keys

    Keys.from_options(options)
    check_address(options.host, options.port)
    if open_to_all(options):
        say(f"Whoever reaches {options.host} may use this server. Give --api-key-file or --api-key to keep others out.")
    from .serving import serve

    return serve(resolved.config, end_with_parent=said.end_with_parent)
