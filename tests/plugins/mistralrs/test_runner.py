"""The runner outlives what its engine does in a thread: panics, and no threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio
import trio.testing

from atomr_infer.errors import (
    EngineCrashedError,
    EngineError,
    InferenceError,
    InvalidRequestError,
)
from atomr_infer.model.asks import Tool, ToolChoice, ToolMode
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
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


SLOW = b'{"properties": {"at": {"pattern": "^.*a.*$"}}}'
LOOKS = (Tool(name="look", parameters=SLOW), Tool(name="go"))


async def test_a_schema_of_a_required_tool_that_may_take_long_names_the_tools() -> None:
    ask = attrs.evolve(ASK, tools=LOOKS, tool_choice=ToolChoice(mode=ToolMode.REQUIRED))
    runner = runner_of(FailingEngine())
    with pytest.raises(InvalidRequestError, match="it may take long") as caught:
        async with runner.execute(ask):
            pass
    assert caught.value.param == "tools"


class ListeningEngine(FailingEngine):
    """An engine that fails each request, and keeps what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[dict[str, object]] = []
        monkeypatch.setattr("mistralrs.ChatCompletionRequest", self._ask)

    def _ask(self, **arguments: object) -> None:
        self.asked.append(arguments)


async def test_a_stop_string_does_not_cut_a_required_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = ListeningEngine(monkeypatch)
    runner = runner_of(engine)
    ask = attrs.evolve(ASK, sampling=Sampling(stop=(",",)), tools=LOOKS[1:])
    required = ToolChoice(mode=ToolMode.REQUIRED)
    for choice in (None, required):
        with pytest.raises(EngineError):
            async with runner.execute(attrs.evolve(ask, tool_choice=choice)) as chunks:
                await anext(chunks)
    assert [each["stop_seqs"] for each in engine.asked] == [[","], None]
