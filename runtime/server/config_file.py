"""The YAML file of `ramify serve --config`: flat keys, read and written. What it holds is judged in `resolve.py`."""

from __future__ import annotations

import json
from pathlib import Path

from ..config import EngineOptions
from ..errors import InvalidRequest
from .options import SECRETS, ServerOptions
from .resolve import DEFAULT, Resolved


def read_config(path: str) -> dict[object, object]:
    """The keys of a file. Raises InvalidRequest that says where it is wrong, and quotes nothing of it: it may hold keys."""
    try:
        import yaml
    except ImportError:
        text = "A configuration file needs pyyaml, which is not installed. Run: pip install 'ramify[serve]'."
        raise InvalidRequest(text, code="not_installed") from None
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}. Give a YAML file.") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path} is not UTF-8 text. Give a YAML file.") from None
    try:
        tree = yaml.compose(text, yaml.SafeLoader)
        if tree is None:
            return {}
        if not isinstance(tree, yaml.MappingNode):
            raise InvalidRequest(f"{path} holds no keys. Write one `name: value` a line.")
        keys = [str(key.value) for key, _ in tree.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise InvalidRequest(f"{path} says {twice[0]} twice. Leave one of them.")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidRequest(f"{path} is not YAML{place}. Write one `name: value` a line.") from None


def render_config(resolved: Resolved) -> str:
    """The whole configuration as YAML, each value with its origin; a valid configuration file, less the keys. Pure."""
    config, lines = resolved.config, []
    for title, options in (("engine", config.engine), ("server", config.server)):
        lines.append(f"# {title}")
        for name in options.__struct_fields__:
            lines.append(_line(name, options, resolved.origins[name]))
    return "\n".join(lines) + "\n"


def _line(name: str, options: EngineOptions | ServerOptions, origin: str) -> str:
    key, value = name.replace("_", "-"), getattr(options, name)
    if name in SECRETS and value:
        return f"# {key}: {len(value)} not shown, from {_printable(origin)}"
    return f"{key}: {json.dumps(value)}  # {DEFAULT if origin == DEFAULT else 'from ' + _printable(origin)}"


def _printable(origin: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in origin)
