"""A child without memory says so, and one that is not alone is not ended for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from atomr_infer.bridge.child.memory import NO_MEMORY, TRIES, MemoryCheck, ask
from atomr_infer.bridge.child.server import Server
from atomr_infer.bridge.protocol.frames import End, Execute
from atomr_infer.bridge.protocol.streams import ChildStream
from atomr_infer.bridge.protocol.values import batch_to_wire, error_from_wire
from atomr_infer.errors import EngineError, decode
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.bridge.protocol.frames import ChildFrame, ParentFrame
    from atomr_infer.bridge.protocol.link import Link
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.runtimes.contract import ModelRunner


class Sent:
    """What a child would have sent, and written behind it."""

    def __init__(self) -> None:
        self.all: list[ChildFrame | str] = []

    def send_nowait(self, frame: ChildFrame) -> None:
        """Keep a frame."""
        self.all.append(frame)


class Starving:
    """A runner without memory."""

    def execute(self, batch: ExecuteBatch) -> None:
        """Fail."""
        raise MemoryError


def no_memory(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("wants", ["encode", "_one_line"])
async def test_want_of_memory_while_a_failure_is_told_is_no_good_end(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    ask: Callable[[str], ExecuteBatch],
    wants: str,
) -> None:
    sent = Sent()
    server = Server(cast("Link[ParentFrame]", sent))
    server._runner = cast("ModelRunner", Starving())
    server._streams[1] = stream = ChildStream(0)
    monkeypatch.setattr(f"atomr_infer.bridge.child.server.{wants}", no_memory)
    monkeypatch.setattr("traceback.print_exception", no_memory)

    async def look(_: object) -> None:
        sent.all.append("looks")

    monkeypatch.setattr(server, "_look", look)
    async with trio.open_nursery() as server._generations:
        await server._generate(Execute(1, batch_to_wire(ask("x")), 9), stream)
    assert sent.all == [End(1, NO_MEMORY), "looks"]
    assert capfd.readouterr().err == "no memory for a traceback\n"
    told = decode(error_from_wire(NO_MEMORY))
    assert (type(told), told.code) == (EngineError, "out_of_memory")


async def test_who_is_not_alone_is_asked_again_and_not_ended() -> None:
    check, asked = MemoryCheck(), 0

    async def starves() -> bool:
        nonlocal asked
        asked += 1
        return True

    async with check.inside():
        assert not await check.finds_none(starves)
    assert asked == TRIES
    assert await check.finds_none(starves)
    assert asked == TRIES + 1


async def test_who_failed_meanwhile_was_what_took_the_memory() -> None:
    check, answers = MemoryCheck(), [True, False]
    ends = trio.Event()

    async def starves() -> bool:
        ends.set()
        await trio.testing.wait_all_tasks_blocked()
        return answers.pop(0)

    async def other() -> None:
        async with check.inside():
            await ends.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.testing.wait_all_tasks_blocked()
        assert not await check.finds_none(starves)
    assert answers == []


async def test_a_newcomer_waits_for_the_end_of_a_question() -> None:
    check = MemoryCheck()
    order: list[str] = []

    async def newcomer() -> None:
        async with check.inside():
            order.append("inside")

    async def starves() -> bool:
        nursery.start_soon(newcomer)
        await trio.testing.wait_all_tasks_blocked()
        # Two wants at once are one question.
        assert not await check.finds_none(starves)
        order.append("asked")
        return True

    async with trio.open_nursery() as nursery:
        assert await check.finds_none(starves)
    assert order == ["asked", "inside"]


class Embeds:
    """A runner of embeddings, and one of neither."""

    def __init__(self, *features: Feature) -> None:
        self.capabilities = Capabilities(features=frozenset(features))
        self.asked: list[str] = []

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Note what is asked."""
        self.asked.append(request.model)
        return Embeddings(vectors=((1.0,),), usage=Usage())


async def test_a_runner_of_embeddings_is_asked_for_one() -> None:
    embeds, neither = Embeds(Feature.EMBEDDINGS), Embeds()
    for runner in (embeds, neither):
        await ask(cast("ModelRunner", runner), "m")
    assert (embeds.asked, neither.asked) == (["m"], [])
