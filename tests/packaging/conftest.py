"""Where the project's files are."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root() -> Path:
    """Return the top folder of the checkout."""
    return ROOT


@pytest.fixture
def sources(root: Path) -> list[Path]:
    """Return every Python file that is installed."""
    return sorted(
        file
        for folder in ("atomr", "atomr_infer", "plugins")
        for file in (root / folder).rglob("*.py")
    )
