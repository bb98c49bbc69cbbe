"""What the documentation shows is true: its programs run and print what stands beneath them, its links and commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ramify.runtime.cli import build_parser
from ramify.runtime.commands.bench import benchmarks

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = re.compile(r"```python\n(.*?)```(?:\n\nprints\n\n```text\n(.*?)```)?", re.DOTALL)


def programs() -> list[tuple[str, str, str]]:
    """(page, program, what it prints) of every Python block."""
    found = [(page, match) for page in PAGES for match in PROGRAM.finditer(page.read_text(encoding="utf-8"))]
    return [(str(page.relative_to(ROOT)), match[1], match[2] or "") for page, match in found]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "program", "printed"), programs())
def test_a_program_in_the_docs_prints_what_stands_beneath_it(page: str, program: str, printed: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    assert not printed or done.stdout == printed


def test_links_in_the_docs_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_files_that_the_docs_name_exist() -> None:
    """Paths in backticks that begin with a folder of ours, as `runtime/engine.py` does."""
    folders = "lang|radix|constrained|runtime|kernels|tests|docs"
    broken = []
    for page in PAGES:
        for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text(encoding="utf-8")):
            if not (ROOT / path).exists():
                broken.append(f"{page.relative_to(ROOT)}: {path}")
    assert not broken


def test_commands_that_the_docs_name_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    commands = set(re.findall(r"`ramify ([a-z]+)", text))
    choices = next(action.choices for action in build_parser()._subparsers._group_actions if action.choices)  # type: ignore
    assert commands <= set(choices) and set(re.findall(r"`ramify bench ([a-z_]+)", text)) <= set(benchmarks())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ((?:test|demo|check|bench|wheel)[a-z-]*)", text)) <= targets
