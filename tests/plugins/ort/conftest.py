"""Tiny models, made once for all tests of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.model.deployment import Deployment
from tests.plugins.ort.models import write_llama

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def tiny(llama_folder: Path) -> Deployment:
    """A tiny random chat model, a character each byte."""
    return Deployment(
        name="tiny", runtime="ort", model=str(llama_folder), options={"threads": 1}
    )
