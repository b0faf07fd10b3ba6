"""The plugin's fixtures, as a project with one conftest would have them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from atomr.testing.pytest_plugin import (
    node,
    probe,
    pytest_generate_tests,
    schedule,
    seeded_order,
    virtual_clock,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "node",
    "probe",
    "pytest_generate_tests",
    "schedule",
    "seeded_order",
    "virtual_clock",
]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "seeds(n, *more): see the plugin")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Crash reports of crashes on purpose say nothing here."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
