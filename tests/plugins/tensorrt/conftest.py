"""Models on a device in the machine's own memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_tensorrt.plugin import TensorRTPlugin
from tests.plugins.ort.models import write_llama
from tests.plugins.tensorrt.host import HostBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Opener = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def backend() -> HostBackend:
    return HostBackend()


@pytest.fixture
def opened(backend: HostBackend, tmp_path: Path) -> Opener:
    """Open a runner: ``opened(path, max_batch=4)``."""

    @asynccontextmanager
    async def open_it(model: Path | str, **options: OptionValue) -> AsyncIterator[Any]:
        options = {"plan_cache": str(tmp_path / "plans"), **options}
        deployment = Deployment(
            name="m", runtime="tensorrt", model=str(model), options=options
        )
        plugin = TensorRTPlugin(backend.opener)
        async with plugin.open_runner(deployment, RunnerContext()) as runner:
            yield runner

    return open_it
