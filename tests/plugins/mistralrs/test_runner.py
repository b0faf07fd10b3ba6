"""The runner outlives what its engine does in a thread: panics, and no threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from atomr_infer.errors import EngineCrashedError, EngineError, InferenceError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.figures import running, waiting
from atomr_infer_mistralrs.runner import MistralRsRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    import mistralrs

pytest.importorskip("mistralrs")

ASK = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "hi"),))
PANIC = "mistral.rs panicked: called `Option::unwrap()` on a `None` value"


class PanicException(BaseException):
    """What pyo3 makes of a Rust panic."""


class PanickingEngine:
    """An engine that panics when it is given a request, once it may."""

    def __init__(self) -> None:
        self.may_panic = threading.Event()

    def send_chat_completion_request(self, request: object) -> None:
        """Panic."""
        self.may_panic.wait(10)
        raise PanicException("called `Option::unwrap()` on a `None` value")


class FailingEngine:
    """An engine that fails each request, and is well."""

    def send_chat_completion_request(self, request: object) -> None:
        """Fail."""
        raise ValueError("no")


def runner_of(engine: PanickingEngine | FailingEngine) -> MistralRsRunner:
    return MistralRsRunner(
        cast("mistralrs.Runner", engine), context_tokens=100, max_seqs=4
    )


async def error_of(runner: MistralRsRunner) -> EngineError:
    with trio.fail_after(10), pytest.raises(EngineError) as caught:
        async with runner.execute(ASK) as chunks:
            await anext(chunks)
    return caught.value


async def test_a_panic_ends_the_generation_and_the_engine() -> None:
    engine = PanickingEngine()
    runner = runner_of(engine)
    errors: list[InferenceError] = []

    async def note_error() -> None:
        errors.append(await error_of(runner))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note_error)
        nursery.start_soon(note_error)  # waits for the first one's prefill
        await trio.testing.wait_all_tasks_blocked()
        assert (await runner.figures())[:2] == (running(1), waiting(1))
        engine.may_panic.set()
    with trio.fail_after(10):
        errors.append(await runner.failed())
    errors.append(await error_of(runner))
    assert [(type(error), error.message) for error in errors] == [
        (EngineCrashedError, PANIC)
    ] * 4
    assert runner.active == 0
    assert (await runner.figures())[:2] == (running(0), waiting(0))


NO_THREAD = "no thread for the generation: can't start new thread"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each next thread is refused; real want would take the test's own too."""
    coming: list[bool] = []
    start = trio.lowlevel.start_thread_soon

    def start_or_refuse(work: Callable[[], None], deliver: Callable[..., None]) -> None:
        if coming.pop(0):
            raise RuntimeError("can't start new thread")
        start(work, deliver)

    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", start_or_refuse)
    return coming


async def test_a_thread_that_cannot_start_costs_one_request(
    refused: list[bool],
) -> None:
    runner = runner_of(FailingEngine())
    refused += [True, True, False]
    said = [await error_of(runner) for _ in range(3)]
    no_thread = (NO_THREAD, "out_of_memory")
    failed = ("mistral.rs failed: no", None)
    assert [(e.message, e.code) for e in said] == [no_thread, no_thread, failed]
    assert runner.active == 0
