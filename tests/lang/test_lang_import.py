"""`import ramify` costs next to nothing, and its names are there when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ramify as sgl

HEAVY = {"torch", "transformers", "xgrammar", "tokenizers", "aiohttp", "pydantic", "rich", "jinja2", "numpy", "zmq"}


def modules_after(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has imported after a statement."""
    code = f"{statement}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_package_imports_none_of_its_modules():
    loaded = modules_after("import ramify, sys\nassert not [name for name in sys.modules if name.startswith('ramify.')]")
    assert not loaded & (HEAVY | {"msgspec", "asyncio"})


def test_the_language_needs_nothing_heavy():
    used = "import ramify\nramify.function; ramify.gen; ramify.Engine; ramify.OpenAI; ramify.SamplingParams; ramify.errors"
    assert not modules_after(used) & HEAVY


def test_every_public_name_exists():
    for name in sgl.__all__:
        assert getattr(sgl, name) is not None
    assert set(sgl.__all__) <= set(dir(sgl))
    assert sgl.__version__.count(".") == 2


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'generate_everything'"):
        sgl.generate_everything  # noqa: B018


def test_type_checkers_see_the_same_names():
    """`__init__.pyi` is what they read; the lazy names mean nothing to them."""
    import ast
    from pathlib import Path

    tree = ast.parse((Path(sgl.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))
    named = {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert named | {"__version__"} == set(sgl.__all__)
