"""What pyproject.toml cannot say: a wheel that has a binary is for one system, and for every Python 3; this file is in none."""

from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

COMPILED = any((Path(__file__).parent / "kernels" / "prebuilt").glob("*.so"))


class Compiled(Distribution):
    def has_ext_modules(self) -> bool:
        return COMPILED


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        _, _, system = super().get_tag()
        return "py3", "none", system if COMPILED else "any"


class Modules(build_py):
    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        return [module for module in super().find_package_modules(package, package_dir) if module[1] != "setup"]


setup(distclass=Compiled, cmdclass={"bdist_wheel": Wheel, "build_py": Modules})
