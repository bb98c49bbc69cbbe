"""Who imports whom: the directions of docs/architecture.md, held over every file of the package by its syntax tree.

An import inside a function counts as well: laziness hides cost, not a dependency. So does one for type checkers alone.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {"tests", "docs", "build", "dist", "node_modules", "setup.py"}
SPOKEN = ("runtime.protocol", "runtime.choosing", "runtime.meta_info", "runtime.errors", "constrained.spec")
LEAVES = ("runtime.errors", "runtime.config", "runtime.metrics")


@dataclass(frozen=True)
class Import:
    """One import statement's target. own: dotted path below the package, or None. top: the first name of a foreign one."""

    file: str
    line: int
    own: str | None
    top: str
    lazy: bool
    absolute: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.top if self.own is None else 'ramify.' + self.own}"


def sources() -> list[Path]:
    """Every Python file of the package, relative to the root; environments and caches are not entered."""
    found = []
    for folder, inner, files in os.walk(ROOT):
        inner[:] = [name for name in inner if name not in NOT_OURS and not name.startswith(".")]
        found += [Path(folder, name).relative_to(ROOT) for name in files if name.endswith(".py") and name not in NOT_OURS]
    return sorted(found)


def is_module(dotted: str) -> bool:
    base = ROOT.joinpath(*dotted.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def module_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def for_types(node: ast.AST) -> bool:
    """Whether it is `if TYPE_CHECKING:`, which no interpreter enters."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_of(path: Path) -> Iterator[Import]:
    """All import statements of a file; `from . import x` counts as x where x is a module."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))
    deferred = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or for_types(node)]
    inside = {id(child) for node in deferred for child in ast.walk(node)}
    for node in ast.walk(tree):
        lazy = id(node) in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                own = ".".join(parts[1:]) if parts[0] == "ramify" else None
                yield Import(str(path), node.lineno, own, parts[0], lazy, True)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = list(path.parts[:-1])
                base = package[: len(package) - (node.level - 1)]
            elif (node.module or "").split(".")[0] == "ramify":
                base = []
            else:
                yield Import(str(path), node.lineno, None, (node.module or "").split(".")[0], lazy, True)
                continue
            named = (node.module or "").split(".")
            base = base + [part for part in (named if node.level else named[1:]) if part]
            for alias in node.names:
                deeper = ".".join([*base, alias.name])
                own = deeper if is_module(deeper) else ".".join(base)
                yield Import(str(path), node.lineno, own, "ramify", lazy, not node.level)


ALL = [one for path in sources() for one in imports_of(path)]


def within(dotted: str, rooms: tuple[str, ...]) -> bool:
    return any(dotted == room or dotted.startswith(room + ".") for room in rooms)


# room (the longest that fits a file counts) -> (own rooms that it may import beside itself, foreign packages beside the
# standard library). None: any. A room is a package or a module.
TABLE: dict[str, tuple[tuple[str, ...] | None, set[str] | None]] = {
    "": (("lang", "runtime"), set()),
    "lang": (SPOKEN, {"msgspec", "rich", "pydantic", "numpy"}),
    "lang.backends": (("lang", *SPOKEN), {"msgspec", "aiohttp"}),
    "lang.backends.engine": (
        ("lang", *SPOKEN, "runtime.config", "runtime.async_engine", "runtime.wire"),
        {"msgspec"},
    ),
    "lang.backends.server": (("lang", *SPOKEN, "runtime.config"), {"aiohttp"}),
    "lang.examples": (("",), {"pydantic"}),  # as users do: the root alone
    "radix": ((), {"numpy"}),
    "constrained": (("runtime.errors",), {"numpy", "msgspec", "jsonschema_rs", "re2", "pydantic"}),
    "constrained.llguidance_backend": (("constrained", "runtime.errors"), {"numpy", "llguidance"}),
    "constrained.xgrammar_backend": (("constrained", "runtime.errors"), {"numpy", "msgspec", "torch", "xgrammar"}),
    "kernels": ((), {"torch", "numpy", "triton", "flashinfer"}),
    "runtime.errors": ((), set()),
    "runtime.choosing": ((), set()),
    "runtime.config": (("runtime.errors",), {"msgspec"}),
    "runtime.metrics": ((), {"msgspec"}),
    "runtime.protocol": (("constrained.spec",), {"msgspec"}),
    "runtime.plan": (("runtime.protocol",), {"numpy", "msgspec"}),
    "runtime.wire": (("runtime.protocol", "runtime.plan", *LEAVES), {"msgspec", "numpy", "zmq"}),
    "runtime.text": (
        ("runtime.protocol", "constrained.spec", *LEAVES),
        {"tokenizers", "jinja2", "msgspec", "numpy", "re2"},
    ),
    "runtime.scheduler": (
        ("radix", "constrained", "runtime.plan", "runtime.protocol", "runtime.wire", "runtime.choosing", *LEAVES),
        {"numpy", "msgspec"},
    ),
    "runtime.executor": (("runtime.plan", "runtime.protocol", "runtime.models", "kernels", *LEAVES), {"torch", "numpy"}),
    "runtime.models": (("kernels", *LEAVES), {"torch", "numpy", "msgspec", "safetensors", "huggingface_hub"}),
    "runtime.server": (
        ("", "runtime.text", "runtime.async_engine", "runtime.process", "runtime.wire", *SPOKEN, *LEAVES),
        {"aiohttp", "msgspec", "prometheus_client", "uvloop", "yaml"},
    ),
    # These wire the parts together, or measure and train them.
    "runtime": (None, {"msgspec", "numpy", "zmq", "uvloop", "rich", "aiohttp"}),
    "runtime.bundled": (None, None),
    "runtime.bench": (None, None),
}


