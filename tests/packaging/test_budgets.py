"""Files and functions keep a size that fits a head."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 60


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """Return each function's name and its lines without the docstring."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            end = node.end_lineno or node.lineno
            length = end - node.lineno + 1
            if ast.get_docstring(node) is not None:
                documented = node.body[0]
                length -= (documented.end_lineno or 0) - documented.lineno + 1
            yield node.name, length


def test_no_source_file_is_longer_than_its_budget(sources: list[Path]) -> None:
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in sources}

    assert lengths
    assert {f: length for f, length in lengths.items() if length > FILE_LINES} == {}


def test_no_function_is_longer_than_its_budget(sources: list[Path]) -> None:
    long = {
        f"{file}:{name}": length
        for file in sources
        for name, length in functions(file)
        if length > FUNCTION_LINES
    }

    assert long == {}
