"""Deployments of code in ``own.py``, found by the file's path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from atomr_infer.model.deployment import Deployment, OptionValue

Own = Callable[..., Deployment]

OWN = Path(__file__).parent / "own.py"


@pytest.fixture
def own() -> Own:
    def make(
        name: str, *, file: Path = OWN, model: str | None = None, **options: OptionValue
    ) -> Deployment:
        runtime = f"python:{file}:{name}"
        return Deployment(name="own", runtime=runtime, model=model, options=options)

    return make
