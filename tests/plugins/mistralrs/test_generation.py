"""A generation's thread: back-pressure, leaving, and who gets which error."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.errors import ContextLengthError, EngineError
from atomr_infer.model.batch import FinishReason, TokenChunk
from atomr_infer_mistralrs.figures import Tally
from atomr_infer_mistralrs.generation import WINDOW, Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@attrs.define
class Delta:
    content: str | None
    reasoning_content: str | None = None


@attrs.define
class Choice:
    delta: Delta
    finish_reason: str | None = None
    logprobs: None = None


@attrs.define
class Piece:
    choices: list[Choice]
    usage: Used | None = None


@attrs.define
class Used:
    prompt_tokens: int = 7
    completion_tokens: int = 5
    prompt_tokens_details: Found | None = None


@attrs.define
class Found:
    cached_tokens: int = 3


def piece(text: str, finish: str | None = None) -> Piece:
    return Piece([Choice(Delta(text), finish)])


class Script:
    """An engine's iterator: yields pieces, counts them, and notes its end."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self.pieces = pieces
        self.taken = 0
        self.dropped = threading.Event()

    def __iter__(self) -> Script:
        return self

    def __next__(self) -> Piece:
        self.taken += 1
        return next(self.pieces)

    def __del__(self) -> None:
        self.dropped.set()


@attrs.define
class Notes:
    """What a generation told its runner, in order."""

    events: list[str] = attrs.field(factory=list)
    tally: Tally = attrs.field(factory=Tally)

    def generation(self) -> Generation:
        return Generation(
            counting=self.tally.answer(),
            on_prefilled=lambda: self.events.append("prefilled"),
            on_ended=lambda _: self.events.append("ended"),
        )


def endless() -> Iterator[Piece]:
    while True:
        yield piece("x")


def sender(script: Script) -> tuple[Callable[[], Iterator[Piece]], threading.Event]:
    """What gives the thread the only reference to the script, and its end."""
    held = [script]
    return (held.pop), script.dropped


async def test_chunks_come_in_order_and_the_end_after_them() -> None:
    notes = Notes()
    generation = notes.generation()
    pieces = iter([piece("a"), piece("b", "stop")])
    generation.start(lambda: pieces)
    assert [chunk async for chunk in generation] == [
        TokenChunk(text="a"),
        TokenChunk(text="b", finish_reason=FinishReason.STOP),
    ]
    assert notes.events == ["prefilled", "ended"]


def told(tally: Tally) -> dict[str, float]:
    return {f.name: f.value for f in tally.figures(running=1, waiting=2)}


async def test_tokens_are_counted_as_they_come_and_prompts_at_the_end() -> None:
    notes = Notes()
    generation = notes.generation()
    # Two of the five tokens have no text of their own.
    last = Piece([Choice(Delta("c"), "stop")], Used(prompt_tokens_details=Found()))
    pieces = iter([piece("a"), piece("b"), last])
    generation.start(lambda: pieces)
    assert [chunk.text async for chunk in generation] == ["a", "b", "c"]
    whole = {
        "running_requests": 1,
        "waiting_requests": 2,
        "prompt_tokens": 7,
        "output_tokens": 5,
        "prefix_asked_tokens": 7,
        "prefix_hit_tokens": 3,
    }
    assert told(notes.tally) == whole
    generation = Generation(
        counting=notes.tally.answer(),
        on_prefilled=lambda: None,
        on_ended=lambda _: None,
    )
    cut = iter([piece("a"), piece("b")])
    generation.start(lambda: cut)
    with pytest.raises(EngineError):
        assert [chunk.text async for chunk in generation]
    assert told(notes.tally) == {**whole, "output_tokens": 7}


async def test_a_slow_reader_stops_the_thread_at_the_window() -> None:
    script = Script(endless())
    generation = Notes().generation()
    generation.start(lambda: script)
    with trio.fail_after(10):
        while script.taken <= WINDOW:  # noqa: ASYNC110  a thread counts
            await trio.sleep(0.01)
    await trio.sleep(0.05)
    assert script.taken == WINDOW + 1
    generation.leave()
    await generation.ended.wait()


async def test_leaving_drops_the_iterator_before_the_end_is_told() -> None:
    send, dropped = sender(Script(endless()))
    notes = Notes()
    generation = notes.generation()
    generation.start(send)
    await anext(generation)
    generation.leave()
    with trio.fail_after(10):
        await generation.ended.wait()
    assert dropped.is_set()
    assert notes.events == ["prefilled", "ended"]


async def test_leaving_while_the_thread_waits_for_room_ends_it() -> None:
    send, dropped = sender(Script(endless()))
    generation = Notes().generation()
    generation.start(send)
    await trio.sleep(0.05)
    generation.leave()
    with trio.fail_after(10):
        await generation.ended.wait()
    assert dropped.is_set()


async def test_an_error_comes_after_the_chunks_before_it_and_drops_the_iterator() -> (
    None
):
    def failing() -> Iterator[Piece]:
        yield piece("a")
        raise ValueError("Prompt sequence length is greater than 8, perhaps ...")

    send, dropped = sender(Script(failing()))
    generation = Notes().generation()
    generation.start(send)
    assert await anext(generation) == TokenChunk(text="a")
    with pytest.raises(ContextLengthError):
        await anext(generation)
    assert dropped.is_set()


async def test_an_error_on_sending_frees_the_prefill() -> None:
    def refuse() -> Iterator[Piece]:
        raise TypeError("failed to convert")

    notes = Notes()
    generation = notes.generation()
    generation.start(refuse)
    with pytest.raises(Exception, match="not Unicode"):
        await anext(generation)
    assert notes.events == ["prefilled", "ended"]


async def test_an_end_without_a_finish_is_the_engine_s_failure() -> None:
    generation = Notes().generation()
    pieces = iter([piece("a")])
    generation.start(lambda: pieces)
    assert await anext(generation) == TokenChunk(text="a")
    with pytest.raises(EngineError, match="without saying why"):
        await anext(generation)
