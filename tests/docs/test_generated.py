"""The reference pages say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine import every

if TYPE_CHECKING:
    from types import ModuleType

REFERENCE = Path(__file__).parents[2] / "docs/reference"
STALE = "it is stale; run: python docs/reference/generate.py"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return load(REFERENCE / "generate.py")


def test_the_configuration_reference_is_not_stale(generate: ModuleType) -> None:
    page = (REFERENCE / "configuration.md").read_text(encoding="utf-8")

    assert page == generate.configuration(), STALE


def test_the_table_of_errors_is_not_stale(generate: ModuleType) -> None:
    page = (REFERENCE / "http-api.md").read_text(encoding="utf-8")

    assert page == generate.with_generated(page, generate.error_table()), STALE


def test_the_table_of_losses_is_not_stale() -> None:
    lossiness = load(REFERENCE / "generate_lossiness.py")
    page = (REFERENCE / "lossiness.md").read_text(encoding="utf-8")

    assert page == lossiness.page(), (
        "it is stale; run: python docs/reference/generate_lossiness.py"
    )


def test_the_table_of_engines_is_what_their_tests_assert() -> None:
    assert every.PAGE.read_text(encoding="utf-8") == every.page(), (
        "it is stale; run: python -m tests.engine.every"
    )


def test_a_page_without_a_place_for_the_table_is_refused(generate: ModuleType) -> None:
    with pytest.raises(ValueError, match="0 generated parts"):
        generate.with_generated("# Page\n", "table")


def test_the_table_of_promises_is_not_stale() -> None:
    conformance = load(REFERENCE / "otp/generate_conformance.py")
    page = (REFERENCE / "otp/conformance.md").read_text(encoding="utf-8")

    assert page == conformance.page(), (
        "it is stale; run: python docs/reference/otp/generate_conformance.py"
    )


@pytest.mark.parametrize(
    ("docstring", "problem"),
    [
        ("", "says of no promise"),
        ("A promise without a source.", "expected"),
        ("[source] differs: it is otherwise.", "does not say why"),
    ],
)
def test_a_conformance_test_that_says_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docstring: str, problem: str
) -> None:
    conformance = load(REFERENCE / "otp/generate_conformance.py")
    monkeypatch.setattr(conformance, "SUITE", tmp_path)
    test = f'async def test_x():\n    """{docstring}"""\n'
    (tmp_path / "test_x.py").write_text(test, encoding="utf-8")

    with pytest.raises(ValueError, match=problem):
        conformance.promises()


def test_of_tests_outside_the_suite_those_that_promise_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conformance = load(REFERENCE / "otp/generate_conformance.py")
    suite = tmp_path / "conformance"
    suite.mkdir()
    monkeypatch.setattr(conformance, "TESTS", tmp_path)
    monkeypatch.setattr(conformance, "SUITE", suite)
    (suite / "test_x.py").write_text('def test_1():\n    """[a] One."""\n')
    outside = 'def test_2():\n    """[b] Two."""\n\ndef test_3():\n    """Three."""\n'
    (tmp_path / "test_x.py").write_text(outside)

    assert conformance.promises() == [
        conformance.Promise("b", "Two.", "test_2", "test_x.py"),
        conformance.Promise("a", "One.", "test_1", "conformance/test_x.py"),
    ]
