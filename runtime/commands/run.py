"""`ramify run FILE.py[:FUNCTION] [NAME=VALUE ...]`: a program from a file, on an engine of its own."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from ...lang.program import Program
from ..cli import engine_options
from ..errors import InvalidRequest, ModelNotFound
from .starting import running
from .watch import Watched, show_calls


def load(path: Path) -> dict[str, Program]:
    """Execute a file and return its programs by name. Its own errors pass through. Raises ModelNotFound where it is missing."""
    if not path.is_file():
        raise ModelNotFound(f"There is no file {path}. Name a Python file with a function made by @ramify.function.")
    name = f"ramify_run_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidRequest(f"{path} is not a Python file. Its name must end in .py.")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up by name
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if isinstance(value, Program)}


def choose(programs: dict[str, Program], wanted: str, path: Path) -> Program:
    """The program of that name, or the only one. Raises InvalidRequest, naming what there is."""
    names = ", ".join(programs) or "none"
    if wanted:
        if wanted not in programs:
            raise InvalidRequest(f"{path} has no program {wanted!r}. Its programs: {names}.")
        return programs[wanted]
    if len(programs) != 1:
        advice = f"Choose one: {path}:NAME." if programs else "Decorate a function with @ramify.function."
        raise InvalidRequest(f"{path} has {len(programs)} programs ({names}). {advice}")
    return next(iter(programs.values()))


def value_of(text: str, parameter: inspect.Parameter) -> Any:
    """JSON where it is JSON, else the text; the text as it stands where the parameter is annotated as str."""
    if parameter.annotation in (str, "str"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def arguments(program: Program, words: list[str]) -> dict[str, Any]:
    """NAME=VALUE words as the program's arguments; one word may be a JSON object with all of them. Raises InvalidRequest."""
    parameters = dict(list(inspect.signature(program.func).parameters.items())[1:])
    described = ", ".join(parameters) or "none"
    given: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if word.lstrip().startswith("{"):
            try:
                given.update(json.loads(word))
            except ValueError as error:
                raise InvalidRequest(f"{word!r} is not a JSON object: {error}.") from None
        elif not equals:
            raise InvalidRequest(f"{word!r} is not NAME=VALUE. The arguments of {program.name}: {described}.")
        elif name in parameters:
            given[name] = value_of(text, parameters[name])
        else:
            given[name] = text
    unknown = [name for name in given if name not in parameters]
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty and not star(parameter)]
    missing = [name for name in required if name not in given]
    if unknown or missing:
        wrong = f"no argument {unknown[0]!r}" if unknown else f"an argument {missing[0]!r} that was not given"
        raise InvalidRequest(f"{program.name} has {wrong}. Its arguments: {described}; write them as NAME=VALUE.")
    return given


def star(parameter: inspect.Parameter) -> bool:
    """Whether it is *args or **kwargs."""
    return parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def run(said: argparse.Namespace) -> int:
    """Exit status 0 when the program has ended well; its text is on stdout. Errors of its own code keep their traceback."""
    file, _, wanted = said.file.partition(".py:")
    path = Path(file + ".py" if wanted else said.file)
    program = choose(load(path), wanted, path)
    given = arguments(program, said.args)
    with running(engine_options(said)) as engine:
        watched = Watched(engine)
        state = program.run(backend=watched, **given)
        print(state.text())
        if state.ret_value is not None:
            print(state.ret_value)
        if said.explain:
            show_calls(watched.calls)
    return 0
