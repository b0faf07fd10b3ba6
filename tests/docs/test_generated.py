"""The reference pages say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

REFERENCE = Path(__file__).parents[2] / "docs/reference"
STALE = "it is stale; run: python docs/reference/generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen", REFERENCE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_reference_is_not_stale(generate: ModuleType) -> None:
    page = (REFERENCE / "configuration.md").read_text(encoding="utf-8")

    assert page == generate.configuration(), STALE


def test_the_table_of_errors_is_not_stale(generate: ModuleType) -> None:
    page = (REFERENCE / "http-api.md").read_text(encoding="utf-8")

    assert page == generate.with_generated(page, generate.error_table()), STALE


def test_a_page_without_a_place_for_the_table_is_refused(generate: ModuleType) -> None:
    with pytest.raises(ValueError, match="0 generated parts"):
        generate.with_generated("# Page\n", "table")
