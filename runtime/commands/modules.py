"""Modules of a package that can be run, found by reading their sources: nothing is imported to list them."""

from __future__ import annotations

import ast
from importlib.resources import files


def runnable(package: str) -> dict[str, str]:
    """Name of each module of `package` that defines `main` -> its docstring's first line. Alphabetical."""
    found = {}
    for entry in sorted(files(package).iterdir(), key=lambda one: one.name):
        if entry.name.endswith(".py") and not entry.name.startswith("_"):
            tree = ast.parse(entry.read_text(encoding="utf-8"))
            if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
                found[entry.name.removesuffix(".py")] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found
