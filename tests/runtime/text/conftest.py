"""The families of `text_families.py`, written and loaded once."""

from __future__ import annotations

import pytest
from text_families import FAMILIES, Loaded, load, write


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    root = tmp_path_factory.mktemp("families")
    return {family.name: load(write(family, root / family.name)) for family in FAMILIES}


@pytest.fixture(params=[family.name for family in FAMILIES])
def family(request: pytest.FixtureRequest, families: dict[str, Loaded]) -> Loaded:
    return families[request.param]
