"""Two nodes, mutual TLS, one link: what each side sees of the other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from atomr.crdt.origin import Origin
from atomr.errors import (
    LinkBusyError,
    LinkCallError,
    LinkDownError,
    LinkMessageError,
    LinkTimeoutError,
)
from atomr.http2 import (
    IncomingCall,
    Lane,
    Link,
    LinkDown,
    LinkEvent,
    LinkOptions,
    LinkUp,
    Service,
    open_links,
)
from atomr.http2.core import MAX_UNTAKEN
from atomr.http2.outlets import LIMITS
from tests.atomr.http2.conftest import (
    CLUSTER,
    COOKIE,
    WITHIN_S,
    Authority,
    Get,
    Put,
    Shelf,
    dial,
    until,
)

if TYPE_CHECKING:
    from tests.atomr.http2.conftest import OpenNode


class Text(msgspec.Struct):
    text: str


async def _shout(_: Link, message: Text) -> str:
    return message.text.upper()


SHOUT = Service(Text, answer=_shout)


async def test_a_call_returns_what_the_other_node_answers(open_node: OpenNode) -> None:
    shelf = Shelf()
    async with open_node("a") as a, open_node("b", {"shelf": shelf.service()}) as b:
        link = await dial(a, b)
        link.tell("shelf", Put("x", 7))

        assert await link.call("shelf", Get("x"), returns=int) == 7
        assert (link.peer, link.dialed) == (Origin("b", 1), True)
        other = b.links.get("a")
        assert other is not None
        assert (other.peer, other.dialed) == (Origin("a", 1), False)


async def test_both_sides_call_each_other_over_one_connection(
    open_node: OpenNode,
) -> None:
    async with (
        open_node("a", {"shout": SHOUT}) as a,
        open_node("b", {"shout": SHOUT}) as b,
    ):
        link = await dial(a, b)
        back = b.links.get("a")
        assert back is not None
        answers = []

        async def ask(over: Link, text: str) -> None:
            answers.append(await over.call("shout", Text(text), returns=str))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, link, f"there {number}")
                nursery.start_soon(ask, back, f"back {number}")
        expected = [f"{way} {n}" for way in ("THERE", "BACK") for n in range(20)]
        assert sorted(answers) == sorted(expected)
        assert (len(a.links.all()), len(b.links.all())) == (1, 1)


async def test_what_is_told_arrives_in_its_order(open_node: OpenNode) -> None:
    shelf = Shelf()
    async with open_node("a") as a, open_node("b", {"shelf": shelf.service()}) as b:
        link = await dial(a, b)
        for number in range(5000):
            link.tell("shelf", Put("n", number))
        await until(lambda: len(shelf.stored) == 5000)
        assert shelf.stored == [("n", number) for number in range(5000)]


@pytest.mark.parametrize("size", [10, 65_000, 66_000, 300_000, 1_000_000])
async def test_calls_of_any_length_are_answered_in_both_directions(
    open_node: OpenNode, size: int
) -> None:
    async with (
        open_node("a", {"shout": SHOUT}) as a,
        open_node("b", {"shout": SHOUT}) as b,
    ):
        link = await dial(a, b)
        back = b.links.get("a")
        assert back is not None
        for over in (link, back):
            answer = await over.call("shout", Text("x" * size), returns=str)
            assert answer == "X" * size
        # No stream is left behind on either side.
        await until(lambda: not link.dispatch.streams and not back.dispatch.streams)


async def test_a_hundred_long_calls_at_once_wait_for_their_streams(
    open_node: OpenNode,
) -> None:
    async with (
        open_node("a", {"shout": SHOUT}) as a,
        open_node("b", {"shout": SHOUT}) as b,
    ):
        await dial(a, b)
        back = b.links.get("a")
        assert back is not None
        lengths = []

        async def ask() -> None:
            answer = await back.call(
                "shout", Text("x" * 70_000), returns=str, timeout_s=30
            )
            lengths.append(len(answer))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        assert lengths == [70_000] * 100


async def test_a_message_beyond_a_mebibyte_is_not_sent(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b", {"shout": SHOUT}) as b:
        link = await dial(a, b)
        with pytest.raises(LinkMessageError) as caught:
            link.tell("shout", Text("x" * 1_100_000))
        assert caught.value.limit_bytes == 1024 * 1024 - 256
        with pytest.raises(LinkMessageError):
            await link.call("shout", Text("x" * 1_100_000), returns=str)
        assert link.queued_bytes == 0
        assert await link.call("shout", Text("y"), returns=str) == "Y"


async def test_an_answer_beyond_a_mebibyte_is_the_services_error(
    open_node: OpenNode, caplog: pytest.LogCaptureFixture
) -> None:
    async def long(_: Link, __: Text) -> str:
        return "x" * 1_100_000

    async with (
        open_node("a") as a,
        open_node("b", {"long": Service(Text, answer=long)}) as b,
    ):
        link = await dial(a, b)
        with pytest.raises(LinkCallError) as caught:
            await link.call("long", Text(""), returns=str)
        assert caught.value.code == "failed"
        assert caught.value.detail.startswith("LinkMessageError: ")
        caplog.clear()


async def test_what_cannot_be_encoded_is_not_sent(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b", {"shout": SHOUT}) as b:
        link = await dial(a, b)
        with pytest.raises(TypeError):
            link.tell("shout", object())
        with pytest.raises(TypeError):
            await link.call("shout", ["x" * 1000, object()], returns=str)
        assert link.queued_bytes == 0
        assert await link.call("shout", Text("y"), returns=str) == "Y"


async def test_what_goes_to_a_service_that_is_not_there_is_told_on_both_sides(
    open_node: OpenNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_node("a") as a, open_node("b") as b:
        link = await dial(a, b)
        with pytest.raises(LinkCallError) as caught:
            await link.call("nobody", Text(""), returns=str)
        assert (caught.value.code, caught.value.service) == ("no_service", "nobody")
        for service in ("nobody", "nobody", "no one"):
            link.tell(service, Text(""))
        other = b.links.get("a")
        assert other is not None
        await until(lambda: other.dropped == 3)
        for i in range(2 * MAX_UNTAKEN):
            link.tell(f"no {i}", Text(""))
        await until(lambda: other.dropped == 3 + 2 * MAX_UNTAKEN)
    said = [r.getMessage() for r in caplog.records if r.name == "atomr.http2"]
    assert len(said) == MAX_UNTAKEN
    assert said[0] == (
        "a#1 sends to the service 'nobody', which this node does not have: it is"
        " dropped; start all nodes with the same services, as those given to"
        " open_cluster()"
    )
    assert "'no one'" in said[1]


async def test_a_service_that_raises_fails_the_call_and_not_the_link(
    open_node: OpenNode, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: object, __: object) -> None:
        raise ValueError("not today")

    async def late(_: Link, __: Text) -> str:
        raise ValueError("not tomorrow")

    services: dict[str, Service[Any]] = {
        "now": Service(Text, tell=refuse, call=refuse),
        "later": Service(Text, answer=late),
        "shout": SHOUT,
    }
    async with open_node("a") as a, open_node("b", services) as b:
        link = await dial(a, b)
        link.tell("now", Text(""))
        for service, said in (("now", "not today"), ("later", "not tomorrow")):
            with pytest.raises(LinkCallError) as caught:
                await link.call(service, Text(""), returns=str)
            assert caught.value.code == "failed"
            assert caught.value.detail == f"ValueError: '{said}'"
        assert await link.call("shout", Text("y"), returns=str) == "Y"
        errors = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert len(errors) == 3


async def test_an_answer_of_another_type_is_an_error_of_the_call(
    open_node: OpenNode,
) -> None:
    async with open_node("a") as a, open_node("b", {"shout": SHOUT}) as b:
        link = await dial(a, b)
        with pytest.raises(LinkCallError) as caught:
            await link.call("shout", Text("7"), returns=int)
        assert caught.value.code == "bad_reply"


class Waiting:
    """A service that never answers, and knows who has left."""

    def __init__(self) -> None:
        self.calls: list[IncomingCall] = []
        self.left = 0

    def service(self) -> Service[Any]:
        return Service(Text, call=self._call)

    def _call(self, call: IncomingCall, _: Text) -> None:
        self.calls.append(call)
        call.on_cancel(self._gone)

    def _gone(self) -> None:
        self.left += 1


async def test_a_call_without_an_answer_times_out_and_the_peer_is_told(
    open_node: OpenNode,
) -> None:
    waiting = Waiting()
    async with (
        open_node("a") as a,
        open_node("b", {"wait": waiting.service()}) as b,
    ):
        link = await dial(a, b)
        with pytest.raises(LinkTimeoutError) as caught:
            await link.call("wait", Text(""), returns=str, timeout_s=0.05)
        assert (caught.value.service, caught.value.timeout_s) == ("wait", 0.05)
        await until(lambda: waiting.left == 1)
        assert waiting.calls[0].cancelled
        assert not waiting.calls[0].reply("late")


@pytest.mark.parametrize("size", [1, 200_000])
async def test_a_cancelled_call_ends_what_works_for_it_and_leaves_nothing(
    open_node: OpenNode, size: int
) -> None:
    began, ended = trio.Event(), trio.Event()

    async def work(_: Link, __: Text) -> str:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    services = {"work": Service(Text, answer=work)}
    async with open_node("a", services) as a, open_node("b", services) as b:
        await dial(a, b)
        for over in (a.links.get("b"), b.links.get("a")):
            assert over is not None
            began, ended = trio.Event(), trio.Event()
            async with trio.open_nursery() as nursery:

                async def ask(over: Link) -> None:
                    await over.call("work", Text("x" * size), returns=str)

                nursery.start_soon(ask, over)
                await began.wait()
                nursery.cancel_scope.cancel()
            with trio.fail_after(5):
                await ended.wait()
            await until(lambda over=over: not over.dispatch.streams)  # type: ignore[misc]


async def test_a_lane_that_is_full_refuses_and_another_one_goes_on(
    open_node: OpenNode,
) -> None:
    shelf = Shelf()
    async with open_node("a") as a, open_node("b", {"shelf": shelf.service()}) as b:
        link = await dial(a, b)
        sent = 0
        with pytest.raises(LinkBusyError) as caught:
            while True:
                link.tell("shelf", Put("x" * 60_000, sent))
                sent += 1
        assert caught.value.limit_bytes == LIMITS[Lane.MSG]
        assert LIMITS[Lane.MSG] <= link.queued_bytes < LIMITS[Lane.MSG] + 61_000
        with pytest.raises(LinkBusyError):
            await link.call("shelf", Get("x"), returns=int)
        link.tell("shelf", Put("urgent", 1), lane=Lane.CTL)
        await link.room()
        assert link.queued_bytes < LIMITS[Lane.MSG]
        await until(lambda: len(shelf.stored) == sent + 1)
        # What is on ctl overtakes what waited: all but what the socket had taken.
        assert shelf.stored.index(("urgent", 1)) <= sent - 40


async def test_a_name_that_the_peer_would_refuse_is_not_sent(
    open_node: OpenNode,
) -> None:
    def code(call: IncomingCall, _: Text) -> None:
        with pytest.raises(ValueError, match="expected 1 to 128"):
            call.fail("", "nothing")
        call.fail("teapot", "x" * 2000)

    services = {"code": Service(Text, call=code)}
    async with open_node("a") as a, open_node("b", services) as b:
        link = await dial(a, b)
        for name in ("", "x" * 129):
            with pytest.raises(ValueError, match="expected 1 to 128"):
                link.tell(name, Text(""))
            with pytest.raises(ValueError, match="expected 1 to 128"):
                await link.call(name, Text(""), returns=str)
        with pytest.raises(LinkCallError) as caught:
            await link.call("code", Text(""), returns=str)
        assert (caught.value.code, caught.value.detail) == ("teapot", "x" * 1024)


async def test_an_observer_that_fails_is_reported_and_the_link_is_up(
    open_node: OpenNode, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    def observer(_: LinkEvent) -> None:
        raise ValueError("not mine")

    options = LinkOptions(CLUSTER, Origin("a", 1), COOKIE, authority.credentials("a"))
    async with (
        open_links(options, observer=observer) as links,
        open_node("b", {"shout": SHOUT}) as b,
    ):
        link = await links.dial("b", "127.0.0.1", b.port)
        assert await link.call("shout", Text("y"), returns=str) == "Y"
        assert "an observer of links failed" in caplog.text


async def test_all_lanes_together_hold_four_mebibytes() -> None:
    assert sum(LIMITS.values()) == 4 * 1024 * 1024


async def test_closing_sends_what_was_told_and_says_goodbye(
    open_node: OpenNode,
) -> None:
    shelf = Shelf()
    async with open_node("a") as a, open_node("b", {"shelf": shelf.service()}) as b:
        link = await dial(a, b)
        for number in range(1000):
            link.tell("shelf", Put("n", number))
        await link.close(flush_timeout_s=WITHIN_S)
        assert link.down is not None
        assert link.down.reason == "closed"
        await until(lambda: b.ended)
        assert b.ended == ["goodbye"]
        assert len(shelf.stored) == 1000
        with pytest.raises(LinkDownError) as caught:
            link.tell("shelf", Put("n", 0))
        assert caught.value.reason == "closed"
        assert a.links.get("b") is None
        assert b.links.get("a") is None


async def test_calls_and_streams_of_a_link_that_ends_learn_why(
    open_node: OpenNode,
) -> None:
    waiting = Waiting()
    reasons: list[str] = []

    async def idle(stream: Any, _: Text) -> None:
        await stream.receive()

    services: dict[str, Service[Any]] = {
        "wait": waiting.service(),
        "idle": Service(Text, stream=idle),
    }
    async with open_node("a") as a, open_node("b", services) as b:
        link = await dial(a, b)

        async def ask() -> None:
            with pytest.raises(LinkDownError) as caught:
                await link.call("wait", Text(""), returns=str)
            reasons.append(caught.value.reason)

        async def listen() -> None:
            with pytest.raises(LinkDownError) as caught:
                async with link.open_stream("idle", Text("")) as stream:
                    await stream.receive()
            reasons.append(caught.value.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(listen)
            await until(lambda: waiting.calls)
            other = b.links.get("a")
            assert other is not None
            await other.close()
        assert reasons == ["goodbye", "goodbye"]
        # The side that closed has nobody who waits for an answer either.
        assert waiting.left == 1


async def test_leaving_the_block_says_goodbye_on_every_link(
    open_node: OpenNode,
) -> None:
    async with open_node("b") as b, open_node("c") as c:
        async with open_node("a") as a:
            await dial(a, b)
            await dial(a, c)
        await until(lambda: b.ended and c.ended)
        assert (b.ended, c.ended) == (["goodbye"], ["goodbye"])


async def test_an_observer_sees_a_link_come_and_go(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b:
        link = await dial(a, b)
        await link.close()
        down = await link.wait_down()
        assert [type(event) for event in a.events] == [LinkUp, LinkDown]
        assert a.events[0] == LinkUp(link)
        assert (down.peer, down.reason) == (Origin("b", 1), "closed")


async def test_heartbeats_measure_the_way_to_the_other_process(
    open_node: OpenNode,
) -> None:
    async with (
        open_node("a", heartbeat_interval_s=0.02) as a,
        open_node("b") as b,
    ):
        began_at = trio.current_time()
        link = await dial(a, b)
        await until(lambda: link.round_trip_s is not None)
        assert 0 < link.round_trip_s < trio.current_time() - began_at


def test_a_service_answers_in_one_way() -> None:
    with pytest.raises(ValueError, match="not both"):
        Service(Text, call=lambda *_: None, answer=_shout)


async def test_the_end_of_a_link_is_told_in_its_moment(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b:
        link = await dial(a, b)
        told: list[object] = []
        link.on_down(lambda: told.append(link.down))
        assert told == []
        await link.close()
        link.on_down(lambda: told.append("it has ended"))
        assert [getattr(x, "reason", x) for x in told] == ["closed", "it has ended"]