def room_of(module: str) -> str:
    return max((room for room in TABLE if room == "" or within(module, (room,))), key=len) if module else ""


def allowed(one: Import) -> bool:
    room = room_of(module_of(Path(one.file)))
    own, foreign = TABLE[room]
    if one.own is None:
        return foreign is None or one.top in foreign or one.top in sys.stdlib_module_names or one.top == "__future__"
    return own is None or within(one.own, own) or (room != "" and within(one.own, (room,)))


def show(broken: list[Import]) -> str:
    return "\n".join(map(str, broken))


def test_imports_point_one_way() -> None:
    broken = [one for one in ALL if not allowed(one)]
    assert not broken, show(broken)


def test_every_room_of_the_table_that_exists_is_a_module() -> None:
    """A rule for a room that was renamed would hold nothing."""
    later = {"runtime.metrics"}
    assert [room for room in TABLE if room and room not in later and not is_module(room)] == []


def test_torch_lives_in_executor_models_and_kernels_alone() -> None:
    homes = ("runtime.executor", "runtime.models", "kernels", "runtime.bundled", "runtime.bench", "constrained.xgrammar_backend")
    broken = [one for one in ALL if one.top == "torch" and not within(module_of(Path(one.file)), homes)]
    assert not broken, show(broken)


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("xgrammar", {"constrained/xgrammar_backend.py"}),
        ("llguidance", {"constrained/llguidance_backend.py"}),
        ("transformers", {"runtime/models/fallback.py", "runtime/bench", "runtime/bundled/measure.py"}),
    ],
)
def test_a_heavy_library_has_one_home_and_is_imported_when_it_is_needed(package: str, homes: set[str]) -> None:
    users = [one for one in ALL if one.top == package]
    broken = [one for one in users if not any(one.file == home or one.file.startswith(home + "/") for home in homes)]
    assert not broken, show(broken)
    eager = [one for one in users if not one.lazy and one.file.startswith("runtime/")]
    assert not eager, show(eager)


def test_the_only_edge_from_lang_to_the_engine_is_lazy() -> None:
    edges = [one for one in ALL if one.file.startswith("lang/") and one.own == "runtime.async_engine"]
    assert {one.file for one in edges} <= {"lang/backends/engine.py"}
    assert all(one.lazy for one in edges), show(edges)


def test_nothing_is_pickled() -> None:
    broken = [one for one in ALL if one.top in {"pickle", "cloudpickle", "dill", "marshal", "shelve"}]
    assert not broken, show(broken)


def test_our_own_folders_are_imported_relatively() -> None:
    """`import runtime` would load a second copy from a checkout; `import ramify` is for users, and so for the examples."""
    folders = {path.parts[0].removesuffix(".py") for path in sources()} - {"__init__"}
    stray = [one for one in ALL if one.own is None and one.absolute and one.top in folders]
    named = [one for one in ALL if one.own is not None and one.absolute and not one.file.startswith("lang/examples/")]
    assert not stray + named, show(stray + named)


def test_the_root_has_no_relative_import_when_it_is_loaded() -> None:
    """pytest and others load it under another name where the folder of a clone is no identifier."""
    eager = [one for one in ALL if one.file == "__init__.py" and not one.lazy and one.own is not None]
    assert not eager, show(eager)


def test_package_files_import_nothing_heavy() -> None:
    light = {"__future__", "typing", "importlib", "collections", "pathlib"}
    eager = [one for one in ALL if one.file.endswith("__init__.py") and not one.lazy]
    broken = [one for one in eager if one.own is None and one.top not in light]
    assert not broken, show(broken)


def test_the_kernels_package_file_has_no_statement() -> None:
    """transformers probes for a package called `kernels`; from a checkout it would find ours."""
    body = ast.parse((ROOT / "kernels" / "__init__.py").read_text(encoding="utf-8")).body
    assert all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in body)


# Files beside runtime/config.py that touch the environment, each with its reason.
ENVIRONMENT = {
    "constrained/compiler.py": "a compile process gets this one's environment, and one thread",
    "lang/backends/openai.py": "OPENAI_API_KEY, as in every client of that protocol",
}


def test_the_environment_is_read_in_config_alone() -> None:
    found = [f"{name} is no file" for name in ENVIRONMENT if not (ROOT / name).is_file()]
    for path in sources():
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "putenv"}:
                if str(path) != "runtime/config.py" and str(path) not in ENVIRONMENT:
                    found.append(f"{path}:{node.lineno} touches os.{node.attr}")
    assert not found, "\n".join(found)
