"""What is installed is what is here: packages listed, the wheel, light imports, and a checkout of any name."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import ramify

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOT_OURS = {"tests", "docs", "build", "dist", "node_modules", "__pycache__", "setup.py"}


def package_folders() -> list[Path]:
    """Every folder below the root that holds Python files of the package, the root included."""
    found = []
    for folder, inner, files in os.walk(ROOT):
        inner[:] = [name for name in inner if name not in NOT_OURS and not name.startswith(".")]
        if any(name.endswith(".py") for name in files):
            found.append(Path(folder).relative_to(ROOT))
    return sorted(found)


def python(*args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with these arguments; stdout and stderr as text."""
    env = {**os.environ, "PYTHONSAFEPATH": "1", **environment}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_package_under_test_is_this_checkout() -> None:
    assert Path(ramify.__file__).resolve().parent == ROOT


def test_every_package_on_disk_is_listed_in_pyproject() -> None:
    on_disk = {".".join(("ramify", *folder.parts)) for folder in package_folders()}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == on_disk
    assert [folder for folder in package_folders() if not (ROOT / folder / "__init__.py").is_file()] == []


def test_the_version_is_written_once() -> None:
    assert importlib.metadata.version("ramify") == ramify.__version__
    assert f"## {ramify.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_tested_torch_lies_in_the_range_that_is_allowed() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in constraints if line.startswith("torch==")]
    assert len(pinned) == 1 and "torch>=2.10" in PROJECT["project"]["optional-dependencies"]["serve"]


HEAVY = "{'torch', 'transformers', 'xgrammar', 'tokenizers', 'safetensors', 'numpy', 'aiohttp'} & set(sys.modules)"


def test_importing_ramify_imports_nothing_heavy(tmp_path: Path) -> None:
    done = python("-c", f"import sys, ramify; ramify.__version__; print({HEAVY})", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_the_language_is_imported_without_torch(tmp_path: Path) -> None:
    code = "import sys, ramify; ramify.function, ramify.gen, ramify.select; print('torch' in sys.modules)"
    done = python("-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_help_is_shown_without_anything_heavy(tmp_path: Path) -> None:
    code = f"import sys\nfrom ramify.runtime.cli import main\ntry: main(['--help'])\nexcept SystemExit: print({HEAVY})"
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout.splitlines()[-1:] == ["set()"] and done.stderr == ""


def test_tests_pass_in_a_checkout_whose_name_is_no_identifier(tmp_path: Path) -> None:
    copy = tmp_path / "a-b.c"
    left_out = shutil.ignore_patterns(".*", "*.safetensors", "__pycache__", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=left_out)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "ramify").symlink_to(copy)  # an editable install of the copy, as far as imports can tell
    test = "tests/test_packaging.py::test_the_package_under_test_is_this_checkout"
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", test, cwd=copy, PYTHONPATH=str(tmp_path / "path"))
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


# -------------------------------------------------------------------------------------------------- the wheel, for real


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from what is committed, outside the checkout."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    folder = tmp_path_factory.mktemp("wheel")
    archive = folder / "head.tar"
    subprocess.run(["git", "-C", str(ROOT), "archive", "-o", str(archive), "HEAD"], check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "source", filter="data")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run(command, check=True, timeout=600)
    return next(folder.glob("ramify-*.whl"))


def install(folder: Path, requirement: str) -> Path:
    """A new virtual environment in `folder` with `requirement`; its bin folder."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), requirement], check=True, timeout=1500)
    return folder / "bin"


def run_installed(command: Path, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([str(command), *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], check=True, capture_output=True, text=True).stdout.split()
    ours = [name for name in listed if Path(name).parts[0] not in NOT_OURS]
    kept = (".py", ".pyi", ".html", "py.typed", ".cpp", ".h", ".inc")
    wanted = {f"ramify/{n}" for n in ours if n.endswith(kept) or "/model/" in n}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("ramify/")}
    assert held == wanted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_base_install_is_the_language_and_says_what_the_engine_needs(wheel: Path, tmp_path: Path) -> None:
    bin_ = install(tmp_path / "empty", str(wheel))
    assert run_installed(bin_ / "ramify", "--version", cwd=tmp_path).stdout == f"ramify {ramify.__version__}\n"
    assert run_installed(bin_ / "python", "-c", "import torch", cwd=tmp_path).returncode == 1
    demo = run_installed(bin_ / "ramify", "demo", cwd=tmp_path)
    assert demo.returncode == 2 and "ramify[serve]" in demo.stderr and "Traceback" not in demo.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_runs_the_demo_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    bin_ = install(tmp_path / "empty", f"{wheel}[serve]")
    demo = run_installed(bin_ / "ramify", "demo", cwd=tmp_path)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "cached" in demo.stdout and "Traceback" not in demo.stderr
