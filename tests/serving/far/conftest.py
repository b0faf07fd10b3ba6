"""Nodes that answer for each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from tests.serving.far.nodes import FarTree, certificates, open_far_nodes
from tests.serving.lab import PLUGIN, LabPlugin

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["certificates"]

OpenFar = Callable[..., AbstractAsyncContextManager[list[FarTree]]]


@pytest.fixture
def open_far(
    certificates: Path, lab_installed: Any, monkeypatch: pytest.MonkeyPatch
) -> OpenFar:
    """Open nodes of these names."""
    for field in attrs.fields(LabPlugin):
        monkeypatch.setattr(PLUGIN, field.name, getattr(LabPlugin(), field.name))
    return partial(open_far_nodes, certificates, PLUGIN, lab_installed)
