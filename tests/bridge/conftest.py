"""A bridge to the awkward plugin, and words to speak to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from atomr_infer.bridge import (
    DEFAULT_LIMITS,
    BridgedRunner,
    BridgeLimits,
    open_bridged_runner,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment, OptionValue, Timeouts
from atomr_infer.runtimes.contract import RunnerContext

HERE = Path(__file__).parent
NO_CONTEXT = RunnerContext()

Opener = Callable[..., AbstractAsyncContextManager[BridgedRunner]]


@pytest.fixture
def deployment() -> Callable[..., Deployment]:
    def make(load_s: float = 60.0, **options: OptionValue) -> Deployment:
        return Deployment(
            name="awk",
            runtime="awkward",
            options=options,
            timeouts=Timeouts(load_s=load_s),
        )

    return make


@pytest.fixture
def bridged(deployment: Callable[..., Deployment]) -> Opener:
    """Open a bridge: ``bridged(load=..., limits=..., context=..., ref=...)``."""

    def open_bridge(
        ref: str = "awkward:PLUGIN",
        limits: BridgeLimits = DEFAULT_LIMITS,
        context: RunnerContext = NO_CONTEXT,
        **options: OptionValue,
    ) -> AbstractAsyncContextManager[BridgedRunner]:
        return open_bridged_runner(
            ref,
            deployment(**options),
            context,
            python_path=[str(HERE)],
            limits=limits,
        )

    return open_bridge


@pytest.fixture
def ask() -> Callable[..., ExecuteBatch]:
    def make(text: str, request_id: str = "r") -> ExecuteBatch:
        return ExecuteBatch(
            request_id=request_id, model="m", messages=(Message(Role.USER, text),)
        )

    return make


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Say whether a process is dead; one that nobody has reaped yet is."""

    def is_gone(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        return stat.rpartition(")")[2].split()[0] in "ZX"

    return is_gone


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait for something that another process does."""

    async def wait(condition: Callable[[], bool]) -> None:
        with trio.fail_after(30):
            while not condition():  # noqa: ASYNC110  there is no event across processes
                await trio.sleep(0.01)

    return wait
